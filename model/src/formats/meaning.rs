//! What the numbers of other profilers mean: one table for all endpoints.
//!
//! Guarantees: a type is the same whichever endpoint it arrived at and however its sender spells it: time is in
//! nanoseconds, sizes are in bytes, CPU time has one type, wall time another, allocated memory a third, memory in use
//! (a gauge) a fourth; periods are converted with their values. Names and units ignore case, and `-` or a blank equals
//! `_`. Unknown ones keep the sender's words.
//!
//! Wrong on purpose: a kibibyte and a kilobyte are both 1,024 bytes, as in pprof; sample types that only one sampler
//! has (exceptions, GPU) keep its names.

use super::{name_of, type_of};
use crate::profile::{Profile, ProfileType};

/// How a sender's value type is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// Stored type.
    pub profile_type: ProfileType,
    /// Factor that converts values to that type's unit.
    pub factor: i64,
    /// Factor for the period.
    pub period_factor: i64,
}

/// Wall time in nanoseconds, as every endpoint stores it.
pub const WALL: &str = "wall:wall:nanoseconds:wall:nanoseconds";

/// Nanoseconds in a unit of time, in any spelling.
pub fn time_unit(unit: &str) -> Option<i64> {
    Some(match unit.trim().to_lowercase().as_str() {
        "ns" | "nsec" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        // The micro sign and the Greek letter are different characters.
        "us" | "\u{b5}s" | "\u{3bc}s" | "usec" | "micros" | "microsecond" | "microseconds" => 1_000,
        "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
        _ => return None,
    })
}

/// Bytes in a unit of size.
pub fn size_unit(unit: &str) -> Option<i64> {
    Some(match unit.trim().to_lowercase().as_str() {
        "b" | "byte" | "bytes" => 1,
        "kb" | "kib" | "kilobyte" | "kilobytes" | "kibibyte" | "kibibytes" => 1 << 10,
        "mb" | "mib" | "megabyte" | "megabytes" | "mebibyte" | "mebibytes" => 1 << 20,
        "gb" | "gib" | "gigabyte" | "gigabytes" | "gibibyte" | "gibibytes" => 1 << 30,
        _ => return None,
    })
}

/// The unit in which values of a unit are stored, and the factor.
fn unit_of(unit: &str) -> (&str, i64) {
    if let Some(factor) = time_unit(unit) {
        ("nanoseconds", factor)
    } else if let Some(factor) = size_unit(unit) {
        ("bytes", factor)
    } else if is_count(unit) && !unit.is_empty() {
        ("count", 1)
    } else {
        (unit, 1)
    }
}

/// True for names of plain numbers.
fn is_count(unit: &str) -> bool {
    matches!(
        unit.trim().to_lowercase().as_str(),
        "" | "count" | "counts" | "none" | "object" | "objects" | "sample" | "samples" | "1"
    )
}

/// A word as spelled in the table.
fn word(text: &str) -> String {
    text.trim().to_lowercase().replace(['-', ' '], "_")
}

/// The clock named by a word.
fn clock(word: &str) -> Option<&'static str> {
    match word {
        "cpu" | "cpu_time" | "process_cpu" => Some("cpu"),
        "wall" | "wall_time" | "wallclock" | "wall_clock" => Some("wall"),
        _ => None,
    }
}

/// Interprets a value type by the sender's names for it and for its period.
pub fn meaning(kind: &str, unit: &str, period_type: &str, period_unit: &str) -> Meaning {
    let (unit, factor) = unit_of(unit);
    let (period_unit, period_factor) = unit_of(period_unit);
    let known = |profile_type: &str| Meaning {
        profile_type: ProfileType(profile_type.to_owned()),
        factor,
        period_factor,
    };
    let period_clock = clock(&word(period_type)).filter(|_| period_unit == "nanoseconds");
    let kind_word = word(kind);
    match (kind_word.as_str(), unit) {
        (kind, "nanoseconds") if clock(kind) == Some("cpu") => return known(ProfileType::CPU),
        (kind, "nanoseconds") if clock(kind) == Some("wall") => return known(WALL),
        ("cpu_samples", "count") => return known("process_cpu:samples:count:cpu:nanoseconds"),
        ("wall_samples", "count") => return known("wall:samples:count:wall:nanoseconds"),
        ("alloc_space" | "alloc_bytes", "bytes") => return known("memory:alloc_space:bytes:space:bytes"),
        ("alloc_samples" | "alloc_objects", "count") => return known("memory:alloc_objects:count:space:bytes"),
        ("heap_space" | "heap_live_space" | "inuse_space", "bytes") => {
            return known("memory:inuse_space:bytes:space:bytes");
        }
        ("heap_live_samples" | "heap_samples" | "inuse_objects", "count") => {
            return known("memory:inuse_objects:count:space:bytes");
        }
        ("lock_acquire_wait", "nanoseconds") => return known("mutex:delay:nanoseconds:contentions:count"),
        ("lock_acquire", "count") => return known("mutex:contentions:count:contentions:count"),
        ("lock_release_hold", "nanoseconds") => return known("mutex:hold:nanoseconds:contentions:count"),
        ("lock_release", "count") => return known("mutex:releases:count:contentions:count"),
        _ => {}
    }
    let period_type = period_clock.unwrap_or(period_type);
    // Only samples belong to the clock that triggered them; other counts in the file do not.
    let name = match (period_clock, kind_word.as_str()) {
        (Some("wall"), "samples" | "sample") => "wall".to_owned(),
        (Some(_), "samples" | "sample") => "process_cpu".to_owned(),
        (Some(_), _) => name_of(kind, ""),
        (None, _) => name_of(kind, period_type),
    };
    Meaning {
        profile_type: type_of(&name, kind, unit, period_type, period_unit),
        factor,
        period_factor,
    }
}

/// Which of a file's types counts the samples of another: for ddtrace's types each has its own, all other samplers have
/// one for all.
pub(crate) fn counts_of(kinds: &[(&str, &str)], at: usize) -> Option<usize> {
    let own = match word(kinds[at].0).as_str() {
        "cpu_time" => "cpu_samples",
        "wall_time" => "wall_samples",
        "alloc_space" => "alloc_samples",
        "heap_space" => "heap_live_samples",
        "lock_acquire_wait" => "lock_acquire",
        "lock_release_hold" => "lock_release",
        "gpu_time" => "gpu_samples",
        "gpu_space" => "gpu_alloc_samples",
        "gpu_flops" => "gpu_flops_samples",
        _ => "",
    };
    let find = |wanted: &dyn Fn(&str) -> bool| {
        kinds
            .iter()
            .position(|&(kind, unit)| wanted(&word(kind)) && is_count(unit) && !unit.is_empty())
    };
    find(&|kind| kind == own).or_else(|| find(&|kind| matches!(kind, "samples" | "sample" | "contentions")))
}

/// The clock that a type measures, `cpu` or `wall`.
pub(crate) fn clock_of(profile_type: &ProfileType) -> Option<&'static str> {
    match profile_type.0.as_str() {
        ProfileType::CPU => Some("cpu"),
        WALL => Some("wall"),
        _ => None,
    }
}

/// Samples triggered by a clock at a known interval become its time, unless another profile already is that time: then
/// they would count the same thing twice.
pub(crate) fn samples_as_time<'p>(profiles: impl IntoIterator<Item = &'p mut Profile>, known: &[ProfileType]) {
    for profile in profiles {
        let Some(clock) = profile.sampled_by() else { continue };
        if !known.iter().any(|known| clock_of(known) == Some(clock)) {
            profile.samples_as_time(clock);
        }
    }
}

/// The length of a recording. Some senders write the time at which it ended instead, which is longer than any
/// recording.
///
/// # Errors
/// When it is neither.
pub(crate) fn duration_of(start_unix_ns: i64, duration_ns: i64) -> Result<i64, String> {
    /// 2001: no end is earlier, and no recording is that long.
    const MOMENT_NS: i64 = 1_000_000_000_000_000_000;
    const DAY_NS: i64 = 86_400_000_000_000;
    if duration_ns < MOMENT_NS {
        return Ok(duration_ns);
    }
    let since = duration_ns.saturating_sub(start_unix_ns);
    if start_unix_ns >= MOMENT_NS && (0..=DAY_NS).contains(&since) {
        return Ok(since);
    }
    Err(format!(
        "its duration is {} years, so it is probably an end time; set it to the nanoseconds between start and end",
        duration_ns / (365 * DAY_NS)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, unit: &str) -> (String, i64) {
        let meaning = meaning(kind, unit, "", "");
        (meaning.profile_type.0, meaning.factor)
    }

    #[test]
    fn every_spelling_of_a_unit_is_that_unit() {
        for (units, factor) in [
            ("ns nanoseconds Nanosecond NS", 1),
            ("us \u{b5}s \u{3bc}s microseconds usec Microseconds", 1_000),
            ("ms milliseconds MS msec", 1_000_000),
            ("s sec seconds Seconds", 1_000_000_000),
        ] {
            for unit in units.split(' ') {
                assert_eq!(of("cpu", unit), (ProfileType::CPU.to_owned(), factor), "{unit}");
                assert_eq!(of("Wall time", unit), (WALL.to_owned(), factor), "{unit}");
            }
        }
        assert_eq!(of("inuse_space", "KiB").1, 1024);
        assert_eq!(time_unit("parsecs"), None);
    }

    #[test]
    fn words_of_samplers_are_the_types_that_viewers_ask_for() {
        for (kind, unit, expected) in [
            ("cpu-time", "nanoseconds", ProfileType::CPU),
            ("cpu-samples", "count", "process_cpu:samples:count:cpu:nanoseconds"),
            ("wall-time", "nanoseconds", WALL),
            ("alloc-space", "bytes", "memory:alloc_space:bytes:space:bytes"),
            ("alloc-samples", "count", "memory:alloc_objects:count:space:bytes"),
            ("heap-space", "bytes", "memory:inuse_space:bytes:space:bytes"),
            ("heap-live-samples", "count", "memory:inuse_objects:count:space:bytes"),
            (
                "lock-acquire-wait",
                "nanoseconds",
                "mutex:delay:nanoseconds:contentions:count",
            ),
            ("lock-acquire", "count", "mutex:contentions:count:contentions:count"),
        ] {
            // ddtrace names one period for all its types.
            let meant = meaning(kind, unit, "cpu-time", "nanoseconds");
            assert_eq!(meant.profile_type.0, expected, "{kind}");
        }
        let exceptions = meaning("exception-samples", "count", "cpu-time", "nanoseconds");
        assert_eq!(
            exceptions.profile_type.parts()[0],
            "exception-samples",
            "exceptions are no CPU time"
        );
    }

    #[test]
    fn a_type_that_is_stored_means_itself() {
        for stored in [
            ProfileType::CPU,
            WALL,
            "process_cpu:samples:count:cpu:nanoseconds",
            "wall:samples:count:wall:nanoseconds",
            "memory:alloc_space:bytes:space:bytes",
            "memory:inuse_objects:count:space:bytes",
            "mutex:delay:nanoseconds:contentions:count",
            "mutex:contentions:count:contentions:count",
            "goroutine:goroutine:count:goroutine:count",
        ] {
            let [_, kind, unit, period_type, period_unit] = ProfileType::parts_of(stored);
            let meant = meaning(kind, unit, period_type, period_unit);
            assert_eq!((meant.profile_type.0.as_str(), meant.factor), (stored, 1));
        }
    }

    #[test]
    fn an_end_in_place_of_a_duration_is_seen() {
        let start = 1_790_000_000_000_000_000;
        assert_eq!(duration_of(start, 10_000_000_000), Ok(10_000_000_000));
        assert_eq!(duration_of(start, start + 5_000_000_000), Ok(5_000_000_000));
        assert_eq!(duration_of(start, start), Ok(0));
        assert!(duration_of(0, start).unwrap_err().contains("56 years"));
        assert!(duration_of(start, start - 1).is_err());
    }
}

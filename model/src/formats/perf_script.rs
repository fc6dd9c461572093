//! The text of `perf script`: a line about the sample, a line per frame from the leaf, an empty line.
//!
//! Guarantees: every sample in the text is counted once, under its event; if there are more than [`MAX_EVENTS`] events,
//! the largest are kept and the others are reported. Events are distinguished by their whole name: only modifiers are
//! cut, as in `cycles:u`, so `sched:sched_switch` and `sched:sched_wakeup` are two, while the cycles of two kinds of
//! cores in one machine (`cpu_core/cycles/`, `cpu_atom/cycles/`) are one. Text without any sample is refused with the
//! line that was not understood. The command is the outermost frame, as in other tools, so that processes stay
//! separate; it may contain blanks and numbers.
//!
//! Wrong on purpose: `perf` counts time from boot; only differences are used. A clock whose samples carry no period is
//! assumed to tick as often as its times suggest, or else 100 times a second; either is reported. Without a rate,
//! events other than the CPU clocks are counted in their own unit and not converted to time.

mod lines;

use std::collections::HashMap;

pub(super) use self::lines::looks_like;
use self::lines::{FrameLine, Head, frame, head, source_line};
use super::{NS, Units, folded::MAX_DEPTH, type_of};
use crate::{otlp::Rejected, profile::Profile, profile_builder::ProfileBuilder, workload::LabelSet};

/// The most events of one text that become profiles.
pub const MAX_EVENTS: usize = 16;

/// Text that is not from `perf script`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PerfScriptError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The contents of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct PerfScript {
    /// One per event; the one with most samples first.
    pub profiles: Vec<Profile>,
    /// Samples of events beyond the limit.
    pub left_out: Vec<Rejected>,
    /// What was assumed about the others.
    pub changed: Vec<Rejected>,
}

/// How an event's values are interpreted.
struct Plan {
    units: Units,
    /// Whether each sample is worth its own period.
    own_periods: bool,
}

impl Plan {
    /// `rate_hz` is the sender's.
    fn of(event: &str, seen: &Seen, rate_hz: Option<u32>, changed: &mut Vec<Rejected>) -> Plan {
        let is_clock = matches!(event, "cpu-clock" | "task-clock" | "");
        if let Some(rate) = rate_hz {
            return Plan {
                units: Units::cpu(rate),
                own_periods: false,
            };
        }
        if !is_clock {
            return Plan {
                units: Units {
                    profile_type: type_of("perf", event, "count", event, "count"),
                    factor: 1,
                    period: 0,
                },
                own_periods: true,
            };
        }
        let mut units = Units::cpu(super::DEFAULT_RATE_HZ);
        let without_period = seen.samples - seen.with_period;
        // Whatever triggered samples without even an event name is assumed to be a clock. A period would be in an
        // unknown unit, too.
        let own_periods = !event.is_empty();
        if without_period > 0 || !own_periods {
            let reason = match seen.tick_ns() {
                Some(tick) => {
                    (units.factor, units.period) = (tick, tick);
                    "period_by_times"
                }
                None => "period_assumed",
            };
            let what = format!("{} ns per sample", units.factor);
            let samples = if own_periods { without_period } else { seen.samples };
            Rejected::of(reason, &what, samples).add_to(changed);
        }
        Plan { units, own_periods }
    }
}

/// What a first pass over an event found.
#[derive(Default)]
struct Seen<'t> {
    samples: u64,
    with_period: u64,
    /// The last time in each lane, and the intervals within lanes.
    last: HashMap<&'t str, i64>,
    distances: Vec<i64>,
}

impl Seen<'_> {
    /// The interval between samples of a clock. Threads that sleep are not sampled, so intervals are too long rather
    /// than too short: the result is their lower quartile. `None` if there are too few, or if it is not a plausible
    /// tick.
    fn tick_ns(&self) -> Option<i64> {
        const FEWEST: usize = 8;
        // From the kernel's limit to slower than anyone samples.
        const TICKS: std::ops::RangeInclusive<i64> = 10_000..=NS;
        let mut distances = self.distances.clone();
        if distances.len() < FEWEST {
            return None;
        }
        let at = distances.len() / 4;
        let tick = *distances.select_nth_unstable(at).1;
        TICKS.contains(&tick).then_some(tick)
    }
}

/// The most intervals inspected.
const MOST_DISTANCES: usize = 100_000;

/// The events of a text after a first pass, the one with most samples first.
fn events(text: &str) -> Vec<(&str, Seen<'_>)> {
    let mut events: HashMap<&str, Seen<'_>> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) && frame(line).is_some() {
            continue;
        }
        let Some(head) = head(line) else { continue };
        let seen = events.entry(head.event).or_default();
        seen.samples += 1;
        seen.with_period += u64::from(head.period.is_some());
        if let Some(time) = head.time_ns
            && let Some(before) = seen.last.insert(head.lane, time)
            && seen.distances.len() < MOST_DISTANCES
        {
            seen.distances.push(time.saturating_sub(before));
        }
    }
    let mut events: Vec<_> = events.into_iter().collect();
    events.sort_by(|a, b| b.1.samples.cmp(&a.1.samples).then_with(|| a.0.cmp(b.0)));
    events
}

/// An event whose samples are being read.
struct Reading {
    plan: Plan,
    builder: ProfileBuilder,
    first_ns: i64,
    last_ns: i64,
}

/// A sample being read; its frames leaf first.
struct Open<'t> {
    head: Head<'t>,
    frames: Vec<FrameLine<'t>>,
}

impl Reading {
    fn add(&mut self, open: &Open<'_>) {
        let builder = &mut self.builder;
        let mut leaf_first: Vec<u32> = open
            .frames
            .iter()
            .map(|frame| builder.frame(&frame.name, frame.file, frame.line))
            .collect();
        leaf_first.push(builder.frame(open.head.command, "", 0));
        if let Some(time) = open.head.time_ns {
            (self.first_ns, self.last_ns) = (self.first_ns.min(time), self.last_ns.max(time));
        }
        let value = match open.head.period {
            Some(period) if self.plan.own_periods => period.max(0),
            _ => self.plan.units.factor,
        };
        builder.add(leaf_first, &LabelSet::none(), value, 1);
    }

    fn finish(self) -> Profile {
        let mut profile = self.builder.finish();
        if self.last_ns > self.first_ns {
            profile.duration_ns = self.last_ns.saturating_sub(self.first_ns);
        }
        profile
    }
}

/// Reads the text. With a rate, each sample of the most frequent event is worth its share of a second of CPU time.
///
/// # Errors
/// When a line belongs to no sample; the error names it.
pub fn read(text: &str, rate_hz: Option<u32>) -> Result<PerfScript, PerfScriptError> {
    let events = events(text);
    let (mut left_out, mut changed) = (Vec::new(), Vec::new());
    let mut readings: Vec<Reading> = Vec::new();
    let mut reading_of: HashMap<&str, usize> = HashMap::new();
    for (at, (event, seen)) in events.iter().enumerate() {
        if at >= MAX_EVENTS {
            Rejected::of("other_event", event, seen.samples).add_to(&mut left_out);
            continue;
        }
        let plan = Plan::of(event, seen, rate_hz.filter(|_| at == 0), &mut changed);
        reading_of.insert(event, readings.len());
        readings.push(Reading {
            builder: ProfileBuilder::new(plan.units.profile_type.clone(), plan.units.period),
            plan,
            first_ns: i64::MAX,
            last_ns: i64::MIN,
        });
    }
    let mut samples = 0u64;
    let mut open: Option<Open<'_>> = None;
    let mut finish = |open: &mut Option<Open<'_>>| {
        let Some(open) = open.take() else { return };
        samples += 1;
        if let Some(&at) = reading_of.get(open.head.event) {
            readings[at].add(&open);
        }
    };
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| PerfScriptError {
            line: at + 1,
            what: format!("{what}: `{}`", line.trim().chars().take(60).collect::<String>()),
        };
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            finish(&mut open);
            continue;
        }
        if let Some(open) = &mut open
            && line.starts_with([' ', '\t'])
        {
            if let Some(frame) = frame(line) {
                if open.frames.len() >= MAX_DEPTH {
                    return Err(wrong("a stack has too many frames"));
                }
                open.frames.push(frame);
                continue;
            }
            if let (Some(above), Some((file, line))) = (open.frames.last_mut(), source_line(line)) {
                (above.file, above.line) = (file, line);
                continue;
            }
        }
        finish(&mut open);
        let head = head(line).ok_or_else(|| wrong("neither a sample header nor a frame"))?;
        open = Some(Open {
            head,
            frames: Vec::new(),
        });
    }
    finish(&mut open);
    if samples == 0 {
        return Err(PerfScriptError {
            line: text.lines().count().max(1),
            what: "the text contains no `perf script` sample".to_owned(),
        });
    }
    // Events of one type (a clock with and without a name) are one profile.
    let profiles = crate::merge::add_up(readings.into_iter().map(Reading::finish).collect());
    Ok(PerfScript {
        profiles,
        left_out,
        changed,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::{Location, ProfileType};

    const TEXT: &str = "# a comment\nweb server 12/34 [001] 5000.250000:   10101010 cpu-clock:u: \n\t    55d0c8 shop::price+0x1a (/bin/shop)\n\t7f0000 [unknown] (/lib/libc.so.6)\n\nweb server 12/34 [001] 5003.250000:   10101010 cpu-clock:u: \n\t    55d0c8 shop::price+0x1b (/bin/shop)\n\t7f0000 [unknown] (/lib/libc.so.6)\n\nperf 9 5001.0: 4000 cycles: \n\tffff native_write+0xa ([kernel.kallsyms])\n";

    fn names(profile: &Profile, stack: usize) -> Vec<String> {
        let name = |&l: &u32| match &profile.locations[l as usize] {
            Location::Named { frames } => frames[0].function.clone(),
            Location::Native { .. } => String::new(),
        };
        profile.stacks[stack].iter().map(name).collect()
    }

    #[test]
    fn samples_of_a_clock_become_time_and_other_events_stay_beside_them() {
        let read = read(TEXT, None).unwrap();
        assert_eq!(
            (read.left_out.len(), read.changed.len(), read.profiles.len()),
            (0, 0, 2)
        );
        let clock = &read.profiles[0];
        assert_eq!(clock.profile_type, ProfileType::cpu());
        assert_eq!(clock.samples.len(), 1, "offsets within a function do not matter");
        assert_eq!((clock.total(), clock.samples[0].count), (20_202_020, 2));
        assert_eq!(names(clock, 0), ["shop::price", "[libc.so.6]", "web server"]);
        assert_eq!(clock.duration_ns, 3 * NS);
        let cycles = &read.profiles[1];
        assert_eq!(
            (cycles.profile_type.0.as_str(), cycles.total()),
            ("perf:cycles:count:cycles:count", 4000)
        );
        assert!(looks_like(TEXT));
    }

    #[test]
    fn events_that_are_no_clock_keep_their_unit_unless_a_rate_is_given() {
        let text = "a 1 2.0: 4000 cycles: \n\tff f+0x1 (x)\n";
        let plain = &read(text, None).unwrap().profiles[0];
        assert_eq!(plain.profile_type.0, "perf:cycles:count:cycles:count");
        assert_eq!(plain.total(), 4000);
        let rated = &read(text, Some(50)).unwrap().profiles[0];
        assert_eq!((rated.profile_type.unit(), rated.total()), ("nanoseconds", 20_000_000));
    }

    #[test]
    fn a_clock_without_a_period_ticks_as_its_times_say() {
        let sample = |at: u32, event: &str| format!("shop 12 5000.{:06}: {event}\n\tff f+0x1 (x)\n\n", at);
        for event in ["cpu-clock: ", ""] {
            let text: String = (0..84).map(|n| sample(n * 1000, event)).collect();
            let read = read(&text, None).unwrap();
            assert_eq!(read.profiles[0].total(), 84_000_000, "{event}");
            assert_eq!(read.changed[0].reason, "period_by_times");
            assert_eq!(read.changed[0].count, 84);
        }
        let text: String = (0..84).map(|n| sample(n, "cpu-clock: ")).collect();
        let read = read(&text, None).unwrap();
        assert_eq!(
            read.profiles[0].total(),
            840_000_000,
            "no clock ticks every microsecond"
        );
        assert_eq!(read.changed[0].reason, "period_assumed");
    }

    #[test]
    fn more_events_than_are_kept_are_said() {
        let text: String = (0..MAX_EVENTS + 2)
            .map(|n| format!("a 1 2.0: 1 event-{n}: \n\tff f+0x1 (x)\n\n"))
            .collect();
        let read = read(&text, None).unwrap();
        assert_eq!((read.profiles.len(), read.left_out.len()), (MAX_EVENTS, 2));
        assert_eq!(read.left_out[0].reason, "other_event");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = read("a 1 2.0: 5 cycles: \n\tff f (x)\nwhat is this\n", None).unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.what.contains("what is this"), "{error}");
        assert!(read("", None).unwrap_err().what.contains("no `perf script` sample"));
        assert!(!looks_like("main;a;b 12\n"));
    }

    proptest! {
        #[test]
        fn text_of_any_kind_never_panics(text in "[a-f0-9 :;.\n\t()+x\\[\\]#/é-]{0,120}") {
            let looks_like = looks_like(&text);
            if let Ok(read) = read(&text, None) {
                prop_assert!(looks_like, "what is read is recognised");
                prop_assert!(read.profiles.iter().all(|profile| profile.validate().is_ok()));
            }
        }

        /// As `perf script` writes it: commands with blanks and numbers, symbols with brackets and blanks, deleted
        /// files, inlined frames, source lines.
        #[test]
        fn what_perf_writes_is_read_back(
            samples in prop::collection::vec((
                "[a-z]{1,5}( [a-z0-9]{1,3})?",
                prop::collection::vec(("[a-z:<>]{1,6}(\\([a-z, ]{0,5}\\))?", 0usize..4, any::<bool>()), 0..4),
                1i64..1000,
            ), 1..20),
        ) {
            let files = ["/usr/bin/shop", "/usr/bin/shop (deleted)", "/opt/shop (x86)/shop", "inlined"];
            let text: String = samples.iter().map(|(command, frames, period)| {
                let frames: String = frames.iter().map(|(symbol, file, source)| {
                    let source = if *source { "  price.c:12\n" } else { "" };
                    format!("\t          ff {symbol}+0x1f ({})\n{source}", files[*file])
                }).collect();
                format!("{command} 12/34 [000] 3.5: {period:>10} cpu-clock:u: \n{frames}\n")
            }).collect();
            let profiles = read(&text, None).unwrap().profiles;
            prop_assert_eq!(profiles.len(), 1);
            prop_assert_eq!(profiles[0].total(), samples.iter().map(|s| s.2).sum::<i64>());
            prop_assert_eq!(profiles[0].samples.iter().map(|s| s.count).sum::<u64>(), samples.len() as u64);
            for (command, frames, _) in &samples {
                let mut expected: Vec<String> = frames.iter().map(|(symbol, ..)| crate::function::normalise(symbol.trim())).collect();
                expected.push(command.clone());
                let found = (0..profiles[0].stacks.len()).any(|at| names(&profiles[0], at) == expected);
                prop_assert!(found, "{:?} in {}", expected, text);
            }
        }
    }
}

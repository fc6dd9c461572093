//! Profiles: weighted stacks with labels, and the locations they refer to.
//!
//! Guarantee: a native stack is a list of (build, file offset), known before any symbol; names come later from a table
//! per build, so nothing stored changes when they arrive.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::workload::LabelSet;

/// `name:sample_type:unit:period_type:period_unit`, as profile stores name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProfileType(pub String);

impl ProfileType {
    /// CPU time in nanoseconds, sampled by CPU time, as by Emberline's own sampler.
    pub const CPU: &'static str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

    /// [`ProfileType::CPU`].
    pub fn cpu() -> ProfileType {
        ProfileType(ProfileType::CPU.to_owned())
    }

    /// Builds a type from its five parts.
    pub fn from_parts(name: &str, sample_type: &str, unit: &str, period_type: &str, period_unit: &str) -> ProfileType {
        ProfileType(format!("{name}:{sample_type}:{unit}:{period_type}:{period_unit}"))
    }

    /// The five parts; missing ones are empty.
    pub fn parts(&self) -> [&str; 5] {
        ProfileType::parts_of(&self.0)
    }

    /// The five parts of a type as text; missing ones are empty.
    pub fn parts_of(text: &str) -> [&str; 5] {
        let mut parts = [""; 5];
        text.splitn(5, ':')
            .zip(parts.iter_mut())
            .for_each(|(text, part)| *part = text);
        parts
    }

    /// True for gauges (memory in use, goroutines): their values are averaged over time, all others are summed.
    /// Recognised by the names that runtimes use; a sender's temporality is not stored.
    pub fn is_gauge(&self) -> bool {
        ProfileType::is_gauge_text(&self.0)
    }

    /// Like [`ProfileType::is_gauge`], for a type as text.
    pub fn is_gauge_text(text: &str) -> bool {
        let [name, sample_type, ..] = ProfileType::parts_of(text);
        match sample_type {
            "inuse_space" | "inuse_objects" | "goroutine" | "goroutines" | "threadcreate" | "live" => true,
            // Heaps of V8 and of allocators that are no more specific.
            "space" | "objects" => matches!(name, "memory" | "heap"),
            _ => false,
        }
    }

    /// The unit of values, for example `nanoseconds`.
    pub fn unit(&self) -> &str {
        self.parts()[2]
    }
}

/// A file that code was loaded from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Mapping {
    /// GNU build id, lower-case hexadecimal; empty when the file has none.
    pub build_id: String,
    /// Path as the process saw it.
    pub path: String,
}

/// Prefix of a mapping's key if the text alone would not distinguish a build id from a path.
const BUILD_MARK: &str = "build:";
const PATH_MARK: &str = "path:";

impl Mapping {
    /// Identity of the file: its build ID, or its path if it has none. The two cannot be confused, whatever a sender
    /// calls its files: a key is a build ID exactly when it consists of hexadecimal digits or begins with `build:`.
    pub fn key(&self) -> Cow<'_, str> {
        let is_hexadecimal = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_marked = |text: &str| text.starts_with(BUILD_MARK) || text.starts_with(PATH_MARK);
        match (self.build_id.as_str(), self.path.as_str()) {
            ("", path) if is_hexadecimal(path) || is_marked(path) => Cow::Owned(format!("{PATH_MARK}{path}")),
            ("", path) => Cow::Borrowed(path),
            (build, _) if is_hexadecimal(build) => Cow::Borrowed(build),
            (build, _) => Cow::Owned(format!("{BUILD_MARK}{build}")),
        }
    }
}

/// One function at one location; a location has several if calls were inlined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Frame {
    /// Normalised demangled name ([`crate::function::normalise`]).
    pub function: String,
    /// Source file; empty when unknown.
    pub file: String,
    /// Source line; 0 when unknown.
    pub line: u32,
}

/// One entry of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// An instruction in a file, identified by its offset in that file; a call's return address minus one.
    Native {
        /// Index into [`Profile::mappings`].
        mapping: u32,
        /// Offset in the file, in bytes.
        offset: u64,
    },
    /// A location named by the sender; innermost inlined frame first.
    Named {
        /// At least one frame.
        frames: Vec<Frame>,
    },
}

/// One row of a profile: a stack, what it worked for, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Index into [`Profile::stacks`].
    pub stack: u32,
    /// Index into [`Profile::label_sets`].
    pub label_set: u32,
    /// In the unit of the profile type.
    pub value: i64,
    /// Number of samples; significance is based on it.
    pub count: u64,
}

/// One sample with a trace or span ID. It is also included in the rows; this is a more detailed view of some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Index into [`Profile::stacks`].
    pub stack: u32,
    /// Index into [`Profile::label_sets`].
    pub label_set: u32,
    /// In the unit of the profile type.
    pub value: i64,
    /// When it was taken, nanoseconds since the Unix epoch; the start of the profile if the sender does not say.
    pub unix_ns: i64,
    /// The trace; zeros if only the span is known.
    pub trace_id: [u8; 16],
    /// The span; 0 if only the trace is known.
    pub span_id: u64,
}

impl Exemplar {
    /// Maximum that a reader takes from one profile; the collector's limits are lower.
    pub const MAX_READ: usize = 100_000;

    /// A trace as two numbers, most significant half first.
    pub fn trace_halves(&self) -> (u64, u64) {
        let whole = u128::from_be_bytes(self.trace_id);
        ((whole >> 64) as u64, whole as u64)
    }

    /// The reverse of [`Exemplar::trace_halves`].
    pub fn trace_of(high: u64, low: u64) -> [u8; 16] {
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }
}

/// How well the profile was sampled; travels with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileStats {
    /// Samples actually taken per CPU second.
    pub rate_hz: f64,
    /// Samples lost because a ring or table was full.
    pub dropped: u64,
    /// Stacks truncated at the frame limit.
    pub truncated: u64,
    /// CPU time of the sampled threads, in nanoseconds, by their own clocks.
    pub cpu_ns: u64,
    /// CPU time the sampler itself took, in nanoseconds.
    pub overhead_ns: u64,
}

/// Samples of one type over one window, with their tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What is measured, in which unit.
    pub profile_type: ProfileType,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// Length in nanoseconds.
    pub duration_ns: i64,
    /// Interval between samples in the period's unit; 0 if unknown.
    pub period: i64,
    /// Files referred to by locations.
    pub mappings: Vec<Mapping>,
    /// Locations referred to by stacks.
    pub locations: Vec<Location>,
    /// Lists of indices into `locations`, leaf first.
    pub stacks: Vec<Vec<u32>>,
    /// What samples worked for.
    pub label_sets: Vec<LabelSet>,
    /// The rows.
    pub samples: Vec<Sample>,
    /// Individual samples with a trace or span ID; also included in the rows.
    pub exemplars: Vec<Exemplar>,
    /// Number of further exemplars dropped because there were too many.
    pub exemplars_cut: u64,
    /// How well it was sampled.
    pub stats: ProfileStats,
}

/// Why a profile's tables are inconsistent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfile {
    /// An index is outside its table.
    #[error("{what} index {index} is outside its table of {len} entries")]
    Index {
        /// Which index.
        what: &'static str,
        /// Its value.
        index: u64,
        /// Entries of the table.
        len: usize,
    },
    /// A stack without locations or a named location without frames.
    #[error("an empty {0}")]
    Empty(&'static str),
    /// A value below zero.
    #[error("negative sample value {0}")]
    Negative(i64),
}

impl Profile {
    /// An empty CPU profile of a window.
    pub fn empty_cpu(start_unix_ns: i64, duration_ns: i64) -> Profile {
        Profile {
            profile_type: ProfileType::cpu(),
            start_unix_ns,
            duration_ns,
            period: 0,
            mappings: Vec::new(),
            locations: Vec::new(),
            stacks: Vec::new(),
            label_sets: Vec::new(),
            samples: Vec::new(),
            exemplars: Vec::new(),
            exemplars_cut: 0,
            stats: ProfileStats::default(),
        }
    }

    /// Adds an exemplar, or counts it if there are too many.
    pub fn push_exemplar(&mut self, exemplar: Exemplar) {
        if self.exemplars.len() < Exemplar::MAX_READ {
            self.exemplars.push(exemplar);
        } else {
            self.exemplars_cut = self.exemplars_cut.saturating_add(1);
        }
    }

    /// Keeps at most this many exemplars, evenly spread over their order; counts the others and returns their number.
    pub fn cut_exemplars(&mut self, limit: usize) -> u64 {
        let all = self.exemplars.len();
        if all <= limit {
            return 0;
        }
        let mut at = 0;
        self.exemplars.retain(|_| {
            // The nth is kept if the number kept so far reaches the next integer.
            let kept = (at + 1) * limit / all > at * limit / all;
            at += 1;
            kept
        });
        let cut = (all - self.exemplars.len()) as u64;
        self.exemplars_cut = self.exemplars_cut.saturating_add(cut);
        cut
    }

    /// Sum of all values; saturates.
    pub fn total(&self) -> i64 {
        self.samples.iter().fold(0, |t, s| t.saturating_add(s.value))
    }

    /// The clock (`cpu` or `wall`) that triggered what this profile only counts: samples at a known interval. `None`
    /// for profiles of other types, or if the interval is unknown.
    pub fn sampled_by(&self) -> Option<&'static str> {
        let [_, sample_type, unit, period_type, period_unit] = self.profile_type.parts();
        let counted = matches!(sample_type, "samples" | "sample") && unit == "count";
        match period_type {
            _ if !counted || period_unit != "nanoseconds" || self.period <= 0 => None,
            "cpu" => Some("cpu"),
            "wall" => Some("wall"),
            _ => None,
        }
    }

    /// Converts samples to the time between them, as agents outside the process count them; `clock` is that of
    /// [`Profile::sampled_by`].
    pub fn samples_as_time(&mut self, clock: &str) {
        self.profile_type = match clock {
            "cpu" => ProfileType::cpu(),
            _ => ProfileType::from_parts(clock, clock, "nanoseconds", clock, "nanoseconds"),
        };
        for sample in &mut self.samples {
            sample.count = u64::try_from(sample.value).unwrap_or(0).max(1);
            sample.value = sample.value.saturating_mul(self.period);
        }
        for exemplar in &mut self.exemplars {
            exemplar.value = exemplar.value.saturating_mul(self.period);
        }
    }

    /// Drops the stacks, locations, files and label sets that no sample refers to, and renumbers the rest in order.
    /// Indices must be valid ([`Profile::validate`]).
    pub fn keep_used(&mut self) {
        let used = |len: usize, mentioned: &mut dyn Iterator<Item = u32>| {
            let mut used = vec![false; len];
            mentioned.for_each(|index| used[index as usize] = true);
            used
        };
        let exemplars = || self.exemplars.iter();
        let label_sets = used(
            self.label_sets.len(),
            &mut self
                .samples
                .iter()
                .map(|s| s.label_set)
                .chain(exemplars().map(|e| e.label_set)),
        );
        let stacks = used(
            self.stacks.len(),
            &mut self.samples.iter().map(|s| s.stack).chain(exemplars().map(|e| e.stack)),
        );
        let kept_stacks = self.stacks.iter().zip(&stacks).filter(|(_, used)| **used);
        let locations = used(
            self.locations.len(),
            &mut kept_stacks.flat_map(|(stack, _)| stack.iter().copied()),
        );
        let kept_locations = self.locations.iter().zip(&locations).filter(|(_, used)| **used);
        let mut native = kept_locations.filter_map(|(location, _)| match location {
            Location::Native { mapping, .. } => Some(*mapping),
            Location::Named { .. } => None,
        });
        let mappings = used(self.mappings.len(), &mut native);
        if [&label_sets, &stacks, &locations, &mappings]
            .iter()
            .all(|all| all.iter().all(|&used| used))
        {
            return;
        }
        let label_sets = keep(&mut self.label_sets, &label_sets);
        let stacks = keep(&mut self.stacks, &stacks);
        let locations = keep(&mut self.locations, &locations);
        let mappings = keep(&mut self.mappings, &mappings);
        for sample in &mut self.samples {
            sample.label_set = label_sets[sample.label_set as usize];
            sample.stack = stacks[sample.stack as usize];
        }
        for exemplar in &mut self.exemplars {
            exemplar.label_set = label_sets[exemplar.label_set as usize];
            exemplar.stack = stacks[exemplar.stack as usize];
        }
        for place in self.stacks.iter_mut().flatten() {
            *place = locations[*place as usize];
        }
        for location in &mut self.locations {
            if let Location::Native { mapping, .. } = location {
                *mapping = mappings[*mapping as usize];
            }
        }
    }

    /// Checks every index and value once, so that readers need not.
    pub fn validate(&self) -> Result<(), InvalidProfile> {
        let check = |what, index: u32, len: usize| {
            if (index as usize) < len {
                Ok(())
            } else {
                Err(InvalidProfile::Index {
                    what,
                    index: u64::from(index),
                    len,
                })
            }
        };
        for location in &self.locations {
            match location {
                Location::Native { mapping, .. } => check("mapping", *mapping, self.mappings.len())?,
                Location::Named { frames } if frames.is_empty() => return Err(InvalidProfile::Empty("location")),
                Location::Named { .. } => {}
            }
        }
        for stack in &self.stacks {
            if stack.is_empty() {
                return Err(InvalidProfile::Empty("stack"));
            }
            stack
                .iter()
                .try_for_each(|&l| check("location", l, self.locations.len()))?;
        }
        for sample in &self.samples {
            check("stack", sample.stack, self.stacks.len())?;
            check("label set", sample.label_set, self.label_sets.len())?;
            if sample.value < 0 {
                return Err(InvalidProfile::Negative(sample.value));
            }
        }
        for exemplar in &self.exemplars {
            check("stack", exemplar.stack, self.stacks.len())?;
            check("label set", exemplar.label_set, self.label_sets.len())?;
            if exemplar.value < 0 {
                return Err(InvalidProfile::Negative(exemplar.value));
            }
        }
        Ok(())
    }
}

/// Keeps the used entries of a table; returns the new index of each.
fn keep<T>(table: &mut Vec<T>, used: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let new_index = used
        .iter()
        .map(|&used| {
            next += u32::from(used);
            next.wrapping_sub(1)
        })
        .collect();
    let mut keep = used.iter();
    table.retain(|_| keep.next().copied().unwrap_or(false));
    table.shrink_to_fit();
    new_index
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_never_reads_like_a_build_id_nor_a_build_id_like_a_path() {
        let texts = [
            "abcd",
            "ABCD",
            "/bin/shop",
            "[vdso]",
            "abcd.so",
            "path:abcd",
            "build:abcd",
            "build:/bin/shop",
            "path:path:abcd",
        ];
        let mapping = |build_id: &str, path: &str| Mapping {
            build_id: build_id.to_owned(),
            path: path.to_owned(),
        };
        let builds = texts.map(|text| mapping(text, "/any").key().into_owned());
        let paths = texts.map(|text| mapping("", text).key().into_owned());
        let different: std::collections::BTreeSet<&String> = builds.iter().chain(&paths).collect();
        assert_eq!(different.len(), 2 * texts.len(), "{builds:?} {paths:?}");
        // Rows stored under the previous keys keep their identifiers.
        assert_eq!([&*builds[0], &*paths[2], &*paths[3]], ["abcd", "/bin/shop", "[vdso]"]);
        assert_eq!(mapping("", "").key(), "");
    }

    proptest! {
        #[test]
        fn exemplars_that_are_kept_are_spread_over_all(all in 0usize..400, limit in 0usize..400) {
            let mut profile = Profile::empty_cpu(0, 0);
            for at in 0..all {
                profile.push_exemplar(Exemplar { stack: 0, label_set: 0, value: at as i64, unix_ns: 0, trace_id: [1; 16], span_id: 1 });
            }
            let cut = profile.cut_exemplars(limit);
            let kept: Vec<usize> = profile.exemplars.iter().map(|exemplar| exemplar.value as usize).collect();
            prop_assert_eq!(kept.len(), all.min(limit));
            prop_assert_eq!(kept.len() as u64 + cut, all as u64);
            prop_assert_eq!(profile.exemplars_cut, cut);
            let widest = if limit == 0 { all } else { all.div_ceil(limit.max(1)).max(1) };
            for pair in kept.windows(2) {
                prop_assert!(pair[0] < pair[1] && pair[1] - pair[0] <= widest);
            }
        }
    }
}

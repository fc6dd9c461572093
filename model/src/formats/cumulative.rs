//! Differences of values that grow from the start of a process: Go's `alloc_*`, and `contentions` and `delay` of its
//! `mutex` and `block` profiles.
//!
//! Guarantees: a difference is never negative, and nothing is counted twice: the differences of one process add up to
//! what it counted since the first profile, whatever the order of the tables in its files. A value that decreased, or a
//! stack that disappeared, can only mean another process, whose values count in full.
//!
//! Wrong on purpose: what a process counted before the first profile, and between the last one and its end, is not
//! seen. A restart after which no value is smaller than before goes unnoticed, and counts too little. A process that
//! changes its sampling rate while it runs looks like a restart.

use std::collections::{BTreeMap, HashMap};

use crate::{
    id,
    profile::{Location, Profile, ProfileType, Sample},
};

/// What a stack had counted: value and samples.
type Counted = (i64, u64);

/// Cumulative values of a process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baseline {
    taken_unix_ns: i64,
    types: BTreeMap<ProfileType, HashMap<u64, Counted>>,
}

/// Too many stacks to track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rows} cumulative stacks exceed the limit of {limit}")]
pub struct TooManyRows {
    /// How many there are.
    pub rows: usize,
    /// How many there may be.
    pub limit: usize,
}

/// Result of a comparison with the previous values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Values to compare the next profile with.
    pub baseline: Baseline,
    /// Time of the previous values; `None` if there were none.
    pub since_unix_ns: Option<i64>,
    /// A value decreased: the process restarted, and its values were stored in full.
    pub restarted: bool,
}

/// True for the types that Go's runtime counts from the start of a process.
pub fn is_cumulative(profile_type: &ProfileType) -> bool {
    matches!(
        profile_type.parts()[1],
        "alloc_objects" | "alloc_space" | "contentions" | "delay"
    )
}

impl Baseline {
    /// Number of tracked stacks, counted per type.
    pub fn rows(&self) -> usize {
        self.types.values().map(HashMap::len).sum()
    }

    /// When it was taken, nanoseconds since the Unix epoch.
    pub fn taken_unix_ns(&self) -> i64 {
        self.taken_unix_ns
    }

    /// Sums the chosen profiles by content, so that neither indices nor rows that differ only in dropped labels matter.
    fn of<'p>(profiles: impl Iterator<Item = &'p Profile>, taken_unix_ns: i64) -> Baseline {
        let mut types: BTreeMap<ProfileType, HashMap<u64, Counted>> = BTreeMap::new();
        for profile in profiles {
            let rows = types.entry(profile.profile_type.clone()).or_default();
            let keys = Keys::of(profile);
            for sample in &profile.samples {
                let (value, count) = rows.entry(keys.of_sample(sample)).or_default();
                *value = value.saturating_add(sample.value);
                *count = count.saturating_add(sample.count);
            }
        }
        Baseline { taken_unix_ns, types }
    }

    /// True if this cannot be the same process as `earlier`.
    fn fell_below(&self, earlier: &Baseline) -> bool {
        earlier.types.iter().any(|(profile_type, before)| {
            // A type that is no longer requested says nothing about the process.
            let Some(now) = self.types.get(profile_type) else {
                return false;
            };
            before
                .iter()
                .any(|(key, &(value, _))| now.get(key).map_or(0, |&(value, _)| value) < value)
        })
    }
}

/// Replaces the values of the chosen profiles by their increase since `previous`. Types missing in `previous` are
/// removed: this is their starting point.
///
/// # Errors
/// When more than `limit` stacks would have to be tracked; the profiles are then unchanged.
pub fn difference(
    previous: Option<&Baseline>,
    profiles: &mut Vec<Profile>,
    taken_unix_ns: i64,
    limit: usize,
    chosen: impl Fn(&ProfileType) -> bool,
) -> Result<Difference, TooManyRows> {
    let baseline = Baseline::of(profiles.iter().filter(|p| chosen(&p.profile_type)), taken_unix_ns);
    let rows = baseline.rows();
    if rows > limit {
        return Err(TooManyRows { rows, limit });
    }
    let restarted = previous.is_some_and(|previous| baseline.fell_below(previous));
    profiles.retain_mut(|profile| {
        if !chosen(&profile.profile_type) {
            return true;
        }
        let before = previous.and_then(|previous| previous.types.get(&profile.profile_type));
        let (Some(before), Some(now)) = (before, baseline.types.get(&profile.profile_type)) else {
            return false;
        };
        let nothing = HashMap::new();
        grow(profile, if restarted { &nothing } else { before }, now);
        true
    });
    Ok(Difference {
        baseline,
        since_unix_ns: previous.map(|previous| previous.taken_unix_ns),
        restarted,
    })
}

/// Keeps one row for each stack and label set, with its increase.
fn grow(profile: &mut Profile, before: &HashMap<u64, Counted>, now: &HashMap<u64, Counted>) {
    let keys = Keys::of(profile);
    let mut done = std::collections::HashSet::with_capacity(now.len());
    profile.samples.retain_mut(|sample| {
        let key = keys.of_sample(sample);
        if !done.insert(key) {
            return false;
        }
        let (value, count) = now.get(&key).copied().unwrap_or_default();
        let (value_before, count_before) = before.get(&key).copied().unwrap_or_default();
        sample.value = value.saturating_sub(value_before);
        sample.count = count.saturating_sub(count_before).max(1);
        sample.value > 0
    });
}

/// Identifiers, by content, of what a profile's samples refer to.
struct Keys {
    stacks: Vec<u64>,
    label_sets: Vec<u64>,
}

impl Keys {
    fn of(profile: &Profile) -> Keys {
        let locations: Vec<u64> = profile
            .locations
            .iter()
            .map(|location| {
                let build = match location {
                    Location::Native { mapping, .. } => {
                        profile.mappings.get(*mapping as usize).map(crate::Mapping::key)
                    }
                    Location::Named { .. } => None,
                };
                id::location_id(location, build.as_deref().unwrap_or_default())
            })
            .collect();
        let of_location = |at: &u32| locations.get(*at as usize).copied().unwrap_or_default();
        Keys {
            stacks: profile
                .stacks
                .iter()
                .map(|stack| id::stack_id(&stack.iter().map(of_location).collect::<Vec<u64>>()))
                .collect(),
            label_sets: profile.label_sets.iter().map(id::label_set_id).collect(),
        }
    }

    fn of_sample(&self, sample: &Sample) -> u64 {
        let at = |table: &[u64], index: u32| table.get(index as usize).copied().unwrap_or_default();
        id::stack_id(&[at(&self.stacks, sample.stack), at(&self.label_sets, sample.label_set)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{profile_builder::ProfileBuilder, workload::LabelSet};

    fn alloc_space() -> ProfileType {
        ProfileType::from_parts("memory", "alloc_space", "bytes", "space", "bytes")
    }

    /// A file of a process whose functions have allocated these amounts; zeros are not written, as in Go.
    fn file(profile_type: &ProfileType, counters: &BTreeMap<u8, i64>, reversed: bool) -> Profile {
        let mut builder = ProfileBuilder::new(profile_type.clone(), 1);
        let mut rows: Vec<(&u8, &i64)> = counters.iter().filter(|(_, value)| **value > 0).collect();
        if reversed {
            rows.reverse();
        }
        for (function, value) in rows {
            let frame = builder.frame(&format!("f{function}"), "", 0);
            builder.add(vec![frame], &LabelSet::none(), *value, 1);
        }
        builder.finish()
    }

    fn by_function(profile: &Profile) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for sample in &profile.samples {
            let location = profile.stacks[sample.stack as usize][0];
            let Location::Named { frames } = &profile.locations[location as usize] else {
                panic!("a file of names");
            };
            *sums.entry(frames[0].function.clone()).or_default() += sample.value;
        }
        sums
    }

    fn step(previous: &mut Option<Baseline>, counters: &[(u8, i64)], reversed: bool) -> (Option<Profile>, bool) {
        let counters = counters.iter().copied().collect();
        let mut profiles = vec![file(&alloc_space(), &counters, reversed)];
        let difference = difference(previous.as_ref(), &mut profiles, 7, 100, is_cumulative).unwrap();
        *previous = Some(difference.baseline);
        (profiles.pop(), difference.restarted)
    }

    #[test]
    fn the_first_look_only_sets_the_base_and_a_fall_counts_whole() {
        let mut previous = None;
        assert_eq!(step(&mut previous, &[(1, 100), (2, 50)], false), (None, false));
        let (profile, restarted) = step(&mut previous, &[(1, 130), (2, 50), (3, 5)], true);
        let grown = by_function(&profile.unwrap());
        assert_eq!(grown, BTreeMap::from([("f1".to_owned(), 30), ("f3".to_owned(), 5)]));
        assert!(!restarted);
        // One stack is above its previous value, but the process is another one: all of it is new.
        let (profile, restarted) = step(&mut previous, &[(1, 200), (2, 1)], false);
        let grown = by_function(&profile.unwrap());
        assert_eq!(grown, BTreeMap::from([("f1".to_owned(), 200), ("f2".to_owned(), 1)]));
        assert!(restarted);
    }

    #[test]
    fn gauges_are_left_alone_and_a_type_that_is_new_sets_its_base() {
        let gauge = ProfileType::from_parts("memory", "inuse_space", "bytes", "space", "bytes");
        let delay = ProfileType::from_parts("mutex", "delay", "nanoseconds", "contentions", "count");
        let counters = BTreeMap::from([(1, 9)]);
        let mut profiles = vec![file(&gauge, &counters, false), file(&alloc_space(), &counters, false)];
        let first = difference(None, &mut profiles, 1, 10, is_cumulative).unwrap();
        assert_eq!(profiles.len(), 1);
        assert_eq!((profiles[0].profile_type.clone(), profiles[0].total()), (gauge, 9));
        let mut profiles = vec![file(&alloc_space(), &counters, false), file(&delay, &counters, false)];
        let second = difference(Some(&first.baseline), &mut profiles, 2, 10, is_cumulative).unwrap();
        assert_eq!(profiles.iter().map(Profile::total).collect::<Vec<_>>(), [0]);
        assert_eq!((second.since_unix_ns, second.restarted), (Some(1), false));
    }

    #[test]
    fn more_stacks_than_may_be_remembered_change_nothing() {
        let counters = (0..5).map(|function| (function, 1)).collect();
        let mut profiles = vec![file(&alloc_space(), &counters, false)];
        let error = difference(None, &mut profiles, 0, 4, is_cumulative).unwrap_err();
        assert_eq!(error, TooManyRows { rows: 5, limit: 4 });
        assert_eq!(profiles[0].total(), 5);
    }

    #[test]
    fn rows_of_one_stack_are_one_counter() {
        // Go writes a row per object size: the same stack, distinguished by a label that is not kept.
        let rows = |values: [i64; 2]| {
            let mut profile = file(&alloc_space(), &BTreeMap::from([(1, values[0])]), false);
            profile.samples.push(Sample {
                value: values[1],
                ..profile.samples[0]
            });
            vec![profile]
        };
        let mut profiles = rows([10, 20]);
        let first = difference(None, &mut profiles, 0, 9, is_cumulative).unwrap();
        let mut profiles = rows([25, 12]);
        let second = difference(Some(&first.baseline), &mut profiles, 0, 9, is_cumulative).unwrap();
        assert_eq!((profiles[0].total(), profiles[0].samples.len()), (7, 1));
        assert!(!second.restarted);
    }

    /// What happens between two profiles of a process.
    #[derive(Debug, Clone)]
    struct Between {
        restart: bool,
        growth: Vec<(u8, i64)>,
        reversed: bool,
    }

    fn between() -> impl Strategy<Value = Between> {
        let growth = prop::collection::vec((0u8..4, 0i64..1000), 0..6);
        (prop::bool::weighted(0.2), growth, any::<bool>()).prop_map(|(restart, growth, reversed)| Between {
            restart,
            growth,
            reversed,
        })
    }

    proptest! {
        #[test]
        fn differences_add_up_to_the_growth_across_restarts(steps in prop::collection::vec(between(), 1..30)) {
            let mut counters: BTreeMap<u8, i64> = BTreeMap::new();
            let mut previous = None;
            let (mut counted, mut grown, mut every_restart_shows) = (0, 0, true);
            for (at, step_taken) in steps.iter().enumerate() {
                let before = counters.clone();
                if step_taken.restart {
                    counters.clear();
                }
                for (function, by) in &step_taken.growth {
                    *counters.entry(*function).or_default() += by;
                }
                let lower = before.iter().any(|(f, value)| counters.get(f).copied().unwrap_or(0) < *value);
                if step_taken.restart && !lower && before.values().any(|value| *value > 0) && at > 0 {
                    every_restart_shows = false;
                }
                if at > 0 {
                    grown += step_taken.growth.iter().map(|(_, by)| by).sum::<i64>();
                }
                let all: Vec<(u8, i64)> = counters.iter().map(|(f, value)| (*f, *value)).collect();
                let (profile, _) = step(&mut previous, &all, step_taken.reversed);
                prop_assert_eq!(profile.is_some(), at > 0);
                if let Some(profile) = profile {
                    prop_assert!(profile.validate().is_ok());
                    prop_assert!(profile.samples.iter().all(|sample| sample.value > 0));
                    counted += profile.total();
                }
            }
            prop_assert!(counted <= grown, "{} counted of {}", counted, grown);
            if every_restart_shows {
                prop_assert_eq!(counted, grown);
            }
        }
    }
}

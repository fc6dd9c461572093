//! Adding up profiles of one type.
//!
//! Guarantees: total, samples and exemplars are those of all of them together, per label set; equal locations, stacks
//! and label sets occur once; the result extends from the first start to the last end. Inconsistent tables
//! ([`Profile::validate`]) must not be passed.

use std::{collections::HashMap, hash::Hash};

use crate::profile::{Location, Mapping, Profile, Sample};
use crate::workload::LabelSet;

/// Adds up the profiles of each type. Types with one profile and the order of types are unchanged.
pub fn add_up(profiles: Vec<Profile>) -> Vec<Profile> {
    let mut types: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Vec<Profile>> = Vec::new();
    for profile in profiles {
        let at = *types.entry(profile.profile_type.0.clone()).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(profile),
            None => groups.push(vec![profile]),
        }
    }
    let sums = groups.into_iter().filter_map(|group| {
        let mut group = group.into_iter();
        let first = group.next()?;
        match group.len() {
            0 => Some(first),
            _ => Some(sum_of(first, group)),
        }
    });
    sums.collect()
}

/// A table of unique elements.
struct Interned<T> {
    elements: Vec<T>,
    index: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn new() -> Interned<T> {
        Interned {
            elements: Vec::new(),
            index: HashMap::new(),
        }
    }

    fn get(&mut self, element: T) -> u32 {
        if let Some(&known) = self.index.get(&element) {
            return known;
        }
        let at = self.elements.len() as u32;
        self.elements.push(element.clone());
        self.index.insert(element, at);
        at
    }
}

/// The sum so far.
struct Sum {
    mappings: Interned<Mapping>,
    locations: Interned<Location>,
    stacks: Interned<Vec<u32>>,
    label_sets: Interned<LabelSet>,
    rows: HashMap<(u32, u32), usize>,
    profile: Profile,
}

fn sum_of(first: Profile, others: impl Iterator<Item = Profile>) -> Profile {
    let mut sum = Sum {
        mappings: Interned::new(),
        locations: Interned::new(),
        stacks: Interned::new(),
        label_sets: Interned::new(),
        rows: HashMap::new(),
        profile: Profile {
            profile_type: first.profile_type.clone(),
            period: first.period,
            ..Profile::empty_cpu(first.start_unix_ns, first.duration_ns)
        },
    };
    sum.add(first);
    others.for_each(|other| sum.add(other));
    Profile {
        mappings: sum.mappings.elements,
        locations: sum.locations.elements,
        stacks: sum.stacks.elements,
        label_sets: sum.label_sets.elements,
        ..sum.profile
    }
}

impl Sum {
    fn add(&mut self, other: Profile) {
        let mappings: Vec<u32> = other.mappings.into_iter().map(|m| self.mappings.get(m)).collect();
        let place = |location| match location {
            Location::Native { mapping, offset } => Location::Native {
                mapping: mappings[mapping as usize],
                offset,
            },
            named @ Location::Named { .. } => named,
        };
        let locations: Vec<u32> = other
            .locations
            .into_iter()
            .map(|location| self.locations.get(place(location)))
            .collect();
        let stack = |stack: Vec<u32>| stack.into_iter().map(|at| locations[at as usize]).collect();
        let stacks: Vec<u32> = other.stacks.into_iter().map(|s| self.stacks.get(stack(s))).collect();
        let label_sets: Vec<u32> = other.label_sets.into_iter().map(|l| self.label_sets.get(l)).collect();
        let into = &mut self.profile;
        for sample in other.samples {
            let (stack, label_set) = (stacks[sample.stack as usize], label_sets[sample.label_set as usize]);
            let row = *self.rows.entry((stack, label_set)).or_insert_with(|| {
                into.samples.push(Sample {
                    stack,
                    label_set,
                    value: 0,
                    count: 0,
                });
                into.samples.len() - 1
            });
            let row = &mut into.samples[row];
            row.value = row.value.saturating_add(sample.value);
            row.count = row.count.saturating_add(sample.count);
        }
        for mut exemplar in other.exemplars {
            exemplar.stack = stacks[exemplar.stack as usize];
            exemplar.label_set = label_sets[exemplar.label_set as usize];
            into.push_exemplar(exemplar);
        }
        into.exemplars_cut = into.exemplars_cut.saturating_add(other.exemplars_cut);
        if into.period != other.period {
            // No common interval any more.
            into.period = 0;
        }
        let end = |start: i64, duration: i64| start.saturating_add(duration.max(0));
        let until = end(into.start_unix_ns, into.duration_ns).max(end(other.start_unix_ns, other.duration_ns));
        into.start_unix_ns = into.start_unix_ns.min(other.start_unix_ns);
        into.duration_ns = until.saturating_sub(into.start_unix_ns);
        let (stats, more) = (&mut into.stats, other.stats);
        stats.rate_hz = stats.rate_hz.max(more.rate_hz);
        stats.dropped = stats.dropped.saturating_add(more.dropped);
        stats.truncated = stats.truncated.saturating_add(more.truncated);
        stats.cpu_ns = stats.cpu_ns.saturating_add(more.cpu_ns);
        stats.overhead_ns = stats.overhead_ns.saturating_add(more.overhead_ns);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        profile::{Exemplar, ProfileType},
        profile_builder::ProfileBuilder,
    };

    type Rows = BTreeMap<(String, Vec<String>), (i64, u64)>;

    /// The contents by type and stack, by names.
    fn rows(profiles: &[Profile]) -> Rows {
        let mut rows = Rows::new();
        for profile in profiles {
            for sample in &profile.samples {
                let name = |&at: &u32| match &profile.locations[at as usize] {
                    Location::Named { frames } => frames[0].function.clone(),
                    Location::Native { mapping, offset } => {
                        format!("{}+{offset}", profile.mappings[*mapping as usize].path)
                    }
                };
                let stack = profile.stacks[sample.stack as usize].iter().map(name).collect();
                let row = rows.entry((profile.profile_type.0.clone(), stack)).or_default();
                *row = (row.0 + sample.value, row.1 + sample.count);
            }
        }
        rows
    }

    proptest! {
        #[test]
        fn a_sum_is_all_of_its_parts(
            parts in prop::collection::vec((0usize..3, 0i64..5, prop::collection::vec(("[ab]{1,2}", "[cd]", 0i64..100), 0..6)), 0..6),
        ) {
            let types = [ProfileType::CPU, "a:b:count::", "c:d:bytes::"];
            let profiles: Vec<Profile> = parts.into_iter().map(|(kind, start, samples)| {
                let mut builder = ProfileBuilder::new(ProfileType(types[kind].to_owned()), 10);
                for (leaf, root, value) in samples {
                    let stack = vec![builder.frame(&leaf, "", 0), builder.frame(&root, "", 0)];
                    builder.add(stack, &LabelSet::none(), value, 1);
                }
                let mut profile = builder.finish();
                (profile.start_unix_ns, profile.duration_ns) = (start, 10);
                profile.locations.push(Location::Native { mapping: 0, offset: 7 });
                profile.mappings.push(Mapping { path: format!("/{start}"), ..Mapping::default() });
                profile.stacks.push(vec![profile.locations.len() as u32 - 1]);
                let stack = profile.stacks.len() as u32 - 1;
                profile.label_sets.push(LabelSet::none());
                let label_set = profile.label_sets.len() as u32 - 1;
                profile.samples.push(Sample { stack, label_set, value: 1, count: 1 });
                profile.push_exemplar(Exemplar { stack, label_set, value: 1, unix_ns: 1, trace_id: [1; 16], span_id: 2 });
                profile
            }).collect();
            let before = rows(&profiles);
            let exemplars = profiles.len();
            let summed = add_up(profiles);
            prop_assert!(summed.len() <= 3);
            prop_assert_eq!(rows(&summed), before);
            prop_assert_eq!(summed.iter().map(|profile| profile.exemplars.len()).sum::<usize>(), exemplars);
            for profile in &summed {
                prop_assert!(profile.validate().is_ok());
                prop_assert!(profile.duration_ns <= 14);
            }
        }
    }
}

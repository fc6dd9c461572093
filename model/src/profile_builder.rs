//! Builds a profile from stacks of names, as other formats contain them.
//!
//! Guarantees: equal frames, stacks and label sets are stored once, equal rows are added up (saturating), and the
//! result is consistent ([`Profile::validate`]). Memory grows with the number of distinct elements, not of rows, and is
//! charged to an allowance if there is one ([`ProfileBuilder::within`]).

use std::collections::HashMap;

use crate::{
    function,
    positions::Positions,
    profile::{Location, Profile, ProfileType, Sample},
    weight::{Allowance, TooHeavy},
    workload::LabelSet,
};

/// How many original names are cached, and how many locations for each.
const MAX_NAMES: usize = 1 << 16;
const MAX_PLACES: usize = 4;

/// Locations of frames by their original names: a format that repeats names in every stack has each normalised once.
#[derive(Debug, Default)]
struct Spelt(HashMap<Box<str>, Vec<Place>>);

/// A file, a line, and the location of the name there.
type Place = (Box<str>, u32, u32);

impl Spelt {
    fn location(&self, name: &str, file: &str, line: u32) -> Option<u32> {
        let mut places = self.0.get(name)?.iter();
        let found = places.find(|place| place.1 == line && *place.0 == *file)?;
        Some(found.2)
    }

    fn remember(&mut self, name: &str, file: &str, line: u32, location: u32) {
        if self.0.len() >= MAX_NAMES {
            return;
        }
        let places = self.0.entry(name.into()).or_default();
        if places.len() < MAX_PLACES {
            places.reserve_exact(1);
            places.push((file.into(), line, location));
        }
    }
}

/// A profile being built.
#[derive(Debug)]
pub struct ProfileBuilder {
    profile: Profile,
    spelt: Spelt,
    locations: Positions,
    stacks: Positions,
    label_sets: Positions,
    rows: Positions,
    /// Stack and labels of each sample.
    row_keys: Vec<(u32, u32)>,
    allowance: Allowance,
    /// Whether the allowance has been enough so far.
    affordable: Result<(), TooHeavy>,
}

impl ProfileBuilder {
    /// An empty profile of a type; times are 0.
    pub fn new(profile_type: ProfileType, period: i64) -> ProfileBuilder {
        let mut profile = Profile::empty_cpu(0, 0);
        profile.profile_type = profile_type;
        profile.period = period;
        ProfileBuilder {
            profile,
            spelt: Spelt::default(),
            locations: Positions::default(),
            stacks: Positions::default(),
            label_sets: Positions::default(),
            rows: Positions::default(),
            row_keys: Vec::new(),
            allowance: Allowance::new(u64::MAX),
            affordable: Ok(()),
        }
    }

    /// The same with a limit on its memory in bytes; [`ProfileBuilder::affordable`] says when it is exceeded.
    pub(crate) fn within(self, memory: u64) -> ProfileBuilder {
        ProfileBuilder {
            allowance: Allowance::new(memory),
            ..self
        }
    }

    /// # Errors
    /// When more was added than the allowance permits. Readers check after each stack, and stop.
    pub(crate) fn affordable(&self) -> Result<(), TooHeavy> {
        self.affordable
    }

    /// Charges for what a reader keeps outside the profile.
    pub(crate) fn charge(&mut self, what: impl FnOnce(&mut Allowance) -> Result<(), TooHeavy>) -> Result<(), TooHeavy> {
        let charged = what(&mut self.allowance);
        self.affordable = self.affordable.and(charged);
        charged
    }

    /// The location of a frame named by the sender; names are truncated, cleaned and normalised.
    pub fn frame(&mut self, name: &str, file: &str, line: u32) -> u32 {
        let name = if name.is_empty() { "[unknown]" } else { name };
        if let Some(location) = self.spelt.location(name, file, line) {
            return location;
        }
        let named = Location::Named {
            frames: vec![function::frame(name, file, line)],
        };
        let before = self.profile.locations.len();
        let location = self.locations.place(&mut self.profile.locations, named);
        if self.profile.locations.len() > before {
            // The entry, its frame and names, its place in the index, and its original name.
            let bytes = 240 + 2 * (name.len() + file.len()).min(20_000);
            let _ = self.charge(|allowance| allowance.bytes(bytes));
        }
        self.spelt.remember(name, file, line, location);
        location
    }

    /// Adds to the row of a stack (locations, leaf first) and its labels and returns the row's index. A stack without
    /// frames becomes `[unknown]`.
    pub fn add(&mut self, mut leaf_first: Vec<u32>, labels: &LabelSet, value: i64, count: u64) -> usize {
        if leaf_first.is_empty() {
            leaf_first.push(self.frame("", "", 0));
        }
        let profile = &mut self.profile;
        let (before, frames) = (profile.stacks.len(), leaf_first.len());
        let stack = self.stacks.place(&mut profile.stacks, leaf_first);
        if profile.stacks.len() > before {
            self.affordable = self.affordable.and(self.allowance.stack(frames));
        }
        let label_set = match self.label_sets.find(&profile.label_sets, labels) {
            Some(known) => known,
            None => self.label_sets.place(&mut profile.label_sets, labels.clone()),
        };
        let at = self.rows.place(&mut self.row_keys, (stack, label_set)) as usize;
        if at == profile.samples.len() {
            profile.samples.push(Sample {
                stack,
                label_set,
                value: 0,
                count: 0,
            });
        }
        let row = &mut profile.samples[at];
        row.value = row.value.saturating_add(value);
        row.count = row.count.saturating_add(count);
        at
    }

    /// The profile.
    pub fn finish(self) -> Profile {
        self.profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_spelling_is_the_frame_it_was() {
        let mut builder = ProfileBuilder::new(ProfileType::cpu(), 1);
        let spellings: Vec<_> = (0..3 * MAX_PLACES as u32)
            .flat_map(|line| {
                [
                    ("price", "shop/a.py", line),
                    ("price", "shop/b.py", line),
                    ("price.cold", "shop/a.c", line),
                ]
            })
            .collect();
        let first: Vec<u32> = spellings
            .iter()
            .map(|&(name, file, line)| builder.frame(name, file, line))
            .collect();
        let again: Vec<u32> = spellings
            .iter()
            .map(|&(name, file, line)| builder.frame(name, file, line))
            .collect();
        assert_eq!(first, again);
        for (&(name, file, line), &location) in spellings.iter().zip(&first) {
            let expected = Location::Named {
                frames: vec![function::frame(name, file, line)],
            };
            assert_eq!(builder.profile.locations[location as usize], expected);
        }
    }
}

//! Builds a profile from stacks of names, as foreign formats give them.
//!
//! Guarantees: equal frames, stacks and label sets are stored once, equal rows are added up (saturating), and what comes
//! out fits together ([`Profile::validate`]). Memory grows with the different things that were added, not with rows.

use std::collections::HashMap;

use crate::{
    function,
    profile::{Frame, Location, Profile, ProfileType, Sample},
    workload::LabelSet,
};

/// How many names are remembered as they were spelt, and for each how many places.
const MAX_NAMES: usize = 1 << 16;
const MAX_PLACES: usize = 4;

/// Locations of frames as their sender spelt them: a format that repeats names in every stack has each normalised once.
#[derive(Debug, Default)]
struct Spelt(HashMap<Box<str>, Vec<Place>>);

/// A file, a line, and the location that the name has there.
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
            places.push((file.into(), line, location));
        }
    }
}

/// A profile being built.
#[derive(Debug)]
pub struct ProfileBuilder {
    profile: Profile,
    frames: HashMap<Frame, u32>,
    spelt: Spelt,
    stacks: HashMap<Vec<u32>, u32>,
    labels: HashMap<LabelSet, u32>,
    rows: HashMap<(u32, u32), usize>,
}

impl ProfileBuilder {
    /// An empty profile of a type; times are 0.
    pub fn new(profile_type: ProfileType, period: i64) -> ProfileBuilder {
        let mut profile = Profile::empty_cpu(0, 0);
        profile.profile_type = profile_type;
        profile.period = period;
        ProfileBuilder {
            profile,
            frames: HashMap::new(),
            spelt: Spelt::default(),
            stacks: HashMap::new(),
            labels: HashMap::new(),
            rows: HashMap::new(),
        }
    }

    /// The location of a frame the sender names; names are cut, cleaned and normalised.
    pub fn frame(&mut self, name: &str, file: &str, line: u32) -> u32 {
        let name = if name.is_empty() { "[unknown]" } else { name };
        if let Some(location) = self.spelt.location(name, file, line) {
            return location;
        }
        let frame = function::frame(name, file, line);
        let locations = &mut self.profile.locations;
        let location = *self.frames.entry(frame).or_insert_with_key(|frame| {
            locations.push(Location::Named {
                frames: vec![frame.clone()],
            });
            locations.len() as u32 - 1
        });
        self.spelt.remember(name, file, line, location);
        location
    }

    /// Adds to the row of a stack (locations, leaf first) and its labels, and answers which row that is. A stack without
    /// frames becomes `[unknown]`.
    pub fn add(&mut self, mut leaf_first: Vec<u32>, labels: &LabelSet, value: i64, count: u64) -> usize {
        if leaf_first.is_empty() {
            leaf_first.push(self.frame("", "", 0));
        }
        let profile = &mut self.profile;
        let stack = *self.stacks.entry(leaf_first).or_insert_with_key(|stack| {
            profile.stacks.push(stack.clone());
            profile.stacks.len() as u32 - 1
        });
        let label_set = match self.labels.get(labels) {
            Some(&index) => index,
            None => {
                profile.label_sets.push(labels.clone());
                let index = profile.label_sets.len() as u32 - 1;
                self.labels.insert(labels.clone(), index);
                index
            }
        };
        let at = *self.rows.entry((stack, label_set)).or_insert_with(|| {
            profile.samples.push(Sample {
                stack,
                label_set,
                value: 0,
                count: 0,
            });
            profile.samples.len() - 1
        });
        let row = &mut profile.samples[at];
        row.value = row.value.saturating_add(value);
        row.count = row.count.saturating_add(count);
        at
    }

    /// How many different locations there are.
    pub fn locations(&self) -> usize {
        self.profile.locations.len()
    }

    /// How many different stacks there are.
    pub fn stacks(&self) -> usize {
        self.profile.stacks.len()
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

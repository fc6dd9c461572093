//! Merges several dictionaries: each name, location and stack is in the result once.
//!
//! Guarantees: everything that any of them mentions is in the result, and nothing else; stacks take no more memory than
//! the limit, because a dictionary that does not fit is not added.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use emberline_model::{Frame, Location};

use super::{
    BuildName, LabelSetName, MappingName, Names, NamesWriter, SeriesName, StacksWriter, WorkloadSpan, each_location,
    each_stack, read_names, unknown_location,
};
use crate::{
    checks::{Checks, Salted},
    ids::IdMap,
};

/// A location of one of the dictionaries.
enum Place {
    /// Index of the mapping in `Compacted::mappings`, and the offset.
    Native(u32, u64),
    Named(Vec<Frame>),
}

/// Dictionaries being merged.
#[derive(Default)]
pub(crate) struct Compacted {
    checks: Checks,
    salted: BTreeSet<u64>,
    series: BTreeSet<(String, String, String, String, u32, String)>,
    label_sets: BTreeSet<LabelSetKey>,
    mappings: Vec<MappingName>,
    mapping_index: BTreeMap<(String, String), u32>,
    builds: BTreeSet<(u64, u32, u32)>,
    spans: BTreeMap<u64, (u32, u32)>,
    places: Vec<Place>,
    place_index: IdMap<u32>,
    /// Locations of all stacks, root first, one stack after another, as indices into `places`.
    locations: Vec<u32>,
    /// Where each stack begins in `locations`.
    begins: Vec<usize>,
}

type LabelSetKey = (String, u32, Option<String>, Option<String>, Option<String>);

fn series_key(a: &SeriesName) -> (String, String, String, String, u32, String) {
    (
        a.service.clone(),
        a.version.clone(),
        a.instance.clone(),
        a.namespace.clone(),
        a.component,
        a.profile_type.clone(),
    )
}

impl Compacted {
    /// For a store whose identifiers have these checks.
    pub(crate) fn new(checks: Checks) -> Compacted {
        Compacted {
            checks,
            ..Compacted::default()
        }
    }

    /// Adds some dictionaries, all or none: the bytes of their names and of their stacks. False when the stacks would
    /// need more than `limit` locations in all; then none was added.
    pub(crate) fn add(&mut self, dictionaries: &[(Vec<u8>, Option<Vec<u8>>)], limit: usize) -> io::Result<bool> {
        let before = (self.locations.len(), self.begins.len());
        let mut decoded = Vec::new();
        for (names, stacks) in dictionaries {
            let (names, mapping_of, place_of) = self.add_names(names)?;
            if !self.add_stacks(stacks.as_deref().unwrap_or_default(), &place_of, limit)? {
                // Its locations stay known; those that no stack mentions are left out at the end.
                self.locations.truncate(before.0);
                self.begins.truncate(before.1);
                return Ok(false);
            }
            decoded.push((names, mapping_of));
        }
        for (names, mapping_of) in decoded {
            self.mention(names, &mapping_of);
        }
        Ok(true)
    }

    /// False when they do not fit.
    fn add_stacks(&mut self, stacks: &[u8], place_of: &[u32], limit: usize) -> io::Result<bool> {
        let mut fits = true;
        each_stack(stacks, |root_first| {
            if !fits || self.locations.len() + root_first.len() > limit {
                fits = false;
                return Ok::<(), io::Error>(());
            }
            self.begins.push(self.locations.len());
            for &index in root_first {
                let place = place_of.get(index as usize).ok_or_else(unknown_location)?;
                self.locations.push(*place);
            }
            Ok(())
        })?;
        Ok(fits)
    }

    fn mention(&mut self, names: Names, mapping_of: &[u32]) {
        self.series.extend(names.series.iter().map(series_key));
        self.salted.extend(names.salted);
        for labels in names.label_sets {
            let LabelSetName {
                side,
                route,
                peer_namespace,
                peer_service,
                peer_version,
            } = labels;
            self.label_sets
                .insert((route, side, peer_namespace, peer_service, peer_version));
        }
        for build in names.builds {
            if let Some(&mapping) = mapping_of.get(build.mapping as usize) {
                self.builds.insert((build.workload_id, build.component, mapping));
            }
        }
        for span in names.spans {
            let known = self
                .spans
                .entry(span.workload_id)
                .or_insert((span.first_s, span.last_s));
            *known = (known.0.min(span.first_s), known.1.max(span.last_s));
        }
    }

    /// Adds names; returns the index here of each of their mappings and locations.
    fn add_names(&mut self, bytes: &[u8]) -> io::Result<(Names, Vec<u32>, Vec<u32>)> {
        let names = read_names(bytes)?;
        let mut mapping_of = Vec::with_capacity(names.mappings.len());
        for mapping in &names.mappings {
            let next = self.mappings.len() as u32;
            let key = (mapping.build_id.clone(), mapping.path.clone());
            let index = *self.mapping_index.entry(key).or_insert(next);
            if index == next {
                self.mappings.push(mapping.clone());
            }
            mapping_of.push(index);
        }
        let mut place_of = Vec::new();
        let salted = Salted::new(&self.checks, &names.salted);
        each_location(bytes, &names, &salted, |entry| {
            let index = *self.place_index.entry(entry.id).or_insert_with(|| {
                self.places.push(match entry.location {
                    Location::Native { mapping, offset } => {
                        Place::Native(mapping_of.get(*mapping as usize).copied().unwrap_or(0), *offset)
                    }
                    Location::Named { frames } => Place::Named(frames.clone()),
                });
                self.places.len() as u32 - 1
            });
            place_of.push(index);
        })?;
        Ok((names, mapping_of, place_of))
    }

    /// Writes the names, then the stacks; returns how many entries each has.
    pub(crate) fn write<W: Write>(self, names: &mut W, stacks: &mut W) -> io::Result<(u64, u64)> {
        let mut used = vec![false; self.places.len()];
        self.locations.iter().for_each(|&place| used[place as usize] = true);
        let mut order: Vec<u32> = (0..self.places.len() as u32).filter(|&at| used[at as usize]).collect();
        // Native ones first, by file and offset, which encodes smallest.
        order.sort_by_key(|&at| match &self.places[at as usize] {
            Place::Native(mapping, offset) => (0, *mapping, *offset),
            Place::Named(_) => (1, 0, u64::from(at)),
        });
        let mut number = vec![0u32; self.places.len()];
        for (at, &place) in order.iter().enumerate() {
            number[place as usize] = at as u32;
        }

        let all = self.names();
        let entries = (all.series.len() + all.label_sets.len() + order.len()) as u64;
        let mut writer = NamesWriter::new(names, &all)?;
        for place in order {
            match &self.places[place as usize] {
                Place::Native(mapping, offset) => writer.native(*mapping, *offset)?,
                Place::Named(frames) => {
                    let frames = frames.iter().map(|f| (f.function.clone(), f.file.clone(), f.line));
                    writer.named(frames)?;
                }
            }
        }
        writer.finish()?;

        let Compacted {
            mut locations, begins, ..
        } = self;
        locations.iter_mut().for_each(|place| *place = number[*place as usize]);
        let end = locations.len();
        let ends = begins.iter().skip(1).copied().chain([end]);
        let mut ordered: Vec<&[u32]> = begins
            .iter()
            .zip(ends)
            .map(|(&from, to)| &locations[from..to])
            .collect();
        ordered.sort_unstable();
        ordered.dedup();
        let mut writer = StacksWriter::new(stacks);
        for stack in &ordered {
            writer.push(stack)?;
        }
        writer.finish()?;
        Ok((entries, ordered.len() as u64))
    }

    fn names(&self) -> Names {
        let series = self.series.iter().cloned();
        let label_sets = self.label_sets.iter().cloned();
        let builds = self.builds.iter().copied();
        Names {
            series: series
                .map(
                    |(service, version, instance, namespace, component, profile_type)| SeriesName {
                        namespace,
                        service,
                        version,
                        instance,
                        component,
                        profile_type,
                    },
                )
                .collect(),
            label_sets: label_sets
                .map(
                    |(route, side, peer_namespace, peer_service, peer_version)| LabelSetName {
                        side,
                        route,
                        peer_namespace,
                        peer_service,
                        peer_version,
                    },
                )
                .collect(),
            mappings: self.mappings.clone(),
            salted: self.salted.iter().copied().collect(),
            builds: builds
                .map(|(workload_id, component, mapping)| BuildName {
                    workload_id,
                    component,
                    mapping,
                })
                .collect(),
            spans: self
                .spans
                .iter()
                .map(|(&workload_id, &(first_s, last_s))| WorkloadSpan {
                    workload_id,
                    first_s,
                    last_s,
                })
                .collect(),
        }
    }
}

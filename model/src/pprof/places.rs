//! The locations, functions and mappings of a pprof file, as its samples refer to them.
//!
//! Guarantees: every reference is checked, even if no sample refers to it; only what a sample refers to is kept. Ids
//! need not be in sequence, and if a writer gave none at all, they are positions.

use std::collections::HashMap;

use super::{PprofError, prune::Pruning};
use crate::{
    function,
    positions::Positions,
    profile::{Frame, Location, Mapping},
    proto::pprof as pb,
    weight::Allowance,
    workload::{LabelSet, clean_name},
};

/// The meaning of a location's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addresses {
    /// Where the process loaded its code; the mapping says where the file begins.
    #[default]
    InMemory,
    /// Already an offset in the file.
    InFile,
}

/// What the samples of a file refer to; equal stacks and label sets once.
pub(super) struct Tables {
    pub(super) mappings: Vec<Mapping>,
    pub(super) locations: Vec<Location>,
    pub(super) stacks: Vec<Vec<u32>>,
    pub(super) label_sets: Vec<LabelSet>,
    stack_positions: Positions,
    label_positions: Positions,
    unknown: Option<u32>,
    pub(super) allowance: Allowance,
}

/// The locations of a file, of which only those are kept that a sample refers to.
pub(super) struct Places<'s> {
    locations: HashMap<u64, &'s pb::Location>,
    functions: HashMap<u64, &'s pb::Function>,
    mappings: HashMap<u64, &'s pb::Mapping>,
    addresses: Addresses,
    known_locations: HashMap<u64, u32>,
    known_mappings: HashMap<u64, u32>,
    pruning: Pruning,
}

/// Elements by id. Some writers give none: then ids are positions, counted from 1, or from 0 if the references
/// (`mentioned`) say so.
fn by_id<T>(elements: &[T], id: impl Fn(&T) -> u64, mentioned: impl Iterator<Item = u64>) -> HashMap<u64, &T> {
    if elements.iter().any(|element| id(element) != 0) {
        return elements.iter().map(|element| (id(element), element)).collect();
    }
    let (mut any_is_0, mut all_exist) = (false, true);
    for id in mentioned {
        any_is_0 |= id == 0;
        all_exist &= id < elements.len() as u64;
    }
    let first = u64::from(!(any_is_0 && all_exist));
    (first..).zip(elements).collect()
}

impl<'s> Places<'s> {
    /// Checks every reference, even if no sample refers to it.
    pub(super) fn of(
        source: &'s pb::Profile,
        string: &impl Fn(i64) -> Result<&'s str, PprofError>,
        addresses: Addresses,
        pruning: Pruning,
    ) -> Result<Places<'s>, PprofError> {
        let lines = source.location.iter().flat_map(|location| &location.line);
        let places = Places {
            locations: by_id(
                &source.location,
                |location| location.id,
                source
                    .sample
                    .iter()
                    .flat_map(|sample| sample.location_id.iter().copied()),
            ),
            functions: by_id(
                &source.function,
                |function| function.id,
                lines.map(|line| line.function_id),
            ),
            // A location with mapping 0 has none.
            mappings: by_id(&source.mapping, |mapping| mapping.id, std::iter::empty()),
            addresses,
            known_locations: HashMap::new(),
            known_mappings: HashMap::new(),
            pruning,
        };
        for line in source.location.iter().flat_map(|location| &location.line) {
            let function = places.function(line.function_id)?;
            string(function.name)?;
            string(function.system_name)?;
            string(function.filename)?;
        }
        for mapping in source
            .location
            .iter()
            .filter_map(|l| places.mappings.get(&l.mapping_id))
        {
            string(mapping.build_id)?;
            string(mapping.filename)?;
        }
        Ok(places)
    }

    fn function(&self, id: u64) -> Result<&'s pb::Function, PprofError> {
        let missing = || PprofError::Invalid(format!("function {id} does not exist"));
        self.functions.get(&id).copied().ok_or_else(missing)
    }

    /// The stack (leaf first) without what the file asks to drop.
    pub(super) fn pruned(&self, leaf_first: Vec<u32>) -> Vec<u32> {
        self.pruning.cut(leaf_first)
    }

    /// The position in the tables of the location with this id.
    pub(super) fn location(
        &mut self,
        id: u64,
        tables: &mut Tables,
        string: &impl Fn(i64) -> Result<&'s str, PprofError>,
    ) -> Result<u32, PprofError> {
        if let Some(&known) = self.known_locations.get(&id) {
            return Ok(known);
        }
        let missing = || PprofError::Invalid(format!("location {id} does not exist"));
        let location = *self.locations.get(&id).ok_or_else(missing)?;
        let mut frames = Vec::with_capacity(location.line.len());
        for line in &location.line {
            let function = self.function(line.function_id)?;
            // Some writers have only the linker's name.
            let name = match string(function.name)? {
                "" => string(function.system_name)?,
                name => name,
            };
            frames.push(function::frame(
                name,
                string(function.filename)?,
                u32::try_from(line.line).unwrap_or(0),
            ));
        }
        self.pruning.location(tables.locations.len(), &mut frames);
        let read = if frames.is_empty() {
            self.address(location, tables, string)?
        } else {
            Location::Named { frames }
        };
        if let Location::Named { frames } = &read {
            tables.allowance.location(frames)?;
        }
        tables.locations.push(read);
        let known = tables.locations.len() as u32 - 1;
        self.known_locations.insert(id, known);
        Ok(known)
    }

    /// A location with only an address: an offset in a file, which may be named later, if the file is known.
    fn address(
        &mut self,
        location: &pb::Location,
        tables: &mut Tables,
        string: &impl Fn(i64) -> Result<&'s str, PprofError>,
    ) -> Result<Location, PprofError> {
        let mapping = self.mappings.get(&location.mapping_id).copied();
        let (build_id, path) = match mapping {
            Some(mapping) => (build_id(string(mapping.build_id)?), string(mapping.filename)?),
            None => (String::new(), ""),
        };
        let offset = match (mapping, self.addresses) {
            // Memory without a file, and code generated at run time, are at different addresses in every process.
            (Some(_), _) if build_id.is_empty() && (path.is_empty() || is_anonymous(path)) => None,
            (Some(_), Addresses::InFile) => Some(location.address),
            // Without a build id, an address outside its mapping would become a meaningless offset.
            (Some(mapping), Addresses::InMemory) if build_id.is_empty() && !holds(mapping, location.address) => None,
            (Some(mapping), Addresses::InMemory) => Some(
                location
                    .address
                    .wrapping_sub(mapping.memory_start)
                    .wrapping_add(mapping.file_offset),
            ),
            (None, _) => None,
        };
        let Some(offset) = offset else {
            return Ok(Location::Named {
                frames: vec![Frame {
                    function: format!("{:#x}", location.address),
                    file: clean_name(path),
                    line: 0,
                }],
            });
        };
        let mapping = match self.known_mappings.get(&location.mapping_id) {
            Some(&known) => known,
            None => {
                tables.mappings.push(Mapping {
                    build_id,
                    path: clean_name(path),
                });
                let known = tables.mappings.len() as u32 - 1;
                self.known_mappings.insert(location.mapping_id, known);
                known
            }
        };
        Ok(Location::Native { mapping, offset })
    }
}

/// Mappings of memory without a file.
fn is_anonymous(path: &str) -> bool {
    path.starts_with("//anon") || path.starts_with("[anon") || path.starts_with("/memfd:") || path.starts_with("[heap]")
}

fn holds(mapping: &pb::Mapping, address: u64) -> bool {
    mapping.memory_start > 0
        && address >= mapping.memory_start
        && (mapping.memory_limit == 0 || address < mapping.memory_limit)
}

impl Tables {
    pub(super) fn new(most_memory: u64) -> Tables {
        Tables {
            mappings: Vec::new(),
            locations: Vec::new(),
            stacks: Vec::new(),
            label_sets: Vec::new(),
            stack_positions: Positions::default(),
            label_positions: Positions::default(),
            unknown: None,
            allowance: Allowance::new(most_memory),
        }
    }

    pub(super) fn stack(&mut self, mut frames: Vec<u32>) -> Result<u32, PprofError> {
        if frames.is_empty() {
            let locations = &mut self.locations;
            frames.push(*self.unknown.get_or_insert_with(|| {
                locations.push(Location::Named {
                    frames: vec![Frame {
                        function: "[unknown]".to_owned(),
                        ..Frame::default()
                    }],
                });
                locations.len() as u32 - 1
            }));
        }
        if let Some(known) = self.stack_positions.find(&self.stacks, &frames) {
            return Ok(known);
        }
        self.allowance.stack(frames.len())?;
        Ok(self.stack_positions.place(&mut self.stacks, frames))
    }

    pub(super) fn label_set(&mut self, labels: LabelSet) -> u32 {
        self.label_positions.place(&mut self.label_sets, labels)
    }
}

/// A build id as this crate writes it; other values (Go's own ids, paths) identify no file.
fn build_id(text: &str) -> String {
    let hexadecimal = (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal {
        text.to_ascii_lowercase()
    } else {
        String::new()
    }
}

//! From locations to functions. Guarantee: a location has at least one function: an address if its symbols were not
//! looked up yet, its file's name if it has none.

use std::sync::Arc;

use emberline_model::{Mapping, id, resolve::FunctionInfo};
use parking_lot::RwLock;

use super::Place;
use crate::{
    ids::IdMap,
    symbols::{BuildSymbols, Symbols},
};

/// A location and what it stands for.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) id: u64,
    pub(super) place: Option<Arc<Place>>,
}

/// Functions, stored once per distinct key.
#[derive(Default)]
pub(super) struct FunctionTable {
    pub(super) functions: Vec<Arc<FunctionInfo>>,
    by_key: IdMap<u32>,
    /// Approximate memory of the functions that only this table holds, in bytes.
    own_bytes: usize,
}

/// Memory of a function besides its names: itself, and its slots in the tables that share it, in bytes.
pub(super) const FUNCTION_BYTES: usize = 160;

/// Approximate memory of a function, in bytes.
pub(super) fn bytes_of(info: &FunctionInfo) -> usize {
    FUNCTION_BYTES + info.name.len() + info.module.len() + info.file.len()
}

type Sameness = fn(&FunctionInfo, &FunctionInfo) -> bool;

impl FunctionTable {
    /// The index of a function by its identifier; the first description wins. A different name with the same
    /// identifier, which can be crafted, gets an identifier of its own.
    pub(super) fn identified(&mut self, info: &Arc<FunctionInfo>) -> u32 {
        self.find(info.id, info, |there, info| there.name == info.name)
    }

    /// The index of a function at a key. If another function is there already, this one is kept at a derived key; if
    /// the two share an identifier, it also gets a derived identifier.
    fn find(&mut self, mut key: u64, info: &Arc<FunctionInfo>, same: Sameness) -> u32 {
        let mut id = info.id;
        loop {
            match self.by_key.get(&key) {
                Some(&index) if same(&self.functions[index as usize], info) => return index,
                Some(&index) => {
                    let there = &self.functions[index as usize];
                    let is_twin = there.id == info.id && there.name != info.name;
                    key = id::key("another", &[&key.to_string(), &info.name, &info.module, &info.file]);
                    if is_twin {
                        id = id::key("another function", &[&info.name]);
                    }
                }
                None => break,
            }
        }
        let index = self.functions.len() as u32;
        self.by_key.insert(key, index);
        self.functions.push(match id == info.id {
            true => Arc::clone(info),
            false => Arc::new(FunctionInfo { id, ..(**info).clone() }),
        });
        index
    }

    /// The index of a function by its description: the same function may be in files of several services.
    fn described(&mut self, info: &Arc<FunctionInfo>) -> u32 {
        let key = id::key("description", &[&info.module, &info.file]) ^ info.id;
        self.find(key, info, |there, info| {
            (&there.name, &there.module, &there.file) == (&info.name, &info.module, &info.file)
        })
    }

    /// Like [`FunctionTable::described`], for a function that only this table holds.
    fn described_here(&mut self, info: FunctionInfo) -> u32 {
        let (before, bytes) = (self.functions.len(), bytes_of(&info));
        let index = self.described(&Arc::new(info));
        if self.functions.len() > before {
            self.own_bytes += bytes;
        }
        index
    }

    /// Approximate memory of the functions that only this table holds, in bytes.
    pub(super) fn own_bytes(&self) -> usize {
        self.own_bytes
    }
}

/// Number of a location → indices of its functions, leaf first.
#[derive(Default)]
pub(super) struct FunctionsOfLocations {
    indices: Vec<u32>,
    /// Where the functions of each location end.
    ends: Vec<usize>,
}

impl FunctionsOfLocations {
    /// How many locations there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn of(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.indices[begin..self.ends[number]]
    }
}

/// Names locations and numbers them consecutively.
pub(super) fn name_locations(
    symbols: &Symbols,
    locations: &[Located],
    table: &mut FunctionTable,
    named: &mut FunctionsOfLocations,
) {
    // Locations of one build come in long runs.
    let mut last: Option<(&Arc<Mapping>, Arc<RwLock<BuildSymbols>>)> = None;
    for &Located { id, ref place } in locations {
        match place.as_deref() {
            Some(Place::Named { functions }) => {
                let indices = functions.iter().map(|f| table.described(f));
                named.indices.extend(indices);
            }
            Some(Place::Native { mapping, offset }) => {
                let of_build = match &last {
                    Some((build, symbols)) if Arc::ptr_eq(build, mapping) => symbols,
                    _ => &last.insert((mapping, symbols.build(&mapping.key()))).1,
                };
                let of_build = of_build.read();
                let before = named.indices.len();
                match of_build.functions(*offset) {
                    Some(functions) => {
                        named.indices.extend(functions.map(|f| {
                            table.described_here(FunctionInfo {
                                id: f.id,
                                name: f.name.clone(),
                                module: module_of(mapping),
                                file: f.file.clone(),
                                unresolved: false,
                            })
                        }));
                        if named.indices.len() == before {
                            let info = FunctionInfo::without_symbol(module_of(mapping));
                            named.indices.push(table.described_here(info));
                        }
                    }
                    None => named.indices.push(table.described_here(FunctionInfo {
                        id,
                        name: format!("0x{offset:x}"),
                        module: module_of(mapping),
                        file: String::new(),
                        unresolved: true,
                    })),
                }
            }
            // Written in the same transaction as the stack: only a damaged file can lack it.
            None => named.indices.push(table.described_here(FunctionInfo {
                id,
                name: "[unknown location]".to_owned(),
                module: String::new(),
                file: String::new(),
                unresolved: true,
            })),
        }
        named.ends.push(named.indices.len());
    }
}

fn module_of(mapping: &Mapping) -> String {
    mapping.path.rsplit('/').next().unwrap_or_default().to_owned()
}

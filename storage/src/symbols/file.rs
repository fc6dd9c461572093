//! The file of a build: records of locations with their names, each with a checksum.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use emberline_model::{Frame, function, id};
use prost::Message;

use crate::{disk::Disk, framing, ids::IdMap, packed_frames::PackedFrames};

pub(super) const MAGIC: &[u8] = b"EMBSYMB1";

/// Locations per record; bounds what one damaged byte costs.
pub(super) const LOCATIONS_PER_RECORD: usize = 4096;

/// A function as named by the symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SymbolFunction {
    /// [`emberline_model::id::function_id`].
    pub(crate) id: u64,
    /// Normalised name.
    pub(crate) name: String,
    /// Source file; empty when unknown.
    pub(crate) file: String,
}

/// Symbols of one build: file offset → functions, innermost first. A location with no functions has no name.
#[derive(Debug, Default)]
pub(crate) struct BuildSymbols {
    pub(super) functions: Vec<SymbolFunction>,
    pub(super) by_name: IdMap<u32>,
    pub(super) by_offset: HashMap<u64, Box<[u32]>>,
    pub(super) records: u64,
}

impl BuildSymbols {
    /// The functions at a location, innermost first; `None` if it was not looked up yet.
    pub(crate) fn functions(&self, offset: u64) -> Option<impl Iterator<Item = &SymbolFunction>> {
        let indices = self.by_offset.get(&offset)?;
        Some(indices.iter().map(|&index| &self.functions[index as usize]))
    }

    pub(super) fn insert(&mut self, offset: u64, frames: &[Frame]) {
        let indices = frames.iter().map(|frame| {
            *self
                .by_name
                .entry(id::key("symbol", &[&frame.function, &frame.file]))
                .or_insert_with(|| {
                    self.functions.push(SymbolFunction {
                        id: function::function_id(frame),
                        name: frame.function.clone(),
                        file: frame.file.clone(),
                    });
                    (self.functions.len() - 1) as u32
                })
        });
        let indices = indices.collect();
        self.by_offset.insert(offset, indices);
    }
}

/// A build's file in the symbols folder. A key that is not a build id (a path, or something hostile) is hashed, never
/// used as a name.
pub(crate) fn path_of(dir: &Path, key: &str) -> PathBuf {
    let is_build_id = (8..=128).contains(&key.len()) && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match is_build_id {
        true => dir.join(format!("{key}.sym")),
        false => dir.join(format!("x{:016x}.sym", id::key("build", &[key]))),
    }
}

/// Removes a symbol file; false if there was none.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> std::io::Result<bool> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The symbols in the bytes of a file, and how many places of it are damaged.
pub(super) fn read(bytes: &[u8]) -> (BuildSymbols, u64) {
    let scan = framing::scan(bytes, MAGIC.len(), 0);
    let mut symbols = BuildSymbols::default();
    let mut damaged = scan.damaged.len() as u64 + u64::from(!scan.tail.is_empty());
    for frame in &scan.frames {
        symbols.records = frame.sequence;
        match PackedFrames::decode(&bytes[frame.payload.clone()]) {
            Ok(record) => record
                .frames()
                .for_each(|(offset, frames)| symbols.insert(offset, &frames)),
            Err(_) => damaged += 1,
        }
    }
    (symbols, damaged)
}

/// What the bytes of a symbol file hold.
pub(crate) struct Checked {
    /// Intact locations.
    pub(crate) locations: u64,
    /// Places that are not as written.
    pub(crate) damaged: u64,
}

/// Checks the bytes of a symbol file.
pub(crate) fn check(bytes: &[u8]) -> Checked {
    let (symbols, damaged) = read(bytes);
    Checked {
        locations: symbols.by_offset.len() as u64,
        // Nothing depends on the magic bytes, but they are not as written.
        damaged: damaged + u64::from(!bytes.starts_with(MAGIC)),
    }
}

/// The bytes of a symbol file with its intact records only.
pub(crate) fn intact(bytes: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for frame in framing::scan(bytes, MAGIC.len(), 0).frames {
        let payload = &bytes[frame.payload];
        if PackedFrames::decode(payload).is_ok() {
            framing::encode(&mut out, frame.sequence, frame.stamp, payload);
        }
    }
    out
}

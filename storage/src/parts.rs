//! Sealed parts: immutable files that hold finished hours. The folder is the manifest.
//!
//! Guarantees: a part is complete or absent, because it gets its name only after it was synced; its name states its
//! contents and the checksum of every byte, which is verified before the part is first read; a damaged part is moved to
//! the quarantine folder and counted by what its name says it held, and everything else carries on. A question keeps
//! the parts it started with: the file of a dropped part is removed when the last holder lets go of it. Compacted parts
//! replace all at once what they were made of: see `compacted`.
//!
//! Wrong on purpose: damage after the first verification is noticed only when the engine stumbles over it.

mod build;
mod codec;
mod compacted;
pub(crate) mod dictionary;
mod name;
pub(crate) mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{disk::Disk, journal::Lsn};

pub(crate) use build::{Draft, DraftFile, publish};
pub(crate) use compacted::{Commit, tidy};
pub(crate) use name::{Kind, PartName, ROW_KINDS};

/// The most hours in one part.
pub(crate) const MAX_HOURS: u32 = 24;

/// Bytes read at a time when a part is verified.
const VERIFY_BYTES: u64 = 1 << 20;

/// The folder of parts, as an absolute path for the query engine.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    let dir = data_dir.join("parts");
    std::path::absolute(&dir).unwrap_or(dir)
}

/// One file.
#[derive(Debug)]
pub struct Part {
    pub(crate) name: PartName,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    disk: Arc<dyn Disk>,
    verified: AtomicBool,
    given_up: AtomicBool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if *self.given_up.get_mut()
            && let Err(error) = self.disk.remove(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an expired part; retrying at the next start");
        }
    }
}

impl Part {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, name: PartName, bytes: u64) -> Part {
        Part {
            name,
            path,
            bytes,
            disk,
            verified: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }
    }

    /// True when the file is as written, by its checksum. Checked once, unless `again`.
    pub(crate) fn is_intact(&self, again: bool) -> io::Result<bool> {
        if !again && self.verified.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut checksum = 0;
        let mut at = 0;
        loop {
            let bytes = match self.disk.read_range(&self.path, at, VERIFY_BYTES) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            checksum = crc32c::crc32c_append(checksum, &bytes);
            at += bytes.len() as u64;
            if (bytes.len() as u64) < VERIFY_BYTES {
                break;
            }
        }
        let intact = checksum == self.name.checksum;
        self.verified.store(intact, Ordering::Relaxed);
        Ok(intact)
    }

    /// The whole file; `None` when it is damaged or gone.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match self.disk.read(&self.path) {
            Ok(bytes) => Ok((crc32c::crc32c(&bytes) == self.name.checksum).then_some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Nobody may start to read it from now on; the file is removed with the last holder.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// The parts of a store at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct PartSet {
    hours: BTreeMap<u32, Vec<Arc<Part>>>,
    bytes: u64,
}

impl PartSet {
    /// Lists the folder. Files left half done by a seal, a compaction or a deletion are removed.
    pub(crate) fn list(disk: &Arc<dyn Disk>, data_dir: &Path) -> io::Result<PartSet> {
        let mut set = PartSet::default();
        compacted::settle(&**disk, &folder(data_dir))?;
        for path in disk.list(&folder(data_dir))? {
            match PartName::parse(&path) {
                Some(name) => {
                    let bytes = disk.size(&path)?;
                    set.insert(Arc::new(Part::new(disk.clone(), path, name, bytes)));
                }
                None if path.extension().is_some_and(|e| e == "tmp") => drop(disk.remove(&path)),
                None if Commit::parse(&path).is_some() => {}
                None => tracing::warn!(path = %path.display(), "ignoring a file that is not a part"),
            }
        }
        Ok(set)
    }

    pub(crate) fn insert(&mut self, part: Arc<Part>) {
        self.bytes += part.bytes;
        let parts = self.hours.entry(part.name.hour).or_default();
        parts.push(part);
        // Retention drops files in this order, too: killed halfway, it leaves no rows without their names.
        parts.sort_by_key(|part| matches!(part.name.kind, Kind::Names | Kind::Stacks));
    }

    /// Takes parts out; returns those that were in.
    pub(crate) fn remove(&mut self, damaged: &[Arc<Part>]) -> Vec<Arc<Part>> {
        let mut removed = Vec::new();
        for part in damaged {
            let Some(parts) = self.hours.get_mut(&part.name.hour) else {
                continue;
            };
            let before = parts.len();
            parts.retain(|p| p.path != part.path);
            if parts.len() < before {
                self.bytes -= part.bytes;
                removed.push(part.clone());
            }
            if parts.is_empty() {
                self.hours.remove(&part.name.hour);
            }
        }
        removed
    }

    /// Drops what is past retention, oldest first: samples separately from everything else, each by age and by size.
    pub(crate) fn retain(&mut self, keep: &Keep) -> Dropped {
        let mut dropped = Dropped::default();
        let (mut sample_bytes, mut other_bytes) = (0, 0);
        for part in self.iter() {
            let bytes = if part.name.kind.is_of_single_samples() {
                &mut sample_bytes
            } else {
                &mut other_bytes
            };
            *bytes += part.bytes;
        }
        let hours: Vec<u32> = self.hours.keys().copied().collect();
        for hour in hours {
            let Some(parts) = self.hours.get_mut(&hour) else {
                continue;
            };
            let end = parts.iter().map(|part| part.name.extent().end).max().unwrap_or(hour);
            if end <= keep.oldest_hour || other_bytes > keep.other_bytes {
                for part in self.hours.remove(&hour).unwrap_or_default() {
                    if part.name.kind.is_of_single_samples() {
                        sample_bytes -= part.bytes;
                    } else {
                        other_bytes -= part.bytes;
                    }
                    self.bytes -= part.bytes;
                    part.give_up();
                }
                dropped.hours.push(hour);
                continue;
            }
            parts.retain(|part| {
                let old = part.name.extent().end <= keep.oldest_samples || sample_bytes > keep.sample_bytes;
                if !part.name.kind.is_of_single_samples() || !old {
                    return true;
                }
                sample_bytes -= part.bytes;
                self.bytes -= part.bytes;
                part.give_up();
                dropped.sample_parts += 1;
                false
            });
        }
        dropped
    }

    /// All parts, oldest hours first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Part>> {
        self.hours.values().flatten()
    }

    /// Parts that have rows of the hours of a range.
    pub(crate) fn within(&self, hours: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = &Arc<Part>> {
        let (first, last) = hours.into_inner();
        self.hours
            .range(first.saturating_sub(MAX_HOURS - 1)..=last)
            .flat_map(|(_, parts)| parts)
            .filter(move |part| part.name.extent().end > first)
    }

    /// Parts that have rows of an hour.
    pub(crate) fn of_hour(&self, hour: u32) -> impl Iterator<Item = &Arc<Part>> {
        self.within(hour..=hour)
    }

    /// True when an hour has parts.
    pub(crate) fn has_hour(&self, hour: u32) -> bool {
        self.of_hour(hour).next().is_some()
    }

    /// The parts written together with the part of this name.
    pub(crate) fn beside(&self, name: PartName) -> impl Iterator<Item = &Arc<Part>> {
        let parts = self.hours.get(&name.hour).map_or(&[][..], Vec::as_slice);
        parts.iter().filter(move |part| part.name.is_beside(&name))
    }

    /// Drops the parts that compacted ones replace.
    pub(crate) fn give_up(&mut self, replaced: &[Arc<Part>]) {
        for part in self.remove(replaced) {
            part.give_up();
        }
    }

    /// True when all of these parts are there.
    pub(crate) fn holds(&self, parts: &[Arc<Part>]) -> bool {
        parts.iter().all(|part| self.by_name(part.name).is_some())
    }

    /// The part with a name.
    pub(crate) fn by_name(&self, name: PartName) -> Option<&Arc<Part>> {
        self.beside(name).find(|part| part.name == name)
    }

    /// The part with a file name.
    pub(crate) fn by_file(&self, file: &str) -> Option<&Arc<Part>> {
        self.by_name(PartName::parse(Path::new(file))?)
    }

    /// True when a row of this kind and hour from batch `lsn` is sealed. Samples are sealed even where only their
    /// roll-up is left: added to it, they would count twice.
    pub(crate) fn covers(&self, kind: Kind, hour: u32, lsn: Lsn) -> bool {
        self.of_hour(hour)
            .any(|part| part.name.kind.table() == Some(kind) && part.name.covers(lsn))
    }

    /// The sequence for the next parts of an hour.
    pub(crate) fn next_sequence(&self, hour: u32) -> u32 {
        self.of_hour(hour)
            .map(|part| part.name.sequence)
            .max()
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// The highest batch number that is sealed.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.iter().map(|part| part.name.last_lsn).max().unwrap_or(0)
    }

    /// The newest hour.
    pub(crate) fn newest_hour(&self) -> Option<u32> {
        self.iter().map(|part| part.name.extent().end - 1).max()
    }

    /// Number, bytes and rows of the parts.
    pub(crate) fn size(&self) -> PartsSize {
        let rows = self.iter().filter(|part| ROW_KINDS.contains(&part.name.kind));
        let hours: BTreeSet<u32> = self.iter().flat_map(|part| part.name.extent()).collect();
        PartsSize {
            hours: hours.len() as u64,
            files: self.iter().count() as u64,
            bytes: self.bytes,
            rows: rows.map(|part| part.name.rows).sum(),
        }
    }
}

/// What retention keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Samples of hours before this one are dropped; sums per hour stay.
    pub(crate) oldest_samples: u32,
    /// Everything of hours before this one is dropped.
    pub(crate) oldest_hour: u32,
    /// The most bytes for samples.
    pub(crate) sample_bytes: u64,
    /// The most bytes for everything else.
    pub(crate) other_bytes: u64,
}

/// What retention dropped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Whole hours.
    pub(crate) hours: Vec<u32>,
    /// Parts of samples whose hours are kept.
    pub(crate) sample_parts: u64,
}

/// How much is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartsSize {
    pub(crate) hours: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Rows of the hour tables.
    pub(crate) rows: u64,
}

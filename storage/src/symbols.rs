//! Names of native locations, one file per build: `symbols/<build>.sym`.
//!
//! Guarantees: what [`Symbols::put`] stored is on disk when it returns; records are only appended, so a crash or a
//! damaged byte costs one record, whose locations are asked for again. A location for which nothing was found is stored
//! as such and not asked for again. Names are never written anywhere else, so no stored data changes when they arrive.

mod file;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use emberline_model::{Frame, Mapping};
use parking_lot::{Mutex, RwLock};
use prost::Message;

use crate::{disk::Disk, error::SymbolError, framing, packed_frames::PackedFrames, stats::Counters};

pub(crate) use file::{BuildSymbols, check, intact, path_of, remove};
use file::{LOCATIONS_PER_RECORD, MAGIC, read};

/// A build with known native locations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildInfo {
    /// GNU build id; empty when the file has none.
    pub build_id: String,
    /// Path as a process saw it.
    pub path: String,
    /// Locations seen.
    pub locations: u64,
    /// Locations that were looked up, with or without success.
    pub resolved: u64,
}

struct Build {
    mapping: Arc<Mapping>,
    seen: HashSet<u64>,
    /// Those of `seen` that were not looked up yet.
    missing: HashSet<u64>,
}

/// All builds.
pub(crate) struct Symbols {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    counters: Arc<Counters>,
    /// By [`Mapping::key`]; loaded when first asked for.
    loaded: RwLock<HashMap<String, Arc<RwLock<BuildSymbols>>>>,
    builds: Mutex<HashMap<String, Build>>,
    /// Counts changes of names.
    version: AtomicU64,
    /// One writer at a time, so that records do not interleave.
    writing: Mutex<()>,
}

impl Symbols {
    pub(crate) fn new(data_dir: &Path, disk: Arc<dyn Disk>, counters: Arc<Counters>) -> Symbols {
        Symbols {
            disk,
            dir: data_dir.join("symbols"),
            counters,
            loaded: RwLock::default(),
            builds: Mutex::default(),
            version: AtomicU64::new(0),
            writing: Mutex::new(()),
        }
    }

    fn path_of(&self, key: &str) -> PathBuf {
        path_of(&self.dir, key)
    }

    /// A number that changes with the names: at the same number, lookups give the same names.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The symbols of a build, read from its file the first time.
    pub(crate) fn build(&self, key: &str) -> Arc<RwLock<BuildSymbols>> {
        if let Some(symbols) = self.loaded.read().get(key) {
            return symbols.clone();
        }
        // Read under the lock: a copy read before somebody else's write must not replace what they stored.
        let mut loaded = self.loaded.write();
        loaded
            .entry(key.to_owned())
            .or_insert_with(|| Arc::new(RwLock::new(self.load(key))))
            .clone()
    }

    fn load(&self, key: &str) -> BuildSymbols {
        let path = self.path_of(key);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error, "cannot read symbols");
                    self.counters.symbol_records_damaged.add(1);
                }
                return BuildSymbols::default();
            }
        };
        let (symbols, damaged) = read(&bytes);
        if damaged > 0 {
            tracing::warn!(path = %path.display(), damaged, "skipped damaged symbols; they will be requested again");
            self.counters.symbol_records_damaged.add(damaged);
        }
        symbols
    }

    /// Stores the frames of a build's locations; an empty list of frames says that there is no name to be had.
    pub(crate) fn put(&self, key: &str, located: &[(u64, Vec<Frame>)]) -> Result<(), SymbolError> {
        if located.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.writing.lock();
        let symbols = self.build(key);
        let path = self.path_of(key);
        let mut sequence = symbols.read().records;
        let mut bytes = Vec::new();
        for part in located.chunks(LOCATIONS_PER_RECORD) {
            sequence += 1;
            framing::encode(&mut bytes, sequence, 0, &PackedFrames::of(part).encode_to_vec());
        }
        self.append(&path, &bytes).map_err(|source| SymbolError::Io {
            path: path.clone(),
            source: Arc::new(source),
        })?;
        {
            let mut symbols = symbols.write();
            symbols.records = sequence;
            located
                .iter()
                .for_each(|(offset, frames)| symbols.insert(*offset, frames));
        }
        self.version.fetch_add(1, Ordering::Release);
        if let Some(build) = self.builds.lock().get_mut(key) {
            for (offset, _) in located {
                build.missing.remove(offset);
            }
        }
        Ok(())
    }

    /// Forgets the names of a build, on disk as well: its locations have to be looked up again.
    pub(crate) fn forget(&self, key: &str) -> Result<(), SymbolError> {
        let _one_at_a_time = self.writing.lock();
        let path = self.path_of(key);
        remove(&*self.disk, &path).map_err(|source| SymbolError::Io {
            path,
            source: Arc::new(source),
        })?;
        self.loaded.write().remove(key);
        self.version.fetch_add(1, Ordering::Release);
        if let Some(build) = self.builds.lock().get_mut(key) {
            build.missing = build.seen.clone();
        }
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let (mut file, mut length) = match self.disk.open(path) {
            Ok(file) => (file, self.disk.size(path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.disk.create_dir_all(&self.dir)?;
                (self.disk.create(path)?, 0)
            }
            Err(error) => return Err(error),
        };
        // A file cut within its magic bytes holds no record, and one appended to it would not be found.
        if (1..MAGIC.len() as u64).contains(&length) {
            file.truncate(0)?;
            length = 0;
        }
        let written = (|| {
            if length == 0 {
                file.append(MAGIC)?;
            }
            file.append(bytes)?;
            file.sync()?;
            if length == 0 {
                self.disk.sync_dir(&self.dir)
            } else {
                Ok(())
            }
        })();
        if written.is_err() {
            // If this fails, the remains of the attempt are skipped as damage.
            let _ = file.truncate(length);
        }
        written
    }

    /// Forgets which locations were seen, and the symbols in memory; those on disk stay.
    pub(crate) fn forget_seen(&self) {
        let _not_while_writing = self.writing.lock();
        self.builds.lock().clear();
        self.loaded.write().clear();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Records native locations.
    pub(crate) fn note(&self, mapping: &Arc<Mapping>, offsets: &[u64]) {
        let key = mapping.key();
        let symbols = self.build(&key);
        let symbols = symbols.read();
        let mut builds = self.builds.lock();
        let build = builds.entry(key.into_owned()).or_insert_with(|| Build {
            mapping: mapping.clone(),
            seen: HashSet::new(),
            missing: HashSet::new(),
        });
        for &offset in offsets {
            if build.seen.insert(offset) && symbols.functions(offset).is_none() {
                build.missing.insert(offset);
            }
        }
    }

    /// Locations not looked up yet, at most `limit` of each build, ascending.
    pub(crate) fn unresolved(&self, limit: usize) -> Vec<(Mapping, Vec<u64>)> {
        let builds = self.builds.lock();
        let mut result: Vec<(Mapping, Vec<u64>)> = builds
            .values()
            .filter(|build| !build.missing.is_empty())
            .map(|build| {
                let mut offsets: Vec<u64> = build.missing.iter().copied().collect();
                offsets.sort_unstable();
                offsets.truncate(limit);
                ((*build.mapping).clone(), offsets)
            })
            .collect();
        result.sort_by(|a, b| a.0.key().cmp(&b.0.key()));
        result
    }

    /// Builds seen, sorted by path.
    pub(crate) fn builds(&self) -> Vec<BuildInfo> {
        let builds = self.builds.lock();
        let mut infos: Vec<BuildInfo> = builds
            .values()
            .map(|build| BuildInfo {
                build_id: build.mapping.build_id.clone(),
                path: build.mapping.path.clone(),
                locations: build.seen.len() as u64,
                resolved: (build.seen.len() - build.missing.len()) as u64,
            })
            .collect();
        infos.sort_by(|a, b| (&a.path, &a.build_id).cmp(&(&b.path, &b.build_id)));
        infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{FaultyDisk, MemoryDisk};

    fn frame(function: &str, line: u32) -> Frame {
        Frame {
            function: function.into(),
            file: "src/lib.rs".into(),
            line,
        }
    }

    fn symbols(disk: &MemoryDisk) -> Symbols {
        Symbols::new(Path::new("/data"), Arc::new(disk.clone()), Arc::default())
    }

    fn mapping() -> Arc<Mapping> {
        Arc::new(Mapping {
            build_id: "0123456789abcdef".into(),
            path: "/bin/shop".into(),
        })
    }

    #[test]
    fn symbols_survive_and_are_not_asked_for_again() {
        let disk = MemoryDisk::new();
        let mapping = mapping();
        let first = symbols(&disk);
        first.note(&mapping, &[16, 32, 48]);
        assert_eq!(first.unresolved(2), vec![((*mapping).clone(), vec![16, 32])]);
        first
            .put(
                &mapping.key(),
                &[(16, vec![frame("inner", 3), frame("outer", 9)]), (32, vec![])],
            )
            .unwrap();
        assert_eq!(first.unresolved(9), vec![((*mapping).clone(), vec![48])]);
        disk.crash(|_| 0);
        let second = symbols(&disk);
        second.note(&mapping, &[16, 32, 48]);
        assert_eq!(second.unresolved(9), vec![((*mapping).clone(), vec![48])]);
        let build = second.build(&mapping.key());
        let build = build.read();
        let names: Vec<&str> = build.functions(16).unwrap().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["inner", "outer"]);
        assert_eq!(build.functions(32).unwrap().count(), 0);
        assert_eq!(second.builds()[0].resolved, 2);
    }

    #[test]
    fn names_that_are_forgotten_are_looked_up_anew() {
        let disk = MemoryDisk::new();
        let first = symbols(&disk);
        first.note(&mapping(), &[1, 2]);
        first.put(&mapping().key(), &[(1, vec![frame("planted", 1)])]).unwrap();
        let version = first.version();
        first.forget(&mapping().key()).unwrap();
        assert_ne!(first.version(), version);
        assert_eq!(first.unresolved(9)[0].1, [1, 2]);
        assert!(first.build(&mapping().key()).read().functions(1).is_none());
        first.put(&mapping().key(), &[(1, vec![frame("true", 1)])]).unwrap();
        let again = symbols(&disk);
        let build = again.build(&mapping().key());
        let names: Vec<String> = build.read().functions(1).unwrap().map(|f| f.name.clone()).collect();
        assert_eq!(names, ["true"]);
    }

    /// A file whose *name* reads like the build id of another must not take its place in the table, and its names with
    /// it.
    #[test]
    fn a_path_that_reads_like_a_build_id_leaves_that_build_its_names() {
        let symbols = symbols(&MemoryDisk::new());
        let impostor = Arc::new(Mapping {
            build_id: String::new(),
            path: mapping().build_id.clone(),
        });
        symbols.note(&impostor, &[1]);
        symbols.note(&mapping(), &[1]);
        let waiting: Vec<Mapping> = symbols.unresolved(9).into_iter().map(|(mapping, _)| mapping).collect();
        assert_eq!(waiting, [(*mapping()).clone(), (*impostor).clone()]);
        symbols.put(&mapping().key(), &[(1, vec![frame("f", 1)])]).unwrap();
        assert!(symbols.build(&impostor.key()).read().functions(1).is_none());
    }

    #[test]
    fn a_damaged_record_is_counted_and_only_its_locations_are_asked_for_again() {
        let disk = MemoryDisk::new();
        let first = symbols(&disk);
        for offset in [1, 2, 3] {
            first.put(&mapping().key(), &[(offset, vec![frame("f", 1)])]).unwrap();
        }
        let path = first.path_of(&mapping().key());
        disk.damage(&path, |bytes| bytes[MAGIC.len() + 25] ^= 4);
        let second = symbols(&disk);
        second.note(&mapping(), &[1, 2, 3]);
        assert_eq!(second.unresolved(9)[0].1, vec![1]);
        assert_eq!(second.counters.symbol_records_damaged.get(), 1);
        second.put(&mapping().key(), &[(1, vec![])]).unwrap();
        let third = symbols(&disk);
        third.note(&mapping(), &[1, 2, 3]);
        assert!(third.unresolved(9).is_empty());
    }

    #[test]
    fn symbols_are_kept_in_a_file_that_was_cut_within_its_first_bytes() {
        for left in 0..=MAGIC.len() {
            let disk = MemoryDisk::new();
            symbols(&disk)
                .put(&mapping().key(), &[(1, vec![frame("f", 1)])])
                .unwrap();
            let path = symbols(&disk).path_of(&mapping().key());
            disk.damage(&path, |bytes| bytes.truncate(left));
            symbols(&disk)
                .put(&mapping().key(), &[(1, vec![frame("f", 1)])])
                .unwrap();
            let again = symbols(&disk);
            again.note(&mapping(), &[1]);
            assert!(again.unresolved(9).is_empty(), "{left}");
        }
    }

    #[test]
    fn a_full_disk_fails_the_call_and_leaves_earlier_symbols() {
        let memory = MemoryDisk::new();
        let faulty = FaultyDisk::new(Arc::new(memory.clone()));
        let symbols = Symbols::new(Path::new("/data"), Arc::new(faulty.clone()), Arc::default());
        symbols.put(&mapping().key(), &[(1, vec![frame("f", 1)])]).unwrap();
        faulty.set_budget(Some(10));
        assert!(symbols.put(&mapping().key(), &[(2, vec![frame("g", 1)])]).is_err());
        faulty.set_budget(None);
        symbols.put(&mapping().key(), &[(3, vec![frame("h", 1)])]).unwrap();
        let again = Symbols::new(Path::new("/data"), Arc::new(memory), Arc::default());
        let build = again.build(&mapping().key());
        let known = [1, 2, 3].map(|offset| build.read().functions(offset).is_some());
        assert_eq!(known, [true, false, true]);
        assert_eq!(again.counters.symbol_records_damaged.get(), 0);
    }

    #[test]
    fn hostile_build_keys_stay_inside_the_folder() {
        let symbols = symbols(&MemoryDisk::new());
        for key in ["../../etc/passwd", "", "/bin/true", "ABCDEF0123456789", "a\0b"] {
            let path = symbols.path_of(key);
            assert_eq!(path.parent(), Some(Path::new("/data/symbols")));
            assert!(path.file_name().unwrap().to_str().unwrap().starts_with('x'), "{key}");
        }
    }
}

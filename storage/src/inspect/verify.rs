//! Reads every checksum of a store that no process has open.
//!
//! Guarantee: nothing is changed. The engine's file is read completely, too, although it is disposable: an unreadable
//! one costs a start the time to rebuild it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Layout, OnProgress, hot_file, is_half_written};
use crate::{
    checks, deletions,
    disk::Disk,
    error::OpenError,
    history,
    hot::hours,
    journal::inspect as segments,
    lock::DirLock,
    parts::{Commit, PartName, ROW_KINDS},
    records, symbols,
};

/// Bytes read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// Something that is not as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file, below the data directory.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
    /// What it held, as far as that can be known, and what happens to that.
    pub held: String,
}

/// Result of reading every byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Intact batches in the journal.
    pub journal_batches: u64,
    /// Rows in intact sealed files.
    pub sealed_rows: u64,
    /// Intact locations in symbol files.
    pub symbols: u64,
    /// Files left half done by a killed process; a repair removes them.
    pub leftovers: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Reads everything and reports what is damaged. `memory_limit_mb` bounds the query engine.
pub fn verify(
    data_dir: &Path,
    disk: &dyn Disk,
    memory_limit_mb: u64,
    progress: &mut OnProgress<'_>,
) -> Result<Verified, OpenError> {
    // Under a running process, files would come and go.
    let _lock = Layout::read(disk, data_dir).and_then(|_| DirLock::take_unchanged(data_dir))?;
    look(data_dir, disk, memory_limit_mb, progress)
}

/// Like [`verify`], for a caller that has the lock.
pub(super) fn look(
    data_dir: &Path,
    disk: &dyn Disk,
    memory_limit_mb: u64,
    progress: &mut OnProgress<'_>,
) -> Result<Verified, OpenError> {
    let layout = Layout::read(disk, data_dir)?;
    let read = [
        &layout.journal,
        &layout.parts,
        &layout.symbols,
        &layout.hot,
        &layout.records,
    ];
    let all_bytes = read.into_iter().flatten().map(|(_, bytes)| bytes).sum();
    let mut look = Look {
        data_dir,
        disk,
        all_bytes,
        progress,
        found: Verified {
            leftovers: layout.leftovers().count() as u64,
            ..Verified::default()
        },
    };
    look.journal(&layout)?;
    look.parts(&layout)?;
    look.symbols(&layout)?;
    look.records(&layout)?;
    look.hot(&layout, memory_limit_mb);
    Ok(look.found)
}

struct Look<'a, 'p> {
    data_dir: &'a Path,
    disk: &'a dyn Disk,
    all_bytes: u64,
    progress: &'a mut OnProgress<'p>,
    found: Verified,
}

impl Look<'_, '_> {
    fn damaged(&mut self, path: &Path, what: impl Into<String>, held: impl Into<String>) {
        let file = path
            .strip_prefix(self.data_dir)
            .map(Path::to_owned)
            .unwrap_or_else(|_| {
                // The folder of parts has an absolute path.
                let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
                PathBuf::from(folder).join(path.file_name().unwrap_or_default())
            });
        self.found.damage.push(Damage {
            file: file.display().to_string(),
            what: what.into(),
            held: held.into(),
        });
    }

    fn begin(&mut self, path: &Path) {
        (self.progress)(path, self.found.bytes, self.all_bytes);
    }

    fn done(&mut self, bytes: u64) {
        self.found.files += 1;
        self.found.bytes += bytes;
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, OpenError> {
        self.begin(path);
        let bytes = self.disk.read(path).map_err(|source| OpenError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        self.done(bytes.len() as u64);
        Ok(bytes)
    }

    fn journal(&mut self, layout: &Layout) -> Result<(), OpenError> {
        let mut files = Vec::new();
        for (path, _) in &layout.journal {
            match segments::first_lsn_of(path) {
                Some(first) => files.push((first, path)),
                None if path.file_name().is_some_and(|name| name == "dedup.bin") => {
                    let bytes = self.read(path)?;
                    if segments::senders(&bytes).is_none() {
                        let held = "the list of stored batches; the next start rebuilds it from the journal, as far back as it goes";
                        self.damaged(path, "its checksum is wrong", held);
                    }
                }
                None => {}
            }
        }
        files.sort();
        for (at, &(first, path)) in files.iter().enumerate() {
            let bytes = self.read(path)?;
            let checked = segments::check(&bytes, first, files.get(at + 1).map(|next| next.0));
            self.found.journal_batches += checked.batches;
            for (what, held) in checked.damage {
                self.damaged(path, what, held);
            }
        }
        Ok(())
    }

    fn parts(&mut self, layout: &Layout) -> Result<(), OpenError> {
        for (path, _) in &layout.parts {
            match PartName::parse(path) {
                Some(name) => self.part(path, &name)?,
                None if is_half_written(path) || Commit::parse(path).is_some() => {}
                None => self.damaged(
                    path,
                    "its name is not that of a sealed file",
                    "unknown; this file is never read",
                ),
            }
        }
        Ok(())
    }

    fn part(&mut self, path: &Path, name: &PartName) -> Result<(), OpenError> {
        self.begin(path);
        let (mut checksum, mut at) = (0, 0);
        loop {
            let bytes = self.disk.read_range(path, at, CHUNK_BYTES);
            let bytes = bytes.map_err(|source| OpenError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
            checksum = crc32c::crc32c_append(checksum, &bytes);
            at += bytes.len() as u64;
            (self.progress)(path, self.found.bytes + at, self.all_bytes);
            if (bytes.len() as u64) < CHUNK_BYTES {
                break;
            }
        }
        self.done(at);
        let is_rows = ROW_KINDS.contains(&name.kind);
        if checksum == name.checksum {
            self.found.sealed_rows += if is_rows { name.rows } else { 0 };
            return Ok(());
        }
        let held = format!(
            "{} rows of {} of {} from {} (UTC), from batches {} to {}",
            name.rows,
            name.kind.word(),
            match name.hours {
                1 => "the hour".to_owned(),
                hours => format!("{hours} hours"),
            },
            hours::written(name.hour),
            name.first_lsn,
            name.last_lsn
        );
        self.damaged(path, "its checksum is wrong", held);
        Ok(())
    }

    fn symbols(&mut self, layout: &Layout) -> Result<(), OpenError> {
        for (path, _) in layout.symbols.iter().filter(|(path, _)| !is_half_written(path)) {
            let bytes = self.read(path)?;
            let checked = symbols::check(&bytes);
            self.found.symbols += checked.locations;
            if checked.damaged > 0 {
                let what = format!("{} damaged places", checked.damaged);
                self.damaged(path, what, "symbols of a build; they will be resolved again");
            }
        }
        Ok(())
    }

    fn records(&mut self, layout: &Layout) -> Result<(), OpenError> {
        for (path, _) in &layout.records {
            let bytes = self.read(path)?;
            let places = records::damaged_places(&bytes);
            if places == 0 {
                continue;
            }
            let held = if path.ends_with(deletions::FILE) {
                "entries of the deletion list: remaining data of these services becomes visible; delete them again"
            } else if path.ends_with(history::FILE) {
                "start times of releases: the next start rebuilds them from stored windows; declare releases from CI again"
            } else if path.ends_with(checks::FILE) {
                "the identifier check key: the next start creates a new one and rebuilds the query engine's file"
            } else {
                "the delivery state of alerts: receivers may be notified twice, or not when an alert ends"
            };
            self.damaged(path, format!("{places} damaged places"), held);
        }
        Ok(())
    }

    fn hot(&mut self, layout: &Layout, memory_limit_mb: u64) {
        let Some((path, _)) = layout.hot.first() else { return };
        self.begin(path);
        if let Err(error) = hot_file::check(path, memory_limit_mb) {
            let held = "only data that is also in the journal or in sealed files; the next start rebuilds it";
            self.damaged(path, format!("the query engine cannot read it: {error}"), held);
        }
        for (_, bytes) in &layout.hot {
            self.done(*bytes);
        }
    }
}

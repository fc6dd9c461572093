//! Inspects a store from outside: what its folder contains, whether every byte of it is as written, repairs what is
//! not, and deletes a service.
//!
//! Guarantees: [`describe`] and [`verify`] change nothing, not even the lock file; [`verify`], [`repair`] and
//! [`delete`] are refused while another process has the folder open; damage is reported with the file and with what it
//! held. Wrong on purpose: a missing sealed file goes unnoticed, because the folder is the manifest.

mod delete;
mod hot_file;
mod repair;
pub mod symbols;
mod verify;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use crate::{
    checks, deletions,
    disk::Disk,
    error::OpenError,
    history,
    hot::{database, hours},
    journal::inspect as segments,
    lock::DirLock,
    options::Options,
    parts::{self, PartName, ROW_KINDS},
    store::{ALERTS_FILE, NAMES_FILE},
};

pub use delete::{DeleteFromError, delete};
pub use repair::{RepairError, Repaired, repair};
pub use verify::{Damage, Verified, verify};

/// Called with the progress of a long run: the file being read, bytes read so far, bytes of all files.
pub type OnProgress<'a> = dyn FnMut(&Path, u64, u64) + 'a;

/// Ten thousand years: longer than anything is kept, and far from overflow.
const FOR_EVER: Duration = Duration::from_secs(10_000 * 365 * 86_400);

/// Options for a store opened once for maintenance: how long data is kept is up to the server.
fn keeping_everything(options: Options) -> Options {
    Options {
        retention: FOR_EVER,
        rollup_retention: FOR_EVER,
        samples_limit_mb: u64::MAX >> 20,
        rollup_limit_mb: u64::MAX >> 20,
        compact_after: FOR_EVER,
        ..options
    }
}

/// A number of files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Files {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// Sealed files of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SealedKind {
    /// What they hold.
    pub kind: &'static str,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
}

/// The contents of a store's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreContents {
    /// The process that has the store open; 0 if it did not record its id.
    pub in_use_by: Option<u32>,
    /// Bytes of all files listed here.
    pub bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Journal segments: data that is not sealed yet.
    pub journal: Files,
    /// Number of the first batch that the journal may hold.
    pub first_lsn: Option<u64>,
    /// The query engine's file and its write-ahead log; disposable.
    pub hot: Files,
    /// Sealed files by what they hold.
    pub sealed: Vec<SealedKind>,
    /// Hours with sealed data.
    pub sealed_hours: u64,
    /// Start of the first of them, seconds since the Unix epoch.
    pub first_sealed_s: Option<i64>,
    /// End of the last of them.
    pub last_sealed_s: Option<i64>,
    /// Sealed rows: samples, requests and windows.
    pub sealed_rows: u64,
    /// Symbol files, one per build.
    pub symbols: Files,
    /// Damaged files that were set aside.
    pub quarantine: Files,
    /// Files left half done by a killed process; of no use.
    pub leftovers: Files,
}

/// The folders inspected, with the files in each.
struct Layout {
    journal: Vec<(PathBuf, u64)>,
    parts: Vec<(PathBuf, u64)>,
    symbols: Vec<(PathBuf, u64)>,
    quarantine: Vec<(PathBuf, u64)>,
    temporary: Vec<(PathBuf, u64)>,
    hot: Vec<(PathBuf, u64)>,
    /// Files of deleted services, of releases, of alerts, of names, and of the checks' key.
    records: Vec<(PathBuf, u64)>,
}

impl Layout {
    fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Layout, OpenError> {
        let is_store = ["LOCK", "journal", "parts", "hot.duckdb"]
            .iter()
            .any(|name| data_dir.join(name).exists());
        if !is_store {
            return Err(OpenError::NoStore {
                path: data_dir.to_owned(),
            });
        }
        let list = |dir: PathBuf| {
            let sized = |path: PathBuf| {
                // A file that disappears while it is looked at counts as gone.
                let bytes = disk.size(&path).unwrap_or(0);
                (path, bytes)
            };
            match disk.list(&dir) {
                Ok(paths) => Ok(paths.into_iter().map(sized).collect::<Vec<_>>()),
                Err(source) => Err(OpenError::Unreadable { path: dir, source }),
            }
        };
        let hot = database::path_of(data_dir);
        let engine_files = [hot.clone(), database::wal_of(&hot)];
        let records =
            [deletions::FILE, history::FILE, ALERTS_FILE, NAMES_FILE, checks::FILE].map(|file| data_dir.join(file));
        Ok(Layout {
            journal: list(segments::folder(data_dir))?,
            parts: list(parts::folder(data_dir))?,
            symbols: list(data_dir.join("symbols"))?,
            quarantine: list(data_dir.join("quarantine"))?,
            temporary: list(data_dir.join("tmp"))?,
            hot: engine_files
                .into_iter()
                .filter_map(|path| Some((path.clone(), disk.size(&path).ok()?)))
                .collect(),
            records: records
                .into_iter()
                .filter_map(|path| Some((path.clone(), disk.size(&path).ok()?)))
                .collect(),
        })
    }

    /// Useless files: half-written ones, and intermediate results of questions that were cut off.
    fn leftovers(&self) -> impl Iterator<Item = &(PathBuf, u64)> {
        let half_written = [&self.journal, &self.parts, &self.symbols];
        let half_written = half_written
            .into_iter()
            .flatten()
            .filter(|(path, _)| is_half_written(path));
        half_written.chain(&self.temporary)
    }
}

fn is_half_written(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

fn sum<'a>(files: impl IntoIterator<Item = &'a (PathBuf, u64)>) -> Files {
    let mut all = Files::default();
    files.into_iter().for_each(|(_, bytes)| all.add(*bytes));
    all
}

/// Lists the contents of a folder by names and sizes; also while a process has it open.
pub fn describe(data_dir: &Path, disk: &dyn Disk) -> Result<StoreContents, OpenError> {
    let layout = Layout::read(disk, data_dir)?;
    // Held only for a moment: a process that starts at this very moment is refused and has to be started again.
    let in_use_by = match DirLock::take_unchanged(data_dir) {
        Ok(_) => None,
        Err(OpenError::LockedByOther { pid, .. }) => Some(pid),
        Err(error) => return Err(error),
    };
    let mut contents = StoreContents {
        in_use_by,
        free_bytes: disk.free_bytes(data_dir).unwrap_or(0),
        hot: sum(&layout.hot),
        quarantine: sum(&layout.quarantine),
        leftovers: sum(layout.leftovers()),
        symbols: sum(layout.symbols.iter().filter(|(path, _)| !is_half_written(path))),
        ..StoreContents::default()
    };
    for (path, bytes) in layout.journal.iter().filter(|(path, _)| !is_half_written(path)) {
        contents.journal.add(*bytes);
        if let Some(lsn) = segments::first_lsn_of(path) {
            contents.first_lsn = Some(contents.first_lsn.map_or(lsn, |first| first.min(lsn)));
        }
    }
    let mut sealed_hours = std::collections::BTreeSet::new();
    for (path, bytes) in &layout.parts {
        let Some(name) = PartName::parse(path) else { continue };
        // Names come from outside: a forged one must not fill the memory.
        sealed_hours.extend(name.extent().take(1000));
        let kind = name.kind.word();
        let at = match contents.sealed.iter().position(|of| of.kind == kind) {
            Some(at) => at,
            None => {
                contents.sealed.push(SealedKind {
                    kind,
                    files: 0,
                    bytes: 0,
                    rows: 0,
                });
                contents.sealed.len() - 1
            }
        };
        let of = &mut contents.sealed[at];
        of.files += 1;
        of.bytes += bytes;
        of.rows += name.rows;
        if ROW_KINDS.contains(&name.kind) {
            contents.sealed_rows += name.rows;
        }
    }
    let start = |hour: u32| i64::from(hour) * hours::HOUR_S;
    contents.sealed_hours = sealed_hours.len() as u64;
    contents.first_sealed_s = sealed_hours.first().map(|&hour| start(hour));
    contents.last_sealed_s = sealed_hours.last().map(|&hour| start(hour) + hours::HOUR_S);
    let all = [
        &layout.journal,
        &layout.parts,
        &layout.symbols,
        &layout.quarantine,
        &layout.temporary,
        &layout.hot,
        &layout.records,
    ];
    contents.bytes = sum(all.into_iter().flatten()).bytes;
    Ok(contents)
}

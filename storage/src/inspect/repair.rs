//! Repairs a damaged store: what a start does, and what it leaves for later, at once and to the end.
//!
//! Guarantees: nothing intact is removed, whatever the retention settings; every damaged file, or a copy of its damaged
//! bytes, is in the quarantine folder afterwards; each step is reported. Wrong on purpose: batches lost from the
//! journal stay missing in its segments, and are reported again, until everything in those is sealed.

use std::{path::Path, sync::Arc};

use emberline_model::time::Clock;
use serde::Serialize;

use super::{Layout, OnProgress, Verified, is_half_written, keeping_everything, verify};
use crate::{
    disk::{Disk, RealDisk, replace_file},
    error::{OpenError, QueryError},
    lock::DirLock,
    options::Options,
    quarantine,
    stats::StoreStats,
    store::Store,
    symbols,
};

/// What a repair found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// What was found before anything was touched.
    pub found: Verified,
    /// What was done about it, step by step.
    pub done: Vec<String>,
}

/// Why a repair did not finish. What was done by then stays done, and a second repair continues.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The query engine could not catch up with what is stored.
    #[error("cannot bring the query engine up to date: {0}")]
    Engine(#[from] QueryError),
    /// Writing failed.
    #[error("cannot write {path}: {source}; free space or repair the disk, then repair again")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Repairs the store of a folder that no process has open.
pub async fn repair(
    options: Options,
    clock: Arc<dyn Clock>,
    progress: &mut OnProgress<'_>,
) -> Result<Repaired, RepairError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let data_dir = options.data_dir.clone();
    let mut repaired = Repaired::default();
    {
        Layout::read(&*disk, &data_dir)?;
        let _lock = DirLock::take(&data_dir)?;
        repaired.found = verify::look(&data_dir, &*disk, options.memory_limit_mb, progress)?;
        remove_leftovers(&*disk, &data_dir, &mut repaired.done)?;
        rewrite_symbols(&*disk, &data_dir, &*clock, &mut repaired.done)?;
    }
    let store = Store::open_on(keeping_everything(options), clock, disk)?;
    let outcome = finish(&store).await;
    tell(&store.stats(), &mut repaired.done);
    store.close();
    outcome?;
    Ok(repaired)
}

/// Everything that a start leaves to its first questions and its first minutes.
async fn finish(store: &Store) -> Result<(), QueryError> {
    store.set_aside_damaged_parts()?;
    store.flush_applied().await?;
    drop(store.remembered_alerts());
    // Once this is sealed, the journal can drop segments with lost batches.
    store.seal().await
}

fn remove_leftovers(disk: &dyn Disk, data_dir: &Path, done: &mut Vec<String>) -> Result<(), RepairError> {
    let layout = Layout::read(disk, data_dir)?;
    let (mut files, mut bytes) = (0u64, 0);
    for (path, size) in layout.leftovers() {
        disk.remove(path).map_err(|source| RepairError::Io {
            path: path.clone(),
            source,
        })?;
        files += 1;
        bytes += size;
    }
    if files > 0 {
        done.push(format!("removed {files} partial files, {bytes} bytes"));
    }
    Ok(())
}

/// Rewrites damaged symbol files with the records that are intact.
fn rewrite_symbols(
    disk: &dyn Disk,
    data_dir: &Path,
    clock: &dyn Clock,
    done: &mut Vec<String>,
) -> Result<(), RepairError> {
    let layout = Layout::read(disk, data_dir)?;
    for (path, _) in layout.symbols.iter().filter(|(path, _)| !is_half_written(path)) {
        let failed = |source| RepairError::Io {
            path: path.clone(),
            source,
        };
        let bytes = disk.read(path).map_err(failed)?;
        let checked = symbols::check(&bytes);
        if checked.damaged == 0 {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        quarantine::keep_bytes(disk, data_dir, &name, clock.now_unix_ms(), &bytes);
        replace_file(disk, path, &symbols::intact(&bytes)).map_err(failed)?;
        done.push(format!(
            "rewrote symbols/{name} with its {} intact locations; the others will be resolved again",
            checked.locations
        ));
    }
    Ok(())
}

/// What the start counted, in sentences.
fn tell(stats: &StoreStats, done: &mut Vec<String>) {
    let mut say = |count: u64, sentence: String| {
        if count > 0 {
            done.push(sentence);
        }
    };
    let cut = stats.journal_tail_bytes_cut;
    say(
        cut,
        format!(
            "truncated {cut} bytes at the end of the journal that were not a record; a copy is in quarantine unless they were zeros"
        ),
    );
    let lost = stats.journal_records_lost + stats.journal_unreadable_batches;
    say(
        lost,
        format!("{lost} batches in the journal are lost; this is reported until the rest of their segments is sealed"),
    );
    say(
        stats.dedup_rebuilds,
        "rebuilt the list of stored batches from the journal".to_owned(),
    );
    let forgotten = stats.deletions_lost;
    say(
        forgotten,
        format!(
            "lost {forgotten} entries of the deletion list: remaining data of these services is visible again; delete them again"
        ),
    );
    let forgotten = stats.releases_forgotten;
    say(
        forgotten,
        format!(
            "lost the start times of {forgotten} releases and rebuilt them from stored windows; declare releases from CI again"
        ),
    );
    let forgotten = stats.alerts_forgotten;
    say(
        forgotten,
        format!(
            "lost the delivery state of {forgotten} alerts: receivers may be notified twice, or not when an alert ends"
        ),
    );
    say(
        stats.parts_quarantined,
        format!(
            "moved {} sealed files to quarantine, with {} rows",
            stats.parts_quarantined, stats.sealed_rows_lost
        ),
    );
    say(
        stats.hot_rebuilds,
        format!(
            "moved the query engine's file to quarantine and rebuilt it: {} rows from the journal",
            stats.sample_rows + stats.request_rows + stats.window_rows
        ),
    );
    say(stats.seals, format!("sealed {} completed hours", stats.seals));
}

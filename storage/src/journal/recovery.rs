//! Reads the journal at start. Guarantee: no damage prevents a start; what is lost is counted. The bytes after the last
//! intact record of a segment are cut (a torn or zero tail after a crash), and kept in the quarantine folder unless
//! they are all zero: a flipped bit in the very last record looks the same.

use std::path::{Path, PathBuf};

use emberline_model::time::Clock;

use crate::{
    dedup::Dedup,
    disk::{Disk, replace_file},
    error::OpenError,
    framing,
    journal::{
        Lsn, payload,
        segment::{self, Header, Segment},
    },
    quarantine,
    stats::Counters,
};

/// Sequence of the only record in the senders' checkpoint.
const CHECKPOINT_SEQUENCE: u64 = 1;

/// What the journal holds.
pub(super) struct Recovered {
    pub(super) segments: Vec<Segment>,
    pub(super) last_lsn: Lsn,
    /// How far the last file reaches; `None` without files: either everything was trimmed, or the folder is gone.
    pub(super) reaches: Option<Lsn>,
    pub(super) dedup: Dedup,
}

/// The folder of segments.
pub(super) fn journal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

fn checkpoint_path(journal_dir: &Path) -> PathBuf {
    journal_dir.join("dedup.bin")
}

/// Writes the senders' checkpoint next to the segments.
pub(super) fn write_checkpoint(
    disk: &dyn Disk,
    journal_dir: &Path,
    dedup: &Dedup,
    through: Lsn,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    framing::encode(&mut bytes, CHECKPOINT_SEQUENCE, 0, &dedup.encode(through));
    replace_file(disk, &checkpoint_path(journal_dir), &bytes)
}

/// The senders' checkpoint; if it is missing or damaged, no senders are known and it covers nothing (number 0).
fn read_checkpoint(disk: &dyn Disk, journal_dir: &Path, counters: &Counters) -> Result<(Lsn, Dedup), OpenError> {
    let path = checkpoint_path(journal_dir);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, Dedup::default())),
        Err(source) => return Err(OpenError::Unreadable { path, source }),
    };
    let found = framing::scan(&bytes, 0, 0);
    let decoded = found
        .frames
        .first()
        .and_then(|frame| Dedup::decode(&bytes[frame.payload.clone()]));
    Ok(decoded.unwrap_or_else(|| {
        tracing::warn!(path = %path.display(), "the sender state is damaged; rebuilding it from the journal");
        counters.dedup_rebuilds.add(1);
        (0, Dedup::default())
    }))
}

/// Reads every segment once.
pub(super) fn recover(
    data_dir: &Path,
    disk: &dyn Disk,
    clock: &dyn Clock,
    counters: &Counters,
) -> Result<Recovered, OpenError> {
    let dir = journal_dir(data_dir);
    disk.create_dir_all(&dir).map_err(|source| OpenError::NotWritable {
        path: dir.clone(),
        source,
    })?;
    let (through, mut dedup) = read_checkpoint(disk, &dir, counters)?;
    let paths = disk.list(&dir).map_err(|source| OpenError::Unreadable {
        path: dir.clone(),
        source,
    })?;
    let mut files: Vec<(Lsn, PathBuf)> = paths
        .into_iter()
        .filter_map(|path| Some((segment::first_lsn_of(&path)?, path)))
        .collect();
    files.sort();

    let mut segments: Vec<Segment> = Vec::new();
    for (at, (first_lsn, path)) in files.iter().enumerate() {
        let bytes = disk.read(path).map_err(|source| OpenError::Unreadable {
            path: path.clone(),
            source,
        })?;
        match segment::read_header(&bytes) {
            Header::Known => {}
            Header::Newer(found) => {
                return Err(OpenError::NewerFormat {
                    path: path.clone(),
                    found,
                    known: segment::VERSION,
                });
            }
            Header::Damaged => {
                counters
                    .journal_bytes_damaged
                    .add(bytes.len().min(segment::HEADER_BYTES) as u64);
            }
        }
        let scan = framing::scan(&bytes, segment::HEADER_BYTES, first_lsn - 1);
        let end = scan.tail.start.min(bytes.len());
        cut_tail(data_dir, disk, clock, counters, path, &bytes, end);

        let damaged: usize = scan.damaged.iter().map(ExactSizeIterator::len).sum();
        counters.journal_bytes_damaged.add(damaged as u64);
        // Records at or above the next segment's first number were never acknowledged.
        let void_from = files.get(at + 1).map_or(Lsn::MAX, |next| next.0);
        let valid: Vec<_> = scan.frames.iter().filter(|f| f.sequence < void_from).collect();
        if let Some(last) = valid.last() {
            // Numbers are dense, so a missing number is a lost batch.
            counters
                .journal_records_lost
                .add(last.sequence + 1 - first_lsn - valid.len() as u64);
            segments.push(Segment {
                first_lsn: *first_lsn,
                last_lsn: last.sequence,
                newest_s: valid.iter().map(|f| f.stamp).max().unwrap_or(0),
                bytes: last.payload.end as u64,
                path: path.clone(),
            });
        }
        if let Some(next) = files.get(at + 1) {
            let known = valid.last().map_or(first_lsn - 1, |f| f.sequence);
            counters.journal_records_lost.add(next.0 - 1 - known);
        }
        for frame in valid.iter().filter(|f| f.sequence > through) {
            match payload::decode(&bytes[frame.payload.clone()]) {
                Ok((_, batch)) => {
                    if let Some(id) = &batch.id {
                        dedup.insert(id, frame.stamp);
                    }
                }
                Err(error) => {
                    tracing::error!(lsn = frame.sequence, %error, "an intact journal record is not a batch");
                    counters.journal_unreadable_batches.add(1);
                }
            }
        }
    }
    let reaches = files.last().map(|(first_lsn, path)| {
        let last = segments.last().filter(|segment| segment.path == *path);
        last.map_or(first_lsn - 1, |segment| segment.last_lsn)
    });
    let last_lsn = segments.last().map_or(0, |s| s.last_lsn).max(through);
    Ok(Recovered {
        segments,
        last_lsn,
        reaches,
        dedup,
    })
}

/// Cuts what follows the last intact record. A failure does not prevent the start: the tail is scanned again next time.
fn cut_tail(
    data_dir: &Path,
    disk: &dyn Disk,
    clock: &dyn Clock,
    counters: &Counters,
    path: &Path,
    bytes: &[u8],
    end: usize,
) {
    // A file shorter than its header has no records; it is replaced when its number is reused.
    let Some(tail) = bytes
        .get(end.max(segment::HEADER_BYTES)..)
        .filter(|tail| !tail.is_empty())
    else {
        return;
    };
    counters.journal_tail_bytes_cut.add(tail.len() as u64);
    tracing::warn!(path = %path.display(), bytes = tail.len(), "truncating the torn or damaged end of the journal");
    if tail.iter().any(|&b| b != 0) {
        let name = path
            .file_name()
            .map_or_else(|| "segment".into(), |n| n.to_string_lossy().into_owned());
        quarantine::keep_bytes(disk, data_dir, &format!("{name}.tail"), clock.now_unix_ms(), tail);
    }
    let cut = disk.open(path).and_then(|mut file| {
        file.truncate(end.max(segment::HEADER_BYTES) as u64)?;
        file.sync()
    });
    if let Err(error) = cut {
        tracing::warn!(path = %path.display(), %error, "cannot truncate a journal segment");
    }
}

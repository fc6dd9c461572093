//! Where damaged bytes go: the folder `quarantine`, for a human to look at. Guarantee: the store never reads a
//! quarantined file again, and the folder holds at most [`KEEP`] files; the oldest are removed first.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, replace_file};

/// Files kept.
const KEEP: usize = 4;

/// An unused path in the quarantine folder; makes room for it.
pub(crate) fn place(disk: &dyn Disk, data_dir: &Path, name: &str, now_unix_ms: i64) -> PathBuf {
    let dir = data_dir.join("quarantine");
    let _ = disk.create_dir_all(&dir);
    let present = disk.list(&dir).unwrap_or_default();
    for old in present.iter().take((present.len() + 1).saturating_sub(KEEP)) {
        let _ = disk.remove(old);
    }
    // The time comes first in the name, so that sorting by name is sorting by age.
    let free = |n: &i64| {
        !disk
            .list(&dir)
            .unwrap_or_default()
            .contains(&dir.join(format!("{n:013}-{name}")))
    };
    let stamp = (now_unix_ms..).find(free).unwrap_or(now_unix_ms);
    dir.join(format!("{stamp:013}-{name}"))
}

/// Keeps a copy of damaged bytes. Failing to keep one is not an error: the damage is counted anyway.
pub(crate) fn keep_bytes(disk: &dyn Disk, data_dir: &Path, name: &str, now_unix_ms: i64, bytes: &[u8]) {
    let path = place(disk, data_dir, name, now_unix_ms);
    if let Err(error) = replace_file(disk, &path, bytes) {
        tracing::warn!(path = %path.display(), %error, "cannot save a copy of damaged bytes");
    }
}

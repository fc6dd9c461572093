//! The last usable contents of files.
//!
//! Guarantees: files are reread when one of them has changed; if they become unusable (a certificate was replaced
//! before its key, a file is half written), the previous contents stay in effect, which is logged once per change.
//! Getting the contents in effect never waits for a file.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::settings::TlsError;

/// The outcome of checking the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// They have not changed.
    Unchanged,
    /// They were read.
    Read,
    /// They have changed and are unusable: the previous contents stay in effect.
    Unusable,
}

/// The contents of files.
#[derive(Debug)]
pub struct Kept<T> {
    paths: Vec<PathBuf>,
    /// Held while the files are read.
    stamps: Mutex<Vec<Stamp>>,
    value: Mutex<Option<Arc<T>>>,
}

/// Identifies a version of a file; links are followed, as mounted secrets are links.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Stamp {
        let data = std::fs::metadata(path).ok();
        Stamp(data.map(|data| (data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec())))
    }
}

impl<T> Kept<T> {
    /// For files that have not been read yet.
    pub fn new(paths: Vec<PathBuf>) -> Kept<T> {
        Kept {
            paths,
            stamps: Mutex::default(),
            value: Mutex::default(),
        }
    }

    /// The contents in effect.
    pub fn get(&self) -> Option<Arc<T>> {
        self.value.lock().clone()
    }

    /// Checks the files, and has them read if they have changed.
    ///
    /// # Errors
    /// When they are unusable and always were.
    pub fn refresh(&self, read: impl FnOnce() -> Result<T, TlsError>) -> Result<Refreshed, TlsError> {
        let mut seen = self.stamps.lock();
        // Before the files are read: what changes meanwhile is read next time.
        let stamps: Vec<Stamp> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        let is_first = self.get().is_none();
        if !is_first && *seen == stamps {
            return Ok(Refreshed::Unchanged);
        }
        match read() {
            Ok(value) => {
                *seen = stamps;
                *self.value.lock() = Some(Arc::new(value));
                if !is_first {
                    tracing::info!("certificates reloaded");
                }
                Ok(Refreshed::Read)
            }
            Err(error) if is_first => Err(error),
            Err(error) => {
                tracing::warn!("the changed certificates cannot be used; keeping the previous ones: {error}");
                *seen = stamps;
                Ok(Refreshed::Unusable)
            }
        }
    }
}

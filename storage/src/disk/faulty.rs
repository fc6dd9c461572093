//! A file system that fails when told to, and remembers in which order things were asked of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{AppendFile, Disk};

/// Something that was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEvent {
    /// A file was created.
    Create(PathBuf),
    /// Bytes were written at its end.
    Append(PathBuf, usize),
    /// Its content was made durable.
    Sync(PathBuf),
    /// A sync was asked for and failed.
    SyncFailed(PathBuf),
    /// A folder was made durable.
    SyncDir(PathBuf),
    /// A file was renamed.
    Rename(PathBuf, PathBuf),
    /// A file was removed.
    Remove(PathBuf),
    /// A mark of the test's own.
    Mark(String),
}

#[derive(Debug, Default)]
struct Faults {
    budget: Option<u64>,
    failing_syncs: u32,
    failing_truncates: u32,
    free: Option<u64>,
    events: Vec<DiskEvent>,
}

/// Wraps a disk and injects faults; clones share them.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Mutex<Faults>>,
}

struct FaultyFile {
    inner: Box<dyn AppendFile>,
    path: PathBuf,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyDisk {
    /// A disk without faults so far.
    pub fn new(inner: Arc<dyn Disk>) -> FaultyDisk {
        FaultyDisk {
            inner,
            faults: Arc::default(),
        }
    }

    /// From now on only `bytes` more bytes can be written (`None`: no limit). What is too much is written in part
    /// and answered with "no space".
    pub fn set_budget(&self, bytes: Option<u64>) {
        self.faults.lock().budget = bytes;
    }

    /// The next `times` syncs of files fail.
    pub fn fail_syncs(&self, times: u32) {
        self.faults.lock().failing_syncs = times;
    }

    /// The next `times` truncations fail.
    pub fn fail_truncates(&self, times: u32) {
        self.faults.lock().failing_truncates = times;
    }

    /// What the disk claims to have free (`None`: the truth).
    pub fn set_free(&self, bytes: Option<u64>) {
        self.faults.lock().free = bytes;
    }

    /// Adds a mark to the record of events.
    pub fn mark(&self, text: &str) {
        self.faults.lock().events.push(DiskEvent::Mark(text.to_owned()));
    }

    /// Everything done so far, in order.
    pub fn events(&self) -> Vec<DiskEvent> {
        self.faults.lock().events.clone()
    }
}

impl AppendFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let allowed = {
            let mut faults = self.faults.lock();
            let allowed = faults.budget.map_or(bytes.len(), |b| bytes.len().min(b as usize));
            if let Some(budget) = &mut faults.budget {
                *budget -= allowed as u64;
            }
            faults.events.push(DiskEvent::Append(self.path.clone(), allowed));
            allowed
        };
        self.inner.append(&bytes[..allowed])?;
        if allowed < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left (injected)"));
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        {
            let mut faults = self.faults.lock();
            if faults.failing_syncs > 0 {
                faults.failing_syncs -= 1;
                faults.events.push(DiskEvent::SyncFailed(self.path.clone()));
                return Err(io::Error::other("input/output error (injected)"));
            }
        }
        self.inner.sync()?;
        self.faults.lock().events.push(DiskEvent::Sync(self.path.clone()));
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        {
            let mut faults = self.faults.lock();
            if faults.failing_truncates > 0 {
                faults.failing_truncates -= 1;
                return Err(io::Error::other("input/output error (injected)"));
            }
        }
        self.inner.truncate(len)
    }
}

impl FaultyDisk {
    fn wrap(&self, path: &Path, inner: Box<dyn AppendFile>) -> Box<dyn AppendFile> {
        Box::new(FaultyFile {
            inner,
            path: path.to_owned(),
            faults: self.faults.clone(),
        })
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let file = self.inner.create(path)?;
        self.faults.lock().events.push(DiskEvent::Create(path.to_owned()));
        Ok(self.wrap(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(self.wrap(path, self.inner.open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inner.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        self.faults
            .lock()
            .events
            .push(DiskEvent::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)?;
        self.faults.lock().events.push(DiskEvent::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.inner.size(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)?;
        self.faults.lock().events.push(DiskEvent::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let claimed = self.faults.lock().free;
        claimed.map_or_else(|| self.inner.free_bytes(dir), Ok)
    }
}

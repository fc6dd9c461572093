//! A file system that fails when told to, and records the order of operations.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

use super::{AppendFile, Disk};

/// An operation on a file.
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
    /// A mark set by the test.
    Mark(String),
}

#[derive(Debug, Default)]
struct Faults {
    budget: Option<u64>,
    failing_syncs: u32,
    failing_truncates: u32,
    failing_reads: u32,
    /// The error with which every change fails.
    failing_changes: Option<io::ErrorKind>,
    held_syncs: bool,
    free: Option<u64>,
    /// Changes that still succeed before the power fails.
    power: Option<u64>,
    /// Length of each file, and how much of it was made durable.
    lengths: BTreeMap<PathBuf, (u64, u64)>,
    events: Vec<DiskEvent>,
}

impl Faults {
    /// Fails once the power is gone, or when every change is set to fail.
    fn change(&mut self) -> io::Result<()> {
        if let Some(kind) = self.failing_changes {
            return Err(io::Error::new(kind, "as the test wants (injected)"));
        }
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power is gone (injected)")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Wraps a disk and injects faults; clones share them.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Mutex<Faults>>,
    let_go: Arc<Condvar>,
}

struct FaultyFile {
    inner: Box<dyn AppendFile>,
    path: PathBuf,
    faults: Arc<Mutex<Faults>>,
    let_go: Arc<Condvar>,
}

impl FaultyDisk {
    /// A disk without any faults yet.
    pub fn new(inner: Arc<dyn Disk>) -> FaultyDisk {
        FaultyDisk {
            inner,
            faults: Arc::default(),
            let_go: Arc::default(),
        }
    }

    /// From now on only `bytes` more bytes can be written (`None`: no limit). A write over the budget is written in
    /// part and fails with "no space".
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

    /// The next `times` reads of files fail.
    pub fn fail_reads(&self, times: u32) {
        self.faults.lock().failing_reads = times;
    }

    /// From now on every change fails with this error: a disk that was remounted read-only, is broken, or has used up
    /// its quota. `None`: changes succeed again.
    pub fn fail_changes(&self, kind: Option<io::ErrorKind>) {
        self.faults.lock().failing_changes = kind;
    }

    /// From now on syncs of files block until they are released: a very slow disk.
    pub fn hold_syncs(&self, held: bool) {
        self.faults.lock().held_syncs = held;
        self.let_go.notify_all();
    }

    fn read_fault(&self) -> io::Result<()> {
        let mut faults = self.faults.lock();
        if faults.failing_reads == 0 {
            return Ok(());
        }
        faults.failing_reads -= 1;
        Err(io::Error::other("input/output error (injected)"))
    }

    /// The free space that the disk reports (`None`: the truth).
    pub fn set_free(&self, bytes: Option<u64>) {
        self.faults.lock().free = bytes;
    }

    /// After `changes` more changes of any kind the power fails: every later one fails. Reading still works, so that
    /// the store under test does not hang; what it answers then is ignored.
    pub fn lose_power_after(&self, changes: u64) {
        self.faults.lock().power = Some(changes);
    }

    /// True when a change failed for lack of power, or the next one will.
    pub fn has_lost_power(&self) -> bool {
        self.faults.lock().power == Some(0)
    }

    /// Cuts every file written through this disk to what was made durable, as a machine would find it after a power
    /// failure. Creations, renames and removals count as durable at once, as in [`super::MemoryDisk`].
    pub fn drop_unsynced(&self) -> io::Result<()> {
        let lengths = self.faults.lock().lengths.clone();
        for (path, (length, durable)) in lengths {
            if durable < length {
                self.inner.open(&path)?.truncate(durable)?;
            }
        }
        Ok(())
    }

    /// Adds a mark to the recorded events.
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
            faults.change()?;
            let allowed = faults.budget.map_or(bytes.len(), |b| bytes.len().min(b as usize));
            if let Some(budget) = &mut faults.budget {
                *budget -= allowed as u64;
            }
            faults.events.push(DiskEvent::Append(self.path.clone(), allowed));
            allowed
        };
        self.inner.append(&bytes[..allowed])?;
        self.faults.lock().lengths.entry(self.path.clone()).or_default().0 += allowed as u64;
        if allowed < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left (injected)"));
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        {
            let mut faults = self.faults.lock();
            while faults.held_syncs {
                self.let_go.wait(&mut faults);
            }
            faults.change()?;
            if faults.failing_syncs > 0 {
                faults.failing_syncs -= 1;
                faults.events.push(DiskEvent::SyncFailed(self.path.clone()));
                return Err(io::Error::other("input/output error (injected)"));
            }
        }
        self.inner.sync()?;
        let mut faults = self.faults.lock();
        let (length, durable) = faults.lengths.entry(self.path.clone()).or_default();
        *durable = *length;
        faults.events.push(DiskEvent::Sync(self.path.clone()));
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        {
            let mut faults = self.faults.lock();
            faults.change()?;
            if faults.failing_truncates > 0 {
                faults.failing_truncates -= 1;
                return Err(io::Error::other("input/output error (injected)"));
            }
        }
        self.inner.truncate(len)?;
        let mut faults = self.faults.lock();
        let (length, durable) = faults.lengths.entry(self.path.clone()).or_default();
        (*length, *durable) = (len, len.min(*durable));
        Ok(())
    }
}

impl FaultyDisk {
    fn wrap(&self, path: &Path, inner: Box<dyn AppendFile>) -> Box<dyn AppendFile> {
        Box::new(FaultyFile {
            inner,
            path: path.to_owned(),
            faults: self.faults.clone(),
            let_go: self.let_go.clone(),
        })
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.faults.lock().change()?;
        let file = self.inner.create(path)?;
        self.faults.lock().lengths.insert(path.to_owned(), (0, 0));
        self.faults.lock().events.push(DiskEvent::Create(path.to_owned()));
        Ok(self.wrap(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let size = self.inner.size(path)?;
        // What an earlier run of the store wrote is durable.
        self.faults
            .lock()
            .lengths
            .entry(path.to_owned())
            .or_insert((size, size));
        Ok(self.wrap(path, self.inner.open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read_fault()?;
        self.inner.read(path)
    }

    fn read_range(&self, path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.read_fault()?;
        self.inner.read_range(path, offset, length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.lock().change()?;
        self.inner.rename(from, to)?;
        let mut faults = self.faults.lock();
        if let Some(lengths) = faults.lengths.remove(from) {
            faults.lengths.insert(to.to_owned(), lengths);
        }
        faults.events.push(DiskEvent::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.lock().change()?;
        self.inner.remove(path)?;
        self.faults.lock().lengths.remove(path);
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
        self.faults.lock().change()?;
        self.inner.sync_dir(dir)?;
        self.faults.lock().events.push(DiskEvent::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let claimed = self.faults.lock().free;
        claimed.map_or_else(|| self.inner.free_bytes(dir), Ok)
    }
}

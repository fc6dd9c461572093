//! A file system in memory that can lose power. Guarantee: after [`MemoryDisk::crash`] a file holds what was
//! synced and the chosen part of what was not. Simplified on purpose: creations, renames and removals are
//! durable at once, because the store syncs folders itself and [`super::FaultyDisk`] records that it does.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{AppendFile, Disk};

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

type Files = Arc<Mutex<BTreeMap<PathBuf, Content>>>;

/// Files in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    files: Files,
}

struct MemoryFile {
    files: Files,
    path: PathBuf,
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Cuts the power: of each file's unsynced tail the first `keep(length)` bytes stay.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> usize) {
        for content in self.files.lock().values_mut() {
            let unsynced = content.bytes.len() - content.synced;
            let kept = keep(unsynced).min(unsynced);
            content.bytes.truncate(content.synced + kept);
            content.synced = content.bytes.len();
        }
    }

    /// Changes a file's bytes behind the store's back.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.files.lock().get_mut(path) {
            change(&mut content.bytes);
            content.synced = content.bytes.len();
        }
    }
}

impl AppendFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.get_mut(&self.path).ok_or_else(|| missing(&self.path))?;
        content.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.get_mut(&self.path).ok_or_else(|| missing(&self.path))?;
        content.synced = content.bytes.len();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.get_mut(&self.path).ok_or_else(|| missing(&self.path))?;
        content.bytes.truncate(len as usize);
        content.synced = content.synced.min(content.bytes.len());
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut files = self.files.lock();
        if files.contains_key(path) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists", path.display()),
            ));
        }
        files.insert(path.to_owned(), Content::default());
        Ok(Box::new(MemoryFile {
            files: self.files.clone(),
            path: path.to_owned(),
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        if !self.files.lock().contains_key(path) {
            return Err(missing(path));
        }
        Ok(Box::new(MemoryFile {
            files: self.files.clone(),
            path: path.to_owned(),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .lock()
            .get(path)
            .map(|c| c.bytes.clone())
            .ok_or_else(|| missing(path))
    }

    fn read_range(&self, path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let bytes = self.read(path)?;
        let from = bytes.len().min(offset as usize);
        let to = bytes.len().min(from + length as usize);
        Ok(bytes[from..to].to_vec())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.remove(from).ok_or_else(|| missing(from))?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(|_| ()).ok_or_else(|| missing(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self
            .files
            .lock()
            .keys()
            .filter(|p| p.parent() == Some(dir))
            .cloned()
            .collect())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.files
            .lock()
            .get(path)
            .map(|c| c.bytes.len() as u64)
            .ok_or_else(|| missing(path))
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

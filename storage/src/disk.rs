//! The file system as the journal, the parts and the symbol files see it, so that tests can fill it, break it and cut its
//! power.
//!
//! Guarantee: nothing that must survive a crash reaches the disk except through [`Disk`]. Exempt on purpose: DuckDB's
//! own file (rebuilt from the journal whenever it is damaged), the lock file, and DuckDB's reading of parts, which uses
//! the machine's file system.

mod faulty;
mod memory;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub use faulty::{DiskEvent, FaultyDisk};
pub use memory::MemoryDisk;

/// What the store needs of a file system.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Creates a folder and those above it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates an empty file for appending; fails if it already exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;
    /// Opens a file for appending at its end; it must exist.
    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Reads at most `length` bytes from `offset`; fewer only at the end of the file.
    fn read_range(&self, path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>>;
    /// Renames a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The files of a folder, sorted by path; a folder that does not exist has none.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Size of a file in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written under a folder.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Makes a file readable by its owner only, where files have owners.
    fn make_private(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A file that only grows, or is cut back to an earlier length.
pub trait AppendFile: Send {
    /// Writes all bytes at the end; after an error an unknown part of them is there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable. After an error, everything since the last success counts as lost: calling
    /// again could report a success that never happened.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Replaces a file as a whole: after a crash it has either the old content or the new one.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = disk.create(&temporary).and_then(|mut file| {
        file.append(bytes)?;
        file.sync()
    });
    if let Err(error) = written {
        // A half-written copy would take space that a full disk needs; leaving it does no other harm.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}

/// True for errors that mean "no space": a retry can help once somebody has freed some.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile(File);

impl AppendFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(RealFile(
            OpenOptions::new().append(true).create_new(true).open(path)?,
        )))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().append(true).open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_range(&self, path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_disk_lists_sorted_and_replaces_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = dir.path().join("a.bin");
        replace_file(&disk, &path, b"one").unwrap();
        replace_file(&disk, &path, b"two").unwrap();
        disk.create(&dir.path().join("b.bin")).unwrap();
        assert_eq!(disk.read(&path).unwrap(), b"two");
        assert_eq!(
            disk.list(dir.path()).unwrap(),
            vec![path.clone(), dir.path().join("b.bin")]
        );
        assert!(disk.list(&dir.path().join("none")).unwrap().is_empty());
        assert!(disk.create(&path).is_err());
        assert!(disk.free_bytes(dir.path()).unwrap() > 0);
    }
}

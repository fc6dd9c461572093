//! One process per data directory. Guarantee: while a [`DirLock`] exists, no other process, and no second store in this
//! process, gets one for the same folder; a killed process leaves no lock behind, because the kernel holds it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use crate::error::OpenError;

/// Held as long as the store is open.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of a folder, and writes this process's id into it for whoever is refused.
    pub(crate) fn take(dir: &Path) -> Result<DirLock, OpenError> {
        let path = dir.join("LOCK");
        let not_writable = |source| OpenError::NotWritable {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(not_writable)?;
        lock(&mut file, dir)?.map_err(not_writable)?;
        file.set_len(0).map_err(not_writable)?;
        file.rewind().map_err(not_writable)?;
        // The id is a courtesy: on a full disk the lock holds without it.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(DirLock { _file: file })
    }

    /// Takes the lock without writing. `None` when no store was ever opened here: there is no file to lock.
    pub(crate) fn take_unchanged(dir: &Path) -> Result<Option<DirLock>, OpenError> {
        let path = dir.join("LOCK");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Unreadable { path, source }),
        };
        match lock(&mut file, dir)? {
            Ok(()) => Ok(Some(DirLock { _file: file })),
            Err(source) => Err(OpenError::Unreadable { path, source }),
        }
    }
}

/// Locks the file of a folder. The outer error means that somebody else has it, the inner one comes from the system.
fn lock(file: &mut File, dir: &Path) -> Result<std::io::Result<()>, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(Ok(())),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(OpenError::LockedByOther {
                path: dir.to_owned(),
                pid: text.trim().parse().unwrap_or(0),
            })
        }
        Err(TryLockError::Error(source)) => Ok(Err(source)),
    }
}

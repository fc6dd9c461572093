//! Batches that wait for the collector on disk: a file each, in a folder that this process has for itself.
//!
//! Guarantees: a batch is in its file before it is queued, so a process that is killed loses none; it keeps its id, so
//! one that was sent and not yet removed is stored once. Each process holds a lock on its folder; the folder of one that
//! ended is taken over by the next to look, whether that is its successor or another proxy on this machine. A file that
//! is incomplete or changed is recognised by its checksum, removed and counted.
//!
//! Wrong on purpose: files are not forced to the disk, so the last seconds before a power failure may be lost. A disk
//! that hangs stops the export, not the traffic.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use emberline_model::BatchId;

use super::batch::QueuedBatch;

/// First words of a file, with the version of its format.
const MAGIC: &str = "emberline batch 1";
/// The longest head: the magic, an id, checksum and length.
const MOST_HEAD_BYTES: usize = 1024;
/// Digits of a folder's name, the epoch of its process, and of a file's, its number.
const EPOCH_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 16;
/// Name of the locked file in each folder.
const LOCK: &str = "lock";
/// What a file takes at least.
const BLOCK_BYTES: u64 = 4096;

/// A process's folder. When it is dropped, others may take over what is left in it.
#[derive(Debug)]
pub(super) struct Spool {
    /// Holds the folders of all processes.
    parent: PathBuf,
    epoch: u64,
    own: Arc<Folder>,
    next: u64,
}

/// A folder with its lock.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Removed only if it is empty: what is left is for the next process.
        let is_empty = files(&self.path).is_ok_and(|files| files.is_empty());
        // Somebody may have removed it, and another one of the same name made since.
        let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|found| found.ino()).ok();
        let is_own = inode(self.lock.metadata()) == inode(fs::symlink_metadata(self.path.join(LOCK)));
        if is_empty && is_own && fs::remove_file(self.path.join(LOCK)).is_ok() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// A batch in its file.
#[derive(Debug, Clone)]
pub(super) struct Spooled {
    pub(super) id: BatchId,
    path: PathBuf,
    bytes: u64,
    folder: Arc<Folder>,
}

impl Spooled {
    /// Disk space charged for it.
    pub(super) fn cost(&self) -> u64 {
        self.bytes.next_multiple_of(BLOCK_BYTES)
    }

    /// The batch.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what was written.
    pub(super) fn read(&self) -> io::Result<QueuedBatch> {
        let bytes = fs::read(&self.path)?;
        let (head, start) = Head::read(&bytes)?;
        let body = Bytes::from(bytes).slice(start..);
        if body.len() as u64 != head.length || crc32c::crc32c(&body) != head.checksum || head.id != self.id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is incomplete or was changed",
            ));
        }
        Ok(QueuedBatch { id: head.id, body })
    }

    /// Removes the file: it was acknowledged, or given up.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            // It will be sent again after a restart, and stored once.
            tracing::debug!(path = %self.path.display(), %error, "cannot remove a spooled batch");
        }
        drop(self.folder);
    }
}

/// What a file begins with, in one line.
struct Head {
    checksum: u32,
    length: u64,
    id: BatchId,
}

impl Head {
    /// The head, and where the body begins.
    fn read(bytes: &[u8]) -> io::Result<(Head, usize)> {
        let line = bytes
            .iter()
            .take(MOST_HEAD_BYTES)
            .position(|byte| *byte == b'\n')
            .and_then(|end| Some((std::str::from_utf8(&bytes[..end]).ok()?, end + 1)));
        let parsed = line.and_then(|(line, start)| {
            let mut words = line.strip_prefix(MAGIC)?.trim_start().splitn(3, ' ');
            let checksum = u32::from_str_radix(words.next()?, 16).ok()?;
            let length = words.next()?.parse().ok()?;
            let id = words.next()?.parse().ok()?;
            Some((Head { checksum, length, id }, start))
        });
        parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file is not a spooled batch"))
    }
}

impl Spool {
    /// Makes a folder for this process inside `parent`.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub(super) fn open(parent: &Path, epoch: u64) -> io::Result<Spool> {
        let path = parent.join(format!("{epoch:0EPOCH_DIGITS$x}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let own = Arc::new(Folder {
            lock: lock(&path)?.ok_or(io::ErrorKind::AlreadyExists)?,
            path,
        });
        Ok(Spool {
            parent: parent.to_owned(),
            epoch,
            own,
            next: 0,
        })
    }

    /// Writes a batch to its file.
    ///
    /// # Errors
    /// When the disk is full or fails; no file is left then.
    pub(super) fn write(&mut self, batch: &QueuedBatch) -> io::Result<Spooled> {
        if !self.own.path.join(LOCK).exists() {
            // Somebody removed it.
            self.own = Spool::open(&self.parent, self.epoch)?.own;
        }
        self.next += 1;
        let path = self.own.path.join(format!("{:0NUMBER_DIGITS$}", self.next));
        let (id, body) = (&batch.id, &batch.body);
        let head = format!("{MAGIC} {:08x} {} {id}\n", crc32c::crc32c(body), body.len());
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let written = file.write_all(head.as_bytes()).and_then(|()| file.write_all(body));
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Spooled {
            id: batch.id.clone(),
            path,
            bytes: (head.len() + body.len()) as u64,
            folder: Arc::clone(&self.own),
        })
    }

    /// Takes over what ended processes left, that of each oldest first, and says how many files were no batches; those are removed.
    /// A folder that cannot be read is left for the next look.
    pub(super) fn take_over(&self) -> (Vec<Spooled>, u64) {
        let (mut found, mut unreadable) = (Vec::new(), 0);
        let Ok(folders) = fs::read_dir(&self.parent) else {
            return (found, unreadable);
        };
        for path in folders.flatten().map(|entry| entry.path()) {
            if path == self.own.path || !is_ours(&path, EPOCH_DIGITS) || !is_file(&path.join(LOCK)) {
                continue;
            }
            let Ok(Some(lock)) = lock(&path) else { continue };
            let folder = Arc::new(Folder { path, lock });
            for path in files(&folder.path).unwrap_or_default() {
                match read_head(&path) {
                    Ok((id, bytes)) => found.push(Spooled {
                        id,
                        path,
                        bytes,
                        folder: Arc::clone(&folder),
                    }),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        unreadable += 1;
                        let _ = fs::remove_file(&path);
                    }
                    Err(_) => {}
                }
            }
        }
        (found, unreadable)
    }
}

/// Locks a folder; `None` if its process still runs.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    match file.try_lock() {
        // Its owner may have removed it in between.
        Ok(()) if folder.join(LOCK).is_file() => Ok(Some(file)),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The files of batches in a folder, in the order they were written.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let is_batch = |path: &PathBuf| is_ours(path, NUMBER_DIGITS) && is_file(path);
    let mut files: Vec<PathBuf> = entries.filter(is_batch).collect();
    files.sort_unstable();
    Ok(files)
}

/// Whether a name is one that this module gives: so many hexadecimal digits. What else lies in a directory is not touched.
fn is_ours(path: &Path, digits: usize) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == digits && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && fs::symlink_metadata(path).is_ok_and(|found| !found.is_symlink())
}

/// True for a file of this user's that is neither a link nor a pipe.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.uid() == rustix::process::geteuid().as_raw())
}

/// The id of the batch in a file, and the file's size.
fn read_head(path: &Path) -> io::Result<(BatchId, u64)> {
    use io::Read;
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut start = Vec::with_capacity(MOST_HEAD_BYTES);
    file.take(MOST_HEAD_BYTES as u64).read_to_end(&mut start)?;
    Ok((Head::read(&start)?.0.id, bytes))
}

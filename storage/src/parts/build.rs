//! How a part is made: written under a temporary name, checksummed on the way, synced, and only then named.
//!
//! Guarantee: nothing has a part's name before all of its bytes are durable. A draft that is dropped is removed.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Part, PartName};
use crate::disk::{AppendFile, Disk};

/// Bytes buffered before they are written to disk.
const BUFFER_BYTES: usize = 256 << 10;

/// A file being written.
pub(crate) struct DraftFile {
    file: Box<dyn AppendFile>,
    buffer: Vec<u8>,
    checksum: u32,
    bytes: u64,
    temporary: Temporary,
}

/// Removes its file unless it was given its name.
struct Temporary {
    disk: Arc<dyn Disk>,
    path: Option<PathBuf>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If this fails, a file without a part's name is left, which the next start removes.
            let _ = self.disk.remove(path);
        }
    }
}

/// A file that is written and synced, but not yet named.
pub(crate) struct Draft {
    name: PartName,
    bytes: u64,
    temporary: Temporary,
}

impl Draft {
    /// Its rows.
    pub(crate) fn rows(&self) -> u64 {
        self.name.rows
    }
}

impl DraftFile {
    pub(crate) fn create(disk: &Arc<dyn Disk>, dir: &Path, label: &str) -> io::Result<DraftFile> {
        let path = dir.join(format!("{label}.tmp"));
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(DraftFile {
            file: disk.create(&path)?,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            checksum: 0,
            bytes: 0,
            temporary: Temporary {
                disk: disk.clone(),
                path: Some(path),
            },
        })
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.file.append(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Makes it durable; the checksum goes into `name`.
    pub(crate) fn finish(mut self, name: PartName) -> io::Result<Draft> {
        self.hand_over()?;
        self.file.sync()?;
        Ok(Draft {
            name: PartName {
                checksum: self.checksum,
                ..name
            },
            bytes: self.bytes,
            temporary: self.temporary,
        })
    }
}

impl Write for DraftFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Only `finish` makes anything durable.
        Ok(())
    }
}

/// Names drafts, in order, and makes the names durable. After an error some of them may have been named: only the
/// folder knows.
pub(crate) fn publish(disk: &Arc<dyn Disk>, dir: &Path, drafts: Vec<Draft>) -> io::Result<Vec<Arc<Part>>> {
    let mut parts = Vec::with_capacity(drafts.len());
    for mut draft in drafts {
        let path = dir.join(draft.name.to_string());
        let Some(temporary) = draft.temporary.path.take() else {
            continue;
        };
        disk.rename(&temporary, &path)
            .inspect_err(|_| draft.temporary.path = Some(temporary.clone()))?;
        parts.push(Arc::new(Part::new(disk.clone(), path, draft.name, draft.bytes)));
    }
    disk.sync_dir(dir)?;
    Ok(parts)
}

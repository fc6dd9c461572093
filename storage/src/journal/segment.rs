//! One file of the journal: its name, its header, and what memory keeps of it.

use std::path::{Path, PathBuf};

use crate::journal::Lsn;

/// Format of segments written now.
pub(crate) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"EMBJRNL\n";

/// Bytes before the first record: magic, version, first number, and their CRC32C.
pub(crate) const HEADER_BYTES: usize = 24;

/// A segment that holds acknowledged batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of its first record; also its name.
    pub(crate) first_lsn: Lsn,
    /// Number of its last acknowledged record.
    pub(crate) last_lsn: Lsn,
    /// The newest second in it, since the Unix epoch.
    pub(crate) newest_s: u32,
    /// Its length up to the last acknowledged record.
    pub(crate) bytes: u64,
    /// Its path.
    pub(crate) path: PathBuf,
}

/// The file of a segment.
pub(crate) fn path_of(dir: &Path, first_lsn: Lsn) -> PathBuf {
    dir.join(format!("{first_lsn:020}.log"))
}

/// The first number of a segment, from its name.
pub(crate) fn first_lsn_of(path: &Path) -> Option<Lsn> {
    if path.extension()? != "log" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok().filter(|&lsn| lsn > 0)
}

/// The header of a segment.
pub(crate) fn header(first_lsn: Lsn) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&first_lsn.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Readable by this version.
    Known,
    /// Intact, but in a later format.
    Newer(u32),
    /// Not as written. The records after it may be intact: the name says where they begin.
    Damaged,
}

/// Reads the header of a segment.
pub(crate) fn read_header(bytes: &[u8]) -> Header {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Header::Damaged;
    };
    let checksum = crc32c::crc32c(&header[..20]).to_le_bytes();
    if &header[..8] != MAGIC || header[20..] != checksum {
        return Header::Damaged;
    }
    match u32::from_le_bytes([header[8], header[9], header[10], header[11]]) {
        VERSION => Header::Known,
        version => Header::Newer(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_headers_round_trip() {
        let path = path_of(Path::new("/d"), 42);
        assert_eq!(first_lsn_of(&path), Some(42));
        assert_eq!(first_lsn_of(Path::new("/d/x.log")), None);
        assert_eq!(first_lsn_of(Path::new("/d/00.log")), None);
        let mut bytes = header(42);
        assert_eq!(read_header(&bytes), Header::Known);
        bytes[9] ^= 1;
        assert_eq!(read_header(&bytes), Header::Damaged);
        bytes[9] ^= 1;
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..20]).to_le_bytes();
        bytes[20..].copy_from_slice(&checksum);
        assert_eq!(read_header(&bytes), Header::Newer(2));
    }
}

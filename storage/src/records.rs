//! A small file of records that is replaced as a whole, for what must outlive a restart and is not a batch.
//!
//! Guarantees: after a crash, the file is the old one or the new one. Damage costs the records it hits and is counted:
//! the first record says how many follow, so that no loss goes unnoticed. A copy of a damaged file is kept.

use std::{io, path::Path};

use prost::Message;

use crate::{
    disk::{Disk, replace_file},
    framing, quarantine,
};

/// Sequence of the record whose stamp says how many follow.
const COUNT: u64 = 1;

/// The contents of a file, and how many places of it are damaged or missing.
#[derive(Debug)]
pub(crate) struct Records<T> {
    pub(crate) all: Vec<T>,
    pub(crate) damaged: u64,
}

/// Reads a file of a data directory; a missing one is empty. An unreadable one counts as damaged.
pub(crate) fn read<T: Message + Default>(disk: &dyn Disk, data_dir: &Path, file: &str, now_unix_ms: i64) -> Records<T> {
    let nothing = |damaged| Records {
        all: Vec::new(),
        damaged,
    };
    let path = data_dir.join(file);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return nothing(0),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the file");
            return nothing(1);
        }
    };
    let records = decode(&bytes);
    if records.damaged > 0 {
        tracing::error!(path = %path.display(), damaged = records.damaged, "the file is damaged; a copy is in quarantine");
        quarantine::keep_bytes(disk, data_dir, file, now_unix_ms, &bytes);
    }
    records
}

/// Replaces a file of a data directory; durable when this returns.
pub(crate) fn write<'a, T: Message + 'a>(
    disk: &dyn Disk,
    data_dir: &Path,
    file: &str,
    records: impl ExactSizeIterator<Item = &'a T>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    framing::encode(&mut bytes, COUNT, records.len() as u32, b"");
    for (sequence, record) in (COUNT + 1..).zip(records) {
        framing::encode(&mut bytes, sequence, 0, &record.encode_to_vec());
    }
    replace_file(disk, &data_dir.join(file), &bytes)
}

/// Decodes the bytes of a file.
pub(crate) fn decode<T: Message + Default>(bytes: &[u8]) -> Records<T> {
    let scan = framing::scan(bytes, 0, 0);
    let mut damaged = scan.damaged.len() as u64 + u64::from(!scan.tail.is_empty());
    let mut all = Vec::new();
    let (mut count, mut records) = (None, 0);
    for frame in &scan.frames {
        if frame.sequence == COUNT {
            count = Some(u64::from(frame.stamp));
            continue;
        }
        records += 1;
        match T::decode(&bytes[frame.payload.clone()]) {
            Ok(record) => all.push(record),
            Err(_) => damaged += 1,
        }
    }
    let missing = count.map_or(1, |count| count.abs_diff(records));
    Records {
        all,
        damaged: damaged.max(missing),
    }
}

/// How many places of a file's bytes are damaged, whatever its records contain.
pub(crate) fn damaged_places(bytes: &[u8]) -> u64 {
    decode::<()>(bytes).damaged
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::MemoryDisk;

    proptest! {
        #[test]
        fn damage_is_noticed_and_costs_what_it_hits(
            texts in prop::collection::vec("[a-z]{1,9}", 0..6), at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>(),
        ) {
            let disk = MemoryDisk::new();
            let dir = PathBuf::from("/data");
            disk.create_dir_all(&dir).unwrap();
            write(&disk, &dir, "x.bin", texts.iter()).unwrap();
            let whole = read::<String>(&disk, &dir, "x.bin", 0);
            prop_assert_eq!((&whole.all, whole.damaged), (&texts, 0));
            let mut bytes = disk.read(&dir.join("x.bin")).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            prop_assert!(damaged_places(&bytes) > 0);
            let left = decode::<String>(&bytes);
            prop_assert!(left.all.iter().all(|text| texts.contains(text)));
            prop_assert!(cut || left.all.len() + 1 >= texts.len());
        }
    }
}

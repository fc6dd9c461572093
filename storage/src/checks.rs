//! Checks whether two rows with the same identifier really are the same row.
//!
//! Identifiers are unkeyed hashes ([`emberline_model::id`]), so a sender can craft names whose identifier is that of
//! another's. A check is a hash of the same content under a key that only this store has (SipHash-1-3, a pseudo-random
//! function: without the key nobody can aim for a check, and two agree by chance once in 2⁶⁴). It is stored with each
//! row of the dictionary tables. A row whose check differs from the known one is stored under a *salted* identifier,
//! which is a keyed hash of the content too: nobody can aim for that either, and it is the same each time. Parts have
//! no checks: the few salted identifiers are listed in their names ([`crate::parts::dictionary::Names`]), and
//! everything else is computed from the content as before.
//!
//! Guarantees: two contents never share a row of series, workloads, label sets or files while the store knows the first
//! one; nor of locations and stacks, while it is in the tables or among the newest [`MOST_SEALED`] sealed ones of each.
//!
//! Wrong on purpose: identifiers stored before checks existed stay as they are. A store that lost its key
//! (`secret.bin`) makes a new one and rebuilds the engine's file; rows with a salted identifier then have no name.

use std::{fs::File, io, io::Read, path::Path};

use emberline_model::id::Content;
use prost::Message;
use siphasher::sip::SipHasher13;

use crate::{
    disk::Disk,
    ids::{IdMap, IdSet},
    records,
};

/// The file that holds the key.
pub(crate) const FILE: &str = "secret.bin";
const KEY_BYTES: usize = 32;

/// Sealed rows of a kind that are remembered, about 16 MB: up to twice as many are kept, then the older half is
/// dropped.
pub(crate) const MOST_SEALED: usize = 450_000;

/// The key of a store.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    check: SipHasher13,
    salt: SipHasher13,
}

#[derive(Clone, PartialEq, Message)]
struct Secret {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

impl Checks {
    fn with_key(key: &[u8; KEY_BYTES]) -> Checks {
        let half = |at: usize| {
            let mut half = [0; 16];
            half.copy_from_slice(&key[at..at + 16]);
            SipHasher13::new_with_key(&half)
        };
        Checks {
            check: half(0),
            salt: half(16),
        }
    }

    /// The key of a data directory, created if there is none. If it cannot be saved, the next start makes another one.
    pub(crate) fn of_store(disk: &dyn Disk, data_dir: &Path, now_unix_ms: i64) -> io::Result<Checks> {
        let stored = records::read::<Secret>(disk, data_dir, FILE, now_unix_ms);
        if let Some(key) = stored.all.first().and_then(|secret| secret.key.first_chunk()) {
            return Ok(Checks::with_key(key));
        }
        if stored.damaged > 0 {
            tracing::error!(
                "the identifier check key is lost; creating a new one and rebuilding the query engine's file"
            );
        }
        let mut key = [0; KEY_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let secret = Secret { key: key.to_vec() };
        let written = records::write(disk, data_dir, FILE, std::iter::once(&secret));
        if let Err(error) = written.and_then(|()| disk.make_private(&data_dir.join(FILE))) {
            tracing::warn!(%error, "cannot store the identifier check key; the next start creates a new one");
        }
        Ok(Checks::with_key(&key))
    }

    /// The value by which two rows with the same identifier are compared.
    pub(crate) fn check(&self, content: &Content) -> u64 {
        self.check.hash(content.bytes())
    }

    /// The identifier of a row whose own is already taken.
    pub(crate) fn salted(&self, content: &Content) -> u64 {
        self.salt.hash(content.bytes())
    }

    /// Tells keys apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.check.hash(b"fingerprint")
    }
}

impl Default for Checks {
    /// A key that everybody knows: for tests.
    fn default() -> Checks {
        Checks::with_key(&[0; KEY_BYTES])
    }
}

impl PartialEq for Checks {
    fn eq(&self, other: &Checks) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Eq for Checks {}

/// Identifiers of rows that are all in one place, such as a part, including its salted ones.
pub(crate) struct Salted<'a> {
    checks: &'a Checks,
    ids: IdSet,
}

impl Salted<'_> {
    pub(crate) fn new<'a>(checks: &'a Checks, ids: &[u64]) -> Salted<'a> {
        Salted {
            checks,
            ids: ids.iter().copied().collect(),
        }
    }

    /// The identifier of a content.
    pub(crate) fn id(&self, content: &Content) -> u64 {
        if !self.ids.is_empty() {
            let salted = self.checks.salted(content);
            if self.ids.contains(&salted) {
                return salted;
            }
        }
        content.id()
    }
}

/// Identifier → check, for rows of one kind.
pub(crate) type Checked = IdMap<u64>;

/// Rows of one kind that are only in parts, the newest ones.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    young: Checked,
    old: Checked,
}

impl Sealed {
    pub(crate) fn get(&self, id: u64) -> Option<u64> {
        self.young.get(&id).or_else(|| self.old.get(&id)).copied()
    }

    /// Remembers a row. The first content of an identifier stays its owner.
    pub(crate) fn insert(&mut self, id: u64, check: u64) {
        let check = self.get(id).unwrap_or(check);
        self.young.insert(id, check);
        if self.young.len() >= MOST_SEALED {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// True when inserting more would drop some.
    pub(crate) fn is_full(&self) -> bool {
        !self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn content(name: &str) -> Content {
        Content::names("test", &[name])
    }

    #[test]
    fn the_key_is_made_once_and_kept() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/data");
        disk.create_dir_all(dir).unwrap();
        let first = Checks::of_store(&disk, dir, 1).unwrap();
        let again = Checks::of_store(&disk, dir, 1).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_ne!(first.fingerprint(), Checks::default().fingerprint());
        let other = Checks::of_store(&MemoryDisk::new(), dir, 1).unwrap();
        assert_ne!(first.check(&content("a")), other.check(&content("a")));
        assert_ne!(first.check(&content("a")), first.salted(&content("a")));
        disk.damage(&dir.join(FILE), |bytes| bytes.truncate(9));
        let lost = Checks::of_store(&disk, dir, 1).unwrap();
        assert_ne!(first.fingerprint(), lost.fingerprint());
    }

    #[test]
    fn what_is_listed_has_its_salted_identifier_and_the_rest_its_own() {
        let checks = Checks::default();
        let of_part = Salted::new(&checks, &[checks.salted(&content("a"))]);
        assert_eq!(of_part.id(&content("a")), checks.salted(&content("a")));
        assert_eq!(of_part.id(&content("b")), content("b").id());
        assert_eq!(Salted::new(&checks, &[]).id(&content("a")), content("a").id());
    }

    #[test]
    fn sealed_rows_are_forgotten_the_oldest_first() {
        let mut sealed = Sealed::default();
        for id in 0..MOST_SEALED as u64 + 10 {
            sealed.insert(id, id + 1);
        }
        assert!(sealed.is_full());
        assert_eq!(
            (sealed.get(5), sealed.get(MOST_SEALED as u64 + 3)),
            (Some(6), Some(MOST_SEALED as u64 + 4))
        );
        sealed.insert(5, 99);
        assert_eq!(sealed.get(5), Some(6), "the first stays its owner");
        for id in 0..MOST_SEALED as u64 {
            sealed.insert(id + (1 << 40), 1);
        }
        assert_eq!(sealed.get(7), None);
    }
}

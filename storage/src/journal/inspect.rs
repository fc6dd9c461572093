//! Reads the journal's files without changing them. Guarantee: it reports as damaged what a start would count as
//! damaged, cut or lost, by the same rules.

use std::path::{Path, PathBuf};

use crate::{
    dedup::Dedup,
    framing,
    journal::{Lsn, payload, recovery, segment},
};

pub(crate) use segment::first_lsn_of;

/// The folder of segments.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    recovery::journal_dir(data_dir)
}

/// What one segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Intact records that hold batches.
    pub(crate) batches: u64,
    /// What is wrong, with what it held.
    pub(crate) damage: Vec<(String, String)>,
}

fn numbers(first: Lsn, last: Lsn) -> String {
    match last - first {
        0 => format!("batch {first}"),
        more => format!("{} batches, numbers {first} to {last}", more + 1),
    }
}

/// Checks the bytes of a segment. `next` is the first number of the segment after it.
pub(crate) fn check(bytes: &[u8], first_lsn: Lsn, next: Option<Lsn>) -> Checked {
    let mut checked = Checked::default();
    match segment::read_header(bytes) {
        segment::Header::Known => {}
        segment::Header::Newer(version) => {
            let what = format!(
                "it has format {version}, and this version reads up to {}",
                segment::VERSION
            );
            checked.damage.push((what, "unknown".to_owned()));
            return checked;
        }
        // The header is expendable: the file name gives the first number, too.
        segment::Header::Damaged if bytes.len() < segment::HEADER_BYTES => checked.damage.push((
            "it is shorter than its header".to_owned(),
            format!(
                "nothing, if it was being created at a power failure; otherwise batches from number {first_lsn} on"
            ),
        )),
        segment::Header::Damaged => checked
            .damage
            .push(("its header is damaged".to_owned(), "no batches".to_owned())),
    }
    let scan = framing::scan(bytes, segment::HEADER_BYTES, first_lsn - 1);
    // Records at or above the next segment's first number were never acknowledged.
    let void_from = next.unwrap_or(Lsn::MAX);
    let mut expected = first_lsn;
    for frame in scan.frames.iter().filter(|frame| frame.sequence < void_from) {
        if frame.sequence > expected {
            checked.missing(expected, frame.sequence - 1);
        }
        expected = frame.sequence + 1;
        match payload::decode(&bytes[frame.payload.clone()]) {
            Ok(_) => checked.batches += 1,
            Err(error) => checked.damage.push((
                format!("an intact record is not a batch: {error}"),
                numbers(frame.sequence, frame.sequence),
            )),
        }
    }
    if let Some(next) = next.filter(|&next| next > expected) {
        checked.missing(expected, next - 1);
    }
    let between: usize = scan.damaged.iter().map(ExactSizeIterator::len).sum();
    if between > 0 && expected == first_lsn {
        checked.damage.push((
            format!("{between} bytes between records are damaged"),
            "unknown".to_owned(),
        ));
    }
    let tail = &bytes[scan.tail.start.min(bytes.len())..];
    if next.is_none() && bytes.len() > segment::HEADER_BYTES && tail.iter().any(|&byte| byte != 0) {
        checked.damage.push((
            format!("{} trailing bytes are not a record", tail.len()),
            format!("batch {expected}, if it was damaged later; nothing, if it was being written at a power failure"),
        ));
    }
    checked
}

impl Checked {
    fn missing(&mut self, first: Lsn, last: Lsn) {
        self.damage
            .push(("records are damaged or missing".to_owned(), numbers(first, last)));
    }
}

/// Senders in a checkpoint; `None` when it is damaged.
pub(crate) fn senders(bytes: &[u8]) -> Option<()> {
    let found = framing::scan(bytes, 0, 0);
    let frame = found
        .frames
        .first()
        .filter(|_| found.tail.is_empty() && found.damaged.is_empty())?;
    Dedup::decode(&bytes[frame.payload.clone()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment_of(first: Lsn, batches: u64) -> (Vec<u8>, Vec<usize>) {
        let batch = emberline_model::wire::encode_batch(&emberline_model::Batch {
            id: None,
            received_unix_ms: 0,
            windows: Vec::new(),
        });
        let mut bytes = segment::header(first).to_vec();
        let mut ends = Vec::new();
        for lsn in first..first + batches {
            framing::encode(&mut bytes, lsn, 7, &payload::encode(&batch));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn an_intact_segment_has_no_damage_and_zeros_at_its_end_are_none() {
        let (mut bytes, _) = segment_of(5, 3);
        assert_eq!(check(&bytes, 5, None).batches, 3);
        bytes.resize(bytes.len() + 4096, 0);
        assert_eq!(check(&bytes, 5, None).damage, []);
        // Records from the next segment's first number on were never acknowledged.
        assert_eq!(check(&bytes, 5, Some(7)).batches, 2);
    }

    #[test]
    fn every_flipped_bit_is_told() {
        let (bytes, ends) = segment_of(5, 3);
        for at in 0..bytes.len() {
            for next in [None, Some(8)] {
                let mut damaged = bytes.clone();
                damaged[at] ^= 4;
                let checked = check(&damaged, 5, next);
                assert_eq!(checked.damage.len(), 1, "byte {at}: {checked:?}");
                let hit = ends.iter().filter(|&&end| end <= at).count() as u64 + 5;
                if at >= segment::HEADER_BYTES {
                    assert!(checked.damage[0].1.contains(&format!("batch {hit}")), "{checked:?}");
                }
            }
        }
    }

    #[test]
    fn a_segment_that_lost_its_end_says_which_batches() {
        let (bytes, ends) = segment_of(5, 3);
        let checked = check(&bytes[..ends[0]], 5, Some(8));
        assert_eq!(checked.damage[0].1, "2 batches, numbers 6 to 7");
    }
}

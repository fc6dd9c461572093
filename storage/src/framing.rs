//! Records in a file that may be torn, cut or damaged anywhere.
//!
//! A record is `length u32 | CRC32C u32 | sequence u64 | stamp u32 | payload`, little endian; the checksum covers
//! everything but itself. Sequences rise strictly within a file.
//!
//! Guarantee: [`scan`] returns every intact record, also those after damage; a flipped bit costs its own record and no
//! other. Wrong on purpose: when a damaged record's payload contains the bytes of an intact record with a plausible
//! sequence, those are taken for a record.

use std::ops::Range;

/// Bytes in front of a payload.
pub(crate) const HEADER_BYTES: usize = 20;

/// The longest payload accepted.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// How far a sequence may jump over damaged records and still be believed.
const MAX_SEQUENCE_JUMP: u64 = 1 << 24;

/// One intact record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its number.
    pub(crate) sequence: u64,
    /// A number of the caller's own, readable without decoding the payload.
    pub(crate) stamp: u32,
    /// The payload's position in the scanned bytes.
    pub(crate) payload: Range<usize>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Intact records in order.
    pub(crate) frames: Vec<Frame>,
    /// Ranges between intact records that are not records.
    pub(crate) damaged: Vec<Range<usize>>,
    /// What follows the last intact record and is not a record; empty when the file ends cleanly.
    pub(crate) tail: Range<usize>,
}

/// Appends one record to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, sequence: u64, stamp: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    let mut rest = [0u8; 12];
    rest[..8].copy_from_slice(&sequence.to_le_bytes());
    rest[8..].copy_from_slice(&stamp.to_le_bytes());
    out.reserve(HEADER_BYTES + payload.len());
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&length, &rest, payload).to_le_bytes());
    out.extend_from_slice(&rest);
    out.extend_from_slice(payload);
}

fn checksum(length: &[u8], rest: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(length), rest), payload)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The intact record at `at` with a sequence above `after`, if any.
fn read_at(bytes: &[u8], at: usize, after: u64) -> Option<Frame> {
    if bytes.len().checked_sub(at)? < HEADER_BYTES {
        return None;
    }
    let length = u32_at(bytes, at) as usize;
    let start = at + HEADER_BYTES;
    if length > MAX_PAYLOAD_BYTES || length > bytes.len() - start {
        return None;
    }
    let sequence = u64::from(u32_at(bytes, at + 8)) | u64::from(u32_at(bytes, at + 12)) << 32;
    if sequence <= after || sequence - after > MAX_SEQUENCE_JUMP {
        return None;
    }
    let payload = start..start + length;
    if u32_at(bytes, at + 4) != checksum(&bytes[at..at + 4], &bytes[at + 8..start], &bytes[payload.clone()]) {
        return None;
    }
    Some(Frame {
        sequence,
        stamp: u32_at(bytes, at + 16),
        payload,
    })
}

/// Finds every intact record from `from` on with a sequence above `after`.
pub(crate) fn scan(bytes: &[u8], from: usize, after: u64) -> Scan {
    let mut found = Scan::default();
    let (mut at, mut after) = (from.min(bytes.len()), after);
    while at < bytes.len() {
        let next = (at..bytes.len()).find_map(|p| read_at(bytes, p, after).map(|frame| (p, frame)));
        let Some((start, frame)) = next else { break };
        if start > at {
            found.damaged.push(at..start);
        }
        at = frame.payload.end;
        after = frame.sequence;
        found.frames.push(frame);
    }
    found.tail = at..bytes.len();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = b"HEAD".to_vec();
        let mut ends = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            encode(&mut bytes, i as u64 + 1, 7, payload);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn sequences(scan: &Scan) -> Vec<u64> {
        scan.frames.iter().map(|f| f.sequence).collect()
    }

    proptest! {
        #[test]
        fn a_cut_file_keeps_its_longest_intact_prefix(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = file(&payloads);
            let cut = 4 + cut.index(bytes.len() - 4 + 1);
            let found = scan(&bytes[..cut], 4, 0);
            let whole = ends.iter().filter(|&&e| e <= cut).count();
            prop_assert_eq!(sequences(&found), (1..=whole as u64).collect::<Vec<_>>());
            prop_assert!(found.damaged.is_empty());
            for (frame, payload) in found.frames.iter().zip(&payloads) {
                prop_assert_eq!(&bytes[frame.payload.clone()], payload.as_slice());
            }
        }

        #[test]
        fn a_flipped_bit_costs_its_own_record_only(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..12), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut bytes, ends) = file(&payloads);
            let at = 4 + at.index(bytes.len() - 4);
            bytes[at] ^= 1 << bit;
            let hit = ends.iter().filter(|&&e| e <= at).count() as u64 + 1;
            let found = scan(&bytes, 4, 0);
            let expected: Vec<u64> = (1..=payloads.len() as u64).filter(|&s| s != hit).collect();
            prop_assert_eq!(sequences(&found), expected);
            prop_assert_eq!(found.damaged.len() + usize::from(!found.tail.is_empty()), 1);
        }

        #[test]
        fn a_zero_tail_is_no_record(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), zeros in 0usize..200) {
            let (mut bytes, _) = file(&payloads);
            let clean = bytes.len();
            bytes.resize(clean + zeros, 0);
            let found = scan(&bytes, 4, 0);
            prop_assert_eq!(found.frames.len(), payloads.len());
            prop_assert_eq!(found.tail, clean..clean + zeros);
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            scan(&bytes, 0, 0);
        }
    }
}

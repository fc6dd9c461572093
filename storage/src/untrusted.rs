//! Entry points for the fuzz targets (`tests/fuzz`): whatever reads files of a data directory. Not part of the
//! interface.

use std::path::Path;

use crate::{framing, journal::payload, parts::PartName};

/// Reads the records of a journal and their batches.
pub fn journal_frames(bytes: &[u8]) {
    let scan = framing::scan(bytes, 0, 0);
    for frame in &scan.frames {
        let _ = payload::decode(&bytes[frame.payload.clone()]);
    }
    let lost: usize = scan.damaged.iter().map(ExactSizeIterator::len).sum();
    let kept: usize = scan.frames.iter().map(|frame| frame.payload.len()).sum();
    assert!(lost + kept + scan.tail.len() <= bytes.len(), "no byte is two things");
}

/// Batches as records of a journal.
pub fn framed(batches: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sequence, batch) in (1..).zip(batches) {
        framing::encode(&mut bytes, sequence, 7, &payload::encode(batch));
    }
    bytes
}

/// Reads the name of a part.
pub fn part_name(name: &str) {
    if let Some(part) = PartName::parse(Path::new(name)) {
        assert!(part.extent().start <= part.extent().end, "a part ends after it begins");
    }
}

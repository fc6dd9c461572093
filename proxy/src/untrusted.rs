//! Parsers of callers' bytes, exposed for the fuzz targets (`tests/fuzz`). Not part of the public interface.

use crate::wire::{detect, framing::Framing};

const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Follows the framing of requests, in one piece and byte by byte: the findings must not depend on how the bytes
/// arrive.
pub fn http1_framing(bytes: &[u8]) {
    let mut whole = Framing::new(MAX_HEAD_BYTES);
    let first = whole.feed(bytes).is_ok();
    let mut pieces = Framing::new(MAX_HEAD_BYTES);
    let second = bytes.chunks(1).all(|piece| pieces.feed(piece).is_ok());
    assert_eq!(
        (first, whole.refused()),
        (second, pieces.refused()),
        "pieces say something else"
    );
}

/// Detects the protocol from the first bytes: a result for fewer bytes has to stay valid.
pub fn protocol(bytes: &[u8]) {
    let mut said = None;
    for end in 0..=bytes.len() {
        let now = detect::classify(&bytes[..end]);
        assert!(said.is_none() || now == said, "more bytes changed the answer");
        said = now;
    }
}

//! What delta and cumulative points have in common: the window that they cover, and the number that determines how
//! counts are rounded.

use xxhash_rust::xxh3::xxh3_64;

use crate::time::whole_seconds;

/// The seconds that an export covers: its own time, whenever its sender's windows begin.
pub(super) fn window_of(start_unix_ns: u64, end_unix_ns: u64) -> (i64, u32) {
    let ns = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    whole_seconds(ns(start_unix_ns), ns(end_unix_ns))
}

/// A number in `0..1` that is the same for the same export of the same series, and looks random across exports.
pub(super) fn drawn(stream: u128, end_unix_ns: u64) -> f64 {
    let hash = xxh3_64(&[stream.to_le_bytes().as_slice(), &end_unix_ns.to_le_bytes()].concat());
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

//! What reads texts of questions, for the fuzz targets (`tests/fuzz`). Not part of the interface.

use crate::query::{selector::Selector, times};

/// Reads a selector in both ways.
pub fn selector(text: &str) {
    let _ = Selector::strict(text);
    let _ = Selector::lenient(text);
}

/// Reads a time.
pub fn time(text: &str) {
    if let Ok(seconds) = times::parse(text, 1_790_000_000_000_000_000) {
        assert!(seconds.is_finite(), "a time is a number");
    }
}

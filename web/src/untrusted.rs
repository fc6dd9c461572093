//! Parsers of queries' text, exposed for the fuzz targets (`tests/fuzz`). Not part of the public interface.

use crate::query::{selector::Selector, times};

/// Parses a selector in both ways.
pub fn selector(text: &str) {
    let _ = Selector::strict(text);
    let _ = Selector::lenient(text);
}

/// Parses a time.
pub fn time(text: &str) {
    if let Ok(seconds) = times::parse(text, 1_790_000_000_000_000_000) {
        assert!(seconds.is_finite(), "a time is a number");
    }
}

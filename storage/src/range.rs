//! The time a question is about.

/// Seconds since the Unix epoch; `from` belongs to the range, `to` does not. A window belongs to a range when its
/// start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First second.
    pub from_unix_s: i64,
    /// Second after the last.
    pub to_unix_s: i64,
}

impl Range {
    /// Everything that can be stored.
    pub const ALL: Range = Range {
        from_unix_s: 0,
        to_unix_s: u32::MAX as i64,
    };
}

//! The effect of the limits on a request. Guarantee: what is dropped or changed is counted by reason.

use emberline_model::otlp::Rejected;

/// What was dropped, and what was changed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Dropped.
    pub(crate) rejected: Vec<Rejected>,
    /// Changed.
    pub(crate) changed: Vec<Rejected>,
}

/// Adds to what was dropped or changed for a reason.
pub(in crate::ingest) fn count(list: &mut Vec<Rejected>, reason: &'static str, count: u64) {
    Rejected::from((reason, count)).add_to(list);
}

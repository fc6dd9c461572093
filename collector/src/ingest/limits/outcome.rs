//! What applying the limits did to a request. Guarantee: what is left out or changed is counted by its reason.

use emberline_model::otlp::Rejected;

/// What was left out and what was kept in another form.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Left out.
    pub(crate) rejected: Vec<Rejected>,
    /// Kept in another form.
    pub(crate) changed: Vec<Rejected>,
}

/// Adds to what was left out or changed for a reason.
pub(in crate::ingest) fn count(list: &mut Vec<Rejected>, reason: &'static str, count: u64) {
    Rejected::from((reason, count)).add_to(list);
}

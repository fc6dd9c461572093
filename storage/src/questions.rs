//! What can be asked ([`Question`]), a file each. Each is SQL with bound parameters over the hours in question, and Rust that turns rows into
//! nouns. Guarantees: SQL aggregates and never takes stacks apart; histograms are merged by adding counts; values are
//! exact sums, and saturate instead of wrapping; an answer's order does not depend on the engine's.

pub(crate) mod columns;
pub(crate) mod costs;
mod coverage;
pub(crate) mod exemplars;
mod gauges;
pub(crate) mod heat_map;
mod marks;
pub(crate) mod open;
pub(crate) mod profile_types;
pub(crate) mod requests;
pub(crate) mod sample_series;
pub(crate) mod selected;
pub(crate) mod selection;
mod series;
pub(crate) mod served;
pub(crate) mod services;
pub(crate) mod side_data;
mod spread;
pub(crate) mod sql;
pub(crate) mod stacks;
mod sums;
pub(crate) mod totals;
pub(crate) mod windows;

use crate::{
    hot::{Shared, Span},
    range::Range,
    readers::{Failure, Reader},
};

/// What can be asked of a [`Store`](crate::Store): what is asked is the value, what it is answered with its type. All are defined
/// here, a file each.
pub trait Question: Send + 'static {
    /// What [`Store::ask`](crate::Store::ask) gives.
    type Answer: Send + 'static;

    /// The time it is about.
    fn range(&self) -> Range;

    /// Answers it; only the store can, which has views. May be called again when the view has changed.
    #[doc(hidden)]
    fn run(&self, view: &View<'_>) -> Result<Self::Answer, Failure>;
}

/// One state of the hours that a question touches.
pub struct View<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) span: &'a Span,
    pub(crate) shared: &'a Shared,
}

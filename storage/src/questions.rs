//! What can be asked ([`Question`]), a file each. Each is SQL with bound parameters over the hours in question, and
//! Rust that turns rows into nouns. Guarantees: SQL aggregates and never takes stacks apart; histograms are merged by
//! adding counts; values are exact sums, and saturate instead of wrapping; the order of an answer does not depend on
//! the engine's.

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

/// A question to a [`Store`](crate::Store): the value says what is asked, its type what the answer is. All are defined
/// here, a file each.
pub trait Question: Send + 'static {
    /// What [`Store::ask`](crate::Store::ask) returns.
    type Answer: Send + 'static;

    /// The time it is about.
    fn range(&self) -> Range;

    /// Answers it; only the store can call this, since only it has views. May be called again when the view has
    /// changed.
    #[doc(hidden)]
    fn run(&self, view: &View<'_>) -> Result<Self::Answer, Failure>;
}

/// A consistent view of the hours that a question covers.
pub struct View<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) span: &'a Span,
    pub(crate) shared: &'a Shared,
}

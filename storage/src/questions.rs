//! One file per question. Each is SQL with bound parameters over the hours in question, and Rust that turns rows into
//! nouns. Guarantees: SQL aggregates and never takes stacks apart; histograms are merged by adding counts; values are
//! exact sums, and saturate instead of wrapping; an answer's order does not depend on the engine's.

pub(crate) mod columns;
pub(crate) mod costs;
mod coverage;
pub(crate) mod exemplars;
mod gauges;
pub(crate) mod heat_map;
mod marks;
pub(crate) mod profile_types;
pub(crate) mod requests;
pub(crate) mod selected;
pub(crate) mod selection;
mod series;
pub(crate) mod services;
pub(crate) mod side_data;
mod spread;
pub(crate) mod sql;
pub(crate) mod stacks;
mod sums;
pub(crate) mod totals;
pub(crate) mod windows;

//! Lengths of time that rows are added up over.

use super::hours::QUARTER_S;

/// Seconds of a quarter of a day.
pub(crate) const QUARTER_OF_DAY: u32 = QUARTER_S as u32;
/// Requests, and CPU without its stacks, are added up over so many seconds: the points in which a day is drawn.
pub(crate) const QUARTER_OF_HOUR: u32 = 900;

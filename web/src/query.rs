//! How a query is read: parameters, times, selectors, and the names that it may use.

pub(crate) mod catalog;
pub(crate) mod names;
pub(crate) mod params;
pub(crate) mod selector;
pub(crate) mod times;

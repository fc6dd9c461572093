//! How a question is read: parameters, times, selectors, and the names that it may mean.

pub(crate) mod catalog;
pub(crate) mod names;
pub(crate) mod params;
pub(crate) mod selector;
pub(crate) mod times;

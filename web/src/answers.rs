//! What answers are made of, whichever endpoint gives them.

pub(crate) mod cost;
pub(crate) mod edges;
pub(crate) mod exemplars;
pub(crate) mod json;
pub(crate) mod layout;
pub(crate) mod over_time;
pub(crate) mod red;
pub(crate) mod stacks;
pub(crate) mod tree_columns;

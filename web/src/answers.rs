//! Building blocks of responses, shared by the endpoints.

pub(crate) mod cost;
pub(crate) mod edges;
pub(crate) mod exemplars;
pub(crate) mod json;
pub(crate) mod layout;
pub(crate) mod over_time;
pub(crate) mod red;
pub(crate) mod stacks;
pub(crate) mod tree_columns;

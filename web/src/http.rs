//! HTTP concerns of all endpoints: errors, headers, who may query and how much.

pub(crate) mod error;
pub(crate) mod limits;
pub(crate) mod metrics;
mod places;
pub(crate) mod same_site;
pub(crate) mod security;

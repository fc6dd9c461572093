//! What is said over HTTP whatever was asked: failures, headers, who may ask and how much.

pub(crate) mod error;
pub(crate) mod limits;
pub(crate) mod metrics;
mod places;
pub(crate) mod same_site;
pub(crate) mod security;

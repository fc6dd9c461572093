//! The mathematics on generated data with a known truth.

mod compare;
mod coverage;
mod errors;
mod functions;
mod latency;
mod support;

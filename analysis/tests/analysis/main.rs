//! The mathematics on generated data with a known truth.

mod compare;
mod functions;
mod latency;
mod support;

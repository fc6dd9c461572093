//! The mathematics on generated data with a known truth.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod change;
mod compare;
mod coverage;
mod errors;
mod functions;
mod honest;
mod latency;
mod named;
mod support;
mod warm_up;

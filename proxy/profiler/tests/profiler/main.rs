//! The sampler in real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod attribution;
mod cpu_accounting;
mod crash_stress;
mod labels;
mod ownership;
mod support;

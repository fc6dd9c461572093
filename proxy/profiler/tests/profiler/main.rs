//! The sampler in real processes.

mod attribution;
mod cpu_accounting;
mod crash_stress;
mod labels;
mod ownership;
mod support;

//! Emberline's statistics: release verdicts and the significance of function changes.
//!
//! Guarantees: numbers in, evidence out. No I/O, no clock, no randomness: the same windows give the same answer in the
//! collector, in a page and after a restart. Every mark of change has a stated false-positive rate, and "too few
//! samples to judge" is an answer. `cargo run --release -p emberline-analysis --example replay` measures it for
//! latency, `--example function_verdicts` for functions.

pub mod alert_state;
pub mod attribution;
mod blocks;
pub mod change;
pub mod compare;
pub mod cost_shift;
mod e_process;
pub mod errors;
pub mod fold;
pub mod functions;
pub mod latency;
mod latency_past;
mod latency_reference;
mod latency_size;
mod latency_stating;
mod latency_sums;
mod latency_verdict;
pub mod latency_watch;
mod least_change;
mod levels;
mod packed;
mod parts;
mod paths;
mod sentence;
pub mod statistics;
mod strata;
mod stratum;
mod wander;

//! The public API of the model: codecs, formats of others, mutated input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod codecs;
mod coverage;
mod cumulative_histograms;
mod exemplars;
mod explicit_bounds;
mod files_of_profilers;
mod go_runtime_files;
mod hostile_files;
mod mutations;
mod names;
mod other_profilers;
mod other_scales;
mod otlp_generations;
mod pprof_bad_input;
mod stored_alerts;
mod types_of_others;

//! The real binaries, started as a user starts them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod abandoned_questions;
mod bad_input;
mod configuration;
mod cross_site;
mod demo;
mod figures;
mod hostile_connections;
mod hostile_memory;
mod metrics;
mod over_tls;
mod proxy_memory;
mod store_files;

//! The collector, driven over its ports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod accepted_or_said;
mod catalogue;
mod debuginfo;
mod exemplars;
mod fair_shares;
mod files_of_profilers;
mod hostile_files;
mod notifications;
mod otlp_defaults;
mod otlp_grpc;
mod otlp_http;
mod over_tls;
mod profiles_of_others;
mod pushed_counters;
mod real_clients;
mod release_day;
mod releases;
mod scraping;
mod streams;
mod support;
mod two_signals;
mod verdicts;

//! The collector: ingests telemetry, symbolises addresses, judges releases and sends alerts about regressions.
//!
//! ```text
//! OTLP gRPC / HTTP ─▶ ingest (limits) ─▶ store ─ack─▶ sender
//! files, Pyroscope, Parca ─▶ ingest
//! scrape ─GET─▶ targets ─▶ ingest
//! debug information ─▶ files ─▶ symbol worker ─▶ store
//!                                store ─▶ verdict runner ─▶ AlertsBoard ─▶ Alertmanager, webhooks
//! ```
//!
//! Guarantees: an acknowledged batch is on disk and counted once; everything senders can grow is bounded and every
//! refusal says which setting to change; verdicts are a function of what is stored, so a restart repeats them; an alert
//! that fired is kept until every receiver that was notified has been notified of its end.
//!
//! Wrong on purpose: there are no tenants and no credentials; anyone who can reach the ports may write. Each module
//! lists more.

mod alert_book;
mod collector;
mod cumulative;
mod ingest;
mod notify;
pub mod scrape;
mod self_metrics;
mod symbols;
#[doc(hidden)]
pub mod untrusted;
mod verdict;

pub use collector::{Collector, CollectorConfig, CollectorError, Tasks};
pub use ingest::{left_out::Told, limits::config::IngestLimits, upload::Stored};
pub use notify::InvalidReceiver;
pub use self_metrics::METRICS;
pub use symbols::claims::{SymbolClaim, forget_symbol_file, symbol_claims};
pub use symbols::reader::read_symbols;
pub use verdict::VerdictConfig;

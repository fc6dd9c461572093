//! The proxy and its library, driven over real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod data_path;
mod export_delivery;
mod export_profiles;
mod export_support;
mod export_telemetry;
mod hostile_collector;

/// A process has one sampler: held by the tests that start it.
static SAMPLER: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Waits until this process may start the sampler; keep what it returns until it has ended.
fn alone_with_the_sampler() -> std::sync::MutexGuard<'static, ()> {
    SAMPLER.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

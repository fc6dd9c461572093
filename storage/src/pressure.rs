//! Whether the process holds so much memory that nothing large may start.
//!
//! Limits see only what is counted; what the allocators keep, and what nobody counts, shows only in the memory of the
//! process. Guarantee: anything that needs much memory waits while the process holds more than its mark; what has
//! started carries on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often a waiter checks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Set by the watcher of the process's memory; low until then.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicBool>);

impl Pressure {
    /// Sets whether the process holds too much.
    pub fn set(&self, is_high: bool) {
        self.0.store(is_high, Ordering::Relaxed);
    }

    /// True while the process holds too much.
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until the process no longer holds too much.
    pub async fn relief(&self) {
        while self.is_high() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

//! Whether the process holds so much memory that nothing large may begin.
//!
//! Limits count what they are told of; what the allocators keep, and what nobody counts, shows only in what the process holds.
//! Guarantee: whoever asks for much waits while the process holds more than its mark, and what was begun goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How often somebody who waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Set by whoever watches the process's memory; low until then.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicBool>);

impl Pressure {
    /// Says whether the process holds too much.
    pub fn set(&self, is_high: bool) {
        self.0.store(is_high, Ordering::Relaxed);
    }

    /// True while it does.
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until it does not.
    pub async fn relief(&self) {
        while self.is_high() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

//! Whether an endpoint is fit for requests.
//!
//! Guarantees: a request that goes well costs one load of an atomic; an endpoint that refused a connection is passed over for
//! [`AVOIDED`] while another one can be had, and its next success ends that.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How long an endpoint that refused a connection is passed over. Short, because it may be back at once; long enough that
/// an address family without a route costs next to nothing.
const AVOIDED: Duration = Duration::from_secs(5);

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct Health {
    /// What the times below count from.
    since: Instant,
    /// Milliseconds after `since`; 0 where nothing speaks against it.
    avoided_until: AtomicU64,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            since: Instant::now(),
            avoided_until: AtomicU64::new(0),
        }
    }
}

impl Health {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether requests may go there as far as is known.
    pub(super) fn is_fit(&self) -> bool {
        match self.avoided_until.load(Ordering::Relaxed) {
            0 => true,
            until => until <= self.now(),
        }
    }

    /// It accepted no connection.
    pub(super) fn refused(&self) {
        let until = self.now() + AVOIDED.as_millis() as u64;
        self.avoided_until.store(until, Ordering::Relaxed);
    }

    /// It answered, or accepted a connection.
    pub(super) fn succeeded(&self) {
        if self.avoided_until.load(Ordering::Relaxed) != 0 {
            self.avoided_until.store(0, Ordering::Relaxed);
        }
    }
}

//! The load of an endpoint: requests in flight, and how long it takes.
//!
//! Guarantee: counting takes no lock; latencies take one, and are measured only for the balancer that uses them
//! (peak_ewma).
//!
//! Wrong on purpose: each worker knows only its own requests, as in Envoy.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The load of an endpoint.
#[derive(Debug)]
pub(super) struct Load {
    since: Instant,
    in_flight: AtomicU32,
    latency: Mutex<Option<Latency>>,
}

/// A moving average that follows a peak at once and decays slowly.
#[derive(Debug, Clone, Copy)]
struct Latency {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// Its decayed value.
    fn after(&self, now: Instant, decay: Duration) -> f64 {
        self.seconds * self.weight(now, decay)
    }

    fn weight(&self, now: Instant, decay: Duration) -> f64 {
        (-now.duration_since(self.at).as_secs_f64() / decay.as_secs_f64()).exp()
    }
}

impl Default for Load {
    fn default() -> Load {
        Load {
            since: Instant::now(),
            in_flight: AtomicU32::new(0),
            latency: Mutex::default(),
        }
    }
}

impl Load {
    /// Requests in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// One more in flight.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// One less in flight.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The average latency in seconds. `unknown` stands in before the first one and decays as well, so that every
    /// endpoint gets tried.
    pub(super) fn latency(&self, decay: Duration, unknown: Duration) -> f64 {
        let now = Instant::now();
        let age = Duration::from_secs(now.duration_since(self.since).as_secs());
        // In whole seconds: endpoints created together are equal.
        let unknown = Latency {
            seconds: unknown.as_secs_f64(),
            at: now.checked_sub(age).unwrap_or(now),
        };
        self.latency.lock().unwrap_or(unknown).after(now, decay)
    }

    /// Records a latency.
    pub(super) fn took(&self, time: Duration, decay: Duration) {
        let (seconds, now) = (time.as_secs_f64(), Instant::now());
        let mut latency = self.latency.lock();
        let average = match &*latency {
            Some(known) if seconds < known.after(now, decay) => {
                let weight = known.weight(now, decay);
                known.seconds * weight + seconds * (1.0 - weight)
            }
            _ => seconds,
        };
        *latency = Some(Latency {
            seconds: average,
            at: now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const UNKNOWN: Duration = Duration::from_millis(30);

    #[tokio::test(start_paused = true)]
    async fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let load = Load::default();
        let latency = || (load.latency(DECAY, UNKNOWN) * 1_000.0).round();
        assert_eq!(latency(), 30.0);
        load.took(Duration::from_millis(10), DECAY);
        assert_eq!(latency(), 10.0);
        load.took(Duration::from_millis(500), DECAY);
        assert_eq!(latency(), 500.0);
        // A faster one at the same moment has no weight yet.
        load.took(Duration::from_millis(10), DECAY);
        assert_eq!(latency(), 500.0);
        tokio::time::advance(DECAY).await;
        assert_eq!(latency(), 184.0, "a peak of which nothing is heard is tried again");
        load.took(Duration::from_millis(10), DECAY);
        assert_eq!(latency(), 190.0, "500 / e + 10 (1 - 1 / e)");
        tokio::time::advance(10 * DECAY).await;
        load.took(Duration::from_millis(10), DECAY);
        assert_eq!(latency(), 10.0);
    }
}

//! How long to wait before retrying.
//!
//! Guarantee: waits double up to a cap, and half of each is spread by the sender's name, so that the senders of a mesh
//! do not all return in the same instant. No random source is needed, so a simulation is exactly repeatable.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The longest wait that a collector can ask for.
pub(super) const MOST_ASKED_FOR: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Backoff {
    initial: Duration,
    cap: Duration,
    failures: u32,
    spread: u64,
}

impl Backoff {
    pub(super) fn new(initial: Duration, cap: Duration, sender: &str) -> Backoff {
        let mut hasher = DefaultHasher::new();
        sender.hash(&mut hasher);
        Backoff {
            initial,
            cap: cap.max(initial),
            failures: 0,
            spread: hasher.finish(),
        }
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: between half of the doubled wait and all of it, or what the collector asked
    /// for if that is longer.
    pub(super) fn failed(&mut self, asked_for: Option<Duration>) -> Duration {
        let doubled = self
            .initial
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        // One step of a linear congruential generator (Knuth's MMIX constants) per failure.
        self.spread = self
            .spread
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let share = (self.spread >> 11) as f64 / (1u64 << 53) as f64;
        let wait = doubled.mul_f64(0.5 + 0.5 * share);
        asked_for.map_or(wait, |asked| wait.max(asked.min(MOST_ASKED_FOR)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_differ_between_senders() {
        let (initial, cap) = (Duration::from_millis(500), Duration::from_secs(30));
        let waits = |sender| {
            let mut backoff = Backoff::new(initial, cap, sender);
            (0..40).map(|_| backoff.failed(None)).collect::<Vec<_>>()
        };
        let (a, b) = (waits("a"), waits("b"));
        for (n, wait) in a.iter().enumerate() {
            let doubled = initial.saturating_mul(2u32.saturating_pow(n as u32)).min(cap);
            assert!(*wait >= doubled / 2 && *wait <= doubled, "{n}: {wait:?}");
        }
        assert_ne!(a, b);
        assert_eq!(a, waits("a"));
    }

    #[test]
    fn a_collector_cannot_ask_for_more_than_five_minutes() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(1), "a");
        assert_eq!(backoff.failed(Some(Duration::from_secs(1_000_000_000))), MOST_ASKED_FOR);
        assert_eq!(backoff.failed(Some(Duration::from_secs(7))), Duration::from_secs(7));
    }
}

//! The sampler's limit on itself: it halves its rate when sampling takes more than its share of the process's CPU time.
//!
//! Guarantee: the rate stays between the configured one and 1 Hz, and a steady load settles on one rate (doubling takes
//! three calm seconds below half the budget). Wrong on purpose: a nearly idle process counts as using 5 % of a core,
//! since otherwise the drainer's few wake-ups would look like all of its work, which no rate can change.

use std::time::Duration;

const IDLE_SHARE_OF_A_CORE: f64 = 0.05;
const CALM_BEFORE_DOUBLING: u32 = 3;

/// A change of the rate.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Halved,
    Doubled,
}

pub(super) struct Budget {
    limit: f64,
    /// How many times the rate is currently halved.
    halvings: u32,
    /// Smoothed share of CPU time.
    share: Option<f64>,
    calm: u32,
}

impl Budget {
    pub(super) fn new(limit: f64) -> Self {
        Self {
            limit,
            halvings: 0,
            share: None,
            calm: 0,
        }
    }

    /// The current period in nanoseconds, when `hz` is requested.
    pub(super) fn period_ns(&self, hz: u32) -> u64 {
        (1_000_000_000 / u64::from(hz)) << self.halvings
    }

    /// Records about one second; `hz` is the requested rate.
    pub(super) fn observe(&mut self, sampling_ns: u64, process_ns: u64, elapsed: Duration, hz: u32) -> Option<Step> {
        let idle_ns = elapsed.as_nanos() as f64 * IDLE_SHARE_OF_A_CORE;
        let now = sampling_ns as f64 / (process_ns as f64).max(idle_ns).max(1.0);
        let share = self.share.map_or(now, |before| f64::midpoint(before, now));
        self.share = Some(share);
        if share > self.limit && self.halvings < hz.ilog2() {
            self.halvings += 1;
            self.calm = 0;
            self.share = Some(share / 2.0);
            return Some(Step::Halved);
        }
        if share >= self.limit / 2.0 || self.halvings == 0 {
            self.calm = 0;
            return None;
        }
        self.calm += 1;
        if self.calm < CALM_BEFORE_DOUBLING {
            return None;
        }
        self.halvings -= 1;
        self.calm = 0;
        self.share = Some(share * 2.0);
        Some(Step::Doubled)
    }

    /// Discards what was measured at another rate.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BUSY: u64 = 1_000_000_000;

    /// Runs a process whose samples cost `ns_per_sample`; returns the rate after each second.
    fn rates(budget: &mut Budget, ns_per_sample: u64, seconds: usize) -> Vec<u64> {
        (0..seconds)
            .map(|_| {
                let samples = BUSY / budget.period_ns(99);
                budget.observe(samples * ns_per_sample, BUSY, SECOND, 99);
                BUSY / budget.period_ns(99)
            })
            .collect()
    }

    #[test]
    fn the_rate_halves_while_over_budget_and_settles() {
        let mut budget = Budget::new(0.01);
        // 99 Hz × 350 µs = 3.5 % of a core; a quarter of the rate fits into 1 %.
        let rates = rates(&mut budget, 350_000, 30);
        assert_eq!(rates[0], 49);
        assert!(rates[5..].iter().all(|rate| *rate == 24), "{rates:?}");
    }

    #[test]
    fn the_rate_doubles_back_when_samples_are_cheap_again() {
        let mut budget = Budget::new(0.01);
        rates(&mut budget, 1_000_000, 10);
        assert!(budget.period_ns(99) > BUSY / 50);
        let back = rates(&mut budget, 2_000, 60);
        assert_eq!(*back.last().unwrap(), 99);
    }

    #[test]
    fn the_rate_stays_at_or_above_one_hertz() {
        let mut budget = Budget::new(1e-12);
        let rates = rates(&mut budget, 1_000_000, 40);
        assert_eq!(*rates.last().unwrap(), 1);
    }

    #[test]
    fn an_idle_process_keeps_its_rate() {
        let mut budget = Budget::new(0.01);
        for _ in 0..60 {
            // 100 µs of wake-ups in a process that does nothing else.
            assert_eq!(budget.observe(100_000, 110_000, SECOND, 99), None);
        }
    }
}

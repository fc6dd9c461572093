//! Weighted random choice, of one and of the better of two.
//!
//! Guarantees: each candidate is drawn with its share of the candidates' weight; of two that are equally good, the
//! first one drawn is taken, so that without load the weights hold here, too. A draw takes no lock.
//!
//! Wrong on purpose: SplitMix64 from a seed, whose next number can be predicted from the last: nothing secret depends
//! on it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Draws indices by weight.
#[derive(Debug)]
pub(super) struct Random {
    /// Running sums of the weights.
    sums: Vec<u64>,
    state: AtomicU64,
}

impl Random {
    pub(super) fn new(weights: &[u64], seed: u64) -> Random {
        let sums = weights.iter().scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Random {
            sums: sums.collect(),
            state: AtomicU64::new(seed),
        }
    }

    /// One candidate.
    pub(super) fn pick(&self, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let place = self.below(*self.sums.last()?);
        let drawn = self.sums.partition_point(|sum| *sum <= place);
        if is_candidate(drawn) {
            return Some(drawn);
        }
        let weight = |at: usize| self.sums[at] - if at > 0 { self.sums[at - 1] } else { 0 };
        let candidates = || (0..self.sums.len()).filter(|at| is_candidate(*at));
        let total = candidates().map(weight).sum::<u64>();
        let mut left = self.below(total);
        candidates().find(|&at| {
            let is_here = left < weight(at);
            left = left.saturating_sub(weight(at));
            is_here
        })
    }

    /// The cheaper of two candidates (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
    pub(super) fn pick_of_two(
        &self,
        is_candidate: impl Fn(usize) -> bool,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let first = self.pick(&is_candidate)?;
        match self.pick(|at| at != first && is_candidate(at)) {
            Some(second) if cost(second) < cost(first) => Some(second),
            _ => Some(first),
        }
    }

    /// A number below `bound`, which may be 0.
    fn below(&self, bound: u64) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    const PICKS: usize = 100_000;

    /// How often each place was picked, and what it should be.
    fn shares(weights: &[u64], mut pick: impl FnMut() -> Option<usize>) -> Vec<(f64, f64)> {
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..PICKS {
            counts[pick().unwrap()] += 1;
        }
        let total: u64 = weights.iter().sum();
        let share = |(&n, &weight): (&u32, &u64)| (f64::from(n) / PICKS as f64, weight as f64 / total as f64);
        counts.iter().zip(weights).map(share).collect()
    }

    #[test]
    fn nobody_is_picked_of_nobody() {
        assert_eq!(Random::new(&[], 1).pick(|_| true), None);
        assert_eq!(Random::new(&[1, 2], 1).pick(|_| false), None);
        assert_eq!(Random::new(&[1, 2], 1).pick_of_two(|_| false, |_| 0.0), None);
    }

    #[test]
    fn shares_are_within_1_percent_of_the_weights() {
        for weights in [&[1, 1][..], &[1, 1, 1, 1], &[1, 2, 3], &[90, 10], &[5, 0, 5]] {
            let random = Random::new(weights, 7);
            for (share, expected) in shares(weights, || random.pick(|_| true)) {
                assert!((share - expected).abs() < 0.01, "{weights:?}: {share}, not {expected}");
            }
            for (share, expected) in shares(weights, || random.pick_of_two(|_| true, |_| 0.0)) {
                assert!(
                    (share - expected).abs() < 0.01,
                    "of two, {weights:?}: {share}, not {expected}"
                );
            }
        }
    }

    proptest! {
        /// Five standard deviations.
        #[test]
        fn shares_are_those_of_the_weights_whoever_is_away(
            weights in proptest::collection::vec(1_u64..20, 2..8),
            seed in any::<u64>(),
        ) {
            let random = Random::new(&weights, seed);
            let mut present = weights;
            present[0] = 0;
            for (share, expected) in shares(&present, || random.pick(|at| at != 0)) {
                let bound = 5.0 * (expected * (1.0 - expected) / PICKS as f64).sqrt();
                prop_assert!((share - expected).abs() <= bound, "{share}, not {expected}");
            }
        }
    }

    #[test]
    fn of_two_the_busier_one_is_avoided() {
        let random = Random::new(&[1; 5], 7);
        // Requests that never end: the number in flight evens out.
        let in_flight = RefCell::new([0_u32; 5]);
        for _ in 0..1_000 {
            let at = random
                .pick_of_two(|_| true, |at| f64::from(in_flight.borrow()[at]))
                .unwrap();
            in_flight.borrow_mut()[at] += 1;
        }
        assert!(
            in_flight.borrow().iter().all(|n| (190..=210).contains(n)),
            "{in_flight:?}"
        );
        let busy = |at: usize| if at == 3 { 100.0 } else { 0.0 };
        assert!((0..1_000).all(|_| random.pick_of_two(|_| true, busy) != Some(3)));
    }
}

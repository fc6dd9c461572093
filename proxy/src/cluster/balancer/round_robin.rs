//! Smooth weighted round robin.
//!
//! Guarantees: any run of picks as long as the sum of the weights is shared exactly by weight, and no endpoint gets its
//! share all at once; when the candidates change, a new round begins.

use parking_lot::Mutex;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    turns: Mutex<Vec<Turn>>,
}

#[derive(Debug)]
struct Turn {
    weight: i64,
    credit: i64,
    was_candidate: bool,
}

impl RoundRobin {
    pub(crate) fn new(weights: &[u64]) -> RoundRobin {
        let turn = |&weight: &u64| Turn {
            weight: weight as i64,
            credit: 0,
            was_candidate: true,
        };
        RoundRobin {
            turns: Mutex::new(weights.iter().map(turn).collect()),
        }
    }

    /// The next endpoint's index.
    pub(crate) fn pick(&self, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let mut turns = self.turns.lock();
        // No candidates is no change: the round continues among those asked for instead.
        if !(0..turns.len()).any(&is_candidate) {
            return None;
        }
        let (mut has_changed, mut total) = (false, 0);
        for (at, turn) in turns.iter_mut().enumerate() {
            let is_candidate = is_candidate(at);
            has_changed |= turn.was_candidate != is_candidate;
            turn.was_candidate = is_candidate;
            total += if is_candidate { turn.weight } else { 0 };
        }
        let mut best: Option<(usize, i64)> = None;
        for (at, turn) in turns.iter_mut().enumerate() {
            if has_changed {
                turn.credit = 0;
            }
            if !turn.was_candidate {
                continue;
            }
            turn.credit += turn.weight;
            if best.is_none_or(|(_, credit)| turn.credit > credit) {
                best = Some((at, turn.credit));
            }
        }
        let (at, _) = best?;
        turns[at].credit -= total;
        Some(at)
    }

    /// Another endpoint for a request that already used a turn: the turns of the others are unaffected.
    pub(super) fn instead(&self, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let turns = self.turns.lock();
        let mut best: Option<(usize, i64)> = None;
        for (at, turn) in turns.iter().enumerate().filter(|(at, _)| is_candidate(*at)) {
            let credit = turn.credit + turn.weight;
            if best.is_none_or(|(_, most)| credit > most) {
                best = Some((at, credit));
            }
        }
        best.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(turns: &RoundRobin, of: usize, n: u64, is_candidate: impl Fn(usize) -> bool + Copy) -> Vec<u64> {
        let mut counts = vec![0; of];
        for _ in 0..n {
            counts[turns.pick(is_candidate).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn nobody_is_picked_of_nobody() {
        assert_eq!(RoundRobin::new(&[]).pick(|_| true), None);
        assert_eq!(RoundRobin::new(&[1, 2]).pick(|_| false), None);
        assert_eq!(RoundRobin::new(&[1, 2]).instead(|_| false), None);
    }

    proptest! {
        /// Over one round (as many picks as the weights add up to), each endpoint gets exactly its weight.
        #[test]
        fn weights_are_respected_exactly_in_every_round(weights in proptest::collection::vec(1_u64..20, 1..6)) {
            let total: u64 = weights.iter().sum();
            let turns = RoundRobin::new(&weights);
            for _ in 0..3 {
                prop_assert_eq!(counts(&turns, weights.len(), total, |_| true), weights.clone());
            }
        }

        /// Even after some were out, and whatever was picked instead.
        #[test]
        fn a_new_round_begins_with_every_change(weights in proptest::collection::vec(1_u64..20, 2..6), picks in 0_u64..50) {
            let total: u64 = weights.iter().sum();
            let turns = RoundRobin::new(&weights);
            counts(&turns, weights.len(), picks, |_| true);
            let mut without = weights.clone();
            without[0] = 0;
            prop_assert_eq!(counts(&turns, weights.len(), total - weights[0], |at| at != 0), without);
            prop_assert_ne!(turns.instead(|at| at != 0), Some(0));
            counts(&turns, weights.len(), picks, |at| at != 0);
            prop_assert_eq!(counts(&turns, weights.len(), total, |_| true), weights);
        }
    }
}

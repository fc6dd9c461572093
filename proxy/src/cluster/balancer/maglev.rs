//! Consistent hashing by a table (Eisenbud et al., "Maglev: a fast and reliable software network load balancer", NSDI
//! 2016, 3.4): endpoints take slots of the table in turn, each in an order of its own.
//!
//! Guarantees: shares of the table match the weights to about a hundredth; the owner of a key depends only on addresses
//! and weights; an endpoint that is removed moves its own keys and few others (the paper's trade-off for even shares).

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The owner of each slot.
#[derive(Debug)]
pub(super) struct Maglev {
    table: Vec<u32>,
    endpoints: usize,
}

/// An endpoint's order of slots, which visits each once because the size of the table is prime.
struct Order {
    next: u64,
    skip: u64,
}

impl Maglev {
    /// `size` is prime, and larger than the number of endpoints.
    pub(super) fn new(names: &[String], weights: &[u64], size: usize) -> Maglev {
        const FREE: u32 = u32::MAX;
        let places = size as u64;
        let order = |name: &String| Order {
            next: xxh3_64(name.as_bytes()) % places,
            skip: xxh3_64_with_seed(name.as_bytes(), 1) % (places - 1) + 1,
        };
        let mut orders: Vec<Order> = names.iter().map(order).collect();
        let largest = u128::from(weights.iter().copied().max().unwrap_or_default());
        let mut due = vec![0_u128; names.len()];
        let mut table = vec![FREE; if names.is_empty() { 0 } else { size }];
        let (mut left, mut round) = (table.len(), 0_u128);
        while left > 0 {
            round += 1;
            for (at, order) in orders.iter_mut().enumerate() {
                // An endpoint with a third of the largest weight gets a turn in every third round.
                if left == 0 || round * u128::from(weights[at]) <= due[at] {
                    continue;
                }
                due[at] += largest;
                while table[order.next as usize] != FREE {
                    order.next = (order.next + order.skip) % places;
                }
                table[order.next as usize] = at as u32;
                left -= 1;
            }
        }
        Maglev {
            table,
            endpoints: names.len(),
        }
    }

    /// The owner of a key.
    pub(super) fn pick(&self, key: u64, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let place = key.checked_rem(self.table.len() as u64)? as usize;
        let owner = self.table[place] as usize;
        if is_candidate(owner) {
            return Some(owner);
        }
        // The table cannot show that there are no candidates.
        if !(0..self.endpoints).any(&is_candidate) {
            return None;
        }
        let (before, after) = self.table.split_at(place);
        let mut owners = after.iter().chain(before).map(|at| *at as usize);
        owners.find(|at| is_candidate(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 65_537;

    fn names(n: u8) -> Vec<String> {
        (0..n).map(|last| format!("10.0.0.{last}:80")).collect()
    }

    fn shares(maglev: &Maglev, n: usize) -> Vec<f64> {
        let count = |at: usize| maglev.table.iter().filter(|of| **of as usize == at).count();
        (0..n).map(|at| count(at) as f64 / SIZE as f64).collect()
    }

    #[test]
    fn each_has_its_share_of_the_table_within_1_percent() {
        for weights in [&[1; 3][..], &[1; 10], &[1; 200], &[3, 1], &[50, 30, 20, 1]] {
            let total: u64 = weights.iter().sum();
            let maglev = Maglev::new(&names(weights.len() as u8), weights, SIZE);
            for (share, &weight) in shares(&maglev, weights.len()).into_iter().zip(weights) {
                let expected = weight as f64 / total as f64;
                assert!(
                    (share / expected - 1.0).abs() < 0.01,
                    "{weights:?}: {share}, not {expected}"
                );
            }
        }
        assert_eq!(Maglev::new(&[], &[], SIZE).pick(1, |_| true), None);
    }

    #[test]
    fn who_goes_takes_few_keys_of_others_along() {
        let maglev = Maglev::new(&names(10), &[1; 10], SIZE);
        let smaller = Maglev::new(&names(9), &[1; 9], SIZE);
        let places = maglev.table.iter().zip(&smaller.table);
        let moved = places
            .filter(|(before, after)| **before != 9 && before != after)
            .count();
        let share = moved as f64 / SIZE as f64;
        assert!(share < 0.05, "{share} of the keys of others moved");
        // An endpoint that is only out moves no others.
        for key in 0..SIZE as u64 {
            let (before, away) = (maglev.pick(key, |_| true), maglev.pick(key, |at| at != 9));
            assert!(before == away || before == Some(9), "{key}: {before:?}, {away:?}");
        }
        assert_eq!(maglev.pick(1, |_| false), None);
    }
}

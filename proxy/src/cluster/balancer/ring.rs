//! Consistent hashing on a ring (ketama): each endpoint has points on it in proportion to its weight, and a key belongs
//! to the next point.
//!
//! Guarantees: the owner of a key depends only on addresses and weights, so all workers and proxies agree; an endpoint
//! that is removed gives up only its own keys, one that is temporarily out lends them to those that follow on the ring.

use xxhash_rust::xxh3::xxh3_64;

/// The points, in order, with their owners.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// At least `least` points, so that the smallest weight has a whole one, but at most `most` (and one for each
    /// endpoint).
    pub(super) fn new(names: &[String], weights: &[u64], (least, most): (usize, usize)) -> Ring {
        let total = weights.iter().sum::<u64>() as f64;
        let smallest = weights.iter().copied().min().unwrap_or_default() as f64 / total;
        let size = ((smallest * least as f64).ceil() / smallest).min(most as f64);
        let mut points = Vec::new();
        for (at, (name, &weight)) in names.iter().zip(weights).enumerate() {
            let share = (size * weight as f64 / total).round().max(1.0) as u32;
            points.extend((0..share).map(|n| (xxh3_64(format!("{name}_{n}").as_bytes()), at as u32)));
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The owner of a key.
    pub(super) fn pick(&self, key: u64, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let begin = self.points.partition_point(|(point, _)| *point < key);
        let (before, after) = self.points.split_at(begin);
        let mut owners = after.iter().chain(before).map(|(_, at)| *at as usize);
        owners.find(|at| is_candidate(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn names(last: impl IntoIterator<Item = u8>) -> Vec<String> {
        last.into_iter().map(|last| format!("10.0.0.{last}:80")).collect()
    }

    fn owners(ring: &Ring, is_candidate: impl Fn(usize) -> bool + Copy) -> Vec<usize> {
        (0..KEYS)
            .map(|key| ring.pick(xxh3_64(&key.to_le_bytes()), is_candidate).unwrap())
            .collect()
    }

    #[test]
    fn who_goes_takes_only_its_own_keys_along() {
        let ring = Ring::new(&names(0..10), &[1; 10], (1_024, 65_536));
        let before = owners(&ring, |_| true);
        let smaller = Ring::new(&names(0..9), &[1; 9], (1_024, 65_536));
        let moved = |after: &[usize]| before.iter().zip(after).filter(|(a, b)| **a != 9 && a != b).count();
        assert_eq!(moved(&owners(&ring, |at| at != 9)), 0, "one that is away");
        // Fewer endpoints have more points each.
        let share = moved(&owners(&smaller, |_| true)) as f64 / KEYS as f64;
        assert!(share < 0.10, "{share} of the keys of others moved");
    }

    #[test]
    fn points_are_shared_by_weight_and_bounded() {
        let ring = Ring::new(&names(0..2), &[3, 1], (1_024, 65_536));
        let of = |at: u32| ring.points.iter().filter(|(_, of)| *of == at).count();
        assert_eq!((of(0), of(1)), (768, 256));
        let counts = owners(&ring, |_| true).iter().filter(|at| **at == 0).count() as f64 / KEYS as f64;
        assert!((counts - 0.75).abs() < 0.05, "{counts}");
        assert_eq!(Ring::new(&names(0..4), &[1; 4], (1_024, 100)).points.len(), 100);
        // Even a millionth of the weight gets a point.
        assert_eq!(
            Ring::new(&names(0..2), &[1_000_000, 1], (1_024, 65_536)).points.len(),
            65_537
        );
        assert_eq!(Ring::new(&[], &[], (1, 1)).pick(1, |_| true), None);
        assert_eq!(ring.pick(1, |_| false), None);
    }
}

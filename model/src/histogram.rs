//! Latency histograms: base-2 exponential, fixed scale 5.
//!
//! Guarantees: bucket `i` covers `(2^(i/32), 2^((i+1)/32)]` seconds, upper bound inclusive as in OpenTelemetry;
//! the relative error of a quantile is at most 1.08 %; merging adds counts, so it is exact, commutative and
//! associative, and the scale never changes, so the thresholds of two releases share their edges.
//! Percentiles are read from merged counts and never averaged.
//!
//! Source: OpenTelemetry data model, "ExponentialHistogram".

use serde::{Deserialize, Serialize};

/// The one scale: 32 buckets per power of two.
pub const SCALE: i32 = 5;
/// Buckets per power of two.
pub const BUCKETS_PER_OCTAVE: f64 = 32.0;
/// Lowest bucket kept: about one nanosecond. Smaller values count as this one.
pub const MIN_INDEX: i16 = -960;
/// Highest bucket kept: about 36 hours. Larger values count as this one.
pub const MAX_INDEX: i16 = 544;

/// Counts per bucket of durations in seconds, sparse and sorted by bucket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    count: u64,
    zero_count: u64,
    sum: f64,
    min: f64,
    max: f64,
    buckets: Vec<(i16, u64)>,
}

/// The bucket of a duration in seconds (which must be positive); clamped to the range kept.
pub fn bucket_index(seconds: f64) -> i16 {
    let exact = seconds.log2() * BUCKETS_PER_OCTAVE;
    // Upper bounds are inclusive. Rounding noise of `log2` at an exact bound is below 1e-9 of a bucket.
    let index = (exact - 1e-9).ceil() - 1.0;
    index.clamp(f64::from(MIN_INDEX), f64::from(MAX_INDEX)) as i16
}

/// Upper bound of a bucket in seconds, inclusive.
pub fn bucket_upper(index: i16) -> f64 {
    ((f64::from(index) + 1.0) / BUCKETS_PER_OCTAVE).exp2()
}

/// Lower bound of a bucket in seconds, exclusive.
pub fn bucket_lower(index: i16) -> f64 {
    (f64::from(index) / BUCKETS_PER_OCTAVE).exp2()
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Builds a histogram from its parts; buckets may come in any order and repeat. The count is recomputed from
    /// the buckets, so that a sender's wrong total cannot enter.
    pub fn from_parts(
        zero_count: u64,
        sum: f64,
        min: f64,
        max: f64,
        buckets: impl IntoIterator<Item = (i16, u64)>,
    ) -> Self {
        let mut histogram = Histogram {
            zero_count,
            sum,
            min,
            max,
            ..Histogram::default()
        };
        let mut all: Vec<(i16, u64)> = buckets.into_iter().filter(|b| b.1 > 0).collect();
        all.sort_unstable_by_key(|b| b.0);
        for (index, n) in all {
            match histogram.buckets.last_mut() {
                Some(last) if last.0 == index => last.1 = last.1.saturating_add(n),
                _ => histogram.buckets.push((index, n)),
            }
        }
        histogram.count = histogram.buckets.iter().fold(zero_count, |c, b| c.saturating_add(b.1));
        histogram
    }

    /// Records one duration in nanoseconds.
    pub fn record_ns(&mut self, nanoseconds: u64) {
        let seconds = nanoseconds as f64 / 1e9;
        if self.count == 0 {
            self.min = seconds;
            self.max = seconds;
        } else {
            self.min = self.min.min(seconds);
            self.max = self.max.max(seconds);
        }
        self.count += 1;
        self.sum += seconds;
        if nanoseconds == 0 {
            self.zero_count += 1;
            return;
        }
        let index = bucket_index(seconds);
        match self.buckets.binary_search_by_key(&index, |b| b.0) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (index, 1)),
        }
    }

    /// Adds another histogram's counts to this one.
    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count = self.count.saturating_add(other.count);
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.sum += other.sum;
        let mut merged = Vec::with_capacity(self.buckets.len().max(other.buckets.len()));
        let (mut a, mut b) = (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        loop {
            match (a.peek(), b.peek()) {
                (Some(&&x), Some(&&y)) if x.0 == y.0 => {
                    merged.push((x.0, x.1.saturating_add(y.1)));
                    a.next();
                    b.next();
                }
                (Some(&&x), Some(&&y)) if x.0 < y.0 => {
                    merged.push(x);
                    a.next();
                }
                (_, Some(&&y)) => {
                    merged.push(y);
                    b.next();
                }
                (Some(&&x), None) => {
                    merged.push(x);
                    a.next();
                }
                (None, None) => break,
            }
        }
        self.buckets = merged;
    }

    /// Number of durations recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of durations of exactly zero.
    pub fn zero_count(&self) -> u64 {
        self.zero_count
    }

    /// Sum of all durations in seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Smallest duration in seconds; 0 when empty.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// Largest duration in seconds; 0 when empty.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Mean in seconds; `None` when empty.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Non-empty buckets `(index, count)`, sorted by index.
    pub fn buckets(&self) -> &[(i16, u64)] {
        &self.buckets
    }

    /// The bucket holding the `rank`-th smallest duration (1-based): `None` when the rank falls on a zero or is outside
    /// `1..=count`.
    pub fn bucket_at_rank(&self, rank: u64) -> Option<i16> {
        if rank == 0 || rank > self.count {
            return None;
        }
        let mut seen = self.zero_count;
        for &(index, n) in &self.buckets {
            seen += n;
            if seen >= rank && rank > self.zero_count {
                return Some(index);
            }
        }
        None
    }

    /// The `q`-quantile in seconds (`q` in 0..=1), at most 1.08 % off; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        Some(match self.bucket_at_rank(rank) {
            None => 0.0,
            // The geometric middle would bias by half a bucket; the harmonic-style middle halves the worst error.
            Some(index) => {
                let (low, high) = (bucket_lower(index), bucket_upper(index));
                (2.0 * low * high / (low + high)).clamp(self.min, self.max)
            }
        })
    }

    /// How many durations are in buckets above `index`.
    pub fn count_above(&self, index: i16) -> u64 {
        let from = self.buckets.partition_point(|b| b.0 <= index);
        self.buckets[from..].iter().map(|b| b.1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Histogram {
        let mut h = Histogram::new();
        values.iter().for_each(|&v| h.record_ns(v));
        h
    }

    #[test]
    fn upper_bounds_are_inclusive() {
        assert_eq!(bucket_index(1.0), -1);
        assert_eq!(bucket_index(2.0), 31);
        assert_eq!(bucket_index(2.0 * 1.000_001), 32);
        for index in [MIN_INDEX, -640, -1, 0, 31, MAX_INDEX] {
            assert_eq!(bucket_index(bucket_upper(index)), index);
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_stated_error(values in prop::collection::vec(1_000u64..10_000_000_000, 1..200), q in 0.0f64..=1.0) {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1] as f64 / 1e9;
            let read = of(&values).quantile(q).unwrap();
            prop_assert!((read - exact).abs() <= exact * 0.0109, "{read} for {exact}");
        }

        #[test]
        fn merging_equals_recording_together(a in prop::collection::vec(0u64..1_000_000_000, 0..100), b in prop::collection::vec(0u64..1_000_000_000, 0..100)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let mut other_way = of(&b);
            other_way.merge(&of(&a));
            let together = of(&[a, b].concat());
            for h in [&merged, &other_way] {
                prop_assert_eq!(h.buckets(), together.buckets());
                prop_assert_eq!(h.count(), together.count());
                prop_assert_eq!(h.zero_count(), together.zero_count());
                prop_assert!((h.sum() - together.sum()).abs() < 1e-6);
                prop_assert_eq!((h.min(), h.max()), (together.min(), together.max()));
            }
        }

        #[test]
        fn counts_above_a_bucket_match_the_values(values in prop::collection::vec(1u64..1_000_000_000, 1..100), at in 1u64..1_000_000_000) {
            let index = bucket_index(at as f64 / 1e9);
            let above = values.iter().filter(|&&v| bucket_index(v as f64 / 1e9) > index).count() as u64;
            prop_assert_eq!(of(&values).count_above(index), above);
        }
    }
}

//! Histograms of other shapes than ours: explicit bounds, and exponential ones at any scale.
//!
//! Guarantees: no count is lost or invented; a value counted in a sender's bucket is in one of our buckets that
//! overlaps it, and within the sender's minimum and maximum; the expansion of one request is bounded. Differences are
//! taken between the original counts, before anything is spread.
//!
//! Wrong on purpose: the distribution of values within a wide bucket is unknown, so they are spread evenly over it by
//! ratio (the lowest explicit bucket, which begins at zero, by value). If there are fewer values than buckets, the
//! first one is derived from the content of the point: always choosing the same end would make a quiet release look
//! faster or slower than a busy one.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
};

use xxhash_rust::xxh3::xxh3_64;

use crate::histogram::{
    BUCKETS_PER_OCTAVE, Histogram, MAX_INDEX, MIN_INDEX, SCALE, bucket_index, bucket_lower, bucket_upper,
};

/// The most buckets a third-party histogram point may have on one side of zero.
const MAX_BUCKETS: usize = 10_000;
/// The scales allowed by the specification.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;
/// The lowest explicit bucket is cut this far below its upper bound: of values spread evenly, a thousandth is below.
const LOWEST_OCTAVES: f64 = 10.0;

/// Why a point is dropped; fixed texts, fit for a metric label.
pub(super) type Reason = &'static str;

/// The counts of a histogram point, as sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Counts {
    /// One more count than there are bounds.
    Explicit {
        /// Upper bounds, inclusive, ascending.
        bounds: Vec<f64>,
        /// The last one is beyond the last bound.
        counts: Vec<u64>,
    },
    /// Bucket `offset + i` at a scale.
    Exponential {
        /// Buckets per octave, as a power of two.
        scale: i32,
        /// Index of the first bucket.
        offset: i32,
        /// Counts from there on.
        counts: Vec<u64>,
        /// Values of zero, or close to it.
        zero_count: u64,
    },
}

/// Statistics sent along with the counts, in the sender's unit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Extremes {
    pub(super) sum: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// The smallest value predates these counts, and is only a bound.
    pub(super) min_is_older: bool,
    /// The same for the largest.
    pub(super) max_is_older: bool,
}

impl Counts {
    /// The counts of a point with explicit bounds.
    pub(super) fn of_explicit(point: &mut HistogramDataPoint) -> Result<Counts, Reason> {
        let bounds = std::mem::take(&mut point.explicit_bounds);
        let counts = std::mem::take(&mut point.bucket_counts);
        if counts.is_empty() && point.count == 0 {
            return Ok(Counts::Explicit {
                bounds: Vec::new(),
                counts: vec![0],
            });
        }
        if bounds.is_empty() {
            return Err("no_buckets");
        }
        if counts.len() > MAX_BUCKETS {
            return Err("too_many_buckets");
        }
        let rising = bounds.iter().all(|bound| bound.is_finite()) && bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if counts.len() != bounds.len() + 1 || !rising {
            return Err("malformed_histogram");
        }
        let negative = bounds
            .iter()
            .zip(&counts)
            .any(|(bound, count)| *bound < 0.0 && *count > 0);
        if negative {
            return Err("negative_duration");
        }
        Ok(Counts::Explicit { bounds, counts })
    }

    /// The counts of an exponential point.
    pub(super) fn of_exponential(point: &mut ExponentialHistogramDataPoint) -> Result<Counts, Reason> {
        let negative = point.negative.as_ref();
        if negative.is_some_and(|n| n.bucket_counts.iter().any(|&count| count > 0)) {
            return Err("negative_duration");
        }
        if !SCALES.contains(&point.scale) {
            return Err("histogram_scale");
        }
        let Buckets { offset, bucket_counts } = point.positive.take().unwrap_or_default();
        if bucket_counts.len() > MAX_BUCKETS {
            return Err("too_many_buckets");
        }
        Ok(Counts::Exponential {
            scale: point.scale,
            offset,
            counts: bucket_counts,
            zero_count: point.zero_count,
        })
    }

    /// Distinguishes histograms with the same name but different buckets; buckets that adapt to the values do not
    /// count.
    pub(super) fn bounds_hash(&self) -> u64 {
        match self {
            Counts::Explicit { bounds, .. } => {
                let bytes: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
                xxh3_64(&bytes)
            }
            Counts::Exponential { .. } => 0,
        }
    }

    /// Buckets held in memory.
    pub(super) fn len(&self) -> usize {
        match self {
            Counts::Explicit { bounds, counts } => bounds.len() + counts.len(),
            Counts::Exponential { counts, .. } => counts.len(),
        }
    }

    /// What was counted since `before`; `None` if a count decreased, or the buckets differ.
    pub(super) fn since(&self, before: &Counts) -> Option<Counts> {
        match (self, before) {
            (
                Counts::Explicit { bounds, counts },
                Counts::Explicit {
                    bounds: old,
                    counts: before,
                },
            ) => {
                if bounds != old {
                    return None;
                }
                let counts = counts.iter().zip(before).map(|(now, before)| now.checked_sub(*before));
                Some(Counts::Explicit {
                    bounds: bounds.clone(),
                    counts: counts.collect::<Option<_>>()?,
                })
            }
            (
                Counts::Exponential { scale, zero_count, .. },
                Counts::Exponential {
                    scale: old,
                    zero_count: before_zero,
                    ..
                },
            ) => {
                // When the range grows, a sender chooses a coarser scale; older counts are merged into its buckets.
                let scale = *scale.min(old);
                let (mut now, before) = (self.at_scale(scale), before.at_scale(scale));
                for (index, count) in before {
                    if count == 0 {
                        continue;
                    }
                    let grown = now.get_mut(&index)?;
                    *grown = grown.checked_sub(count)?;
                }
                now.retain(|_, count| *count > 0);
                let (offset, last) = (now.keys().next().copied(), now.keys().next_back().copied());
                let offset = offset.unwrap_or(0);
                let mut counts = vec![0; last.map_or(0, |last| (last - offset) as usize + 1)];
                for (index, count) in now {
                    counts[(index - offset) as usize] = count;
                }
                let zero_count = zero_count.checked_sub(*before_zero)?;
                Some(Counts::Exponential {
                    scale,
                    offset,
                    counts,
                    zero_count,
                })
            }
            _ => None,
        }
    }

    /// Positive buckets by index at an equal or coarser scale.
    fn at_scale(&self, at: i32) -> std::collections::BTreeMap<i32, u64> {
        let mut found = std::collections::BTreeMap::new();
        if let Counts::Exponential {
            scale, offset, counts, ..
        } = self
        {
            let down = scale.saturating_sub(at).clamp(0, 31);
            for (index, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let into: &mut u64 = found.entry(offset.saturating_add(index as i32) >> down).or_default();
                *into = into.saturating_add(*count);
            }
        }
        found
    }

    /// Whether more than half of the values are in one of the sender's buckets that reaches from below a tenth of a
    /// second to beyond one, as with bounds meant for milliseconds: quantiles are then meaningless. The extremes count
    /// as bounds. `unit` as below.
    pub(super) fn are_too_wide(&self, said: Extremes, unit: f64) -> bool {
        let Counts::Explicit { bounds, counts } = self else {
            return false;
        };
        let Some((at, &most)) = counts.iter().enumerate().max_by_key(|(_, count)| **count) else {
            return false;
        };
        let low = at.checked_sub(1).map_or(0.0, |below| bounds[below].max(0.0));
        let low = said.min.map_or(low, |min| low.max(min)) * unit;
        let bound = bounds.get(at).copied().or(said.max).unwrap_or(0.0);
        let high = said.max.map_or(bound, |max| bound.min(max)) * unit;
        let all: u128 = counts.iter().map(|&count| u128::from(count)).sum();
        u128::from(most) * 2 > all && low < 0.1 && high >= 1.0
    }

    /// Converts to our histogram. `unit` is the sender's unit in seconds; `drawn` in `0..1` determines where few values
    /// fall; `room` is how many buckets may still be created.
    pub(super) fn histogram(
        &self,
        said: Extremes,
        unit: f64,
        drawn: f64,
        room: &mut usize,
    ) -> Result<Histogram, Reason> {
        let within = |value: Option<f64>| value.filter(|v| v.is_finite() && *v > 0.0).map(|v| v * unit);
        let (min, max) = (within(said.min), within(said.max));
        let ordered = min.zip(max).is_none_or(|(min, max)| min <= max);
        let mut spread = Spread {
            buckets: Vec::new(),
            zero_count: 0,
            min: min.filter(|_| ordered),
            max: max.filter(|_| ordered),
            drawn,
        };
        match self {
            Counts::Explicit { bounds, counts } => spread.explicit(bounds, counts, unit),
            Counts::Exponential {
                scale,
                offset,
                counts,
                zero_count,
            } => {
                spread.zero_count = *zero_count;
                spread.exponential(*scale, *offset, counts, unit);
            }
        }
        *room = room.checked_sub(spread.buckets.len()).ok_or("too_many_buckets")?;
        let sum = said.sum.filter(|sum| sum.is_finite() && *sum >= 0.0).unwrap_or(0.0) * unit;
        let indices = spread.buckets.iter().map(|bucket| bucket.0);
        let lowest = match indices.clone().min() {
            Some(first) if spread.zero_count == 0 => bucket_lower(first),
            _ => 0.0,
        };
        let highest = indices.max().map_or(0.0, bucket_upper);
        let min = match min.filter(|_| !said.min_is_older) {
            Some(min) if spread.zero_count == 0 => min,
            _ => lowest.max(
                spread
                    .min
                    .filter(|min| *min <= highest && spread.zero_count == 0)
                    .unwrap_or(0.0),
            ),
        };
        let max = match max.filter(|_| !said.max_is_older) {
            Some(max) => max,
            None => highest.min(spread.max.filter(|max| *max >= lowest).unwrap_or(f64::INFINITY)),
        };
        Ok(Histogram::from_parts(spread.zero_count, sum, min, max, spread.buckets))
    }
}

/// How values are distributed between the two bounds of a bucket.
#[derive(Clone, Copy)]
enum Evenly {
    ByRatio,
    ByValue,
}

/// Our buckets while they are filled.
struct Spread {
    buckets: Vec<(i16, u64)>,
    zero_count: u64,
    min: Option<f64>,
    max: Option<f64>,
    drawn: f64,
}

impl Spread {
    fn explicit(&mut self, bounds: &[f64], counts: &[u64], unit: f64) {
        for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let low = at.checked_sub(1).map_or(0.0, |below| bounds[below].max(0.0)) * unit;
            match bounds.get(at) {
                // The bucket up to zero: values rounded to nothing.
                Some(&bound) if bound <= 0.0 => self.zero_count = self.zero_count.saturating_add(count),
                Some(&bound) if low == 0.0 => self.between(low, bound * unit, count, Evenly::ByValue),
                Some(&bound) => self.between(low, bound * unit, count, Evenly::ByRatio),
                // Beyond the last bound: up to the largest known value.
                None => {
                    let high = self.max.filter(|max| *max > low).unwrap_or(low);
                    self.between(low, high, count, Evenly::ByRatio);
                }
            }
        }
    }

    fn exponential(&mut self, scale: i32, offset: i32, counts: &[u64], unit: f64) {
        if scale >= SCALE {
            // Finer buckets are inside ours. A unit shifts all of them by log2(unit) * 32 buckets; rounding that costs
            // at most half of one of ours.
            let shift = (unit.log2() * BUCKETS_PER_OCTAVE).round() as i32;
            let down = scale - SCALE;
            for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let index = (offset.saturating_add(at as i32) >> down).saturating_add(shift);
                self.buckets.push((clamped(index), count));
            }
            return;
        }
        let width = f64::from(-scale).exp2();
        for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let low = f64::from(offset.saturating_add(at as i32)) * width;
            // The widest buckets exceed the range of a float, and what we keep.
            let edge = |power: f64| (power.exp2() * unit).clamp(bucket_lower(MIN_INDEX), bucket_upper(MAX_INDEX));
            self.between(edge(low), edge(low + width), count, Evenly::ByRatio);
        }
    }

    /// Spreads values over `low..=high` seconds, within the extremes.
    fn between(&mut self, low: f64, high: f64, count: u64, evenly: Evenly) {
        let narrowed_low = self.min.map_or(low, |min| low.max(min.min(high)));
        let narrowed_high = self.max.map_or(high, |max| high.min(max.max(narrowed_low)));
        let (low, high) = (narrowed_low, narrowed_high);
        let top = bucket_index_of(high);
        let floor = match evenly {
            Evenly::ByRatio => low,
            Evenly::ByValue => low.max(high * (-LOWEST_OCTAVES).exp2()),
        };
        // The smallest value itself is in a bucket; the sender's lower bound is not, because lower bounds are
        // exclusive.
        let first = if floor == self.min.unwrap_or(0.0) {
            floor
        } else {
            floor * (1.0 + 1e-9)
        };
        let bottom = if floor < high {
            bucket_index_of(first).min(top)
        } else {
            top
        };
        let up_to = |index: i16| -> f64 {
            let edge = ((f64::from(index) + 1.0) / BUCKETS_PER_OCTAVE).exp2().min(high);
            let share = match evenly {
                Evenly::ByRatio => (edge / low).log2() / (high / low).log2(),
                Evenly::ByValue => (edge - low) / (high - low),
            };
            if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 }
        };
        let mut given = 0;
        for index in bottom..=top {
            let all = if index == top {
                count
            } else {
                // Floats are exact for the counts that may be stored.
                ((count as f64).mul_add(up_to(index), self.drawn) as u64).min(count)
            };
            if all > given {
                self.buckets.push((index, all - given));
                given = all;
            }
        }
    }
}

fn clamped(index: i32) -> i16 {
    index.clamp(i32::from(MIN_INDEX), i32::from(MAX_INDEX)) as i16
}

fn bucket_index_of(seconds: f64) -> i16 {
    if seconds > 0.0 {
        bucket_index(seconds)
    } else {
        MIN_INDEX
    }
}

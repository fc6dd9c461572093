//! What is known of the baseline from its last half hour: thresholds, and how restless it is by itself.
//!
//! Guarantee: it rests on windows before the newest one; who joins windows keeps what was known before the first of them.
//!
//! Wrong on purpose: when the baseline is gone, its error is the same in every block: no bound on the evidence follows.

use std::collections::{BTreeMap, VecDeque};

use emberline_model::{
    histogram::{BUCKETS_PER_OCTAVE, Histogram, MIN_INDEX},
    time::WINDOW_S,
};

use crate::{
    e_process::ALTERNATIVES,
    statistics::{ln_beta_binomial_ratio, normal_quantile},
    strata::{Counts, Ranks},
};

/// Confidence that the baseline's true level lies below the bound that a candidate is compared with, when the two do
/// not serve at the same time.
const CONFIDENCE: f64 = 0.8;
/// Share of variance that requests of one block have in common, at least.
const LEAST_COMMON: f64 = 0.01;
/// Standard deviation of a block's level, in ranks, at least.
const LEAST_RESTLESS: f64 = 0.02;
/// How much further from one half a rank may be expected, per alternative.
pub(crate) const EFFECTS: [f64; ALTERNATIVES] = [0.06, 0.12, 0.22, 0.4];
/// How many times the odds of exceeding a threshold are, per alternative.
pub(crate) const ODDS: [f64; ALTERNATIVES] = [1.4, 2.0, 4.0, 12.0];

/// Windows of the baseline, newest last.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    windows: VecDeque<(i64, Histogram)>,
    /// Sum of all windows: zeros, then counts by bucket.
    zeros: u64,
    buckets: BTreeMap<i16, u64>,
    count: u64,
    most: usize,
    /// Longer stretches of time, of the whole watch: how far a level wanders takes longer to know.
    spans: VecDeque<(i64, Histogram)>,
    /// The windows joined by block, of so many seconds.
    blocks: VecDeque<(i64, Histogram)>,
    block_s: i64,
}

/// Seconds of a span whose level is compared with those of others.
pub(crate) const SPAN_S: i64 = 150;
/// Spans kept: two and a half hours.
const MOST_SPANS: usize = 60;

impl Reference {
    pub(crate) fn new(most: usize, block_s: i64) -> Reference {
        Reference {
            windows: VecDeque::new(),
            zeros: 0,
            buckets: BTreeMap::new(),
            count: 0,
            most: most.max(1),
            spans: VecDeque::new(),
            blocks: VecDeque::new(),
            block_s,
        }
    }

    pub(crate) fn push(&mut self, start: i64, window: &Histogram) {
        self.zeros += window.zero_count();
        self.count += window.count();
        for &(index, n) in window.buckets() {
            *self.buckets.entry(index).or_insert(0) += n;
        }
        join(&mut self.spans, start.div_euclid(SPAN_S), window);
        join(&mut self.blocks, start.div_euclid(self.block_s), window);
        if self.spans.len() > MOST_SPANS {
            self.spans.pop_front();
        }
        self.windows.push_back((start, window.clone()));
        if self.windows.len() > self.most
            && let Some((gone, oldest)) = self.windows.pop_front()
        {
            self.zeros -= oldest.zero_count();
            self.count -= oldest.count();
            for &(index, n) in oldest.buckets() {
                if let Some(sum) = self.buckets.get_mut(&index) {
                    *sum -= n;
                    if *sum == 0 {
                        self.buckets.remove(&index);
                    }
                }
            }
            self.shorten_oldest_block(gone.div_euclid(self.block_s));
        }
    }

    /// The spans of the watch, oldest first.
    pub(crate) fn spans(&self) -> impl Iterator<Item = &Histogram> {
        self.spans.iter().map(|(_, span)| span)
    }

    /// Seconds between two requests, on average; `None` before two windows are known.
    pub(crate) fn seconds_per_request(&self) -> Option<f64> {
        let (first, last) = (self.windows.front()?.0, self.windows.back()?.0);
        (last > first).then(|| (last + WINDOW_S - first) as f64 / self.count as f64)
    }

    /// Adds up anew what is left of the block that a window was taken from.
    fn shorten_oldest_block(&mut self, block: i64) {
        self.blocks.pop_front();
        let of_block = |(start, _): &&(i64, Histogram)| start.div_euclid(self.block_s) == block;
        let mut left = VecDeque::new();
        for (_, window) in self.windows.iter().take_while(of_block) {
            join(&mut left, block, window);
        }
        left.into_iter().for_each(|block| self.blocks.push_front(block));
    }

    /// All windows as one.
    pub(crate) fn pooled(&self) -> Histogram {
        let windows = || self.windows.iter().map(|(_, window)| window);
        let sum = windows().map(Histogram::sum).sum();
        let least = windows().map(Histogram::min).fold(f64::INFINITY, f64::min);
        let most = windows().map(Histogram::max).fold(0.0, f64::max);
        let least = if self.count == 0 { 0.0 } else { least };
        Histogram::from_parts(
            self.zeros,
            sum,
            least,
            most,
            self.buckets.iter().map(|(&index, &n)| (index, n)),
        )
    }

    /// The bucket at whose upper edge the quantile lies; `None` with too few requests to know one.
    pub(crate) fn threshold(&self, quantile: f64, least: u64) -> Option<i16> {
        if self.count < least {
            return None;
        }
        let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = self.zeros;
        if seen >= rank {
            return Some(MIN_INDEX - 1);
        }
        for (&index, &n) in &self.buckets {
            seen += n;
            if seen >= rank {
                return Some(index);
            }
        }
        None
    }

    /// Windows joined by block, oldest first.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Histogram> {
        self.blocks.iter().map(|(_, block)| block)
    }

    /// What a candidate that came later is compared with; `None` with too few requests.
    pub(crate) fn settled(&self, quantiles: &[f64], down: i16, least: u64) -> Option<Settled> {
        let pooled = self.pooled();
        let blocks: Vec<&Histogram> = self.blocks().collect();
        if pooled.count() < least || blocks.len() < 3 {
            return None;
        }
        let z = normal_quantile(CONFIDENCE);
        // Ranks of blocks among all: their variance beyond that of independent requests is restlessness.
        let ranks: Vec<Ranks> = blocks.iter().map(|block| Ranks::of(&pooled, block, 0)).collect();
        let independent = |ranks: &Ranks| 1.0 / (12.0 * ranks.candidate as f64);
        let weight = |ranks: &Ranks| ranks.candidate as f64;
        let weights: f64 = ranks.iter().map(weight).sum();
        let excess = |ranks: &Ranks| weight(ranks) * (ranks.effect() * ranks.effect() - independent(ranks));
        let restless = (ranks.iter().map(excess).sum::<f64>() / weights).max(LEAST_RESTLESS * LEAST_RESTLESS);
        let level_variance: f64 = ranks
            .iter()
            .map(|ranks| (weight(ranks) / weights).powi(2) * (restless + independent(ranks)))
            .sum();
        let mut positions: Vec<f64> = ranks
            .iter()
            .map(|ranks| ranks.effect() / independent(ranks).sqrt())
            .collect();
        positions.sort_by(f64::total_cmp);
        let shares = quantiles
            .iter()
            .map(|&quantile| {
                let threshold = self.threshold(quantile, 1)?;
                Some(Share::of(&blocks, threshold, z))
            })
            .collect();
        Some(Settled {
            pooled,
            down,
            restless,
            level_error: z * level_variance.sqrt(),
            positions,
            shares,
        })
    }
}

/// Adds a window to the newest stretch of time, or begins the next.
fn join(stretches: &mut VecDeque<(i64, Histogram)>, stretch: i64, window: &Histogram) {
    match stretches.back_mut() {
        Some((at, sum)) if *at == stretch => sum.merge(window),
        _ => stretches.push_back((stretch, window.clone())),
    }
}

/// One threshold of a baseline that is gone.
#[derive(Debug, Clone)]
struct Share {
    threshold: i16,
    /// Chance of exceeding it, at most.
    chance: f64,
    /// Share of variance that requests of a block have in common.
    common: f64,
    /// Shares of the baseline's blocks above it, in standard deviations, sorted.
    positions: Vec<f64>,
}

impl Share {
    fn of(blocks: &[&Histogram], threshold: i16, z: f64) -> Share {
        let counts: Vec<(f64, f64)> = blocks
            .iter()
            .map(|block| (block.count_above(threshold) as f64, block.count() as f64))
            .collect();
        let (above, all) = counts.iter().fold((0.0, 0.0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        let share: f64 = (above + 0.5) / (all + 1.0);
        let variance = share * (1.0 - share);
        // Intra-class correlation by moments: what blocks differ by beyond a binomial distribution.
        let beyond: f64 = counts.iter().map(|(k, n)| (k - n * share).powi(2) - n * variance).sum();
        let room: f64 = counts.iter().map(|(_, n)| n * (n - 1.0) * variance).sum();
        let common = if room > 0.0 {
            (beyond / room).clamp(LEAST_COMMON, 0.9)
        } else {
            LEAST_COMMON
        };
        let design = counts.iter().map(|(_, n)| n * (1.0 + (n - 1.0) * common)).sum::<f64>() / all;
        let chance = (share + z * (variance * design / all).sqrt()).min(0.99);
        let mut positions: Vec<f64> = counts
            .iter()
            .map(|(k, n)| (k - n * share) / (n * variance).sqrt())
            .collect();
        positions.sort_by(f64::total_cmp);
        Share {
            threshold,
            chance,
            common,
            positions,
        }
    }
}

/// The baseline's half hour, as a candidate that came later is compared with it.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// All its requests.
    pub(crate) pooled: Histogram,
    down: i16,
    /// Variance of a block's mean rank beyond that of independent requests.
    restless: f64,
    /// Bound of the error of the baseline's own mean rank.
    level_error: f64,
    positions: Vec<f64>,
    shares: Vec<Option<Share>>,
}

/// Where a block lies, and what it is worth.
pub(crate) struct Compared {
    pub(crate) ln_factors: [f64; ALTERNATIVES],
    /// 0 to 1, a half without a change.
    pub(crate) position: f64,
}

impl Settled {
    /// By ranks: a bet on a mean whose distribution is no wider than that of uniform ranks and a normal level.
    ///
    /// Source: uniform variables are strictly sub-Gaussian (Arbel, Marchal and Nguyen, "On strict sub-Gaussianity, optimal proxy
    /// variance and symmetry for bounded random variables", ESAIM Probab. Stat. 24, 2020).
    pub(crate) fn by_ranks(&self, block: &Histogram) -> (Ranks, Compared) {
        let ranks = Ranks::of(&self.pooled, block, self.down);
        let independent = 1.0 / (12.0 * ranks.candidate as f64);
        let variance = independent + self.restless;
        let seen = ranks.effect() - self.level_error;
        let ln_factors = EFFECTS.map(|effect| {
            let tilt = effect / variance;
            tilt * seen - 0.5 * tilt * tilt * variance
        });
        let position = among(&self.positions, ranks.effect() / independent.sqrt());
        (ranks, Compared { ln_factors, position })
    }

    /// By the requests above one threshold: a beta-binomial distribution, so that a block's own level is expected.
    ///
    /// Source: Skellam, "A probability distribution derived from the binomial distribution by regarding the probability of success as variable
    /// between the sets of trials", J. R. Stat. Soc. B 10 (1948).
    pub(crate) fn by_threshold(&self, at: usize, block: &Histogram) -> Option<(Counts, Compared)> {
        let share = self.shares.get(at)?.as_ref()?;
        let (above, all) = (block.count_above(share.threshold + self.down), block.count());
        let size = (1.0 - share.common) / share.common;
        let parameters = |chance: f64| (chance * size, (1.0 - chance) * size);
        let ln_factors = ODDS.map(|odds| {
            let changed = odds * share.chance / (1.0 - share.chance + odds * share.chance);
            ln_beta_binomial_ratio(above, all, parameters(share.chance), parameters(changed))
        });
        let (k, n) = (above as f64, all as f64);
        let deviation = (n * share.chance * (1.0 - share.chance)).sqrt();
        let position = among(&share.positions, (k - n * share.chance) / deviation);
        let of_all = self.pooled.count_above(share.threshold);
        let counts = Counts {
            baseline: (of_all, self.pooled.count()),
            candidate: (above, all),
        };
        Some((counts, Compared { ln_factors, position }))
    }
}

/// Where a value lies among sorted ones that it is exchangeable with without a change, in the middle of its equals: from 0 to 1.
///
/// Source: a conformal p-value, Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2.
fn among(sorted: &[f64], value: f64) -> f64 {
    let below = sorted.partition_point(|&v| v < value);
    let same = sorted[below..].partition_point(|&v| v <= value);
    (below as f64 + 0.5 * (same as f64 + 1.0)) / (sorted.len() as f64 + 1.0)
}

/// How many buckets a relative growth is, rounded.
pub(crate) fn buckets_of(growth: f64) -> i16 {
    ((1.0 + growth).log2() * BUCKETS_PER_OCTAVE).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(at: i64) -> Histogram {
        let mut window = Histogram::new();
        for request in 0..=(at * 7 % 5) {
            window.record_ns(((at * 31 + request * 17) % 90 * 100_000).unsigned_abs());
        }
        window
    }

    /// What adding up the last windows anew would give, at any time; windows are missing and the oldest leave.
    #[test]
    fn what_is_kept_is_what_adding_up_anew_gives() {
        let mut reference = Reference::new(20, 30);
        let mut all: Vec<(i64, Histogram)> = Vec::new();
        for at in (0..120).filter(|at| at % 11 > 2) {
            all.push((at * 10, window(at)));
            reference.push(at * 10, &window(at));
            let last = &all[all.len().saturating_sub(20)..];
            let mut pooled = Histogram::new();
            let mut blocks: Vec<(i64, Histogram)> = Vec::new();
            for (start, window) in last {
                pooled.merge(window);
                match blocks.last_mut() {
                    Some((block, sum)) if *block == start / 30 => sum.merge(window),
                    _ => blocks.push((start / 30, window.clone())),
                }
            }
            assert_eq!(reference.pooled(), pooled);
            assert!(reference.blocks().eq(blocks.iter().map(|(_, sum)| sum)), "{at}");
            for q in [0.5, 0.9] {
                let rank = (q * pooled.count() as f64).ceil() as u64;
                let expected = pooled.bucket_at_rank(rank).unwrap_or(MIN_INDEX - 1);
                assert_eq!(reference.threshold(q, 1), Some(expected));
            }
        }
    }
}

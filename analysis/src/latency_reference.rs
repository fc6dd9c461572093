//! What is known of the baseline from its last half hour: thresholds, and how restless it is by itself.
//!
//! Guarantee: it rests on windows before the newest one; who joins windows keeps what was known before the first of them.
//!
//! Wrong on purpose: when the baseline is gone, its error is the same in every block: no bound on the evidence follows.

use emberline_model::{
    histogram::{BUCKETS_PER_OCTAVE, Histogram},
    time::WINDOW_S,
};

use crate::{
    e_process::ALTERNATIVES,
    latency::LatencyConfig,
    packed::{Log, Sum},
    statistics::{ln_beta_binomial_ratio, normal_quantile},
    strata::Ranks,
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

/// A block that is being filled.
#[derive(Debug, Clone, Default)]
struct Open {
    number: i64,
    /// With requests.
    windows: u8,
    count: u64,
    requests: Log,
}

/// The baseline's last windows, by block.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// Blocks that are over; their marks are their windows with requests.
    blocks: Log,
    /// Windows with requests in them, and requests.
    windows: u64,
    count: u64,
    /// The block that is being filled, if it has requests.
    open: Option<Open>,
    /// The first and the last window with requests.
    first_s: Option<i64>,
    last_s: i64,
    most: u64,
    block_s: i64,
    /// Per quantile the bucket at whose upper edge it lies, of the blocks that are over.
    thresholds: Vec<Option<i16>>,
}

impl Reference {
    pub(crate) fn new(config: &LatencyConfig, block_s: i64) -> Reference {
        Reference {
            blocks: Log::default(),
            windows: 0,
            count: 0,
            open: None,
            first_s: None,
            last_s: 0,
            most: config.reference_windows.max(1) as u64,
            block_s,
            thresholds: vec![None; config.quantiles.len()],
        }
    }

    /// Ends the open block when a window lies beyond it.
    pub(crate) fn advance(&mut self, start: i64, quantiles: &[f64]) {
        let number = start.div_euclid(self.block_s);
        if self.open.as_ref().is_some_and(|open| open.number != number) {
            self.close(quantiles);
        }
    }

    /// Adds a window, which may be empty.
    pub(crate) fn push(&mut self, start: i64, window: &Histogram, quantiles: &[f64]) {
        self.advance(start, quantiles);
        let number = start.div_euclid(self.block_s);
        if window.count() > 0 {
            let open = self.open.get_or_insert_with(|| Open {
                number,
                ..Open::default()
            });
            open.windows = open.windows.saturating_add(1);
            open.count += window.count();
            open.requests.push(start, 0, &[window]);
            self.first_s.get_or_insert(start);
            self.last_s = start;
        }
        if (start + WINDOW_S).rem_euclid(self.block_s) == 0 {
            self.close(quantiles);
        }
    }

    /// Ends the open block, and forgets the oldest beyond the last windows.
    fn close(&mut self, quantiles: &[f64]) {
        let Some(open) = self.open.take() else {
            return;
        };
        self.blocks.push(open.number, open.windows, &[&open.requests.merged()]);
        self.windows += u64::from(open.windows);
        self.count += open.count;
        let mut pooled = Sum::new();
        self.blocks.iter().for_each(|block| block.add_to(&mut pooled));
        while let Some(oldest) = self.blocks.iter().next()
            && self.windows > self.most
            && self.windows - u64::from(oldest.mark) >= self.most
        {
            self.windows -= u64::from(oldest.mark);
            self.count -= oldest.histogram().count();
            self.first_s = Some((oldest.number + 1) * self.block_s);
            self.blocks.pop_front();
            pooled = Sum::new();
            self.blocks.iter().for_each(|block| block.add_to(&mut pooled));
        }
        self.thresholds = quantiles.iter().map(|&q| pooled.bucket_of(q)).collect();
    }

    /// Seconds between two requests, on average; `None` before two windows are known.
    pub(crate) fn seconds_per_request(&self) -> Option<f64> {
        let (first, last) = (self.first_s?, self.last_s);
        (last > first).then(|| (last + WINDOW_S - first) as f64 / self.requests().max(1) as f64)
    }

    fn requests(&self) -> u64 {
        self.count + self.open.as_ref().map_or(0, |open| open.count)
    }

    /// All windows as one.
    pub(crate) fn pooled(&self) -> Histogram {
        let mut sum = Sum::new();
        self.blocks.iter().for_each(|block| block.add_to(&mut sum));
        let open = self.open.iter().flat_map(|open| open.requests.iter());
        open.for_each(|window| window.add_to(&mut sum));
        sum.histogram()
    }

    /// Per quantile the bucket at whose upper edge it lies, as of the last block that is over; `None` with fewer requests than `least`.
    pub(crate) fn thresholds(&self, least: u64) -> Vec<Option<i16>> {
        let known = |threshold: &Option<i16>| threshold.filter(|_| self.count >= least);
        self.thresholds.iter().map(known).collect()
    }

    /// Windows joined by block, with their numbers, oldest first.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (i64, Histogram)> {
        let closed = self.blocks.iter().map(|block| (block.number, block.histogram()));
        closed.chain(self.open.iter().map(|open| (open.number, open.requests.merged())))
    }

    /// One block that is over; empty where there is none.
    pub(crate) fn block(&self, number: i64) -> Histogram {
        let block = self.blocks.iter().find(|block| block.number == number);
        block.map(|block| block.histogram()).unwrap_or_default()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.requests.heap_bytes());
        self.blocks.heap_bytes() + open + 4 * self.thresholds.len()
    }

    /// What a candidate that came later is compared with; `None` with too few requests.
    pub(crate) fn settled(&self, quantiles: &[f64], down: i16, least: u64) -> Option<Settled> {
        let mut pooled = Sum::new();
        let blocks: Vec<Histogram> = self.blocks().map(|(_, block)| block).collect();
        blocks.iter().for_each(|block| pooled.add(block));
        if self.requests() < least || blocks.len() < 3 {
            return None;
        }
        let thresholds: Vec<Option<i16>> = quantiles.iter().map(|&q| pooled.bucket_of(q)).collect();
        let pooled = pooled.histogram();
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
        let shares = thresholds
            .into_iter()
            .map(|threshold| Some(Share::of(&blocks, threshold?, z)))
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
    fn of(blocks: &[Histogram], threshold: i16, z: f64) -> Share {
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
    pub(crate) fn heap_bytes(&self) -> usize {
        let shares = self
            .shares
            .iter()
            .flatten()
            .map(|share| 8 * share.positions.len())
            .sum::<usize>();
        size_of::<Settled>()
            + 16 * self.pooled.buckets().len()
            + 8 * self.positions.len()
            + size_of::<Option<Share>>() * self.shares.len()
            + shares
    }

    /// By ranks: a bet on a mean whose distribution is no wider than that of uniform ranks and a normal level.
    ///
    /// Source: uniform variables are strictly sub-Gaussian (Arbel, Marchal and Nguyen, "On strict sub-Gaussianity, optimal proxy
    /// variance and symmetry for bounded random variables", ESAIM Probab. Stat. 24, 2020).
    pub(crate) fn by_ranks(&self, block: &Histogram) -> Compared {
        let ranks = Ranks::of(&self.pooled, block, self.down);
        let independent = 1.0 / (12.0 * ranks.candidate as f64);
        let variance = independent + self.restless;
        let seen = ranks.effect() - self.level_error;
        let ln_factors = EFFECTS.map(|effect| {
            let tilt = effect / variance;
            tilt * seen - 0.5 * tilt * tilt * variance
        });
        let position = among(&self.positions, ranks.effect() / independent.sqrt());
        Compared { ln_factors, position }
    }

    /// By the requests above one threshold: a beta-binomial distribution, so that a block's own level is expected.
    ///
    /// Source: Skellam, "A probability distribution derived from the binomial distribution by regarding the probability of success as variable
    /// between the sets of trials", J. R. Stat. Soc. B 10 (1948).
    pub(crate) fn by_threshold(&self, at: usize, block: &Histogram) -> Option<Compared> {
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
        Some(Compared { ln_factors, position })
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
    use std::collections::VecDeque;

    use super::*;

    fn window(at: i64) -> Histogram {
        let mut window = Histogram::new();
        for request in 0..=(at * 7 % 5) {
            window.record_ns(((at * 31 + request * 17) % 90 * 100_000).unsigned_abs());
        }
        window
    }

    fn counts(histogram: &Histogram) -> (u64, Vec<(i16, u64)>) {
        (histogram.zero_count(), histogram.buckets().to_vec())
    }

    /// What adding up the last blocks anew would give, at any time; windows are missing and the oldest leave.
    #[test]
    fn what_is_kept_is_what_adding_up_anew_gives() {
        let config = LatencyConfig {
            reference_windows: 20,
            ..LatencyConfig::default()
        };
        let mut reference = Reference::new(&config, 30);
        let mut blocks: VecDeque<(i64, u64, Histogram)> = VecDeque::new();
        for at in 0..120 {
            let window = if at % 11 > 2 { window(at) } else { Histogram::new() };
            reference.push(at * 10, &window, &config.quantiles);
            if window.count() > 0 {
                match blocks.back_mut() {
                    Some((number, windows, sum)) if *number == at / 3 => {
                        *windows += 1;
                        sum.merge(&window);
                    }
                    _ => blocks.push_back((at / 3, 1, window)),
                }
            }
            let is_over = at % 3 == 2;
            while is_over && blocks.iter().skip(1).map(|block| block.1).sum::<u64>() >= 20 {
                blocks.pop_front();
            }
            let mut pooled = Histogram::new();
            blocks.iter().for_each(|block| pooled.merge(&block.2));
            assert_eq!(counts(&reference.pooled()), counts(&pooled), "{at}");
            assert!(
                reference.blocks().map(|b| b.0).eq(blocks.iter().map(|block| block.0)),
                "{at}"
            );
            if is_over {
                for (q, threshold) in config.quantiles.iter().zip(reference.thresholds(1)) {
                    let rank = (q * pooled.count() as f64).ceil() as u64;
                    let expected = pooled
                        .bucket_at_rank(rank)
                        .unwrap_or(emberline_model::histogram::MIN_INDEX - 1);
                    assert_eq!(threshold, (pooled.count() > 0).then_some(expected), "{at}");
                }
            }
        }
    }
}

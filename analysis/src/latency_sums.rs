//! Evidence added up, and how large the change in it is.

use emberline_model::{
    alert::ComparisonMode,
    histogram::{BUCKETS_PER_OCTAVE, Histogram},
};

use crate::{
    latency::LatencyConfig, latency_past::Piece, latency_reference::Reference, packed::Sum, strata::Ranks,
    stratum::Stratum,
};

/// Buckets between which the shift of the candidate is looked for: a factor of 1,024.
const MOST_SHIFT: i16 = 320;

/// Durations of both releases.
#[derive(Debug, Clone)]
pub(crate) struct Pooled {
    pub(crate) mode: ComparisonMode,
    pub(crate) baseline: Histogram,
    pub(crate) candidate: Histogram,
}

impl Pooled {
    /// The sum of some pieces.
    pub(crate) fn of(pieces: &[Piece]) -> Pooled {
        let (mut baseline, mut candidate) = (Sum::new(), Sum::new());
        let mut mode = ComparisonMode::Concurrent;
        for piece in pieces {
            baseline.add(&piece.baseline);
            candidate.add(&piece.candidate);
            if piece.mode == ComparisonMode::BeforeAfter {
                mode = ComparisonMode::BeforeAfter;
            }
        }
        Pooled {
            mode,
            baseline: baseline.histogram(),
            candidate: candidate.histogram(),
        }
    }

    /// Adds a block. One before/after block makes all of it before/after: then the reference is what it is compared with, once.
    pub(crate) fn add(&mut self, block: &Stratum, reference: &Reference) {
        self.candidate.merge(&block.candidate);
        match (self.mode, block.mode) {
            (ComparisonMode::Concurrent, ComparisonMode::Concurrent) => self.baseline.merge(&block.baseline),
            (ComparisonMode::Concurrent, ComparisonMode::BeforeAfter) => {
                (self.mode, self.baseline) = (block.mode, reference.pooled());
            }
            (ComparisonMode::BeforeAfter, _) => {}
        }
    }

    pub(crate) fn is_large_enough(&self, config: &LatencyConfig) -> bool {
        self.baseline.count().min(self.candidate.count()) >= config.min_requests
    }

    /// The same with the releases exchanged.
    pub(crate) fn turned(self) -> Pooled {
        Pooled {
            baseline: self.candidate,
            candidate: self.baseline,
            ..self
        }
    }

    /// Whether the estimated growth is above the floor: of all requests alike, or of a quantile.
    pub(crate) fn is_worth_stating(&self, config: &LatencyConfig, times: f64) -> bool {
        let above = |before: f64, after: f64| {
            let floor = (before * config.floor_relative).max(config.floor_seconds);
            after > before + times * floor
        };
        let at = |q: f64| Some((self.baseline.quantile(q)?, self.candidate.quantile(q)?));
        let alike = at(0.5).is_some_and(|(median, _)| above(median, median * self.times()));
        alike
            || config
                .quantiles
                .iter()
                .filter_map(|&q| at(q))
                .any(|(before, after)| above(before, after))
    }

    /// How many times as long a request of the candidate takes, typically.
    ///
    /// Source: the shift at which the Mann–Whitney statistic is balanced, Hodges and Lehmann, Ann. Math. Stat. 34 (1963).
    pub(crate) fn times(&self) -> f64 {
        let effect = |down: i16| Ranks::of(&self.baseline, &self.candidate, down).effect();
        let (mut low, mut high) = (-MOST_SHIFT, MOST_SHIFT);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if effect(middle) > 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (at_low, at_high) = (effect(low), effect(high));
        let part = if at_low > at_high {
            at_low / (at_low - at_high)
        } else {
            0.0
        };
        ((f64::from(low) + part.clamp(0.0, 1.0)) / BUCKETS_PER_OCTAVE).exp2()
    }
}

//! What keeps evidence from being stated: the size, a fall, a level that wanders.
//!
//! Guarantee: all of it only ever removes statements, so the bound on false ones stands without it.

use emberline_model::alert::ComparisonMode;

use crate::{
    latency_past::Piece,
    latency_reference::buckets_of,
    latency_watch::LatencyWatch,
    levels::{LEAST_OF_SPAN, levels_of},
    strata::Ranks,
    stratum::counts,
    wander::{Level, likeness, wander},
};

/// By so many standard errors the last third must be lower than the first to be called falling.
const FALL_ERRORS: f64 = 0.25;
/// And by so much.
const FALL: f64 = 0.9;
/// The same for a gross slowdown, without regard to errors: it is stated early, while a warm-up still looks like one.
const GROSS_FALL: f64 = 0.95;
/// By so many standard errors, and so many times, the last third must be higher to be called rising.
const RISE_ERRORS: f64 = 2.0;
const RISE: f64 = 1.5;
/// Blocks whose likeness makes evidence of blocks worth less.
const LAGS: usize = 4;

/// An effect, added up over strata by the inverse of its variances.
///
/// Source: Mantel and Haenszel, J. Natl. Cancer Inst. 22 (1959), for tables; van Elteren, Bull. Int. Stat. Inst. 37 (1960), for ranks.
#[derive(Debug, Clone, Copy, Default)]
struct Effect {
    weighted: f64,
    weights: f64,
}

impl Effect {
    fn add(&mut self, effect: f64, variance: f64) {
        if variance > 0.0 && variance.is_finite() {
            self.weighted += effect / variance;
            self.weights += 1.0 / variance;
        }
    }

    fn value(&self) -> f64 {
        if self.weights > 0.0 {
            self.weighted / self.weights
        } else {
            0.0
        }
    }

    fn variance(&self) -> f64 {
        if self.weights > 0.0 {
            1.0 / self.weights
        } else {
            f64::INFINITY
        }
    }
}

fn is_below(first: Effect, last: Effect) -> bool {
    let error = (first.variance() + last.variance()).sqrt();
    last.value() < FALL * first.value() && first.value() - last.value() > FALL_ERRORS * error
}

/// Effect and variance of each feature in one piece.
pub(crate) type Effects = Vec<Level>;

fn effect(pieces: &[Effects], feature: usize) -> Effect {
    let mut sum = Effect::default();
    for (effect, variance) in pieces.iter().filter_map(|piece| piece.get(feature)) {
        sum.add(*effect, *variance);
    }
    sum
}

/// The effect in the first third of the evidence and in the last.
fn thirds(feature: usize, evidence: &[Effects]) -> Option<(Effect, Effect)> {
    let third = effect(evidence, feature).weights / 3.0;
    let (mut first, mut last) = (Effect::default(), Effect::default());
    for (sum, from_end) in [(&mut first, false), (&mut last, true)] {
        let mut at = 0;
        while sum.weights < third && at < evidence.len() {
            let piece = if from_end {
                &evidence[evidence.len() - 1 - at]
            } else {
                &evidence[at]
            };
            if let Some(&(effect, variance)) = piece.get(feature) {
                sum.add(effect, variance);
            }
            at += 1;
        }
    }
    (first.weights > 0.0 && last.weights > 0.0).then_some((first, last))
}

impl LatencyWatch {
    /// Whether the end of the evidence is so much below its beginning that the release still warms up.
    pub(crate) fn falls(feature: usize, evidence: &[Effects]) -> bool {
        thirds(feature, evidence).is_some_and(|(first, last)| is_below(first, last))
    }

    /// Whether a difference to a baseline that is gone grows by itself: that is drift, for all that can be known.
    pub(crate) fn drifts(feature: usize, pieces: &[Piece], effects: &[Effects]) -> bool {
        if pieces.iter().all(|piece| piece.mode == ComparisonMode::Concurrent) {
            return false;
        }
        let Some((first, last)) = thirds(feature, effects) else {
            return false;
        };
        let error = (first.variance() + last.variance()).sqrt();
        last.value() > RISE * first.value() && last.value() - first.value() > RISE_ERRORS * error
    }

    /// Whether the last third of the newest windows, so many of them, lies below the first at all: what is gross must not fall.
    pub(crate) fn lately_falls(&self, windows: usize) -> bool {
        let kept = self.newest.len();
        let windows = windows.min(kept);
        let third = windows.div_ceil(3);
        let of = |from: usize| {
            let mut sum = Effect::default();
            for level in self.newest.iter().skip(from).take(third) {
                let (effect, variance) = level.level();
                sum.add(effect, variance);
            }
            sum
        };
        let (first, last) = (of(kept - windows), of(kept - third));
        last.value() < GROSS_FALL * first.value()
    }

    /// Effects of pieces, with what is not tested taken off.
    pub(crate) fn effects(&self, pieces: &[Piece]) -> Vec<Effects> {
        let thresholds = self.reference.thresholds(1);
        let is_after = |piece: &Piece| piece.mode == ComparisonMode::BeforeAfter;
        let reference = pieces.iter().any(is_after).then(|| self.reference.pooled());
        let of = |piece: &Piece| {
            let (baseline, tested) = match &reference {
                Some(reference) if is_after(piece) => (reference, self.config.before_after_tested_relative),
                _ => (&piece.baseline, self.config.tested_relative),
            };
            if baseline.count().min(piece.candidate.count()) == 0 {
                return Vec::new();
            }
            let down = buckets_of(tested);
            let ranks = Ranks::of(baseline, &piece.candidate, down);
            let mut effects = vec![(ranks.effect(), ranks.variance())];
            effects.extend(thresholds.iter().map(|threshold| {
                threshold.map_or((0.0, 0.0), |threshold| {
                    let counts = counts(baseline, &piece.candidate, threshold, down);
                    (counts.effect(), counts.variance())
                })
            }));
            effects
        };
        pieces.iter().map(of).collect()
    }

    /// Whether levels wander by themselves as far as the candidate lies from the baseline in what is evidence from a second on.
    pub(crate) fn wanders(&self, feature: usize, first: i64, pieces: &[Piece], effects: &[Effects]) -> bool {
        let found = effect(effects, feature).value();
        let of_baseline = self.wander_of_baseline(feature).unwrap_or(0.0);
        let concurrent = pieces.iter().all(|piece| piece.mode == ComparisonMode::Concurrent);
        let of_both = std::f64::consts::SQRT_2 * of_baseline;
        let of_difference = || {
            let [before, since] = self.past.spans_around(first, feature);
            wander(&[&before, &since])
        };
        let own = of_both.max(concurrent.then(of_difference).flatten().unwrap_or(0.0));
        found < self.config.wander_factor * own
    }

    fn wander_of_baseline(&self, feature: usize) -> Option<f64> {
        let (pooled, thresholds) = (self.reference.pooled(), self.reference.thresholds(1));
        let spans = self.reference.spans();
        let full = spans.iter().filter(|span| span.count() >= LEAST_OF_SPAN);
        let recent = full.map(|span| levels_of(&pooled, span, &thresholds)[feature]);
        let levels: Vec<Level> = self
            .reference
            .forgotten()
            .of(feature)
            .map(|of| of.1)
            .chain(recent)
            .collect();
        wander(&[&levels])
    }

    /// How many times as much the mean of blocks varies as if they had nothing in common; of all that is kept, before a
    /// second and since.
    pub(crate) fn likeness(&self, feature: usize, first: i64, pieces: &[Piece]) -> f64 {
        let (pooled, thresholds) = (self.reference.pooled(), self.reference.thresholds(1));
        let is_after = pieces.iter().any(|piece| piece.mode == ComparisonMode::BeforeAfter);
        let (mut before, mut since) = (Vec::new(), Vec::new());
        for piece in pieces.iter().filter(|piece| piece.is_block) {
            let baseline = if is_after { &pooled } else { &piece.baseline };
            if baseline.count().min(piece.candidate.count()) == 0 {
                continue;
            }
            let level = levels_of(baseline, &piece.candidate, &thresholds)[feature];
            if piece.start + self.block_s() <= first {
                before.push(level);
            } else {
                since.push(level);
            }
        }
        let blocks = self.reference.blocks();
        let of_baseline: Vec<Level> = blocks
            .map(|block| levels_of(&pooled, &block.1, &thresholds)[feature])
            .collect();
        likeness(&[&of_baseline, &before, &since], LAGS)
    }
}

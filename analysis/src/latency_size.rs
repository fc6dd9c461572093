//! What keeps evidence from being stated: the size, a fall, a level that wanders.
//!
//! Guarantee: all of it only ever removes statements, so the bound on false ones stands without it.

use emberline_model::alert::ComparisonMode;

use crate::{
    latency_past::Piece,
    latency_reference::buckets_of,
    latency_watch::LatencyWatch,
    levels::levels_of,
    strata::Ranks,
    stratum::counts,
    wander::{Level, Restless},
};

/// By so many standard errors the last third must be lower than the first to be called falling.
const FALL_ERRORS: f64 = 0.25;
/// And by so much.
const FALL: f64 = 0.9;
/// The same for a gross slowdown, without regard to errors: it is stated early, while a warm-up still looks like one.
const GROSS_FALL: f64 = 0.97;
/// By so many standard errors, and so many times, the last third must be higher to be called rising.
const RISE_ERRORS: f64 = 2.0;
const RISE: f64 = 1.5;

/// What wandered for a few lengths of its memory may wander further: so much is added to its variance, over their number.
const UNSURE: f64 = 20.0;
/// The same where the baseline is gone: its restlessness is part of what is expected there already.
const UNSURE_AFTER: f64 = 3.0;

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

/// An excess that goes away must not describe what was seen better than one that stays: twice the logarithm of the ratio of likelihoods
/// may be so much.
const FADES: f64 = 1.0;
/// Seconds in which an excess that goes away falls by a factor of e, per alternative.
const FADES_S: [f64; 4] = [60.0, 120.0, 300.0, 600.0];

impl LatencyWatch {
    /// Whether the excess since the release began is described better by one that goes away from then on than by one that stays.
    ///
    /// Source: the ratio of the likelihoods of two regressions through the origin, each with a size of its own and known variances.
    pub(crate) fn fades(&self, feature: usize, pieces: &[Piece], effects: &[Effects]) -> bool {
        let Some(begin) = self.first_candidate else {
            return false;
        };
        let mut stays = (0.0, 0.0);
        let mut goes = [(0.0, 0.0); FADES_S.len()];
        for (piece, effects) in pieces.iter().zip(effects) {
            let Some(&(effect, variance)) = effects.get(feature).filter(|of| of.1 > 0.0 && of.1.is_finite()) else {
                continue;
            };
            let age = (piece.start - begin).max(0) as f64;
            let weight = 1.0 / variance;
            stays = (stays.0 + weight * effect, stays.1 + weight);
            for (sums, seconds) in goes.iter_mut().zip(FADES_S) {
                let shape = (-age / seconds).exp();
                *sums = (sums.0 + weight * effect * shape, sums.1 + weight * shape * shape);
            }
        }
        let explained = |(product, square): (f64, f64)| {
            if square > 0.0 {
                product.max(0.0).powi(2) / square
            } else {
                0.0
            }
        };
        goes.map(explained).into_iter().fold(f64::MIN, f64::max) > explained(stays) + FADES
    }

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

    /// By how many standard errors the candidate lies from the baseline in what is evidence from a second on: of requests, and of
    /// how far the mean of so many blocks strays by itself, of the baseline alone and of the difference, whichever is more.
    pub(crate) fn errors(&self, feature: usize, first: i64, pieces: &[Piece], effects: &[Effects]) -> f64 {
        let found = effect(effects, feature);
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
        let own: Vec<Level> = blocks
            .map(|block| levels_of(&pooled, &block.1, &thresholds)[feature])
            .collect();
        let (own, both) = (Restless::of(&[&own]), Restless::of(&[&before, &since]));
        let blocks = (self.now - first) as f64 / self.block_s() as f64 + 1.0;
        let share = if is_after { 1.0 } else { own.share_in(&both) };
        let unsure = if is_after { UNSURE_AFTER } else { UNSURE };
        let by_own = own.apart() * found.variance() + 2.0 * share * own.of_mean(blocks, unsure);
        let by_both = both.apart() * found.variance() + both.of_mean(blocks, unsure);
        found.value() / by_own.max(by_both).sqrt()
    }
}

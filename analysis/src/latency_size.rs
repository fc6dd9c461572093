//! What keeps evidence from being stated: the size, a fall, a level that wanders.
//!
//! Guarantee: all of it only ever removes statements, so the bound on false ones stands without it.

use std::ops::Range;

use emberline_model::{alert::ComparisonMode, histogram::Histogram};

use crate::{
    latency_sums::Spans,
    latency_watch::LatencyWatch,
    strata::{Counts, Ranks},
    stratum::{Judged, counts},
    wander::{Level, likeness, wander},
};

/// Requests each side needs in a span.
const LEAST_OF_SPAN: u64 = 5;
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

fn of_feature(judged: &Judged, feature: usize) -> Option<(f64, f64)> {
    if feature == 0 {
        return Some((judged.ranks.effect(), judged.ranks.variance()));
    }
    let counts: Counts = (*judged.counts.get(feature - 1)?)?;
    Some((counts.effect(), counts.variance()))
}

fn effect(strata: &[Judged], feature: usize) -> Effect {
    let mut sum = Effect::default();
    for (effect, variance) in strata.iter().filter_map(|judged| of_feature(judged, feature)) {
        sum.add(effect, variance);
    }
    sum
}

/// The effect in the first third of the evidence and in the last.
fn thirds(feature: usize, evidence: &[Judged]) -> Option<(Effect, Effect)> {
    let third = effect(evidence, feature).weights / 3.0;
    let (mut first, mut last) = (Effect::default(), Effect::default());
    for (sum, from_end) in [(&mut first, false), (&mut last, true)] {
        let mut at = 0;
        while sum.weights < third && at < evidence.len() {
            let judged = if from_end {
                &evidence[evidence.len() - 1 - at]
            } else {
                &evidence[at]
            };
            if let Some((effect, variance)) = of_feature(judged, feature) {
                sum.add(effect, variance);
            }
            at += 1;
        }
    }
    (first.weights > 0.0 && last.weights > 0.0).then_some((first, last))
}

impl LatencyWatch {
    /// Whether the last third of the windows from this one on lies below the first at all: what is gross must not fall.
    pub(crate) fn lately_falls(&self, since: usize) -> bool {
        let windows = &self.newest[since.min(self.newest.len())..];
        let third = windows.len().div_ceil(3);
        let of = |windows: &[Ranks]| {
            let mut sum = Effect::default();
            windows
                .iter()
                .for_each(|ranks| sum.add(ranks.effect(), ranks.variance()));
            sum
        };
        let (first, last) = (of(&windows[..third]), of(&windows[windows.len() - third..]));
        last.value() < GROSS_FALL * first.value()
    }

    /// Whether the end of the evidence is so much below its beginning that the release still warms up.
    pub(crate) fn falls(&self, feature: usize, evidence: &[Judged]) -> bool {
        thirds(feature, evidence).is_some_and(|(first, last)| is_below(first, last))
    }

    /// Whether a difference to a baseline that is gone grows by itself: that is drift, for all that can be known.
    pub(crate) fn drifts(&self, feature: usize) -> bool {
        if self
            .judged
            .iter()
            .all(|judged| judged.stratum.mode == ComparisonMode::Concurrent)
        {
            return false;
        }
        let Some((first, last)) = thirds(feature, &self.judged) else {
            return false;
        };
        let error = (first.variance() + last.variance()).sqrt();
        last.value() > RISE * first.value() && last.value() - first.value() > RISE_ERRORS * error
    }

    /// Whether levels wander by themselves as far as the candidate lies from the baseline.
    pub(crate) fn wanders(&self, feature: usize, first: usize) -> bool {
        let evidence = &self.judged[first..];
        let found = effect(evidence, feature).value();
        let of_baseline = self.wander_of_baseline(feature).unwrap_or(0.0);
        let concurrent = evidence
            .iter()
            .all(|judged| judged.stratum.mode == ComparisonMode::Concurrent);
        let of_both = std::f64::consts::SQRT_2 * of_baseline;
        let of_difference = concurrent.then(|| self.wander_of_difference(feature, first)).flatten();
        let own = of_both.max(of_difference.unwrap_or(0.0));
        found < self.config.wander_factor * own
    }

    fn wander_of_baseline(&self, feature: usize) -> Option<f64> {
        let pooled = self.reference.pooled();
        let full = self.reference.spans().filter(|span| span.count() >= LEAST_OF_SPAN);
        let levels: Vec<Level> = full.map(|span| self.level(&pooled, span, feature)).collect();
        wander(&[&levels])
    }

    fn levels_of_baseline(&self, feature: usize) -> Vec<Level> {
        let pooled = self.reference.pooled();
        let blocks = self.reference.blocks();
        blocks.map(|block| self.level(&pooled, block, feature)).collect()
    }

    /// Of the difference between releases that serve together, before the change and since.
    fn wander_of_difference(&self, feature: usize, first: usize) -> Option<f64> {
        let parts = [0..first, first..self.judged.len()];
        let [before, since] = parts.map(|strata| self.levels(strata, &self.by_span, LEAST_OF_SPAN, feature));
        wander(&[&before, &since])
    }

    /// How many times as much the mean of blocks varies as if they had nothing in common.
    pub(crate) fn likeness(&self, feature: usize, first: usize) -> f64 {
        let parts = [0..first, first..self.judged.len()];
        let [before, since] = parts.map(|strata| self.levels(strata, &self.by_block, 1, feature));
        let of_baseline = self.levels_of_baseline(feature);
        likeness(&[&of_baseline, &before, &since], LAGS)
    }

    /// The difference between the releases in each span of time.
    fn levels(&self, strata: Range<usize>, spans: &Spans, least: u64, feature: usize) -> Vec<Level> {
        let gone = self.judged[strata.clone()]
            .iter()
            .any(|judged| judged.stratum.mode == ComparisonMode::BeforeAfter);
        let reference = gone.then(|| self.reference.pooled());
        spans
            .of(&self.judged, strata)
            .filter_map(|sums| {
                let [b, c] = sums.as_ref();
                let b = reference.as_ref().unwrap_or(b);
                (b.count().min(c.count()) >= least).then(|| self.level(b, c, feature))
            })
            .collect()
    }

    fn level(&self, baseline: &Histogram, candidate: &Histogram, feature: usize) -> Level {
        let quantile = feature.checked_sub(1).and_then(|at| self.config.quantiles.get(at));
        match quantile.and_then(|&q| self.reference.threshold(q, 1)) {
            Some(threshold) => {
                let counts = counts(baseline, candidate, threshold, 0);
                (counts.effect(), counts.variance())
            }
            None => {
                let ranks = Ranks::of(baseline, candidate, 0);
                (ranks.effect(), ranks.variance())
            }
        }
    }
}

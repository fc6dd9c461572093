//! How far one release lies from another in a span of time, and the levels of spans in a few bytes each.

use emberline_model::histogram::Histogram;

use crate::{strata::Ranks, stratum::counts, wander::Level};

/// Seconds of a span whose level is compared with those of others.
pub(crate) const SPAN_S: i64 = 150;
/// Spans whose levels are kept: an hour.
pub(crate) const MOST_SPANS: usize = 24;
/// Requests each side needs in a span.
pub(crate) const LEAST_OF_SPAN: u64 = 5;

/// A level in four bytes: the effect in steps of 1/32,767, the variance within 0.4 %.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallLevel(u32);

impl SmallLevel {
    pub(crate) fn of((effect, variance): Level) -> SmallLevel {
        let effect = (effect * 32_767.0).round() as i16;
        let variance = (variance as f32).to_bits() >> 16;
        SmallLevel(u32::from(effect.cast_unsigned()) << 16 | variance)
    }

    pub(crate) fn level(self) -> Level {
        let effect = f64::from(((self.0 >> 16) as u16).cast_signed()) / 32_767.0;
        (effect, f64::from(f32::from_bits(self.0 << 16)))
    }
}

/// Levels of the newest spans.
#[derive(Debug, Clone)]
pub(crate) struct Levels {
    numbers: Vec<i32>,
    /// Of each span one per feature.
    levels: Vec<SmallLevel>,
    features: usize,
}

impl Levels {
    pub(crate) fn new(features: usize) -> Levels {
        Levels {
            numbers: Vec::new(),
            levels: Vec::new(),
            features,
        }
    }

    /// Adds a span, whose number must be larger than the last; one level per feature.
    pub(crate) fn push(&mut self, number: i64, levels: &[Level]) {
        if self.len() == MOST_SPANS {
            self.numbers.remove(0);
            self.levels.drain(..self.features);
        }
        // Doubling would leave up to half of it empty.
        self.numbers.reserve_exact(1);
        self.numbers.push(number as i32);
        self.levels.reserve_exact(self.features);
        self.levels
            .extend(levels.iter().take(self.features).map(|&level| SmallLevel::of(level)));
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Number of the newest span.
    pub(crate) fn last(&self) -> Option<i64> {
        self.numbers.last().map(|&number| i64::from(number))
    }

    /// Numbers and levels of one feature, oldest first.
    pub(crate) fn of(&self, feature: usize) -> impl Iterator<Item = (i64, Level)> {
        let levels = self.levels.iter().skip(feature).step_by(self.features.max(1));
        self.numbers
            .iter()
            .zip(levels)
            .map(|(&number, level)| (i64::from(number), level.level()))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        4 * (self.numbers.capacity() + self.levels.capacity())
    }
}

/// How far the candidate lies from the baseline, per feature: ranks, then each threshold, or ranks again where there is none.
pub(crate) fn levels_of(baseline: &Histogram, candidate: &Histogram, thresholds: &[Option<i16>]) -> Vec<Level> {
    let ranks = Ranks::of(baseline, candidate, 0);
    let by_ranks = (ranks.effect(), ranks.variance());
    let by_threshold = thresholds.iter().map(|threshold| {
        threshold.map_or(by_ranks, |threshold| {
            let counts = counts(baseline, candidate, threshold, 0);
            (counts.effect(), counts.variance())
        })
    });
    std::iter::once(by_ranks).chain(by_threshold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_kept_as_they_are_and_the_oldest_leave() {
        let mut levels = Levels::new(2);
        let level = |at: i64| ((at as f64 / 30.0).sin() * 0.5, 1e-6 * 1.5f64.powi(at as i32));
        for at in 0..60 {
            levels.push(at * 3, &[(0.0, 1.0), level(at)]);
        }
        let kept: Vec<(i64, Level)> = levels.of(1).collect();
        assert_eq!((kept.len(), levels.last()), (MOST_SPANS, Some(177)));
        for (number, (effect, variance)) in kept {
            let (expected, chance) = level(number / 3);
            assert!(
                (effect - expected).abs() < 1e-4 && (variance / chance - 1.0).abs() < 0.01,
                "{number}"
            );
        }
    }
}

//! How far one release lies from another in a stretch of time, and such a level in a few bytes.

use emberline_model::histogram::Histogram;

use crate::{strata::Ranks, stratum::counts, wander::Level};

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
    fn a_level_is_kept_as_it_is() {
        for at in 0..60 {
            let (effect, variance) = ((f64::from(at) / 30.0).sin() * 0.5, 1e-6 * 1.5f64.powi(at));
            let kept = SmallLevel::of((effect, variance)).level();
            assert!(
                (kept.0 - effect).abs() < 1e-4 && (kept.1 / variance - 1.0).abs() < 0.01,
                "{at}"
            );
        }
    }
}

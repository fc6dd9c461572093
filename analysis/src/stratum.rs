//! A stratum: windows counted together, and what was counted in it.

use emberline_model::{
    alert::ComparisonMode,
    histogram::{Histogram, MIN_INDEX},
};

use crate::strata::Counts;

/// Windows counted together: one, or several on a quiet route.
#[derive(Debug, Clone)]
pub(crate) struct Stratum {
    pub(crate) mode: ComparisonMode,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Empty in before/after mode, where the reference serves.
    pub(crate) baseline: Histogram,
    pub(crate) candidate: Histogram,
    /// Windows with requests of the candidate.
    pub(crate) windows: u64,
    /// What each quantile is tested against: fixed by the windows before the first, because the factor of a threshold that moves
    /// with what it is used on is no fair bet.
    pub(crate) thresholds: Vec<Option<i16>>,
}

impl Stratum {
    pub(crate) fn new(mode: ComparisonMode, start: i64, thresholds: Vec<Option<i16>>) -> Stratum {
        Stratum {
            mode,
            thresholds,
            first: start,
            last: start,
            baseline: Histogram::new(),
            candidate: Histogram::new(),
            windows: 0,
        }
    }

    pub(crate) fn add(&mut self, start: i64, baseline: &Histogram, candidate: &Histogram) {
        self.last = start;
        self.baseline.merge(baseline);
        self.candidate.merge(candidate);
        self.windows += u64::from(candidate.count() > 0);
    }
}

/// Requests above one threshold; the candidate's durations are moved down first.
pub(crate) fn counts(baseline: &Histogram, candidate: &Histogram, threshold: i16, down: i16) -> Counts {
    let of = |histogram: &Histogram, threshold: i16| (histogram.count_above(threshold), histogram.count());
    Counts {
        baseline: of(baseline, threshold),
        candidate: of(candidate, threshold.saturating_add(down).max(MIN_INDEX - 1)),
    }
}

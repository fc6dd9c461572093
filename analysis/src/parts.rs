//! The cost of parts of a route: functions added up, or the route without one of them, window by window.
//!
//! Guarantees: a part is compared as the whole is, with its own variance and not with one put together from those of
//! functions that share samples.
//!
//! Wrong on purpose: only functions whose cost may have changed are kept, the others are in no part.

use std::collections::BTreeMap;

use crate::change::{CostComparison, CostConfig, Critical, Exposures, Measured, Sides, WindowSum};
use crate::least_change::LeastChange;

/// What is added or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All samples.
    Route,
    /// Samples that end in a function.
    Own(u64),
    /// Samples that pass it.
    Total(u64),
}

/// Cost by window of the route and of the functions that may have changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub(crate) exposures: Sides<Exposures>,
    pub(crate) route: Sides<Vec<WindowSum>>,
    /// Own and total, of each function.
    pub(crate) functions: BTreeMap<u64, [Sides<Vec<WindowSum>>; 2]>,
    pub(crate) dispersion: f64,
    /// What a function must surely have changed by.
    pub(crate) least: LeastChange,
    pub(crate) config: CostConfig,
}

impl Parts {
    fn sums(&self, part: Part) -> Option<&Sides<Vec<WindowSum>>> {
        match part {
            Part::Route => Some(&self.route),
            Part::Own(function) => self.functions.get(&function).map(|sums| &sums[0]),
            Part::Total(function) => self.functions.get(&function).map(|sums| &sums[1]),
        }
    }

    /// Compares what the first add up to without what the others do: the baseline's parts and the candidate's, which are
    /// others where something has another name. Confidence is that of a single cost. `None` when one is not kept.
    pub(crate) fn compare(
        &self,
        with: Sides<&[Part]>,
        without: Sides<&[Part]>,
        least: LeastChange,
    ) -> Option<CostComparison> {
        let side = |with: &[Part], without: &[Part], of: fn(&Sides<Vec<WindowSum>>) -> &Vec<WindowSum>| {
            let mut sums: Vec<WindowSum> = vec![(0.0, 0); of(&self.route).len()];
            for &part in with {
                let part = of(self.sums(part)?);
                sums.iter_mut()
                    .zip(part)
                    .for_each(|(sum, add)| *sum = (sum.0 + add.0, sum.1 + add.1));
            }
            for &part in without {
                let part = of(self.sums(part)?);
                let take = |(sum, take): (&mut WindowSum, &WindowSum)| {
                    *sum = ((sum.0 - take.0).max(0.0), sum.1.saturating_sub(take.1));
                };
                sums.iter_mut().zip(part).for_each(take);
            }
            Some(sums)
        };
        let sums = Sides {
            baseline: side(with.baseline, without.baseline, |s| &s.baseline)?,
            candidate: side(with.candidate, without.candidate, |s| &s.candidate)?,
        };
        let (cost, samples) = self
            .route
            .baseline
            .iter()
            .chain(&self.route.candidate)
            .fold((0.0, 0), |(c, n), w| (c + w.0, n + w.1));
        let per_sample = (samples > 0).then(|| cost / samples as f64);
        let measured = Measured::of_sums(&self.exposures, &sums, per_sample);
        let mut critical = Critical::new(self.config.interval);
        Some(measured.compare_single(self.dispersion, least, &mut critical, &self.config))
    }
}

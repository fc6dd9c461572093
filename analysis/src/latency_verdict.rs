//! From the state of a watch to the verdict that is shown.

use emberline_model::alert::ComparisonMode;

use crate::{
    latency::{LatencyOutcome, LatencyVerdict, QuantileEvidence, estimate_quantile},
    latency_sums::Pooled,
    latency_watch::{LatencyWatch, Witnesses, needed_ln},
    strata::{Counts, Ranks},
    stratum::counts,
};

impl LatencyWatch {
    /// The verdict on all windows so far.
    pub fn verdict(&self) -> LatencyVerdict {
        let (outcome, stated) = match (&self.stated_slower, &self.stated_faster) {
            (Some(slower), _) => (LatencyOutcome::Slower, Some(slower)),
            (None, Some(faster)) => (LatencyOutcome::Faster, Some(faster)),
            (None, None) => (self.nothing_stated(), None),
        };
        let is_faster = outcome == LatencyOutcome::Faster;
        let witnesses = if is_faster { &self.faster } else { &self.slower };
        let pooled = match stated {
            Some(stated) => {
                let mut pooled = stated.evidence.clone();
                let open = self.block.as_ref();
                if let Some((_, block)) = open.filter(|block| stated.shows(block.0, self.block_s())) {
                    pooled.add(block, &self.reference);
                }
                pooled
            }
            None => self.pool(&self.past.pieces(&self.reference, self.block.as_ref())),
        };
        let feature = stated.map_or_else(|| witnesses.requests.leading().0, |stated| stated.feature);
        let quantiles: Vec<QuantileEvidence> = (0..self.config.quantiles.len())
            .map(|at| self.quantile_evidence(at, is_faster, witnesses, &pooled))
            .collect();
        let leading = self.leading_quantile(feature, &quantiles);
        let shift = leading
            .and_then(|at| quantiles.get(at))
            .and_then(|q| Some(q.candidate?.value - q.baseline?.value));
        let (baseline, candidate) = (pooled.baseline, pooled.candidate);
        let ranks = Ranks::of(&baseline, &candidate, 0);
        LatencyVerdict {
            outcome,
            mode: pooled.mode,
            fired_at_window: stated.map(|stated| stated.at),
            since_window: stated.map(|stated| stated.first),
            last_baseline_window: stated.and_then(|stated| stated.last_baseline),
            e_value_ln: witnesses.requests.ln_value(),
            e_value_ln_peak: witnesses.requests.ln_peak(),
            e_value_ln_needed: needed_ln(self.config.alpha),
            block_e_value_ln: witnesses.blocks.ln_value(),
            block_e_value_ln_needed: needed_ln(self.config.block_alpha),
            slower_share: (ranks.baseline.min(ranks.candidate) > 0).then(|| ranks.effect() + 0.5),
            held_back: self.held_back,
            alpha: self.config.alpha,
            leading_quantile: leading.and_then(|at| self.config.quantiles.get(at).copied()),
            quantiles,
            shift_seconds: shift,
            mean_shift_seconds: candidate.mean().and_then(|mean| Some(mean - baseline.mean()?)),
            n_baseline: baseline.count(),
            n_candidate: candidate.count(),
            baseline,
            candidate,
            windows_used: self.windows_used,
            windows_skipped: self.skipped(),
            judged: self.standings(),
        }
    }

    /// Ranks say that all requests took longer: then the quantile with the most evidence is shown.
    fn leading_quantile(&self, feature: usize, quantiles: &[QuantileEvidence]) -> Option<usize> {
        feature.checked_sub(1).or_else(|| {
            let evidence = |at: &usize| quantiles[*at].e_value_ln;
            (0..quantiles.len())
                .rev()
                .max_by(|a, b| evidence(a).total_cmp(&evidence(b)))
        })
    }

    fn nothing_stated(&self) -> LatencyOutcome {
        let (requests, blocks) = (self.possible.requests.ln_peak(), self.possible.blocks.ln_peak());
        let reached = (requests / needed_ln(self.config.alpha)).min(blocks / needed_ln(self.config.block_alpha));
        let pooled = self.pool(&self.past.pieces(&self.reference, self.block.as_ref()));
        let seen = pooled.baseline.count().min(pooled.candidate.count());
        let least = self.config.min_requests;
        if reached >= 1.0 && seen >= least {
            return LatencyOutcome::NoChange;
        }
        let needed = (seen as f64 / reached.clamp(0.02, 0.98)).ceil() as u64;
        LatencyOutcome::TooFewSamples {
            needed_requests: needed.max(least),
        }
    }

    fn quantile_evidence(
        &self,
        at: usize,
        is_faster: bool,
        witnesses: &Witnesses,
        pooled: &Pooled,
    ) -> QuantileEvidence {
        let quantile = self.config.quantiles[at];
        let threshold = self.reference.thresholds(1).get(at).copied().flatten();
        let counts = threshold.map_or_else(Counts::default, |threshold| {
            counts(&pooled.baseline, &pooled.candidate, threshold, 0)
        });
        let of = if is_faster { counts.turned() } else { counts };
        QuantileEvidence {
            quantile,
            baseline: estimate_quantile(&pooled.baseline, quantile),
            candidate: estimate_quantile(&pooled.candidate, quantile),
            exceedances: of.candidate.0,
            expected: match pooled.mode {
                ComparisonMode::Concurrent => of.expected(),
                ComparisonMode::BeforeAfter => {
                    of.candidate.1 as f64 * of.baseline.0 as f64 / of.baseline.1.max(1) as f64
                }
            },
            requests: of.candidate.1,
            e_value_ln: witnesses.requests.ln_value_of(1 + at),
        }
    }
}

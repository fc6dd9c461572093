//! The e-process: evidence that may be looked at after every window.
//!
//! Guarantee: fed with factors whose expectation without a change is at most 1 given the past, the value's
//! expectation stays at most 1, so by Ville's inequality P(ever value >= 1 / alpha) <= alpha, however often one
//! looks. The value is the average over quantiles, over alternatives (how big the change is) and, with weights
//! that add up to 1, over the step at which the change began; an average of e-processes is an e-process.
//! The mixture over beginnings finds a slowdown that starts long after the release did: its price is
//! `ln(1 / weight)`, that is 0.2 for the first step, 3.4 for step 2 and 8.4 for step 30.
//!
//! A factor is cut at a cap and divided by `1 + s (cap - 1)`, where `s` is the share of windows in which something
//! other than the release disturbs one release alone. A cut likelihood ratio is Huber's minimax test under such
//! contamination (Huber, Ann. Math. Stat. 36, 1965); with the division the guarantee holds under it too.
//!
//! Wrong on purpose: requests inside one window are taken as independent. Where they are not, one window may say
//! too much; the cap is what bounds it.

use crate::statistics::ln_add_exp;

/// How far the alternatives go from the share expected without a change towards 1.
const STEPS_TO_ONE: [f64; ALTERNATIVES] = [0.1, 0.3, 0.6, 0.9];
/// Alternatives of each feature: how big the change is.
pub(crate) const ALTERNATIVES: usize = 4;
/// Weight of "changed from the first step on": a release usually brings its slowdown with it.
const WEIGHT_OF_FIRST_STEP: f64 = 0.8;

/// What a count of exceedances is expected to follow without a change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Null {
    /// No threshold: requests of the baseline in the same block, and those of them that exceeded (failed), where both have one
    /// chance, whatever it is. `crate::errors` says why the factor is a fair bet.
    Share {
        /// Those of the baseline.
        errors: u64,
        /// All requests of the baseline.
        requests: u64,
        /// The baseline's chance as known before this block; between 0 and 1, and neither.
        expected: f64,
    },
    /// The threshold is a bound that holds for the true quantile: binomial with this chance.
    Bound {
        /// Chance of an exceedance.
        chance: f64,
    },
}

impl Null {
    /// Expected share of exceedances.
    pub(crate) fn share(self) -> f64 {
        match self {
            Null::Share { errors, requests, .. } => errors as f64 / requests.max(1) as f64,
            Null::Bound { chance } => chance,
        }
    }

    /// Log-likelihood ratio of `exceedances` of `requests` under an alternative; never falls when `exceedances` grow,
    /// which makes it valid for every candidate that is not slower, and not only for an equal one.
    pub(crate) fn ln_ratio(self, exceedances: u64, requests: u64, alternative: f64) -> f64 {
        let share = self.share();
        let changed = share + (1.0 - share) * alternative;
        match self {
            Null::Share {
                errors,
                requests: of,
                expected,
            } => {
                // Small growths count as well where failures are rare.
                let changed = expected + (1.0 - expected) * alternative * alternative;
                let (n, m) = (of as f64, requests as f64);
                let same = (n * expected + m * changed) / (n + m);
                let ln = |of: u64, all: u64, chance: f64| {
                    of as f64 * (chance / same).ln() + (all - of) as f64 * ((1.0 - chance) / (1.0 - same)).ln()
                };
                ln(errors, of, expected) + ln(exceedances, requests, changed)
            }
            Null::Bound { .. } => {
                let (k, rest) = (exceedances as f64, (requests - exceedances) as f64);
                k * (changed / share).ln() + rest * ((1.0 - changed) / (1.0 - share)).ln()
            }
        }
    }
}

/// Exceedances of one quantile's threshold in one block of windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exceedance {
    /// Requests of the judged release above the threshold.
    pub(crate) above: u64,
    /// All its requests in the block.
    pub(crate) requests: u64,
    /// What is expected without a change.
    pub(crate) null: Null,
}

/// The most one block may say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cap {
    /// Largest log-likelihood ratio counted.
    ln_gross: f64,
    /// Subtracted from every logarithm, for the windows disturbed by something else.
    ln_discount: f64,
}

impl Cap {
    /// The cap that lets `blocks` saturated blocks, and no fewer, carry a verdict at `alpha`.
    pub(crate) fn new(alpha: f64, blocks: u32, disturbed_share: f64) -> Cap {
        // Room for the mixture: of the alternatives and quantiles a clear change saturates at least a quarter.
        let wanted = ((1.0 / alpha).ln() + 4f64.ln()) / f64::from(blocks.max(1));
        let share = disturbed_share.clamp(0.0, 0.5);
        // The discount grows with the cap, so no net cap above ln(1 / share) exists; half of that is always safe.
        let net = if share > 0.0 {
            wanted.min(-share.ln() - std::f64::consts::LN_2)
        } else {
            wanted
        };
        // Solves e^gross / (1 + share (e^gross - 1)) = e^net.
        let ln_gross = net + (1.0 - share).ln() - (1.0 - share * net.exp()).ln();
        Cap {
            ln_gross,
            ln_discount: ln_gross - net,
        }
    }

    fn apply(self, ln_ratio: f64) -> f64 {
        ln_ratio.min(self.ln_gross) - self.ln_discount
    }
}

/// Product of factors under one alternative, mixed over the step at which the change began.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Logarithm of the sum, over the beginnings so far, of weight times product.
    ln_mixture: f64,
    /// The best single beginning: logarithm of weight times product, and when it was. Small, because watches are many.
    best: (f32, i32),
}

impl Run {
    fn add(&mut self, ln_weight: f64, at: i32, ln_factor: f64) {
        self.ln_mixture = ln_add_exp(self.ln_mixture, ln_weight) + ln_factor;
        if f64::from(self.best.0) < ln_weight {
            self.best = (ln_weight as f32, at);
        }
        self.best.0 += ln_factor as f32;
    }
}

fn ln_weight_of_beginning(step: u32) -> f64 {
    match f64::from(step) {
        0.0 => WEIGHT_OF_FIRST_STEP.ln(),
        s => (1.0 - WEIGHT_OF_FIRST_STEP).ln() - (s * (s + 1.0)).ln(),
    }
}

/// Weight of all beginnings after `steps` steps.
fn weight_of_later_beginnings(steps: u32) -> f64 {
    if steps == 0 {
        1.0
    } else {
        (1.0 - WEIGHT_OF_FIRST_STEP) / f64::from(steps)
    }
}

/// Evidence that one release is slower than another, over a growing number of steps.
#[derive(Debug, Clone)]
pub(crate) struct EProcess {
    /// Per quantile, per alternative.
    runs: Vec<[Run; ALTERNATIVES]>,
    steps: u32,
    ln_peak: f64,
}

impl EProcess {
    pub(crate) fn new(quantiles: usize) -> EProcess {
        let empty = Run {
            ln_mixture: f64::NEG_INFINITY,
            best: (f32::NEG_INFINITY, 0),
        };
        EProcess {
            runs: vec![[empty; ALTERNATIVES]; quantiles],
            steps: 0,
            ln_peak: 0.0,
        }
    }

    /// Adds a step; `exceedances` holds one entry per quantile, `None` where the block cannot judge it.
    pub(crate) fn push(&mut self, exceedances: &[Option<Exceedance>], cap: Cap) {
        let ln_factors = exceedances.iter().map(|exceedance| {
            STEPS_TO_ONE.map(|step| exceedance.map_or(0.0, |e| cap.apply(e.null.ln_ratio(e.above, e.requests, step))))
        });
        self.step(ln_factors);
    }

    /// Adds a step; `ln_factors` holds, per feature, the logarithm of a factor for each alternative.
    pub(crate) fn step(&mut self, ln_factors: impl IntoIterator<Item = [f64; ALTERNATIVES]>) {
        self.step_at(self.steps.cast_signed(), ln_factors);
    }

    /// The same; `at` is what a beginning at this step is called, in place of its number.
    pub(crate) fn step_at(&mut self, at: i32, ln_factors: impl IntoIterator<Item = [f64; ALTERNATIVES]>) {
        let ln_weight = ln_weight_of_beginning(self.steps);
        for (runs, ln_factors) in self.runs.iter_mut().zip(ln_factors) {
            for (run, ln_factor) in runs.iter_mut().zip(ln_factors) {
                run.add(ln_weight, at, ln_factor);
            }
        }
        self.steps = self.steps.saturating_add(1);
        self.ln_peak = self.ln_peak.max(self.ln_value());
    }

    /// Natural logarithm of the e-value now.
    pub(crate) fn ln_value(&self) -> f64 {
        let all = self
            .runs
            .iter()
            .flatten()
            .fold(f64::NEG_INFINITY, |sum, run| ln_add_exp(sum, run.ln_mixture));
        let average = all - ((self.runs.len().max(1) * ALTERNATIVES) as f64).ln();
        ln_add_exp(average, weight_of_later_beginnings(self.steps).ln())
    }

    /// Largest value so far.
    pub(crate) fn ln_peak(&self) -> f64 {
        self.ln_peak
    }

    /// Natural logarithm of one quantile's e-value.
    pub(crate) fn ln_value_of(&self, quantile: usize) -> f64 {
        let all = self.runs[quantile]
            .iter()
            .fold(f64::NEG_INFINITY, |sum, run| ln_add_exp(sum, run.ln_mixture));
        ln_add_exp(
            all - (ALTERNATIVES as f64).ln(),
            weight_of_later_beginnings(self.steps).ln(),
        )
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<[Run; ALTERNATIVES]>() * self.runs.capacity()
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> u32 {
        self.steps
    }

    /// The quantile with the most evidence (the first of equals) and the step at which its change most likely began.
    pub(crate) fn leading(&self) -> (usize, i32) {
        let mut leading = 0;
        for quantile in 1..self.runs.len() {
            // Two saturated quantiles differ by rounding only.
            if self.ln_value_of(quantile) > self.ln_value_of(leading) + 1e-9 {
                leading = quantile;
            }
        }
        (leading, self.beginning(leading))
    }

    /// The step at which a feature's change most likely began.
    pub(crate) fn beginning(&self, feature: usize) -> i32 {
        let runs = self.runs.get(feature);
        let best = runs.and_then(|runs| runs.iter().max_by(|a, b| a.best.0.total_cmp(&b.best.0)));
        best.map_or(0, |run| run.best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(above: u64) -> Vec<Option<Exceedance>> {
        vec![Some(Exceedance {
            above,
            requests: 50,
            null: Null::Bound { chance: 0.5 },
        })]
    }

    #[test]
    fn weights_of_beginnings_add_up_to_one() {
        for steps in [0u32, 1, 2, 40] {
            let before: f64 = (0..steps).map(|s| ln_weight_of_beginning(s).exp()).sum();
            assert!(
                (before + weight_of_later_beginnings(steps) - 1.0).abs() < 1e-12,
                "{steps}"
            );
        }
    }

    #[test]
    fn one_block_never_carries_a_verdict_and_two_saturated_ones_do() {
        for alpha in [0.05, 0.001, 1e-6] {
            let cap = Cap::new(alpha, 2, 0.0);
            let mut process = EProcess::new(1);
            process.push(&block(50), cap);
            assert!(process.ln_value() < (1.0 / alpha).ln(), "{alpha}");
            process.push(&block(50), cap);
            assert!(
                process.ln_value() >= (1.0 / alpha).ln() || alpha < 1e-5,
                "{alpha} {}",
                process.ln_value()
            );
        }
    }

    #[test]
    fn the_discount_pays_for_disturbed_windows() {
        for share in [0.001, 0.01, 0.1] {
            let cap = Cap::new(0.001, 2, share);
            // A share of windows at the cap, the others at the bound of what is expected without a change.
            let expectation = (1.0 - share) * (-cap.ln_discount).exp() + share * (cap.ln_gross - cap.ln_discount).exp();
            assert!(expectation <= 1.0 + 1e-9, "{share} {expectation}");
        }
    }

    #[test]
    fn a_late_beginning_is_found_and_dated() {
        let cap = Cap::new(0.001, 2, 0.002);
        let mut process = EProcess::new(1);
        for _ in 0..40 {
            process.push(&block(24), cap);
        }
        assert!(process.ln_value() < 0.1);
        let mut steps = 0;
        while process.ln_value() < 1000f64.ln() {
            process.push(&block(50), cap);
            steps += 1;
        }
        assert!((2..=5).contains(&steps), "{steps}");
        assert_eq!(process.leading(), (0, 40));
    }
}

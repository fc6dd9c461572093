//! Did a cost per request change? For the whole route and, called by [`crate::functions`], for one function.
//!
//! Cost per request is a ratio estimate: sum of cost divided by sum of requests over the windows of a side. Its
//! variance has two sources, and both are used: the Poisson variance of the number of stack samples, the lower bound
//! for any sampled profile, and the *dispersion*, how much more the windows differ from each other than Poisson counts
//! would (residuals `cost - rate * requests` of the ratio estimator). With few windows the dispersion cannot be
//! estimated from one function alone, so it is shrunk towards a prior worth [`PRIOR_DEGREES`] degrees of freedom, as
//! moderated t-tests do (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004; ratio estimator: Cochran, "Sampling Techniques",
//! 6.3). Thus two windows per side suffice when the effect is huge, and noisy windows still widen it.
//!
//! A cost counts as changed if it changed significantly by more than a stated size ([`crate::least_change`]): with
//! enough samples any two releases differ, by the mix of their requests and by the other load on their machines.
//!
//! Guarantees: pure; the variance is never below the Poisson variance; a side without samples counts as one sample,
//! so "nothing seen" is never infinitely certain; `delta` is exactly candidate minus baseline.
//!
//! Wrong on purpose: windows count as independent, and intervals are symmetric, so the lower end for a rare function
//! can be below any possible difference.
//!
//! One file because the estimate, its variance and the judgement are one computation. Each uses the sums of the
//! previous one.

use std::collections::BTreeMap;

use emberline_model::comparison::{Confidence, Judgement};

use crate::{
    least_change::{Estimate, LeastChange},
    statistics::student_critical,
};

/// Degrees of freedom of the prior dispersion: four times those of two windows per side, a seventh of those of thirty.
pub const PRIOR_DEGREES: f64 = 8.0;

/// When a cost counts as changed.
#[derive(Debug, Clone, PartialEq)]
pub struct CostConfig {
    /// Coverage of the intervals.
    pub interval: f64,
    /// Minimum samples, both sides together, to judge anything.
    pub min_samples: u64,
    /// Minimum share of the route's cost to judge a function.
    pub min_share: f64,
    /// Expected share of false positives among functions called changed.
    pub false_discovery_rate: f64,
    /// p-value at or below which a single cost (the route's) is called changed.
    pub alpha: f64,
    /// The least significant change of a function, as a share of its own cost.
    pub least_change: f64,
    /// The same as a share of the route's cost, for functions that cost next to nothing on one side.
    pub least_change_of_route: f64,
    /// The least significant change of a single cost (the route's), as a share of it.
    pub least_change_of_single: f64,
}

impl Default for CostConfig {
    fn default() -> CostConfig {
        CostConfig {
            interval: 0.95,
            min_samples: 20,
            min_share: 0.001,
            false_discovery_rate: 0.05,
            alpha: 0.01,
            least_change: 0.05,
            least_change_of_route: 0.0005,
            least_change_of_single: 0.01,
        }
    }
}

impl CostConfig {
    /// The least change of a function in a route with these costs.
    pub(crate) fn least_of_function(&self, route: Sides<f64>, spread: f64) -> LeastChange {
        LeastChange {
            spread,
            relative: self.least_change,
            absolute: self.least_change_of_route * route.baseline.max(route.candidate),
        }
    }

    /// The least change of a single cost.
    pub(crate) fn least_of_single(&self) -> LeastChange {
        LeastChange {
            relative: self.least_change_of_single,
            ..LeastChange::default()
        }
    }
}

/// A value for each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sides<T> {
    /// The baseline release.
    pub baseline: T,
    /// The release judged.
    pub candidate: T,
}

/// A slice of time covered by both signals, and what its costs are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExposureWindow {
    /// Start, seconds since the Unix epoch; each start once per side.
    pub start: i64,
    /// Requests served in it, or seconds observed; may be 0. For plain sums use 1 / number of windows.
    pub exposure: f64,
}

/// Cost seen in one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostWindow {
    /// Start, seconds since the Unix epoch.
    pub start: i64,
    /// Cost, in the profile's unit (nanoseconds of CPU).
    pub cost: f64,
    /// Number of stack samples it is based on.
    pub samples: u64,
}

/// One side's cost per request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SideCost {
    /// Cost per request.
    pub rate: f64,
    /// Its standard error, including dispersion.
    pub standard_error: f64,
    /// Lower end of its interval; not below zero.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Total cost.
    pub cost: f64,
    /// Total samples.
    pub samples: u64,
}

impl SideCost {
    fn estimate(&self) -> Estimate {
        Estimate {
            value: self.rate,
            standard_error: self.standard_error,
        }
    }
}

/// Cost per request of both sides and the significance of their difference.
#[derive(Debug, Clone, PartialEq)]
pub struct CostComparison {
    /// Cost of the baseline.
    pub baseline: SideCost,
    /// Cost of the candidate.
    pub candidate: SideCost,
    /// Candidate minus baseline, per request.
    pub delta: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// p-value of a change by more than the least one, in either direction; 1 if it cannot be judged.
    pub p_value: f64,
    /// p-value adjusted for the number of costs compared; the same as `p_value` for a single one.
    pub q_value: f64,
    /// Variance as a multiple of the Poisson variance, at least 1.
    pub dispersion: f64,
    /// Degrees of freedom of the interval.
    pub degrees_of_freedom: f64,
    /// Confidence.
    pub confidence: Confidence,
}

impl CostComparison {
    /// Candidate divided by baseline; `None` if the baseline costs nothing.
    pub fn ratio(&self) -> Option<f64> {
        (self.baseline.rate > 0.0).then(|| self.candidate.rate / self.baseline.rate)
    }

    /// Overall judgement.
    pub fn judgement(&self) -> Judgement {
        match self.confidence {
            Confidence::Few => Judgement::TooFewSamples,
            Confidence::Strong => Judgement::Changed,
            Confidence::Weak | Confidence::Noise => Judgement::NoChange,
        }
    }

    /// True when the candidate costs significantly more.
    pub fn grew(&self) -> bool {
        self.confidence == Confidence::Strong && self.delta > 0.0
    }

    /// True when the candidate costs significantly less.
    pub fn shrank(&self) -> bool {
        self.confidence == Confidence::Strong && self.delta < 0.0
    }
}

/// Compares a single cost, such as the CPU time of a route. Cost rows of windows missing in `exposures` are ignored,
/// because one of their signals is missing; listed windows without a row cost nothing.
pub fn compare_cost(
    exposures: Sides<&[ExposureWindow]>,
    costs: Sides<&[CostWindow]>,
    config: &CostConfig,
) -> CostComparison {
    let exposures = Sides {
        baseline: Exposures::new(exposures.baseline),
        candidate: Exposures::new(exposures.candidate),
    };
    let rows = Sides {
        baseline: costs.baseline.iter().copied(),
        candidate: costs.candidate.iter().copied(),
    };
    let measured = Measured::new(&exposures, rows, None);
    measured.compare_single(
        1.0,
        config.least_of_single(),
        &mut Critical::new(config.interval),
        config,
    )
}

/// Exposure windows sorted for lookup.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exposures {
    windows: Vec<ExposureWindow>,
    total: f64,
}

impl Exposures {
    pub(crate) fn new(windows: &[ExposureWindow]) -> Exposures {
        // CPU spent while nothing was served is part of the cost of what was.
        let mut windows: Vec<_> = windows.iter().copied().filter(|w| w.exposure >= 0.0).collect();
        windows.sort_by_key(|w| w.start);
        windows.dedup_by_key(|w| w.start);
        let total = windows.iter().map(|w| w.exposure).sum();
        Exposures { windows, total }
    }

    fn position(&self, start: i64) -> Option<usize> {
        self.windows.binary_search_by_key(&start, |w| w.start).ok()
    }
}

/// How many standard errors intervals extend: computed once per number of degrees of freedom, which thousands of
/// functions share.
#[derive(Debug)]
pub(crate) struct Critical {
    interval: f64,
    /// By the bits of the degrees of freedom.
    known: BTreeMap<u64, f64>,
}

impl Critical {
    /// For intervals of this coverage.
    pub(crate) fn new(interval: f64) -> Critical {
        Critical {
            interval,
            known: BTreeMap::new(),
        }
    }

    fn of(&mut self, degrees: f64) -> f64 {
        let known = self.known.entry(degrees.to_bits());
        *known.or_insert_with(|| student_critical(self.interval, degrees))
    }
}

/// Sums and variances of one side, before anything is judged.
#[derive(Debug, Clone, Copy)]
struct MeasuredSide {
    rate: f64,
    cost: f64,
    samples: u64,
    /// Variance of `rate` if samples were independent.
    poisson_variance: f64,
    /// Variance of `rate` from the differences between windows; 0 with fewer than two windows.
    window_variance: f64,
    window_degrees: f64,
}

/// Sums and variances of both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    sides: Sides<MeasuredSide>,
    /// False if one side has no window.
    comparable: bool,
}

impl Measured {
    /// `cost_per_sample` is the cost of one sample if a side has none.
    pub(crate) fn new(
        exposures: &Sides<Exposures>,
        costs: Sides<impl Iterator<Item = CostWindow>>,
        cost_per_sample: Option<f64>,
    ) -> Measured {
        let sums = Sides {
            baseline: window_sums(&exposures.baseline, costs.baseline),
            candidate: window_sums(&exposures.candidate, costs.candidate),
        };
        Measured::of_sums(exposures, &sums, cost_per_sample)
    }

    /// The same from the sums of each window of `exposures`.
    pub(crate) fn of_sums(
        exposures: &Sides<Exposures>,
        Sides { baseline, candidate }: &Sides<Vec<WindowSum>>,
        cost_per_sample: Option<f64>,
    ) -> Measured {
        let (cost, samples) = baseline
            .iter()
            .chain(candidate)
            .fold((0.0, 0), |(c, n), w| (c + w.0, n + w.1));
        let weight = if samples > 0 {
            cost / samples as f64
        } else {
            cost_per_sample.unwrap_or(0.0)
        };
        Measured {
            sides: Sides {
                baseline: measure_side(&exposures.baseline, baseline, weight),
                candidate: measure_side(&exposures.candidate, candidate, weight),
            },
            comparable: exposures.baseline.total > 0.0 && exposures.candidate.total > 0.0,
        }
    }

    pub(crate) fn samples(&self) -> u64 {
        self.sides.baseline.samples + self.sides.candidate.samples
    }

    pub(crate) fn rates(&self) -> Sides<f64> {
        Sides {
            baseline: self.sides.baseline.rate,
            candidate: self.sides.candidate.rate,
        }
    }

    pub(crate) fn comparable(&self) -> bool {
        self.comparable
    }

    /// How much more the windows differ than Poisson counts would, before shrinking, with its degrees of freedom.
    pub(crate) fn raw_dispersion(&self) -> (f64, f64) {
        let (b, c) = (&self.sides.baseline, &self.sides.candidate);
        let poisson = b.poisson_variance + c.poisson_variance;
        let degrees = b.window_degrees + c.window_degrees;
        if poisson <= 0.0 || degrees <= 0.0 {
            return (1.0, 0.0);
        }
        // A side with one window has no residuals; its share of the variance follows the other side's.
        let seen: f64 = [b, c]
            .iter()
            .filter(|s| s.window_degrees > 0.0)
            .map(|s| s.poisson_variance)
            .sum();
        if seen <= 0.0 {
            (1.0, 0.0)
        } else {
            ((b.window_variance + c.window_variance) / seen, degrees)
        }
    }

    /// Difference of the two sides and its standard error, as shares of their mean; `None` if nothing was seen.
    pub(crate) fn relative(&self, prior_dispersion: f64) -> Option<(f64, f64)> {
        let (b, c) = (&self.sides.baseline, &self.sides.candidate);
        let mean = 0.5 * (b.rate + c.rate);
        let variance = (b.poisson_variance + c.poisson_variance) * self.moderated(prior_dispersion);
        (mean > 0.0).then(|| ((c.rate - b.rate) / mean, variance.sqrt() / mean))
    }

    fn moderated(&self, prior_dispersion: f64) -> f64 {
        let (raw, degrees) = self.raw_dispersion();
        ((PRIOR_DEGREES * prior_dispersion + degrees * raw) / (PRIOR_DEGREES + degrees)).max(1.0)
    }

    /// The comparison without its verdict: confidence is `Few`, and `q_value` is `p_value`.
    pub(crate) fn compare(&self, prior_dispersion: f64, least: LeastChange, critical: &mut Critical) -> CostComparison {
        let degrees_of_freedom = PRIOR_DEGREES + self.raw_dispersion().1;
        let dispersion = self.moderated(prior_dispersion);
        let critical = critical.of(degrees_of_freedom);
        let side = |s: &MeasuredSide| {
            let standard_error = (s.poisson_variance * dispersion).sqrt();
            SideCost {
                rate: s.rate,
                standard_error,
                low: (s.rate - critical * standard_error).max(0.0),
                high: s.rate + critical * standard_error,
                cost: s.cost,
                samples: s.samples,
            }
        };
        let (baseline, candidate) = (side(&self.sides.baseline), side(&self.sides.candidate));
        let delta = candidate.rate - baseline.rate;
        let error = baseline.standard_error.hypot(candidate.standard_error);
        let p_value = if self.comparable && error > 0.0 {
            least.p_value(baseline.estimate(), candidate.estimate(), degrees_of_freedom)
        } else {
            1.0
        };
        CostComparison {
            baseline,
            candidate,
            delta,
            low: delta - critical * error,
            high: delta + critical * error,
            p_value,
            q_value: p_value,
            dispersion,
            degrees_of_freedom,
            confidence: Confidence::Few,
        }
    }

    /// The comparison of a single cost, with its verdict.
    pub(crate) fn compare_single(
        &self,
        prior_dispersion: f64,
        least: LeastChange,
        critical: &mut Critical,
        config: &CostConfig,
    ) -> CostComparison {
        let mut comparison = self.compare(prior_dispersion, least, critical);
        if self.comparable && self.samples() >= config.min_samples {
            comparison.confidence = confidence(comparison.p_value, comparison.p_value, config.alpha);
        }
        comparison
    }
}

/// Strong if the adjusted value passes; weak if the plain one passes 5 %, which many noisy functions do by chance.
pub(crate) fn confidence(p_value: f64, q_value: f64, strong: f64) -> Confidence {
    if q_value <= strong {
        Confidence::Strong
    } else if p_value <= 0.05 {
        Confidence::Weak
    } else {
        Confidence::Noise
    }
}

/// Cost and samples of a window.
pub(crate) type WindowSum = (f64, u64);

/// Cost and samples per exposure window.
pub(crate) fn window_sums(exposures: &Exposures, costs: impl Iterator<Item = CostWindow>) -> Vec<WindowSum> {
    let mut sums = vec![(0.0, 0); exposures.windows.len()];
    for row in costs {
        if let Some(at) = exposures.position(row.start) {
            sums[at].0 += row.cost;
            sums[at].1 += row.samples;
        }
    }
    sums
}

fn measure_side(exposures: &Exposures, sums: &[WindowSum], cost_per_sample: f64) -> MeasuredSide {
    let (cost, samples) = sums.iter().fold((0.0, 0), |(c, n), w| (c + w.0, n + w.1));
    if exposures.total <= 0.0 {
        return MeasuredSide {
            rate: 0.0,
            cost,
            samples,
            poisson_variance: 0.0,
            window_variance: 0.0,
            window_degrees: 0.0,
        };
    }
    let rate = cost / exposures.total;
    let squared = exposures.total * exposures.total;
    let weight = if samples > 0 {
        cost / samples as f64
    } else {
        cost_per_sample
    };
    let windows = sums.len() as f64;
    let residuals: f64 = sums
        .iter()
        .zip(&exposures.windows)
        .map(|(w, e)| (w.0 - rate * e.exposure).powi(2))
        .sum();
    MeasuredSide {
        rate,
        cost,
        samples,
        poisson_variance: samples.max(1) as f64 * weight * weight / squared,
        window_variance: if windows > 1.0 {
            windows / (windows - 1.0) * residuals / squared
        } else {
            0.0
        },
        window_degrees: (windows - 1.0).max(0.0),
    }
}

//! Which functions changed, per request?
//!
//! Each function's self and total cost is compared as [`crate::change`] describes, with a prior dispersion taken from
//! all functions of the comparison (the median: bursty traffic affects all functions alike). The p-values of functions
//! with enough samples are adjusted by Benjamini–Hochberg, self and total each on its own, so among the functions
//! called strong at most [`CostConfig::false_discovery_rate`] are false in expectation.
//!
//! A change is tested for being larger than a twentieth of the function's cost, and larger than the general spread of
//! functions between these two sides ([`crate::least_change`]): two releases never serve the same requests on the same
//! machines.
//!
//! Confidence: *strong*: adjusted p at or below that rate; *weak*: plain p at or below 5 %; *noise*: neither; *few*:
//! not judged. The state is new, gone, up or down only for a strong change of total cost, otherwise same.
//!
//! Guarantees: the contributions of all functions add up to 1 (or are all 0 if the route's cost is exactly the same):
//! self costs partition the route's cost. The rows of a table are the same however it is cut later.
//!
//! Wrong on purpose: functions on one stack change together, which the adjustment ignores; Benjamini–Hochberg stays
//! valid under such positive dependence, and is then merely cautious.

use emberline_model::comparison::{Confidence, FunctionState};

use crate::{
    change::{
        CostComparison, CostConfig, CostWindow, Critical, ExposureWindow, Exposures, Measured, Sides, WindowSum,
        confidence, window_sums,
    },
    least_change::LeastChange,
    parts::Parts,
    statistics::benjamini_hochberg,
};

/// How many functions the spread between two sides is estimated from: those with most samples, ...
const SPREAD_OF: usize = 100;
/// ... and at least this many.
const SPREAD_OF_LEAST: usize = 20;
/// Standard errors that contain half of a normal distribution.
const HALF_WITHIN: f64 = 0.674_49;
/// Standard errors of a count that are exceeded in one of ten comparisons.
const SURELY: f64 = 1.3;

/// What one function cost in one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FunctionWindow {
    /// Start, seconds since the Unix epoch.
    pub start: i64,
    /// Cost of stacks that end in the function.
    pub self_cost: f64,
    /// Cost of stacks that contain it, each counted once.
    pub total_cost: f64,
    /// Samples behind `self_cost`.
    pub self_samples: u64,
    /// Samples behind `total_cost`.
    pub total_samples: u64,
}

/// What one function cost in all windows of both sides. Windows without a row cost nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FunctionSeries {
    /// Function identifier.
    pub function: u64,
    /// Library code, or code that should not be named for another reason.
    pub is_library: bool,
    /// Its direct callers on either side; empty if unknown.
    pub callers: Vec<u64>,
    /// Rows of the baseline.
    pub baseline: Vec<FunctionWindow>,
    /// Rows of the candidate.
    pub candidate: Vec<FunctionWindow>,
}

/// One function of both releases.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionChange {
    /// Function identifier.
    pub function: u64,
    /// As given.
    pub is_library: bool,
    /// As given.
    pub callers: Vec<u64>,
    /// Cost per request of stacks that end in it.
    pub self_cost: CostComparison,
    /// Cost per request of stacks that contain it.
    pub total_cost: CostComparison,
    /// How its total cost changed.
    pub state: FunctionState,
    /// Its change of self cost as a share of the route's change.
    pub contribution: f64,
}

/// All functions of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionReport {
    /// The cost of the whole route.
    pub route: CostComparison,
    /// Largest change of self cost first.
    pub functions: Vec<FunctionChange>,
    /// Median dispersion of the functions judged: above 1, windows differ by more than sampling noise.
    pub dispersion: f64,
    /// The cost of changed functions by window.
    pub(crate) parts: Parts,
}

impl FunctionChange {
    /// True if its self or total cost changed, certainly or possibly.
    fn may_have_changed(&self) -> bool {
        let confidences = [self.self_cost.confidence, self.total_cost.confidence];
        confidences
            .iter()
            .any(|c| matches!(c, Confidence::Strong | Confidence::Weak))
    }
}

impl FunctionReport {
    /// The row of a function.
    pub fn function(&self, id: u64) -> Option<&FunctionChange> {
        self.functions.iter().find(|f| f.function == id)
    }
}

/// Compares all functions of a route. `functions` must contain every function exactly once: their self costs add up to
/// the route's cost.
pub fn compare_functions(
    exposures: Sides<&[ExposureWindow]>,
    functions: &[FunctionSeries],
    config: &CostConfig,
) -> FunctionReport {
    let exposures = Sides {
        baseline: Exposures::new(exposures.baseline),
        candidate: Exposures::new(exposures.candidate),
    };
    let route_sums = by_window(&exposures, all_rows(functions));
    let route = Measured::of_sums(&exposures, &route_sums, None);
    let per_sample = cost_per_sample(all_rows(functions));
    let measured: Vec<Sides<Measured>> = functions
        .iter()
        // Not the two releases but the two kinds of cost: self in place of `baseline`, total in place of `candidate`.
        .map(|f| Sides {
            baseline: Measured::new(&exposures, rows(f, self_row), per_sample),
            candidate: Measured::new(&exposures, rows(f, total_row), per_sample),
        })
        .collect();

    let judged = |m: &Measured| {
        let (rates, all) = (m.rates(), route.rates());
        let share_passes = |part: f64, whole: f64| part > 0.0 && part >= config.min_share * whole;
        m.comparable()
            && m.samples() >= config.min_samples
            && (share_passes(rates.baseline, all.baseline) || share_passes(rates.candidate, all.candidate))
    };
    let dispersion = median_dispersion(measured.iter().map(|m| &m.candidate).filter(|m| judged(m)));
    let mut critical = Critical::new(config.interval);
    let spread = between_sides(measured.iter().map(|m| &m.baseline).filter(|m| judged(m)), dispersion);
    let least = config.least_of_function(route.rates(), spread);
    let [self_costs, total_costs] = [
        measured.iter().map(|m| &m.baseline).collect::<Vec<_>>(),
        measured.iter().map(|m| &m.candidate).collect(),
    ]
    .map(|family| judge_family(family, judged, dispersion, least, &mut critical, config));

    let route_delta = route.rates().candidate - route.rates().baseline;
    let mut changes: Vec<FunctionChange> = functions
        .iter()
        .zip(self_costs.into_iter().zip(total_costs))
        .map(|(series, (self_cost, total_cost))| FunctionChange {
            function: series.function,
            is_library: series.is_library,
            callers: series.callers.clone(),
            state: state(&total_cost),
            contribution: if route_delta == 0.0 {
                0.0
            } else {
                self_cost.delta / route_delta
            },
            self_cost,
            total_cost,
        })
        .collect();
    let kept = functions
        .iter()
        .zip(&changes)
        .filter(|(_, change)| change.may_have_changed());
    let parts = kept.map(|(f, _)| {
        (
            f.function,
            [self_row, total_row].map(|of| by_window(&exposures, rows(f, of))),
        )
    });
    let functions = parts.collect();
    changes.sort_by(|a, b| {
        let size = |f: &FunctionChange| f.self_cost.delta.abs();
        size(b).total_cmp(&size(a)).then(a.function.cmp(&b.function))
    });
    FunctionReport {
        route: route.compare_single(dispersion, config.least_of_single(), &mut critical, config),
        functions: changes,
        dispersion,
        parts: Parts {
            exposures,
            route: route_sums,
            functions,
            dispersion,
            least,
            config: config.clone(),
        },
    }
}

fn by_window(exposures: &Sides<Exposures>, rows: Sides<impl Iterator<Item = CostWindow>>) -> Sides<Vec<WindowSum>> {
    Sides {
        baseline: window_sums(&exposures.baseline, rows.baseline),
        candidate: window_sums(&exposures.candidate, rows.candidate),
    }
}

fn self_row(row: &FunctionWindow) -> CostWindow {
    CostWindow {
        start: row.start,
        cost: row.self_cost,
        samples: row.self_samples,
    }
}

fn total_row(row: &FunctionWindow) -> CostWindow {
    CostWindow {
        start: row.start,
        cost: row.total_cost,
        samples: row.total_samples,
    }
}

/// What a function cost on both sides.
fn rows(
    series: &FunctionSeries,
    of: fn(&FunctionWindow) -> CostWindow,
) -> Sides<impl Iterator<Item = CostWindow> + '_> {
    Sides {
        baseline: series.baseline.iter().map(of),
        candidate: series.candidate.iter().map(of),
    }
}

/// The cost of all functions: their self costs add up to the route's.
fn all_rows(functions: &[FunctionSeries]) -> Sides<impl Iterator<Item = CostWindow> + '_> {
    let of_side = |side: fn(&FunctionSeries) -> &[FunctionWindow]| functions.iter().flat_map(side).map(self_row);
    Sides {
        baseline: of_side(|f| &f.baseline),
        candidate: of_side(|f| &f.candidate),
    }
}

fn cost_per_sample(rows: Sides<impl Iterator<Item = CostWindow>>) -> Option<f64> {
    let (cost, samples) = rows
        .baseline
        .chain(rows.candidate)
        .fold((0.0, 0), |(c, n), r| (c + r.cost, n + r.samples));
    (samples > 0).then(|| cost / samples as f64)
}

fn median_dispersion<'a>(judged: impl Iterator<Item = &'a Measured>) -> f64 {
    let mut all: Vec<f64> = judged
        .map(Measured::raw_dispersion)
        .filter(|d| d.1 > 0.0)
        .map(|d| d.0)
        .collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(1.0).max(1.0)
}

/// The spread of functions between the two sides beyond their errors, as a standard deviation relative to their cost:
/// from different requests, or busier machines. A release that changed a few functions does not affect it, nor does one
/// that made all of them slower alike. Only as far as it is shown: 0 unless certainly more than half of the functions
/// are beyond half of their errors.
///
/// An empirical null: Efron, "Large-scale simultaneous hypothesis testing: the choice of a null hypothesis", J. Am.
/// Stat. Assoc. 99 (2004), here by the median, because only the spread is needed.
fn between_sides<'a>(costs: impl Iterator<Item = &'a Measured>, dispersion: f64) -> f64 {
    let mut largest: Vec<&Measured> = costs.collect();
    largest.sort_by_key(|m| std::cmp::Reverse(m.samples()));
    largest.truncate(SPREAD_OF);
    let mut differences: Vec<(f64, f64)> = largest.iter().filter_map(|m| m.relative(dispersion)).collect();
    let count = differences.len();
    if count < SPREAD_OF_LEAST {
        return 0.0;
    }
    differences.sort_by(|a, b| a.0.total_cmp(&b.0));
    let middle = 0.5 * (differences[(count - 1) / 2].0 + differences[count / 2].0);
    let most = 0.5 * count as f64 + SURELY * 0.5 * (count as f64).sqrt();
    let is_enough = |spread: f64| {
        let beyond =
            |&&(difference, error): &&(f64, f64)| (difference - middle).abs() > HALF_WITHIN * error.hypot(spread);
        (differences.iter().filter(beyond).count() as f64) <= most
    };
    let (mut low, mut high) = (0.0, 2.0);
    if is_enough(low) {
        return 0.0;
    }
    for _ in 0..30 {
        let half = 0.5 * (low + high);
        match is_enough(half) {
            true => high = half,
            false => low = half,
        }
    }
    high
}

/// Compares a family of costs and adjusts for its size.
fn judge_family(
    measured: Vec<&Measured>,
    judged: impl Fn(&Measured) -> bool,
    dispersion: f64,
    least: LeastChange,
    critical: &mut Critical,
    config: &CostConfig,
) -> Vec<CostComparison> {
    let mut family: Vec<(CostComparison, bool)> = measured
        .into_iter()
        .map(|m| (m.compare(dispersion, least, critical), judged(m)))
        .collect();
    let p_values: Vec<f64> = family.iter().filter(|f| f.1).map(|f| f.0.p_value).collect();
    let q_values = benjamini_hochberg(&p_values);
    for ((comparison, _), q_value) in family.iter_mut().filter(|f| f.1).zip(q_values) {
        comparison.q_value = q_value;
        comparison.confidence = confidence(comparison.p_value, q_value, config.false_discovery_rate);
    }
    family
        .into_iter()
        .map(|(comparison, judged)| {
            if judged {
                comparison
            } else {
                CostComparison {
                    q_value: 1.0,
                    ..comparison
                }
            }
        })
        .collect()
}

fn state(total: &CostComparison) -> FunctionState {
    match total.confidence {
        Confidence::Strong if total.baseline.samples == 0 => FunctionState::New,
        Confidence::Strong if total.candidate.samples == 0 => FunctionState::Gone,
        Confidence::Strong if total.delta > 0.0 => FunctionState::Up,
        Confidence::Strong => FunctionState::Down,
        _ => FunctionState::Same,
    }
}

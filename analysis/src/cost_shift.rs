//! Cost that moved instead of growing: a rename, a move to another module, an inlining decision.
//!
//! Two rules. (1) A function that is gone and a new one of the same total cost are one function that moved. (2) When
//! what shrank makes up for what grew, self costs being counted, and the route's cost did not change, the whole
//! difference is a shift and no regression. After FBDetect's cost-shift filter (SOSP '24), which compares the domain
//! above a subroutine.
//!
//! Wrong on purpose: a function split into several, or moved and made slower at once, is not recognised as moved; it
//! is then new, with its full cost, which is what a reader would want to look at anyway.

use emberline_model::comparison::FunctionState;

use crate::functions::{FunctionChange, FunctionReport};

/// Two costs further apart than this share of the larger one are not the same cost, however wide their intervals.
const SAME_COST: f64 = 0.25;
/// What shrank must make up for at least this share of what grew.
const MADE_UP: f64 = 0.8;
/// Standard errors within which two costs agree.
const AGREEMENT: f64 = 2.0;

/// A function whose name or location changed, but not its cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovedFunction {
    /// Its identifier in the baseline.
    pub from: u64,
    /// Its identifier in the candidate.
    pub to: u64,
    /// Its total cost per request in the candidate.
    pub cost: f64,
}

/// Pairs each gone function with the new one of the same total cost; each is used once, the most expensive first.
/// Among several candidates, one with a common caller wins, then the closest cost.
pub fn find_moved(report: &FunctionReport) -> Vec<MovedFunction> {
    let of_state = |state: FunctionState| report.functions.iter().filter(move |f| f.state == state);
    let mut gone: Vec<&FunctionChange> = of_state(FunctionState::Gone).collect();
    let mut new: Vec<&FunctionChange> = of_state(FunctionState::New).collect();
    gone.sort_by(|a, b| {
        b.total_cost
            .baseline
            .rate
            .total_cmp(&a.total_cost.baseline.rate)
            .then(a.function.cmp(&b.function))
    });
    let mut moved = Vec::new();
    for from in gone {
        let key = |to: &FunctionChange| {
            let stranger = !from.callers.iter().any(|caller| to.callers.contains(caller));
            (
                stranger,
                (to.total_cost.candidate.rate - from.total_cost.baseline.rate).abs(),
                to.function,
            )
        };
        let fitting = new.iter().enumerate().filter(|(_, to)| same_cost(from, to));
        let best = fitting.min_by(|a, b| {
            let (a, b) = (key(a.1), key(b.1));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
        });
        if let Some(at) = best.map(|(at, _)| at) {
            let to = new.swap_remove(at);
            moved.push(MovedFunction {
                from: from.function,
                to: to.function,
                cost: to.total_cost.candidate.rate,
            });
        }
    }
    moved
}

fn same_cost(from: &FunctionChange, to: &FunctionChange) -> bool {
    let (before, after) = (&from.total_cost.baseline, &to.total_cost.candidate);
    let apart = (after.rate - before.rate).abs();
    apart <= SAME_COST * before.rate.max(after.rate)
        && apart <= AGREEMENT * before.standard_error.hypot(after.standard_error)
}

/// True when functions changed but the route did not: decreases offset increases.
pub fn is_cost_shift(report: &FunctionReport) -> bool {
    if report.route.grew() || report.route.shrank() {
        return false;
    }
    let sum = |counts: fn(&FunctionChange) -> bool| {
        report
            .functions
            .iter()
            .filter(|f| counts(f))
            .map(|f| f.self_cost.delta.abs())
            .sum::<f64>()
    };
    let (grew, shrank) = (sum(|f| f.self_cost.grew()), sum(|f| f.self_cost.shrank()));
    grew > 0.0 && shrank >= MADE_UP * grew
}

//! Cost that moved instead of growing: a rename, a move to another module, an inlining decision.
//!
//! Three rules. (1) A function that is gone and a new one with a common caller, or with the same cost, are one renamed
//! function; its costs before and after are compared like those of any function. (2) A function that shrank, and
//! callers whose own cost grew by about as much while their total did not, are an inlining; the reverse is a part that
//! became a function. (3) If, by self cost, what shrank makes up for what grew, and the route's cost did not change,
//! the whole difference is a shift and not a regression. After FBDetect's cost-shift filter (SOSP '24), which compares
//! the domain above a subroutine.
//!
//! "The same cost" is an equivalence and not a lack of proof: the whole interval of the difference is within
//! [`SAME_COST`] of the cost before. Two one-sided tests: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987).
//!
//! Wrong on purpose: a function split into several new ones is not recognised; and a removed function counts as renamed
//! to a new one that its caller calls instead, if their costs are not too far apart.

use emberline_model::comparison::{Confidence, FunctionState};

use crate::{
    change::{CostComparison, Sides, confidence},
    functions::{FunctionChange, FunctionReport},
    parts::Part,
    statistics::benjamini_hochberg,
};

/// Two costs are the same if they certainly differ by less than this share of the earlier one.
pub const SAME_COST: f64 = 0.1;
/// A function and its successor with a common caller differ at most by this factor.
const SUCCESSOR: f64 = 4.0;
/// What a caller took over and what it took over from differ at most by this factor.
const TAKEN_OVER: f64 = 2.0;
/// What shrank must make up for at least this share of what grew.
const MADE_UP: f64 = 0.8;

/// How a function's cost became another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It has another name, or is in another module.
    Renamed,
    /// It is part of a function that called it.
    Inlined,
    /// A part of it has become a function, which it calls.
    Split,
}

/// A function whose cost is another function's in the candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct MovedFunction {
    /// Its identifier in the baseline.
    pub from: u64,
    /// The function that has its cost in the candidate.
    pub to: u64,
    /// How it moved.
    pub how: Move,
    /// Both costs compared: total costs of a renamed function, otherwise the self costs of both.
    pub cost: CostComparison,
}

impl MovedFunction {
    /// True if it certainly costs the same, within [`SAME_COST`].
    pub fn costs_the_same(&self) -> bool {
        let most = SAME_COST * self.cost.baseline.rate;
        -most <= self.cost.low && self.cost.high <= most
    }
}

/// Functions whose cost is another's in the candidate; each is found once. Renamed ones first, the most expensive
/// first. Among several successors, one with a common caller wins, then the closest cost.
pub fn find_moved(report: &FunctionReport) -> Vec<MovedFunction> {
    let mut moved = find_renamed(report);
    let mut taken = find_taken_over(report, &moved);
    moved.append(&mut taken);
    let p_values: Vec<f64> = moved.iter().map(|m| m.cost.p_value).collect();
    let rate = report.parts.config.alpha;
    for (pair, q_value) in moved.iter_mut().zip(benjamini_hochberg(&p_values)) {
        pair.cost.q_value = q_value;
        pair.cost.confidence = confidence(pair.cost.p_value, q_value, rate);
    }
    moved
}

fn find_renamed(report: &FunctionReport) -> Vec<MovedFunction> {
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
    let mut moved: Vec<MovedFunction> = Vec::new();
    for from in gone {
        let before = from.total_cost.baseline.rate;
        let fitting = new.iter().enumerate().filter_map(|(at, to)| {
            let ratio = to.total_cost.candidate.rate / before;
            let is_stranger = !has_caller_in_common(from, to, &moved);
            let most = if is_stranger { 1.0 + SAME_COST } else { SUCCESSOR };
            let apart = ratio.ln().abs();
            (apart <= most.ln()).then_some((is_stranger, apart, to.function, at))
        });
        let best = fitting.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        let Some((is_stranger, .., at)) = best else { continue };
        let pair = compare_pair(report, from, new[at]);
        if let Some(pair) = pair.filter(|pair| !is_stranger || pair.costs_the_same()) {
            new.swap_remove(at);
            moved.push(pair);
        }
    }
    moved
}

fn compare_pair(report: &FunctionReport, from: &FunctionChange, to: &FunctionChange) -> Option<MovedFunction> {
    let with = Sides {
        baseline: &[Part::Total(from.function)][..],
        candidate: &[Part::Total(to.function)],
    };
    Some(MovedFunction {
        from: from.function,
        to: to.function,
        how: Move::Renamed,
        cost: report.parts.compare(with, Sides::default(), report.parts.least)?,
    })
}

/// A caller that was itself renamed is the same caller.
fn has_caller_in_common(from: &FunctionChange, to: &FunctionChange, moved: &[MovedFunction]) -> bool {
    let now = |caller: u64| moved.iter().find(|m| m.from == caller).map_or(caller, |m| m.to);
    from.callers.iter().any(|&caller| to.callers.contains(&now(caller)))
}

/// Inlined functions and parts that became functions.
fn find_taken_over(report: &FunctionReport, renamed: &[MovedFunction]) -> Vec<MovedFunction> {
    let is_renamed = |f: &FunctionChange| renamed.iter().any(|m| m.from == f.function || m.to == f.function);
    let mut found: Vec<MovedFunction> = Vec::new();
    for callee in report.functions.iter().filter(|f| !is_renamed(f)) {
        let how = match (callee.state, callee.self_cost.shrank()) {
            (FunctionState::Gone, _) | (FunctionState::Down, true) => Move::Inlined,
            (FunctionState::New, _) => Move::Split,
            _ => continue,
        };
        let callers: Vec<&FunctionChange> = report
            .functions
            .iter()
            .filter(|f| callee.callers.contains(&f.function) && f.total_cost.confidence != Confidence::Strong)
            .filter(|f| matches!(f.self_cost.confidence, Confidence::Strong | Confidence::Weak))
            .filter(|f| (f.self_cost.delta > 0.0) == (how == Move::Inlined))
            .collect();
        let moved: f64 = callers.iter().map(|f| f.self_cost.delta).sum();
        let ratio = -moved / callee.self_cost.delta;
        if callers.is_empty() || !(1.0 / TAKEN_OVER..=TAKEN_OVER).contains(&ratio) {
            continue;
        }
        let both: Vec<Part> = callers
            .iter()
            .map(|f| Part::Own(f.function))
            .chain([Part::Own(callee.function)])
            .collect();
        let with = Sides {
            baseline: both.as_slice(),
            candidate: both.as_slice(),
        };
        let Some(cost) = report.parts.compare(with, Sides::default(), report.parts.least) else {
            continue;
        };
        found.extend(callers.iter().map(|caller| {
            let (from, to) = match how {
                Move::Inlined => (callee, *caller),
                Move::Renamed | Move::Split => (*caller, callee),
            };
            MovedFunction {
                from: from.function,
                to: to.function,
                how,
                cost: cost.clone(),
            }
        }));
    }
    found
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

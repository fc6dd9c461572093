//! Which function to name when a route costs more.
//!
//! The rule: among the functions whose total cost surely grew and explains at least 80 % of the route's growth, name
//! the deepest, that is the one with the smallest total: a function's total never exceeds that of the callers all its
//! calls come through. Thus the handler above the culprit loses to the culprit, and two culprits lose to the
//! function both are called from. Where totals are equal to the bit (every sample passes both), a caller loses to its
//! callee, then the larger growth of self cost wins.
//!
//! Library code (the language's own, the runtime's, what has no symbol) is named only when no application function
//! explains enough: `core::num::wrapping_mul` inlined into `price_basket` holds the self time, and `price_basket` is
//! what somebody changed. Beside an application function stands the library function it calls, where that took the time. A
//! function that merely moved is never named.
//!
//! Wrong on purpose: a slowdown without CPU (waiting for a lock, a disk, a callee) has no guilty function here, and the
//! answer says so. The 80 % is of point estimates, so with few samples the name can be one call too high.

use emberline_model::comparison::Judgement;

use crate::{
    cost_shift::{MovedFunction, find_moved, is_cost_shift},
    functions::{FunctionChange, FunctionReport},
};

/// Share of the route's growth that the named function explains.
pub const EXPLAINS: f64 = 0.8;
/// Share that suffices for an application function when only library code explains [`EXPLAINS`].
const EXPLAINS_MOST: f64 = 0.5;
/// Totals closer than this share are the same total.
const SAME_TOTAL: f64 = 1e-9;

/// The guilty function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guilty {
    /// Function identifier.
    pub function: u64,
    /// Growth of its total cost per request.
    pub delta: f64,
    /// That growth as a share of the route's.
    pub share: f64,
    /// True when only library code explains the growth.
    pub is_library: bool,
    /// Library function it calls that causes most of that growth, if any.
    pub callee: Option<u64>,
}

/// Why a route costs more, as far as stacks show.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// One function explains it.
    Function(Guilty),
    /// The route costs more, but no function explains most of it.
    Spread,
    /// Functions changed, but the route's cost did not.
    CostShift {
        /// Those recognised as renamed or moved.
        moved: Vec<MovedFunction>,
    },
    /// CPU per request did not grow: a slowdown, if there is one, is time spent waiting.
    NoGrowth,
    /// Too few samples to judge.
    TooFewSamples,
}

/// Finds the function to name.
pub fn find_guilty(report: &FunctionReport) -> Finding {
    if report.route.judgement() == Judgement::TooFewSamples {
        return Finding::TooFewSamples;
    }
    let moved = find_moved(report);
    if !report.route.grew() {
        return if is_cost_shift(report) {
            Finding::CostShift { moved }
        } else {
            Finding::NoGrowth
        };
    }
    let growth = report.route.delta;
    let suspects = |library: bool, share: f64| -> Vec<&FunctionChange> {
        let is_moved = |f: &FunctionChange| moved.iter().any(|m| m.to == f.function);
        let explains = |f: &FunctionChange| f.total_cost.grew() && f.total_cost.delta >= share * growth;
        report
            .functions
            .iter()
            .filter(|f| f.is_library == library && explains(f) && !is_moved(f))
            .collect()
    };
    let found = deepest(&suspects(false, EXPLAINS))
        .or_else(|| deepest(&suspects(false, EXPLAINS_MOST)))
        .or_else(|| deepest(&suspects(true, EXPLAINS)));
    match found {
        None => Finding::Spread,
        Some(f) => Finding::Function(Guilty {
            function: f.function,
            delta: f.total_cost.delta,
            share: f.total_cost.delta / growth,
            is_library: f.is_library,
            callee: callee(f, report).map(|callee| callee.function),
        }),
    }
}

/// The library function that a guilty one of the application calls and that grew by most of what it grew by; when V8's JSON
/// parser takes the time, what it parses is the application's. Library functions below that one are not looked for.
fn callee<'a>(guilty: &FunctionChange, report: &'a FunctionReport) -> Option<&'a FunctionChange> {
    let explains = |f: &&FunctionChange| {
        !guilty.is_library
            && f.is_library
            && f.callers.contains(&guilty.function)
            && f.total_cost.grew()
            && f.total_cost.delta >= EXPLAINS * guilty.total_cost.delta
    };
    let found = report.functions.iter().filter(explains);
    found.max_by(|a, b| {
        a.total_cost
            .delta
            .total_cmp(&b.total_cost.delta)
            .then(b.function.cmp(&a.function))
    })
}

/// The function with the smallest total; see the module's head for equal ones.
fn deepest<'a>(suspects: &[&'a FunctionChange]) -> Option<&'a FunctionChange> {
    let total = |f: &FunctionChange| f.total_cost.candidate.rate;
    let smallest = suspects.iter().map(|f| total(f)).min_by(f64::total_cmp)?;
    let tied: Vec<&FunctionChange> = suspects
        .iter()
        .copied()
        .filter(|f| total(f) <= smallest * (1.0 + SAME_TOTAL))
        .collect();
    // Callers of other tied functions lie above them. In a recursion each calls another: then all stay.
    let is_caller = |f: &FunctionChange| {
        tied.iter()
            .any(|other| other.function != f.function && other.callers.contains(&f.function))
    };
    let leaves: Vec<&FunctionChange> = tied.iter().copied().filter(|f| !is_caller(f)).collect();
    let choice = if leaves.is_empty() { tied } else { leaves };
    choice.into_iter().max_by(|a, b| {
        a.self_cost
            .delta
            .total_cmp(&b.self_cost.delta)
            .then(b.function.cmp(&a.function))
    })
}

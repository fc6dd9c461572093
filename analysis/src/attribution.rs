//! Which function to name when a route costs more.
//!
//! The rule: among the application's functions whose total cost grew significantly, and by at least half of the largest
//! such growth, name the deepest one that explains the others: without it, nothing above it grew significantly by more
//! than a quarter of its own growth, neither the route nor a function that calls it, at any distance. Thus the handler
//! above the culprit loses to the culprit, whose growth is detected long before that of the whole route, and two
//! culprits lose to the function that calls both. The deepest is the one with the smallest total: a function's total
//! never exceeds that of the callers through which all its calls come. If totals are exactly equal (every sample passes
//! both), a caller loses to its callee, then the larger growth of self cost wins.
//!
//! Nobody is named for cost that others lost: if functions outside of it shrank significantly by half of its growth,
//! the requests were different, or cost moved. A renamed function is compared with its former self, and is named if it
//! costs more.
//!
//! If neither the named function itself nor one that it calls has half of its growth, the growth is spread over what is
//! below it, and that is the answer.
//!
//! Library code (the language's own, the runtime's, code without symbols) is named only if no application function
//! explains enough: `core::num::wrapping_mul` inlined into `price_basket` has the self time, but `price_basket` is what
//! somebody changed. An application function is named together with the library function it calls, if that took the
//! time.
//!
//! "The cost did not grow" is an equivalence and not a lack of proof: the whole interval of the growth is below a bound
//! (two one-sided tests, Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987). Otherwise the answer is that it cannot be
//! determined.
//!
//! Wrong on purpose: a slowdown without CPU (waiting for a lock, a disk, a callee) has no guilty function here, and the
//! answer says so. The quarter of a function's growth is based on a point estimate.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::comparison::Judgement;

use crate::{
    change::{CostComparison, Sides},
    cost_shift::{Move, MovedFunction, find_moved, is_cost_shift},
    functions::{FunctionChange, FunctionReport},
    least_change::LeastChange,
    parts::Part,
};

/// Share of a growth that a function must have to explain it.
const HOLDS: f64 = 0.5;
/// What may have grown besides the named function, as a share of its growth: it then explains 80 % of the total.
const BESIDES: f64 = 0.25;
/// The same for an application function if otherwise only library code explains the growth: it then explains half.
const BESIDES_MOST: f64 = 1.0;
/// Share of the growth of a caller that its callee explains.
const EXPLAINS: f64 = 0.8;
/// The route's cost did not grow if it certainly grew by less than this share.
const NO_GROWTH: f64 = 0.1;
/// p-value that one function among many reaches by chance.
const CHANCE: f64 = 0.02;
/// Totals closer than this share count as equal.
const SAME_TOTAL: f64 = 1e-9;

/// The guilty function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guilty {
    /// Function identifier.
    pub function: u64,
    /// Growth of its total cost per request.
    pub delta: f64,
    /// That growth as a share of the route's; 1 if the route grew by less.
    pub share: f64,
    /// True when only library code explains the growth.
    pub is_library: bool,
    /// Library function it calls that causes most of that growth, if any.
    pub callee: Option<u64>,
    /// Its identifier in the baseline, if it had another name.
    pub formerly: Option<u64>,
}

/// Why a route costs more, as far as stacks show.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// One function explains it.
    Function(Guilty),
    /// The cost grew, but no function explains most of it.
    Spread {
        /// The function above everything that grew, if there is one.
        below: Option<Guilty>,
        /// Candidate over baseline, if everything below it grew alike.
        factor: Option<f64>,
    },
    /// Functions changed, but the route's cost did not.
    CostShift {
        /// Those recognised as renamed or moved.
        moved: Vec<MovedFunction>,
    },
    /// Functions grew significantly but none can be named: others lost as much, or the growth that each explains is
    /// only part of it.
    Unexplained,
    /// The cost certainly grew by less than a tenth, and no function grew significantly.
    NoGrowth,
    /// Neither growth nor its absence was shown.
    Undecided,
    /// Too few samples to judge anything.
    TooFewSamples,
}

impl Finding {
    /// True if a slowdown by `latency` per request is time spent waiting: no function grew significantly, and the
    /// route's cost grew by less than half of the slowdown; `most` is the upper end of that growth. All in the unit of
    /// the costs.
    pub fn is_waiting(&self, most: f64, latency: f64) -> bool {
        matches!(self, Finding::NoGrowth | Finding::Undecided) && most < HOLDS * latency
    }
}

/// Finds the function to name.
pub fn find_guilty(report: &FunctionReport) -> Finding {
    if report.route.judgement() == Judgement::TooFewSamples {
        return Finding::TooFewSamples;
    }
    let moved = find_moved(report);
    let case = Case::new(report, &moved);
    let found = case
        .named(false, BESIDES)
        .or_else(|| case.named(false, BESIDES_MOST))
        .or_else(|| case.named(true, BESIDES));
    if let Some(suspect) = found {
        let guilty = case.guilty(suspect);
        return match case.is_spread(suspect) {
            false => Finding::Function(guilty),
            true => Finding::Spread {
                below: Some(guilty),
                factor: case.factor_below(suspect),
            },
        };
    }
    if report.route.grew() {
        let below = case.above_all_growth();
        return Finding::Spread {
            below: below.map(|suspect| case.guilty(suspect)),
            factor: None,
        };
    }
    if !moved.is_empty() || is_cost_shift(report) {
        return Finding::CostShift { moved };
    }
    let is_small = report.route.high <= NO_GROWTH * report.route.baseline.rate;
    match (report.functions.iter().any(|f| f.total_cost.grew()), is_small) {
        (true, _) => Finding::Unexplained,
        (false, true) => Finding::NoGrowth,
        (false, false) => Finding::Undecided,
    }
}

/// A function in the candidate, with its former self.
#[derive(Debug, Clone, Copy)]
struct Suspect<'a> {
    row: &'a FunctionChange,
    /// Its total cost, compared with that of its former self if it had another name.
    cost: &'a CostComparison,
    formerly: Option<u64>,
}

impl Suspect<'_> {
    fn parts(&self) -> Sides<Part> {
        Sides {
            baseline: Part::Total(self.formerly.unwrap_or(self.row.function)),
            candidate: Part::Total(self.row.function),
        }
    }
}

struct Case<'a> {
    report: &'a FunctionReport,
    moved: &'a [MovedFunction],
    rows: BTreeMap<u64, &'a FunctionChange>,
    /// All whose total grew significantly, except those split off from another function.
    suspects: Vec<Suspect<'a>>,
}

impl<'a> Case<'a> {
    fn new(report: &'a FunctionReport, moved: &'a [MovedFunction]) -> Case<'a> {
        let all = report.functions.iter().filter(|row| {
            let is_part = |m: &MovedFunction| m.how == Move::Split && m.to == row.function;
            !moved.iter().any(is_part)
        });
        let suspects = all.map(|row| suspect(row, moved)).filter(|suspect| suspect.cost.grew());
        Case {
            report,
            moved,
            rows: report.functions.iter().map(|row| (row.function, row)).collect(),
            suspects: suspects.collect(),
        }
    }

    /// The deepest function that explains the growth, see the module's head; `besides` is how much else may have grown.
    fn named(&self, library: bool, besides: f64) -> Option<Suspect<'a>> {
        let ours = || self.suspects.iter().copied().filter(|s| s.row.is_library == library);
        let largest = ours().map(|s| s.cost.delta).max_by(f64::total_cmp)?;
        let mut left: Vec<Suspect> = ours().filter(|s| s.cost.delta >= HOLDS * largest).collect();
        while let Some(at) = deepest(&left) {
            let suspect = left.swap_remove(at);
            if self.explains(suspect, besides) {
                return Some(suspect);
            }
        }
        None
    }

    /// True if neither the route nor a function above grew significantly apart from it, and others did not lose what it
    /// gained.
    fn explains(&self, suspect: Suspect<'_>, besides: f64) -> bool {
        let above = self.above(suspect.row);
        let callers = self.suspects.iter().filter(|s| {
            let is_own = s.row.is_library == suspect.row.is_library;
            is_own && s.row.function != suspect.row.function && above.contains(&s.row.function)
        });
        let route = Sides {
            baseline: Part::Route,
            candidate: Part::Route,
        };
        let least = LeastChange {
            absolute: besides * suspect.cost.delta,
            ..LeastChange::default()
        };
        let without = suspect.parts();
        let grew_besides = |whole: Sides<Part>| {
            let with = Sides {
                baseline: &[whole.baseline][..],
                candidate: &[whole.candidate],
            };
            let without = Sides {
                baseline: &[without.baseline][..],
                candidate: &[without.candidate],
            };
            let rest = self.report.parts.compare(with, without, least);
            rest.is_some_and(|rest| rest.grew())
        };
        let mut wholes = callers.map(Suspect::parts).chain([route]);
        !wholes.any(grew_besides) && !self.is_offset(suspect)
    }

    /// Functions that call it, at any distance.
    fn above(&self, row: &FunctionChange) -> BTreeSet<u64> {
        let mut above = BTreeSet::new();
        let mut left: Vec<u64> = row.callers.clone();
        while let Some(caller) = left.pop() {
            if above.insert(caller)
                && let Some(row) = self.rows.get(&caller)
            {
                left.extend(&row.callers);
            }
        }
        above
    }

    /// True if other functions lost half of what it gained: together those that shrank significantly, or a single one
    /// by more than chance. Functions below it do not count, since they are part of it, nor do those whose cost is
    /// known to have moved.
    fn is_offset(&self, suspect: Suspect<'_>) -> bool {
        let half = HOLDS * suspect.cost.delta;
        let names = [Some(suspect.row.function), suspect.formerly];
        let is_it = |function: u64| names.contains(&Some(function));
        let is_part = |row: &FunctionChange| is_it(row.function) || self.above(row).into_iter().any(is_it);
        let is_moved = |row: &FunctionChange| self.moved.iter().any(|m| m.from == row.function);
        let rows = || self.report.functions.iter();
        let shrank = rows().filter(|row| row.self_cost.shrank() && !is_moved(row) && !is_part(row));
        let above = self.above(suspect.row);
        let lost_as_much = |row: &&FunctionChange| {
            let total = &row.total_cost;
            -total.delta >= half && total.p_value <= CHANCE && !above.contains(&row.function)
        };
        let alone = rows().filter(lost_as_much).any(|row| !is_moved(row) && !is_part(row));
        alone || shrank.map(|row| -row.self_cost.delta).sum::<f64>() >= half
    }

    fn callees(&self, row: &FunctionChange) -> impl Iterator<Item = Suspect<'a>> {
        let function = row.function;
        let callees = self.report.functions.iter();
        callees
            .filter(move |f| f.function != function && f.callers.contains(&function))
            .map(|row| suspect(row, self.moved))
    }

    /// True if neither its own growth nor that of a function it calls is half of its growth.
    fn is_spread(&self, suspect: Suspect<'_>) -> bool {
        let half = HOLDS * suspect.cost.delta;
        let own = match suspect.formerly.and_then(|id| self.rows.get(&id)) {
            Some(before) => suspect.row.self_cost.candidate.rate - before.self_cost.baseline.rate,
            None => suspect.row.self_cost.delta,
        };
        own < half && !self.callees(suspect.row).any(|callee| callee.cost.delta >= half)
    }

    /// The factor by which everything that a function calls became more expensive, if that is shown: callees with half
    /// of the growth grew by intervals of their own, and nearly all of the growth is in callees that agree with that
    /// factor.
    fn factor_below(&self, suspect: Suspect<'_>) -> Option<f64> {
        let factor = suspect.cost.ratio()?;
        let (mut all, mut grown, mut alike) = (0.0, 0.0, 0.0);
        for callee in self.callees(suspect.row) {
            let (cost, expected) = (callee.cost, (factor - 1.0) * callee.cost.baseline.rate);
            all += cost.delta.abs();
            if cost.low > 0.0 {
                grown += cost.delta;
            }
            if (cost.delta - expected).abs() <= 1.5 * (cost.high - cost.delta) {
                alike += cost.delta.abs();
            }
        }
        (grown >= HOLDS * all && alike >= EXPLAINS * all).then_some(factor)
    }

    /// The deepest application function that contains the route's growth, by the estimates: for a growth shown for the
    /// route, but for no single function.
    fn above_all_growth(&self) -> Option<Suspect<'a>> {
        let growth = self.report.route.delta;
        let rows = self.report.functions.iter().filter(|row| !row.is_library);
        let holds = |s: &Suspect<'_>| s.cost.low > 0.0 && s.cost.delta >= EXPLAINS * growth;
        let holding: Vec<Suspect> = rows.map(|row| suspect(row, self.moved)).filter(holds).collect();
        deepest(&holding).map(|at| holding[at])
    }

    fn guilty(&self, suspect: Suspect<'_>) -> Guilty {
        Guilty {
            function: suspect.row.function,
            delta: suspect.cost.delta,
            share: suspect.cost.delta / self.report.route.delta.max(suspect.cost.delta),
            is_library: suspect.row.is_library,
            callee: self.callee(suspect).map(|callee| callee.row.function),
            formerly: suspect.formerly,
        }
    }

    /// The library function that a guilty application function calls and that grew by most of its growth; if V8's JSON
    /// parser takes the time, what it parses is the application's. Library functions below that one are not considered.
    fn callee(&self, guilty: Suspect<'_>) -> Option<Suspect<'a>> {
        let explains = |callee: &Suspect<'_>| {
            !guilty.row.is_library
                && callee.row.is_library
                && callee.cost.grew()
                && callee.cost.delta >= EXPLAINS * guilty.cost.delta
        };
        let found = self.callees(guilty.row).filter(explains);
        found.max_by(|a, b| {
            let order = a.cost.delta.total_cmp(&b.cost.delta);
            order.then(b.row.function.cmp(&a.row.function))
        })
    }
}

fn suspect<'a>(row: &'a FunctionChange, moved: &'a [MovedFunction]) -> Suspect<'a> {
    let renamed = moved.iter().find(|m| m.how == Move::Renamed && m.to == row.function);
    Suspect {
        row,
        cost: renamed.map_or(&row.total_cost, |m| &m.cost),
        formerly: renamed.map(|m| m.from),
    }
}

/// The index of the function with the smallest total; see the module's head for ties.
fn deepest(suspects: &[Suspect<'_>]) -> Option<usize> {
    let total = |s: &Suspect<'_>| s.cost.candidate.rate;
    let smallest = suspects.iter().map(total).min_by(f64::total_cmp)?;
    let tied: Vec<usize> = (0..suspects.len())
        .filter(|&at| total(&suspects[at]) <= smallest * (1.0 + SAME_TOTAL))
        .collect();
    // Callers of other tied functions are above them. In a recursion each calls another: then all stay.
    let is_caller = |at: usize| {
        let function = suspects[at].row.function;
        tied.iter()
            .any(|&other| other != at && suspects[other].row.callers.contains(&function))
    };
    let leaves: Vec<usize> = tied.iter().copied().filter(|&at| !is_caller(at)).collect();
    let choice = if leaves.is_empty() { tied } else { leaves };
    choice.into_iter().max_by(|&a, &b| {
        let (a, b) = (suspects[a].row, suspects[b].row);
        let order = a.self_cost.delta.total_cmp(&b.self_cost.delta);
        order.then(b.function.cmp(&a.function))
    })
}

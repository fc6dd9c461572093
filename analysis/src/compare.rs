//! The complete comparison of two releases: the Compare page and alerts use this one function.
//!
//! Guarantees: pure; raw values are exact sums over all stacks, and the function table does not depend on the tree's
//! display limit; the self values of the table add up to each side's total; what is divided by requests comes from time
//! that both signals cover, because [`SideData`] contains no other; if nothing can be divided, the sentence says which
//! signal is missing and what to do.
//!
//! Wrong on purpose: a stack unknown to the dictionary counts under `[unknown]`.
//!
//! One file because it is the order of one computation, from two sides' stacks to the rows of the answer. Each of its
//! steps (changes, attribution, folding, sentences) has a file of its own.

use std::collections::{HashMap, HashSet};

use emberline_model::{
    Histogram, ProfileType,
    alert::GuiltyFunction,
    comparison::{
        Confidence, CostChange, FunctionRow, FunctionState, Judgement, LatencyEvidence, Per, QuantilePair, SideData,
        SideSummary,
    },
    function::Program,
    id::HexId,
    resolve::FunctionInfo,
    tree::{FlameTree, TreeBuilder},
};

use crate::{
    attribution::{Finding, Guilty, find_guilty},
    change::{CostComparison, CostConfig, ExposureWindow, Sides},
    cost_shift::{Move, MovedFunction, find_moved},
    functions::{FunctionChange, FunctionReport, FunctionSeries, compare_functions},
    latency::estimate_quantile,
    paths::{Paths, pieces_of_mean},
    sentence::Sentence,
};

pub use crate::sentence::{format_amount, format_ns};

/// Latency quantiles to show.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Note for comparisons of gauges.
pub const MEAN_OF_GAUGE: &str =
    "gauges are averaged over time and summed over instances, not divided by requests or time";

/// Note for CPU that could not be split by route.
pub const WHOLE_SERVICE: &str = "no stacks carry this route: shown for the whole service";

/// Parameters of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions<'a> {
    /// What is compared.
    pub profile_type: &'a ProfileType,
    /// What costs are divided by.
    pub per: Per,
    /// Route both sides are restricted to, for the sentence; `None` for all.
    pub route: Option<&'a str>,
    /// CPU covers the whole service because no stack has a route.
    pub whole_service: bool,
    /// Display limit of the tree in nodes; `None` for all.
    pub tree_limit: Option<usize>,
    /// Configured own-code prefixes of the service ([`emberline_model::function::OwnCode::of`]).
    pub own: &'a [String],
}

/// Two releases compared.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What costs are divided by.
    pub per: Per,
    /// The baseline release.
    pub baseline: SideSummary,
    /// The release judged.
    pub candidate: SideSummary,
    /// Summary in one sentence.
    pub summary: String,
    /// Note, if the figures differ from what was requested.
    pub note: Option<String>,
    /// Overall judgement.
    pub judgement: Judgement,
    /// The guilty function.
    pub guilty: Option<GuiltyFunction>,
    /// Why the cost changed, as far as stacks show.
    pub finding: Finding,
    /// Note on a growth that no single function explains: what it is spread over.
    pub spread: Option<String>,
    /// Note on cost that moved between functions: renamed, inlined, split.
    pub cost_shift: Option<String>,
    /// The whole cost.
    pub change: CostChange,
    /// Every function of both sides, the largest change of self cost first.
    pub functions: Vec<FunctionRow>,
    /// Both sides' stacks in one tree; sides are 0 baseline, 1 candidate.
    pub tree: FlameTree,
    /// Distinguishes own code from libraries in `tree`.
    pub program: Program,
    /// Latency of all requests in the range; `None` if there were none.
    pub latency: Option<LatencyEvidence>,
}

/// Compares two releases.
pub fn compare(baseline: &SideData, candidate: &SideData, options: CompareOptions<'_>) -> Comparison {
    let mut tree = TreeBuilder::new();
    let paths = Paths::of_both(baseline, candidate, &mut tree);
    let tree = tree.finish(options.tree_limit);
    let mut series = vec![FunctionSeries::default(); tree.functions.len()];
    let mut callers = Vec::new();
    for paths in paths {
        paths.add_callers(&mut callers);
        paths.add_windows(&mut series);
    }
    callers.sort_unstable();
    callers.dedup();
    let names: HashSet<&str> = tree.functions.iter().map(|f| f.name.as_str()).collect();
    let program = Program::of(&tree.functions, options.own);
    for (function, info) in series.iter_mut().zip(&tree.functions) {
        function.function = info.id;
        // A closure is part of its enclosing function, if that can be named.
        function.is_library =
            program.is_library(info) || enclosing(&info.name).is_some_and(|name| names.contains(name));
    }
    for (callee, caller) in callers {
        series[callee as usize].callers.push(tree.functions[caller as usize].id);
    }
    series.iter_mut().for_each(|s| s.callers.sort_unstable());

    let exposures = [exposures(baseline, options.per), exposures(candidate, options.per)];
    let sides = Sides {
        baseline: exposures[0].as_slice(),
        candidate: exposures[1].as_slice(),
    };
    let report = compare_functions(sides, &series, &CostConfig::default());
    let finding = find_guilty(&report);
    let summaries = [
        summary(baseline, 0, &tree, options.per),
        summary(candidate, 1, &tree, options.per),
    ];
    let divisors = [summaries[0].divisor, summaries[1].divisor];
    let functions = rows(&report, &tree, divisors);
    let [baseline_summary, candidate_summary] = summaries;
    let guilty = match &finding {
        Finding::Function(guilty) => name_guilty(guilty, &tree),
        _ => None,
    };
    let moved = find_moved(&report);
    let spread = spread(&finding, &tree);
    let cost_shift = cost_shift(&finding, &moved, &tree);
    let sentence = Sentence {
        profile_type: options.profile_type,
        per: options.per,
        route: options.route,
        whole_service: options.whole_service,
        change: &report.route,
        guilty: guilty.as_ref(),
        spread: spread.as_deref(),
    };
    Comparison {
        per: options.per,
        note: note(baseline, options),
        summary: sentence.write(&baseline_summary, &candidate_summary),
        baseline: baseline_summary,
        candidate: candidate_summary,
        judgement: report.route.judgement(),
        guilty,
        finding,
        spread,
        cost_shift,
        change: cost_change(&report.route),
        functions,
        tree,
        program,
        latency: latency(baseline, candidate),
    }
}

fn note(side: &SideData, options: CompareOptions<'_>) -> Option<String> {
    let notes = [(side.is_gauge, MEAN_OF_GAUGE), (options.whole_service, WHOLE_SERVICE)];
    let notes: Vec<&str> = notes
        .into_iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, note)| note)
        .collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// The function that encloses a Rust closure: `f` for `f::{{closure}}::{{closure}}`. In other languages, closures run
/// outside their function and are named themselves.
fn enclosing(name: &str) -> Option<&str> {
    let mut outer = name;
    while let Some((head, last)) = outer.rsplit_once("::") {
        if !(last.starts_with('{') && last.contains("closure")) {
            break;
        }
        outer = head;
    }
    (outer.len() < name.len()).then_some(outer)
}

fn exposures(side: &SideData, per: Per) -> Vec<ExposureWindow> {
    // For a gauge, each slice counts as much as the whole: their means are compared.
    let all = side.windows.iter().map(|w| w.windows).sum::<u64>().max(1) as f64 / pieces_of_mean(side) as f64;
    let exposure = |window: &emberline_model::comparison::WindowCost| match per {
        Per::Request => window.requests,
        Per::Second => window.instance_seconds,
        Per::Total => window.windows as f64 / all,
    };
    side.windows
        .iter()
        .filter(|w| exposure(w) > 0.0 || !w.stacks.is_empty())
        .map(|w| ExposureWindow {
            start: w.start_unix_s,
            exposure: exposure(w),
        })
        .collect()
}

fn summary(side: &SideData, index: usize, tree: &FlameTree, per: Per) -> SideSummary {
    let served: f64 = side.windows.iter().map(|w| w.requests).sum();
    let requests = match per {
        Per::Request => served.round() as u64,
        Per::Second | Per::Total => side.latency.count(),
    };
    let seconds: f64 = side.windows.iter().map(|w| w.instance_seconds).sum();
    let samples: u64 = side.windows.iter().flat_map(|w| &w.stacks).map(|s| s.2).sum();
    let total = tree.total()[index];
    let unresolved: i64 = tree
        .functions
        .iter()
        .zip(&tree.totals)
        .filter(|(f, _)| f.unresolved)
        .map(|(_, t)| t.self_value[index])
        .sum();
    let divisor = match per {
        Per::Request => served,
        Per::Second => seconds,
        Per::Total => 1.0,
    };
    SideSummary {
        version: side.release.version.clone(),
        from_ms: side.from_unix_s * 1000,
        to_ms: side.to_unix_s * 1000,
        windows: side.windows.iter().map(|w| w.windows).sum(),
        requests,
        seconds,
        coverage: side.coverage.clone(),
        samples,
        total,
        divisor,
        value: divide(total, divisor),
        build_ids: side.build_ids.clone(),
        resolved_ratio: if total > 0 {
            1.0 - unresolved as f64 / total as f64
        } else {
            1.0
        },
    }
}

/// A cost divided by nothing is shown as 0, never as infinity.
fn divide(value: i64, divisor: f64) -> f64 {
    if divisor > 0.0 { value as f64 / divisor } else { 0.0 }
}

fn rows(report: &FunctionReport, tree: &FlameTree, divisors: [f64; 2]) -> Vec<FunctionRow> {
    let index: HashMap<u64, usize> = tree.functions.iter().enumerate().map(|(at, f)| (f.id, at)).collect();
    report
        .functions
        .iter()
        .map(|change| {
            let at = index[&change.function];
            row(change, &tree.functions[at], &tree.totals[at], divisors)
        })
        .collect()
}

fn row(
    change: &FunctionChange,
    info: &FunctionInfo,
    totals: &emberline_model::tree::FunctionTotals,
    divisors: [f64; 2],
) -> FunctionRow {
    let (self_a, self_b) = (
        divide(totals.self_value[0], divisors[0]),
        divide(totals.self_value[1], divisors[1]),
    );
    let (total_a, total_b) = (
        divide(totals.total[0], divisors[0]),
        divide(totals.total[1], divisors[1]),
    );
    FunctionRow {
        id: HexId(info.id),
        name: info.name.clone(),
        module: info.module.clone(),
        library: change.is_library,
        raw_self_a: totals.self_value[0],
        raw_self_b: totals.self_value[1],
        raw_total_a: totals.total[0],
        raw_total_b: totals.total[1],
        self_a,
        self_b,
        total_a,
        total_b,
        delta_self: self_b - self_a,
        delta_total: total_b - total_a,
        ratio: (total_a > 0.0).then(|| total_b / total_a),
        contribution: change.contribution,
        low: change.total_cost.low,
        high: change.total_cost.high,
        q_value: change.total_cost.q_value,
        confidence: change.total_cost.confidence,
        state: change.state,
    }
}

fn name_guilty(guilty: &Guilty, tree: &FlameTree) -> Option<GuiltyFunction> {
    let info = tree.functions.iter().find(|f| f.id == guilty.function)?;
    Some(GuiltyFunction {
        id: HexId(info.id),
        name: info.name.clone(),
        module: info.module.clone(),
        delta_ns_per_request: guilty.delta,
        share: guilty.share,
        library: guilty.is_library,
        callee: guilty.callee.and_then(|id| name_callee(id, tree)),
        formerly: guilty.formerly.map(|id| name_of(id, tree).to_owned()),
    })
}

/// A function that is inlined everywhere says nothing about what was called.
fn name_callee(id: u64, tree: &FlameTree) -> Option<String> {
    let name = &tree.functions.iter().find(|f| f.id == id)?.name;
    let path = name.trim_start_matches(['<', '&']);
    let is_inlined = ["core::", "alloc::", "std::"].iter().any(|own| path.starts_with(own));
    (!is_inlined && !path.starts_with(['[', '0'])).then(|| name.clone())
}

fn cost_change(route: &CostComparison) -> CostChange {
    CostChange {
        baseline: route.baseline.rate,
        candidate: route.candidate.rate,
        delta: route.delta,
        low: route.low,
        high: route.high,
        ratio: route.ratio(),
        p_value: route.p_value,
    }
}

fn name_of(id: u64, tree: &FlameTree) -> &str {
    let info = tree.functions.iter().find(|f| f.id == id);
    info.map_or("?", |f| f.name.as_str())
}

fn spread(finding: &Finding, tree: &FlameTree) -> Option<String> {
    let Finding::Spread { below, factor } = finding else {
        return None;
    };
    Some(match (below, factor) {
        (Some(below), Some(factor)) => format!(
            "spread over everything below `{}`, each about ×{factor:.1}",
            name_of(below.function, tree)
        ),
        (Some(below), None) => format!("spread over what is below `{}`", name_of(below.function, tree)),
        (None, _) => "no single function explains most of it".to_owned(),
    })
}

fn cost_shift(finding: &Finding, moved: &[MovedFunction], tree: &FlameTree) -> Option<String> {
    let did_not_grow = matches!(finding, Finding::CostShift { .. });
    let pairs: Vec<String> = moved.iter().take(3).map(|pair| describe_move(pair, tree)).collect();
    match (pairs.is_empty(), did_not_grow) {
        (true, true) => {
            Some("Functions changed and offset each other: the total cost did not change significantly.".to_owned())
        }
        (true, false) => None,
        (false, true) => Some(format!("Cost moved between functions: {}.", pairs.join("; "))),
        (false, false) => Some(format!("Also, cost moved between functions: {}.", pairs.join("; "))),
    }
}

/// States only what was shown about the cost.
fn describe_move(pair: &MovedFunction, tree: &FlameTree) -> String {
    let (from, to) = (name_of(pair.from, tree), name_of(pair.to, tree));
    let percent = |share: f64| format!("{:+.0}", share * 100.0).replace('-', "−");
    let of_before = |difference: f64| percent(difference / pair.cost.baseline.rate);
    let cost = match pair.cost.confidence {
        Confidence::Strong if pair.cost.delta > 0.0 => {
            format!(
                "and costs {} % more",
                of_before(pair.cost.delta).trim_start_matches('+')
            )
        }
        Confidence::Strong => {
            format!(
                "and costs {} % less",
                of_before(-pair.cost.delta).trim_start_matches('+')
            )
        }
        _ if pair.costs_the_same() => "and costs the same".to_owned(),
        _ => format!(
            "(cost between {} and {} %)",
            of_before(pair.cost.low),
            of_before(pair.cost.high)
        ),
    };
    match pair.how {
        Move::Renamed => format!("{from} is now {to} {cost}"),
        Move::Inlined => format!("{from} is now part of {to} {cost}"),
        Move::Split => format!("{to} was part of {from} {cost}"),
    }
}

fn latency(baseline: &SideData, candidate: &SideData) -> Option<LatencyEvidence> {
    let (before, after) = (&baseline.latency, &candidate.latency);
    (before.count() + after.count() > 0).then(|| latency_evidence(before, after))
}

/// Quantiles of two histograms with their intervals, in milliseconds.
pub fn latency_evidence(baseline: &Histogram, candidate: &Histogram) -> LatencyEvidence {
    let quantiles = QUANTILES.iter().map(|&q| {
        let (before, after) = (estimate_quantile(baseline, q), estimate_quantile(candidate, q));
        let ms = |seconds: f64| seconds * 1e3;
        QuantilePair {
            q,
            baseline_ms: before.map(|e| ms(e.value)),
            baseline_low_ms: before.and_then(|e| e.low).map(ms),
            baseline_high_ms: before.and_then(|e| e.high).map(ms),
            candidate_ms: after.map(|e| ms(e.value)),
            candidate_low_ms: after.and_then(|e| e.low).map(ms),
            candidate_high_ms: after.and_then(|e| e.high).map(ms),
        }
    });
    LatencyEvidence {
        quantiles: quantiles.collect(),
        baseline_n: baseline.count(),
        candidate_n: candidate.count(),
    }
}

/// Rows worth showing: changes that survive the false discovery rate. The guilty function comes first, then own code
/// before libraries, largest change first. Library functions that only call what changed are omitted.
pub fn top_changed(functions: &[FunctionRow], guilty: Option<&GuiltyFunction>, most: usize) -> Vec<FunctionRow> {
    let mut changed: Vec<&FunctionRow> = functions
        .iter()
        .filter(|f| f.confidence == Confidence::Strong && f.state != FunctionState::Same)
        .filter(|f| !f.library || f.delta_self.abs() > f.delta_total.abs() / 10.0)
        .collect();
    let innocent = |f: &FunctionRow| guilty.is_none_or(|guilty| guilty.id != f.id);
    changed.sort_by(|a, b| {
        let by_owner = (innocent(a), a.library).cmp(&(innocent(b), b.library));
        by_owner.then_with(|| b.delta_total.abs().total_cmp(&a.delta_total.abs()))
    });
    changed.into_iter().take(most).cloned().collect()
}

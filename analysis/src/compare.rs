//! The comparison of two releases, whole: what the Compare page shows and what an alert quotes are this one function.
//!
//! Guarantees: pure; raw values are exact sums over all stacks, and the function table does not depend on the tree's
//! display limit; the self values of the table add up to each side's total; what is divided by requests comes from
//! time that both signals cover, because [`SideData`] holds no other; where nothing can be divided, the sentence says which
//! signal is missing and what to do.
//!
//! Wrong on purpose: a stack the dictionary does not know counts under `[unknown]`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use emberline_model::{
    Histogram,
    alert::GuiltyFunction,
    comparison::{
        Confidence, CostChange, FunctionRow, FunctionState, Judgement, LatencyEvidence, Per, QuantilePair, SideData,
        SideSummary,
    },
    coverage::{JoinedBy, Missing},
    function::Program,
    resolve::{FunctionInfo, StackValue},
    tree::{FlameTree, TreeBuilder},
};

use crate::{
    change::{CostComparison, CostConfig, ExposureWindow, Sides},
    functions::{FunctionChange, FunctionReport, FunctionSeries, FunctionWindow, compare_functions},
    guilty::{Finding, Guilty, find_guilty},
    latency::estimate_quantile,
};

/// Quantiles shown of latency.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Said where CPU could not be told apart by route.
pub const WHOLE_SERVICE: &str = "no stacks carry this route: shown for the whole service";

/// What is compared, besides the two sides.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions<'a> {
    /// What costs are divided by.
    pub per: Per,
    /// Route both sides are restricted to, for the sentence; `None` for all.
    pub route: Option<&'a str>,
    /// CPU is that of the whole services all the same: no stacks say their route.
    pub whole_service: bool,
    /// How many nodes the tree shows; `None` for all.
    pub tree_limit: Option<usize>,
    /// What is own code of the service, where that is set ([`emberline_model::function::OwnCode::of`]).
    pub own: &'a [String],
}

/// Two releases compared.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What costs are divided by.
    pub per: Per,
    /// The release compared with.
    pub baseline: SideSummary,
    /// The release judged.
    pub candidate: SideSummary,
    /// One sentence.
    pub summary: String,
    /// What to know about the figures, where they are not those that were asked for.
    pub note: Option<String>,
    /// What it says as a whole.
    pub judgement: Judgement,
    /// The function to look at first.
    pub guilty: Option<GuiltyFunction>,
    /// Said when functions changed and the cost did not.
    pub cost_shift: Option<String>,
    /// The whole cost.
    pub change: CostChange,
    /// Every function of both sides, the largest change of self cost first.
    pub functions: Vec<FunctionRow>,
    /// Both sides' stacks in one tree; sides are 0 baseline, 1 candidate.
    pub tree: FlameTree,
    /// Tells own code from libraries, for all of `tree`.
    pub program: Program,
    /// Latency of all requests of the range; `None` when there were none.
    pub latency: Option<LatencyEvidence>,
}

/// Compares two releases.
pub fn compare(baseline: &SideData, candidate: &SideData, options: CompareOptions<'_>) -> Comparison {
    let mut tree = TreeBuilder::new();
    let mut callers = HashSet::new();
    let paths = [
        add_to_tree(baseline, 0, &mut tree, &mut callers),
        add_to_tree(candidate, 1, &mut tree, &mut callers),
    ];
    let tree = tree.finish(options.tree_limit);
    let mut series = vec![FunctionSeries::default(); tree.functions.len()];
    add_windows(baseline, 0, &paths[0], &mut series);
    add_windows(candidate, 1, &paths[1], &mut series);
    let names: HashSet<&str> = tree.functions.iter().map(|f| f.name.as_str()).collect();
    let program = Program::of(&tree.functions, options.own);
    for (function, info) in series.iter_mut().zip(&tree.functions) {
        function.function = info.id;
        // A closure is part of the function it stands in, where that one is there to be named.
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
    let sentence = Sentence {
        options,
        change: &report.route,
        guilty: guilty.as_ref(),
        finding: &finding,
    };
    Comparison {
        per: options.per,
        note: options.whole_service.then(|| WHOLE_SERVICE.to_owned()),
        summary: sentence.write(&baseline_summary, &candidate_summary),
        baseline: baseline_summary,
        candidate: candidate_summary,
        judgement: report.route.judgement(),
        guilty,
        cost_shift: cost_shift(&finding, &tree),
        change: cost_change(&report.route),
        functions,
        tree,
        program,
        latency: latency(baseline, candidate),
    }
}

/// What the stacks of one side consist of, by functions of the tree.
#[derive(Default)]
struct Paths {
    /// Leaf first, each function once per stack, one stack after the other.
    functions: Vec<u32>,
    /// Where those of each stack are.
    places: HashMap<u64, Range<usize>>,
}

impl Paths {
    fn of(&self, stack: u64) -> &[u32] {
        self.places
            .get(&stack)
            .map_or(&[], |place| &self.functions[place.clone()])
    }
}

/// Adds one side's stacks to the tree; who calls whom goes to `callers`.
fn add_to_tree(side: &SideData, index: usize, tree: &mut TreeBuilder, callers: &mut HashSet<(u32, u32)>) -> Paths {
    let mut sums: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    for &(stack, value, samples) in side.windows.iter().flat_map(|window| &window.stacks) {
        let sum = sums.entry(stack).or_default();
        *sum = (sum.0.saturating_add(value), sum.1.saturating_add(samples));
    }
    let rows = sums.iter().map(|(&stack_id, &(value, samples))| StackValue {
        stack_id,
        side: index,
        value,
        samples,
    });
    tree.add_named(&side.resolved, rows);
    let mut known: Vec<Option<u32>> = vec![None; side.resolved.functions.len()];
    let mut paths = Paths::default();
    for &stack in sums.keys() {
        let first = paths.functions.len();
        let mut below = None;
        for f in side.resolved.frames(stack) {
            let function = match known[f as usize] {
                Some(function) => function,
                None => *known[f as usize].insert(tree.function(&side.resolved.functions[f as usize])),
            };
            if let Some(callee) = below.replace(function)
                && callee != function
            {
                callers.insert((callee, function));
            }
            if !paths.functions[first..].contains(&function) {
                paths.functions.push(function);
            }
        }
        if below.is_none() {
            paths.functions.push(tree.function(&FunctionInfo::unknown()));
        }
        paths.places.insert(stack, first..paths.functions.len());
    }
    paths
}

/// Adds one side to the costs of each function per window.
fn add_windows(side: &SideData, index: usize, paths: &Paths, series: &mut [FunctionSeries]) {
    let nothing = FunctionWindow {
        start: 0,
        self_cost: 0.0,
        total_cost: 0.0,
        self_samples: 0,
        total_samples: 0,
    };
    let mut costs = vec![nothing; series.len()];
    for window in &side.windows {
        let start = window.start_unix_s;
        costs.fill(FunctionWindow { start, ..nothing });
        for &(stack, value, samples) in &window.stacks {
            let functions = paths.of(stack);
            if let Some(&leaf) = functions.first() {
                let cost = &mut costs[leaf as usize];
                cost.self_cost += value as f64;
                cost.self_samples += samples;
            }
            for &function in functions {
                let cost = &mut costs[function as usize];
                cost.total_cost += value as f64;
                cost.total_samples += samples;
            }
        }
        for (cost, function) in costs.iter().zip(series.iter_mut()) {
            if cost.total_samples > 0 || cost.total_cost > 0.0 {
                let rows = if index == 0 {
                    &mut function.baseline
                } else {
                    &mut function.candidate
                };
                rows.push(*cost);
            }
        }
    }
}

/// The function a closure of Rust stands in: `f` for `f::{{closure}}::{{closure}}`. Elsewhere closures run where their
/// function is not: there they are named themselves.
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
    let all = side.windows.iter().map(|w| w.windows).sum::<u64>().max(1) as f64;
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
    let total_ns = tree.total()[index];
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
        total_ns,
        divisor,
        value: divide(total_ns, divisor),
        build_ids: side.build_ids.clone(),
        resolved_ratio: if total_ns > 0 {
            1.0 - unresolved as f64 / total_ns as f64
        } else {
            1.0
        },
    }
}

/// A cost per nothing is shown as 0, never as infinity.
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
        id: format!("{:016x}", info.id),
        name: info.name.clone(),
        module: info.module.clone(),
        library: change.is_library,
        self_a_ns: totals.self_value[0],
        self_b_ns: totals.self_value[1],
        total_a_ns: totals.total[0],
        total_b_ns: totals.total[1],
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
        id: format!("{:016x}", info.id),
        name: info.name.clone(),
        module: info.module.clone(),
        delta_ns_per_request: guilty.delta,
        // Other functions may have become cheaper meanwhile; more than all of it explains nothing more.
        share: guilty.share.min(1.0),
        library: guilty.is_library,
        callee: guilty.callee.and_then(|id| name_callee(id, tree)),
    })
}

/// What is inlined everywhere says nothing about what was called.
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

fn cost_shift(finding: &Finding, tree: &FlameTree) -> Option<String> {
    let Finding::CostShift { moved } = finding else {
        return None;
    };
    let name = |id: u64| {
        tree.functions
            .iter()
            .find(|f| f.id == id)
            .map_or("?", |f| f.name.as_str())
    };
    let pairs: Vec<String> = moved
        .iter()
        .take(3)
        .map(|m| format!("{} is now {}", name(m.from), name(m.to)))
        .collect();
    Some(match pairs.is_empty() {
        true => "Functions changed and the whole cost did not: cost moved between them.".to_owned(),
        false => format!("Cost moved, it did not grow: {}.", pairs.join("; ")),
    })
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

/// Nanoseconds with the unit that reads best.
pub fn format_ns(ns: f64) -> String {
    let size = ns.abs();
    match size {
        _ if size >= 1e9 => format!("{:.2} s", ns / 1e9),
        _ if size >= 1e6 => format!("{:.2} ms", ns / 1e6),
        _ if size >= 1e3 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{ns:.0} ns"),
    }
}

/// Why a side has no cost, and what to do; `None` when it has one.
fn missing(side: &SideSummary, per: Per) -> Option<String> {
    let version = &side.version;
    let profiles = || {
        format!(
            "{version} sent no profile of this type in this range; send some under the same service and version, or choose a longer range"
        )
    };
    let requests = || {
        format!(
            "{version} sent no requests in this range; put a proxy beside it, or send `http.server.request.duration` under the same service and version; or compare per second (`per=second`)"
        )
    };
    match (side.coverage.missing, per) {
        (Some(Missing::Profiles | Missing::Both), _) => Some(profiles()),
        (_, Per::Second | Per::Total) => None,
        (Some(Missing::Requests), Per::Request) => Some(requests()),
        (Some(Missing::SameTime), Per::Request) => Some(format!(
            "{version} sent requests and profiles, but never of the same time{}; choose a longer range, or compare per second (`per=second`)",
            match side.coverage.joined_by {
                JoinedBy::Instance => " for one instance",
                JoinedBy::Release => "",
            }
        )),
        (None, Per::Request) if side.divisor <= 0.0 => Some(format!(
            "{version} served no requests in the {} s that both signals cover; choose a longer range, or compare per second (`per=second`)",
            side.coverage.covered_s
        )),
        (None, Per::Request) => None,
    }
}

struct Sentence<'a> {
    options: CompareOptions<'a>,
    change: &'a CostComparison,
    guilty: Option<&'a GuiltyFunction>,
    finding: &'a Finding,
}

impl Sentence<'_> {
    fn write(&self, baseline: &SideSummary, candidate: &SideSummary) -> String {
        let per = match self.options.per {
            Per::Request => "CPU per request",
            Per::Second => "CPU per second",
            Per::Total => "CPU in all",
        };
        let place = self
            .options
            .route
            .map(|route| match self.options.whole_service {
                true => format!(" of the whole service (no stacks carry {route})"),
                false => format!(" on {route}"),
            })
            .unwrap_or_default();
        let missing: Vec<String> = [baseline, candidate]
            .into_iter()
            .filter_map(|side| missing(side, self.options.per))
            .collect();
        if !missing.is_empty() {
            return format!("{per}{place} cannot be said: {}.", missing.join("; "));
        }
        let (before, after) = (
            format_ns(self.change.baseline.rate),
            format_ns(self.change.candidate.rate),
        );
        match self.change.judgement() {
            Judgement::TooFewSamples => format!(
                "Too few samples to judge{place}: {} of {} and {} of {}. Widen the range or wait for more windows.",
                baseline.samples, baseline.version, candidate.samples, candidate.version
            ),
            Judgement::NoChange => format!(
                "No change of {per}{place} can be stated: {before} and {after} (difference between {} and {}).",
                signed(self.change.low),
                signed(self.change.high)
            ),
            Judgement::Changed => {
                let ratio = self.change.ratio().map(|r| format!(", ×{r:.2}")).unwrap_or_default();
                let cause = match (self.guilty, self.finding) {
                    (Some(guilty), _) => {
                        format!("; {:.0} % of it under {}", guilty.share * 100.0, guilty.words())
                    }
                    (None, Finding::Spread) => "; no single function explains most of it".to_owned(),
                    _ => String::new(),
                };
                format!(
                    "{} {per}{place} ({before} → {after}{ratio}){cause}.",
                    signed(self.change.delta)
                )
            }
        }
    }
}

fn signed(ns: f64) -> String {
    if ns >= 0.0 {
        format!("+{}", format_ns(ns))
    } else {
        format!("−{}", format_ns(-ns))
    }
}

/// Rows worth quoting: changes that survive the false discovery rate. The guilty function first, then the service's own
/// code before libraries, the largest change first. A library function that only calls what changed is not worth it.
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

//! Prints what comparisons say of the functions of simulated profiles with fixed seeds: how many are marked without a change,
//! and how often the function that changed is named, and as what.
//! `cargo run --release -p emberline-analysis --example function_verdicts [RUNS] [ROWS]`; `ROWS` is a part of the names of
//! rows. Intervals are 95 %, Clopper and Pearson.

#[path = "../tests/analysis/support/mod.rs"]
mod support;

use emberline_analysis::{
    attribution::{Finding, find_guilty},
    change::{CostConfig, Sides},
    cost_shift::{Move, find_moved},
    functions::{FunctionReport, compare_functions},
};
use emberline_model::comparison::Confidence;
use statrs::function::beta::inv_beta_reg;
use support::program::{Change, Disturbance, HANDLER, PLANTED, Program, RENAMED, SECOND};

const DISTURBANCES: [Disturbance; 9] = [
    Disturbance::Nothing,
    Disturbance::Bursts(0.3),
    Disturbance::Bursts(0.7),
    Disturbance::Clumps(5),
    Disturbance::Wander(0.05),
    Disturbance::Wander(0.2),
    Disturbance::Mix(0.03),
    Disturbance::Mix(0.1),
    Disturbance::Mix(0.3),
];
/// Windows and samples a side.
const UNCHANGED: [(usize, f64); 5] = [(6, 594.0), (6, 5_940.0), (31, 3_069.0), (31, 30_690.0), (31, 122_760.0)];
const CHANGED: [f64; 5] = [1_023.0, 3_069.0, 10_230.0, 30_690.0, 122_760.0];

/// Each change, and from how many samples on its answer should be right.
const CHANGES: [(Change, f64); 21] = [
    (Change::Leaf(0.01, 1.05), NEVER),
    (Change::Leaf(0.01, 1.2), NEVER),
    (Change::Leaf(0.01, 2.0), 30_690.0),
    (Change::Leaf(0.01, 4.0), 3_069.0),
    (Change::Leaf(0.1, 1.05), NEVER),
    (Change::Leaf(0.1, 1.2), 30_690.0),
    (Change::Leaf(0.1, 2.0), 3_069.0),
    (Change::Leaf(0.1, 4.0), 3_069.0),
    (Change::All(1.1), 30_690.0),
    (Change::All(2.0), 3_069.0),
    (Change::Middle(3.0), 30_690.0),
    (Change::Renamed(0.01, 1.0), 3_069.0),
    (Change::Renamed(0.1, 1.0), 3_069.0),
    (Change::Renamed(0.01, 1.2), 3_069.0),
    (Change::Renamed(0.1, 1.2), 3_069.0),
    (Change::Renamed(0.01, 2.0), 30_690.0),
    (Change::Renamed(0.1, 2.0), 3_069.0),
    (Change::Inlined(0.01), 3_069.0),
    (Change::Inlined(0.1), 3_069.0),
    (Change::InlinedAndLeaf(0.05, 0.03, 3.0), 3_069.0),
    (Change::InlinedAndLeaf(0.05, 0.1, 1.5), 30_690.0),
];
const NEVER: f64 = f64::INFINITY;

fn report(program: &Program, seed: u64) -> FunctionReport {
    let (exposures, functions) = program.draw(seed);
    let exposures = Sides {
        baseline: exposures.baseline.as_slice(),
        candidate: exposures.candidate.as_slice(),
    };
    compare_functions(exposures, &functions, &CostConfig::default())
}

fn main() {
    let runs: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200);
    let only = std::env::args().nth(2).unwrap_or_default();
    println!(
        "{runs} runs, seeds 0 to {}; 1000 leaves of Zipf weight under 30 middle functions, a handler and a library runtime\n",
        runs - 1
    );
    let unchanged = DISTURBANCES.into_iter().filter(|d| format!("{d:?}").contains(&only));
    println!(
        "Nothing changed: functions marked by total cost / by self cost, each comparison; route changed %; function named %"
    );
    print!("{:<14}", "disturbance");
    UNCHANGED
        .iter()
        .for_each(|(windows, samples)| print!(" | {:<27}", format!("{windows} windows, {samples} a side")));
    println!();
    for disturbance in unchanged {
        print!("{:<14}", format!("{disturbance:?}"));
        for (windows, samples) in UNCHANGED {
            print!(" | {:<27}", unchanged_cell(windows, samples, disturbance, runs));
        }
        println!();
    }
    println!("\nOne thing changed, 31 windows: right % [interval], wrong function named %, said not to have grown %");
    print!("{:<32}", "change, share and factor");
    CHANGED
        .iter()
        .for_each(|samples| print!(" | {:<24}", format!("{samples} samples a side")));
    println!();
    let mut worst = (f64::INFINITY, String::new());
    for (change, from) in CHANGES.iter().filter(|(c, _)| format!("{c:?}").contains(&only)) {
        print!("{:<32}", format!("{change:?}"));
        for samples in CHANGED {
            let answers = ask(*change, samples, runs);
            let percent = |n: u64| 100.0 * n as f64 / runs as f64;
            let (low, high) = interval(answers.right, runs);
            let cell = format!(
                "{:.0} [{:.0}, {:.0}] {:.1} {:.0}",
                percent(answers.right),
                100.0 * low,
                100.0 * high,
                percent(answers.wrong),
                percent(answers.no_growth)
            );
            if samples >= *from && percent(answers.right) < worst.0 {
                worst = (percent(answers.right), format!("{change:?} at {samples}"));
            }
            print!(
                " | {:<24}",
                format!("{}{cell}", if samples >= *from { "*" } else { "" })
            );
        }
        println!();
    }
    println!("\n*: counts for the next line, the worst of them ({})", worst.1);
    println!("verdict_named_function_percent {:.1}", worst.0);
}

fn unchanged_cell(windows: usize, samples: f64, disturbance: Disturbance, runs: u64) -> String {
    let program = Program {
        windows,
        samples,
        change: Change::Nothing,
        disturbance,
    };
    let (mut total, mut own, mut route, mut named) = (0, 0, 0, 0);
    for seed in 0..runs {
        let report = report(&program, seed);
        let is_strong = |confidence: Confidence| confidence == Confidence::Strong;
        let marked = |of: fn(&emberline_analysis::functions::FunctionChange) -> Confidence| {
            report.functions.iter().filter(|f| is_strong(of(f))).count()
        };
        total += marked(|f| f.total_cost.confidence);
        own += marked(|f| f.self_cost.confidence);
        route += usize::from(report.route.grew() || report.route.shrank());
        named += usize::from(matches!(find_guilty(&report), Finding::Function(_)));
    }
    let per = |n: usize| n as f64 / runs as f64;
    format!(
        "{:.3} / {:.3}; {:.1}; {:.1}",
        per(total),
        per(own),
        100.0 * per(route),
        100.0 * per(named)
    )
}

#[derive(Default)]
struct Answers {
    right: u64,
    wrong: u64,
    no_growth: u64,
}

fn ask(change: Change, samples: f64, runs: u64) -> Answers {
    let program = Program {
        windows: 31,
        samples,
        change,
        disturbance: Disturbance::Nothing,
    };
    let mut answers = Answers::default();
    for seed in 0..runs {
        let report = report(&program, seed);
        let finding = find_guilty(&report);
        let middle = Program::middle_of_planted(seed);
        let named = match &finding {
            Finding::Function(guilty) => Some(guilty.function),
            _ => None,
        };
        let moved = |to: u64, how: Move| {
            let moved = find_moved(&report);
            moved.into_iter().find(|m| (m.from, m.to, m.how) == (PLANTED, to, how))
        };
        let (right, culprit) = match change {
            Change::Nothing => (named.is_none(), None),
            Change::Leaf(..) => (named == Some(PLANTED), Some(PLANTED)),
            Change::All(factor) => {
                let is_right = matches!(&finding, Finding::Spread { below: Some(below), factor: Some(told) }
                    if below.function == HANDLER && (told / factor - 1.0).abs() < 0.1);
                (is_right, None)
            }
            Change::Middle(_) => {
                let below = matches!(&finding, Finding::Spread { below: Some(below), .. } if below.function == middle);
                (named == Some(middle) || below, Some(middle))
            }
            Change::Renamed(_, 1.0) => {
                let is_told = matches!(&finding, Finding::CostShift { .. });
                (is_told && moved(RENAMED, Move::Renamed).is_some(), None)
            }
            // Where the growth is too small to show, the two are one function that may cost something else.
            Change::Renamed(share, factor) => {
                let pair = moved(RENAMED, Move::Renamed);
                let is_shown = samples * share * (factor - 1.0).powi(2) >= 100.0;
                let is_right = match is_shown {
                    true => named == Some(RENAMED),
                    false => !pair.as_ref().is_some_and(|m| m.costs_the_same()),
                };
                (is_right && pair.is_some(), Some(RENAMED))
            }
            Change::Inlined(_) => {
                let is_told = matches!(&finding, Finding::CostShift { .. });
                (is_told && moved(middle, Move::Inlined).is_some(), None)
            }
            Change::InlinedAndLeaf(..) => (named == Some(SECOND), Some(SECOND)),
        };
        answers.right += u64::from(right);
        answers.wrong += u64::from(named.is_some() && named != culprit);
        answers.no_growth += u64::from(finding == Finding::NoGrowth);
    }
    answers
}

/// 95 % interval of a share, Clopper and Pearson, Biometrika 26 (1934).
fn interval(hits: u64, of: u64) -> (f64, f64) {
    let (hits, of) = (hits as f64, of as f64);
    let low = if hits > 0.0 {
        inv_beta_reg(hits, of - hits + 1.0, 0.025)
    } else {
        0.0
    };
    let high = if hits < of {
        inv_beta_reg(hits + 1.0, of - hits, 0.975)
    } else {
        1.0
    };
    (low, high)
}

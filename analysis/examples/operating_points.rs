//! Prints what the verdicts do on simulated traffic with fixed seeds: false alarms without a change, and how often and
//! how fast a change is found. `cargo run --release -p emberline-analysis --example operating_points [RUNS]`

#[path = "../tests/analysis/support/mod.rs"]
mod support;

use emberline_analysis::{
    attribution::{Finding, find_guilty},
    change::{CostConfig, Sides},
    functions::compare_functions,
    latency::LatencyConfig,
};
use emberline_model::comparison::Confidence;
use support::{FIRST_LEAF, NOISES, Noise, Profiled, Route};

const WINDOWS: usize = 60;

fn main() {
    let runs: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000);
    let config = LatencyConfig::default();
    println!(
        "{runs} runs of {WINDOWS} windows of 10 s, both releases live, alpha {}, floor {} or {} ms\n",
        config.alpha,
        config.floor_relative,
        config.floor_seconds * 1e3
    );
    println!("Stated without a change, % of watches");
    println!(
        "{:<16} {:>16} {:>16} {:>16} {:>16}",
        "noise", "1.5 ms, 50/win", "20 ms, 50/win", "20 ms, 500/win", "replaced 20 ms"
    );
    for noise in NOISES {
        let cell = |median, requests| {
            let route = Route {
                median,
                requests,
                noise,
                ..Route::default()
            };
            let runs = if requests > 100.0 { runs / 4 } else { runs };
            100.0 * route.operate(runs.max(1), WINDOWS, &config).0
        };
        let replaced = Route {
            median: 0.020,
            noise,
            ..Route::default()
        };
        let replaced = (0..runs)
            .filter(|&seed| replaced.watch_replaced(WINDOWS, seed, &config).is_some())
            .count();
        println!(
            "{:<16} {:>16.2} {:>16.2} {:>16.2} {:>16.2}",
            format!("{noise:?}"),
            cell(0.0015, 50.0),
            cell(0.020, 50.0),
            cell(0.020, 500.0),
            100.0 * replaced as f64 / runs as f64
        );
    }

    println!("\nFound: % within 1 min / 5 min / 10 min (median windows since the candidate's first)");
    println!(
        "{:<16} {:>8} {:>24} {:>24} {:>24}",
        "change", "spread", "20 ms, 10/win", "20 ms, 50/win", "20 ms, 500/win"
    );
    for (name, factor, added) in [
        ("+10 %", 1.1, 0.0),
        ("+20 %", 1.2, 0.0),
        ("+50 %", 1.5, 0.0),
        ("+100 %", 2.0, 0.0),
        ("+4 ms", 1.0, 0.004),
    ] {
        for spread in [0.2, 0.5] {
            let cell = |requests| {
                let route = Route {
                    median: 0.020,
                    spread,
                    requests,
                    noise: Noise::OwnJitter,
                    factor,
                    added,
                    ..Route::default()
                };
                let runs = (if requests > 100.0 { runs / 10 } else { runs / 4 }).max(1);
                describe(&route.operate(runs, WINDOWS, &config).1, runs)
            };
            println!(
                "{name:<16} {spread:>8} {:>24} {:>24} {:>24}",
                cell(10.0),
                cell(50.0),
                cell(500.0)
            );
        }
    }
    let planted = Route {
        added: 0.004,
        noise: Noise::SharedDrift,
        ..Route::default()
    };
    println!(
        "+4 ms on 1.5 ms, 50/win: {}",
        describe(&planted.operate(runs, WINDOWS, &config).1, runs)
    );
    let late = Route {
        median: 0.020,
        factor: 2.0,
        from: 30,
        ..Route::default()
    };
    println!(
        "+100 % that begins in window 30, 50/win: {}",
        describe(&late.operate(runs, WINDOWS, &config).1, runs)
    );

    println!("\nFunctions: 200 leaves, Zipf costs; per comparison");
    println!(
        "{:<10} {:>10} {:>12} {:>14} {:>16} {:>16} {:>16}",
        "windows", "burst cv", "judged", "false strong", "x1.3 hottest %", "x2 of rank 10 %", "named hottest %"
    );
    let runs = (runs / 4).max(1);
    for (windows, burstiness) in [(2, 0.0), (6, 0.0), (30, 0.0), (6, 0.3), (30, 0.3), (30, 0.7)] {
        let base = Profiled {
            windows,
            requests: 50.0,
            leaves: 200,
            samples_per_request: 1.0,
            burstiness,
            changed: None,
            factor: 1.0,
        };
        let (mut judged, mut wrong, mut hot, mut tenth, mut named) = (0, 0, 0, 0, 0);
        for seed in 0..runs {
            let report = |p: &Profiled| {
                let (exposures, functions) = p.draw(seed);
                let exposures = Sides {
                    baseline: exposures.baseline.as_slice(),
                    candidate: exposures.candidate.as_slice(),
                };
                compare_functions(exposures, &functions, &CostConfig::default())
            };
            let same = report(&base);
            judged += same
                .functions
                .iter()
                .filter(|f| f.total_cost.confidence != Confidence::Few)
                .count();
            wrong += same
                .functions
                .iter()
                .filter(|f| f.total_cost.confidence == Confidence::Strong)
                .count();
            let is_found = |p: &Profiled, leaf: usize| {
                report(p)
                    .function(FIRST_LEAF + leaf as u64)
                    .is_some_and(|f| f.total_cost.grew())
            };
            hot += usize::from(is_found(
                &Profiled {
                    changed: Some(0),
                    factor: 1.3,
                    ..base
                },
                0,
            ));
            tenth += usize::from(is_found(
                &Profiled {
                    changed: Some(9),
                    factor: 2.0,
                    ..base
                },
                9,
            ));
            let doubled = report(&Profiled {
                changed: Some(0),
                factor: 3.0,
                ..base
            });
            named += usize::from(matches!(find_guilty(&doubled), Finding::Function(g) if g.function == FIRST_LEAF));
        }
        let per = |n: usize| n as f64 / runs as f64;
        println!(
            "{windows:<10} {burstiness:>10} {:>12.1} {:>14.3} {:>16.1} {:>16.1} {:>16.1}",
            per(judged),
            per(wrong),
            100.0 * per(hot),
            100.0 * per(tenth),
            100.0 * per(named)
        );
    }
}

fn describe(fired: &[usize], runs: u64) -> String {
    let within = |windows: usize| 100.0 * fired.iter().filter(|&&w| w < windows).count() as f64 / runs as f64;
    let median = fired
        .get(fired.len() / 2)
        .map_or("-".to_owned(), |w| (w + 1).to_string());
    format!("{:.0} / {:.0} / {:.0} ({median})", within(6), within(30), within(60))
}

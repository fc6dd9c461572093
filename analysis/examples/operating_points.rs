//! Prints what the verdicts on latency do on simulated traffic with fixed seeds: false alarms without a change, and how often and
//! how fast a change is found. `cargo run --release -p emberline-analysis --example operating_points [RUNS]`

#[path = "../tests/analysis/support/mod.rs"]
mod support;

use emberline_analysis::latency::LatencyConfig;
use support::{NOISES, Noise, Route};

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
}

fn describe(fired: &[usize], runs: u64) -> String {
    let within = |windows: usize| 100.0 * fired.iter().filter(|&&w| w < windows).count() as f64 / runs as f64;
    let median = fired
        .get(fired.len() / 2)
        .map_or("-".to_owned(), |w| (w + 1).to_string());
    format!("{:.0} / {:.0} / {:.0} ({median})", within(6), within(30), within(60))
}

//! What it costs to judge one route of two releases from scratch, as the collector does after every window.
//!
//! `cargo run --release -p emberline-analysis --example judging_cost`
//! prints CPU-microseconds per watch of 360 windows, the mean of several watches (Linux only: it asks the scheduler).

#[path = "../tests/analysis/support/mod.rs"]
mod support;

use emberline_analysis::{
    latency::{LatencyConfig, LatencyWindow},
    latency_watch::judge_warm_latency,
};
use emberline_model::histogram::Histogram;
use support::Random;

const WINDOWS: i64 = 360;
/// How much of it is judged one after the other: the baseline's first half hour, then the candidate's.
const HALF: i64 = WINDOWS / 2;
const WATCHES: u64 = 40;

/// What the traffic of a watch looks like.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    /// So many times slower is the candidate.
    factor: f64,
    /// Standard deviation of each release's own level, in logarithms, remembered for about five minutes.
    wanders: f64,
    after: bool,
}

const SETTINGS: [Setting; 5] = [
    Setting {
        name: "same",
        factor: 1.0,
        wanders: 0.0,
        after: false,
    },
    Setting {
        name: "slower",
        factor: 1.5,
        wanders: 0.0,
        after: false,
    },
    Setting {
        name: "wanders",
        factor: 1.3,
        wanders: 0.3,
        after: false,
    },
    Setting {
        name: "same, after",
        factor: 1.0,
        wanders: 0.0,
        after: true,
    },
    Setting {
        name: "wanders, after",
        factor: 1.3,
        wanders: 0.3,
        after: true,
    },
];

/// Nanoseconds that this thread has run.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn windows(setting: Setting, requests: f64, seed: u64) -> [Vec<LatencyWindow>; 2] {
    let mut random = Random::new(seed);
    let mut levels = [0.0f64; 2];
    let mut sides = [Vec::new(), Vec::new()];
    for at in 0..WINDOWS {
        for side in 0..2 {
            let memory: f64 = 0.97;
            levels[side] = memory * levels[side] + setting.wanders * (1.0 - memory * memory).sqrt() * random.normal();
            let is_candidate = side == 1;
            if setting.after && is_candidate == (at < HALF) {
                continue;
            }
            let factor = if is_candidate { setting.factor } else { 1.0 };
            let mut histogram = Histogram::new();
            for _ in 0..random.poisson(requests) {
                let seconds = 0.02 * factor * levels[side].exp() * (0.5 * random.normal()).exp();
                histogram.record_ns((seconds * 1e9) as u64);
            }
            if histogram.count() > 0 {
                sides[side].push(LatencyWindow {
                    start: at * 10,
                    histogram,
                });
            }
        }
    }
    sides
}

fn main() {
    let config = LatencyConfig::default();
    println!("CPU-us per watch          1 request    10 requests   100 requests a window, each release");
    for setting in SETTINGS {
        print!("{:<20}", setting.name);
        for requests in [1.0, 10.0, 100.0] {
            let watches: Vec<_> = (0..WATCHES).map(|seed| windows(setting, requests, seed)).collect();
            let before = cpu_ns();
            for [baseline, candidate] in &watches {
                std::hint::black_box(judge_warm_latency(baseline, candidate, &[], &config));
            }
            let us = (cpu_ns() - before) / 1000 / WATCHES;
            print!("{us:>15}");
        }
        println!();
    }
}

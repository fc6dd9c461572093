//! What it costs to judge the routes of two releases after each window, in the steady state, and what a watch takes.
//!
//! `cargo run --release -p emberline-analysis --example judging_cost`
//! prints CPU-microseconds per watch and window and bytes per watch by traffic, and `verdict_1000_edges_cpu_ms`: CPU-milliseconds per
//! window for 1,000 edges of 10 routes in two releases, of which nine in ten are quiet (Linux only: it asks the scheduler).

#[path = "../tests/analysis/support/mod.rs"]
mod support;

use std::sync::Arc;

use emberline_analysis::{
    alert_state::{AlertConfig, AlertState, Observation},
    errors::{ErrorConfig, ErrorWatch, Failures},
    latency::LatencyConfig,
    latency_watch::LatencyWatch,
};
use emberline_model::histogram::Histogram;
use support::Random;

/// Windows before the measured ones: an hour and a half.
const BEFORE: i64 = 540;
/// Windows that are measured: two blocks and a span.
const MEASURED: i64 = 30;
/// Watches of a setting.
const WATCHES: u64 = 60;
/// Watches of 1,000 edges of 10 routes.
const ALL: f64 = 10_000.0;

/// What the traffic of a watch looks like.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    /// So many times slower is the candidate.
    factor: f64,
    /// Standard deviation of each release's own level, in logarithms, remembered for about five minutes.
    wanders: f64,
    /// The baseline serves for an hour, then the candidate.
    after: bool,
    /// Its share of all watches.
    share: f64,
}

const fn setting(name: &'static str, factor: f64, wanders: f64, after: bool, share: f64) -> Setting {
    Setting {
        name,
        factor,
        wanders,
        after,
        share,
    }
}

const SETTINGS: [Setting; 6] = [
    setting("same", 1.0, 0.0, false, 0.8),
    setting("same, after", 1.0, 0.0, true, 0.1),
    setting("5 % slower", 1.05, 0.0, false, 0.04),
    setting("slower", 1.5, 0.0, false, 0.02),
    setting("wanders", 1.3, 0.3, false, 0.02),
    setting("wanders, after", 1.3, 0.3, true, 0.02),
];

/// Requests of a release in a window, and which share of routes has them: ten on average.
const TRAFFIC: [(f64, f64); 4] = [(1.0, 0.4), (5.0, 0.3), (10.0, 0.19), (57.0, 0.11)];

/// Nanoseconds that this thread has run.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn windows(setting: Setting, requests: f64, seed: u64) -> Vec<[Histogram; 2]> {
    let mut random = Random::new(seed);
    let mut levels = [0.0f64; 2];
    let memory: f64 = 0.97;
    (0..BEFORE + MEASURED)
        .map(|at| {
            [0, 1].map(|side| {
                levels[side] =
                    memory * levels[side] + setting.wanders * (1.0 - memory * memory).sqrt() * random.normal();
                let is_candidate = side == 1;
                let mut histogram = Histogram::new();
                if setting.after && is_candidate == (at < BEFORE * 2 / 3) {
                    return histogram;
                }
                let factor = if is_candidate { setting.factor } else { 1.0 };
                for _ in 0..random.poisson(requests) {
                    let seconds = 0.02 * factor * levels[side].exp() * (0.5 * random.normal()).exp();
                    histogram.record_ns((seconds * 1e9) as u64);
                }
                histogram
            })
        })
        .collect()
}

/// What the collector keeps for one caller on one route.
struct Watched {
    latency: LatencyWatch,
    errors: ErrorWatch,
    states: [AlertState; 2],
}

impl Watched {
    fn push(&mut self, start: i64, [baseline, candidate]: &[Histogram; 2], alert: &AlertConfig) {
        self.latency.push(start, baseline, candidate);
        // One window in fifty has a failure.
        let failures = |of: &Histogram| Failures {
            requests: of.count(),
            errors: u64::from(start % 500 == 0).min(of.count()),
        };
        self.errors.push(start, failures(baseline), failures(candidate));
        let stated = [self.latency.stated_at().is_some(), self.errors.stated_at().is_some()];
        let judged = [self.latency.take_judged(), self.errors.take_judged()];
        for ((state, judged), stated) in self.states.iter_mut().zip(judged).zip(stated) {
            let seen = Observation {
                window: start,
                stated,
                exceeding: judged.last().map(|judged| judged.exceeding),
                warming: false,
            };
            *state = state.step(seen, alert);
        }
    }

    fn bytes(&self) -> usize {
        self.latency.bytes() + self.errors.bytes() + size_of::<[AlertState; 2]>()
    }
}

/// CPU-microseconds of a window, and bytes of a watch: the means of several watches.
fn cost(setting: Setting, requests: f64) -> (f64, f64) {
    let (latency, errors) = (Arc::new(LatencyConfig::default()), Arc::new(ErrorConfig::default()));
    let alert = AlertConfig::default();
    let (mut ns, mut bytes, mut looks) = (0, 0, 0);
    for seed in 0..WATCHES {
        let windows = windows(setting, requests, seed);
        let mut watched = Watched {
            latency: LatencyWatch::new(Arc::clone(&latency)),
            errors: ErrorWatch::new(Arc::clone(&errors)),
            states: Default::default(),
        };
        let mut before = 0;
        for (at, window) in (0..).zip(&windows) {
            if at == BEFORE {
                before = cpu_ns();
            }
            watched.push(at * 10, window, &alert);
        }
        ns += cpu_ns() - before;
        // In the middle of a block as well as between two.
        for (at, window) in (BEFORE + MEASURED..).zip(&windows[..3]) {
            watched.push(at * 10, window, &alert);
            bytes += watched.bytes();
            looks += 1;
        }
    }
    let us = ns as f64 / 1e3 / (WATCHES as i64 * MEASURED) as f64;
    (us, bytes as f64 / f64::from(looks))
}

fn main() {
    let (mut us_of_all, mut bytes_of_all) = (0.0, 0.0);
    println!("CPU-us per window, bytes per watch");
    print!("{:<20}", "requests a window");
    TRAFFIC.iter().for_each(|(requests, _)| print!("{requests:>18}"));
    println!();
    for setting in SETTINGS {
        print!("{:<20}", setting.name);
        for (requests, share) in TRAFFIC {
            let (us, bytes) = cost(setting, requests);
            print!("{us:>10.1} {bytes:>7.0}");
            us_of_all += setting.share * share * us;
            bytes_of_all += setting.share * share * bytes;
        }
        println!();
    }
    println!("verdict_bytes_per_watch {bytes_of_all:.0}");
    println!("verdict_1000_edges_mib {:.1}", bytes_of_all * ALL / f64::from(1 << 20));
    println!("verdict_1000_edges_cpu_ms {:.0}", us_of_all * ALL / 1e3);
}

//! Signals of different intervals, phases, names and fates, of a load and a cost that are known: what both cover is
//! joined as the store joins it, and the cost per request is the true one; and releases that differ only in their
//! intervals do not differ.

use std::collections::BTreeMap;

use emberline_analysis::change::{CostConfig, CostWindow, ExposureWindow, Sides, compare_cost};
use emberline_model::coverage::{Join, Missing, Stretch};

use crate::support::Random;

/// What one sender reports of one process.
#[derive(Debug, Clone, Copy)]
struct Reports {
    every_s: u32,
    phase_s: u32,
}

/// Seconds from the start of a process on: what it served, what it spent (milliseconds), and the samples of that.
struct Truth {
    served: Vec<u64>,
    spent_ms: Vec<f64>,
    samples: Vec<u64>,
}

impl Truth {
    /// A load that swings and bursts; every request costs so many milliseconds, give or take `noise`.
    fn new(random: &mut Random, seconds: usize, cost_ms: f64, noise: f64) -> Truth {
        let phase = random.uniform() * 6.0;
        let mut truth = Truth {
            served: Vec::new(),
            spent_ms: Vec::new(),
            samples: Vec::new(),
        };
        for second in 0..seconds {
            let swing = 1.0 + 0.3 * (second as f64 / 90.0 + phase).sin();
            let served = (60.0 * swing + 12.0 * (random.uniform() - 0.5)).round();
            let spent = served * cost_ms * (1.0 + noise * 2.0 * (random.uniform() - 0.5));
            // One sample each 10 ms of CPU, some more, some less.
            let samples = (spent / 10.0 + random.uniform()).floor();
            truth.served.push(served as u64);
            truth.spent_ms.push(if noise > 0.0 { samples * 10.0 } else { spent });
            truth.samples.push(samples as u64);
        }
        truth
    }
}

/// Windows of a signal: cut where the process ends, which loses what was not sent by then.
fn windows(instance: u64, reports: Reports, lives: &[(u32, u32)], foreign: bool) -> Vec<Stretch> {
    let mut windows = Vec::new();
    for (life, &(from, to)) in lives.iter().enumerate() {
        // SDKs make up another name for each start of a process.
        let instance = if foreign { 1_000 * instance + life as u64 } else { 1 };
        let first = from - from % reports.every_s + reports.phase_s;
        let mut start_s = from;
        for end in (first..)
            .step_by(reports.every_s as usize)
            .skip_while(|&end| end <= from)
        {
            if end > to {
                break;
            }
            windows.push(Stretch {
                instance,
                start_s,
                length_s: end - start_s,
            });
            start_s = end;
        }
    }
    windows
}

fn sum<T: Copy + std::iter::Sum<T>>(values: &[T], window: &Stretch) -> T {
    values[window.start_s as usize..(window.start_s + window.length_s) as usize]
        .iter()
        .copied()
        .sum()
}

/// Pieces of time as the store makes them, and the cost per request.
struct Joined {
    exposures: Vec<ExposureWindow>,
    costs: Vec<CostWindow>,
    cost_ms: f64,
}

fn joined(truth: &Truth, profiles: &[Stretch], requests: &[Stretch]) -> Result<Joined, Missing> {
    let join = Join::new(profiles, requests);
    if let Some(missing) = join.coverage().missing {
        return Err(missing);
    }
    let piece_s = join.piece_s();
    let mut pieces: BTreeMap<u32, (f64, f64, u64)> = BTreeMap::new();
    let counted = |windows: &[Stretch]| -> Vec<(u32, Stretch, f64)> {
        let of = |w: &Stretch| (Join::piece_of(w, piece_s), *w, join.share(w));
        windows.iter().map(of).filter(|w| w.2 > 0.0).collect()
    };
    for (piece, window, share) in counted(requests) {
        pieces.entry(piece).or_default().0 += sum(&truth.served, &window) as f64 * share;
    }
    for (piece, window, share) in counted(profiles) {
        let piece = pieces.entry(piece).or_default();
        piece.1 += sum(&truth.spent_ms, &window) * share;
        piece.2 += sum(&truth.samples, &window);
    }
    let total = pieces
        .values()
        .fold((0.0, 0.0), |all, piece| (all.0 + piece.0, all.1 + piece.1));
    Ok(Joined {
        exposures: pieces
            .iter()
            .map(|(&start, piece)| ExposureWindow {
                start: i64::from(start),
                exposure: piece.0,
            })
            .collect(),
        costs: pieces
            .iter()
            .map(|(&start, piece)| CostWindow {
                start: i64::from(start),
                cost: piece.1,
                samples: piece.2,
            })
            .collect(),
        cost_ms: total.1 / total.0,
    })
}

const METRICS_S: [u32; 5] = [5, 10, 15, 30, 60];
const PROFILES_S: [u32; 4] = [5, 10, 15, 60];

#[test]
fn cost_per_request_is_the_true_one_whatever_the_intervals_phases_names_and_restarts() {
    let mut random = Random::new(1);
    let seconds = 1_200;
    let (mut said, mut worst) = (0, 0.0f64);
    for metrics_s in METRICS_S {
        for profiles_s in PROFILES_S {
            for phases in [(0, 0), (0, 3), (7, 0), (7, 3), (59, 14), (31, 8)] {
                for foreign in [false, true] {
                    for lives in [
                        vec![(0, 1_200)],
                        vec![(0, 403), (417, 1_200)],
                        vec![(2, 300), (301, 555), (700, 1_199)],
                    ] {
                        let truth = Truth::new(&mut random, seconds, 1.0, 0.0);
                        let of = |every_s, phase: u32| Reports {
                            every_s,
                            phase_s: phase % every_s,
                        };
                        let requests = windows(1, of(metrics_s, phases.0), &lives, foreign);
                        let profiles = windows(2, of(profiles_s, phases.1), &lives, foreign);
                        let joined = joined(&truth, &profiles, &requests).unwrap();
                        let error = (joined.cost_ms - 1.0).abs();
                        assert!(
                            error < 0.02,
                            "metrics every {metrics_s} s, profiles every {profiles_s} s, {phases:?}, foreign {foreign}, {lives:?}: {}",
                            joined.cost_ms
                        );
                        (said, worst) = (said + 1, worst.max(error));
                    }
                }
            }
        }
    }
    assert_eq!(said, 5 * 4 * 6 * 2 * 3);
    assert!(worst > 0.0, "some windows are covered in part");
    println!("{said} combinations, furthest from the truth: {:.2} %", worst * 100.0);
}

#[test]
fn signals_that_never_meet_say_so() {
    let mut random = Random::new(2);
    let truth = Truth::new(&mut random, 1_200, 1.0, 0.0);
    let reports = Reports {
        every_s: 10,
        phase_s: 0,
    };
    let early = windows(1, reports, &[(0, 300)], false);
    let late = windows(1, reports, &[(600, 900)], false);
    assert_eq!(joined(&truth, &early, &late).err(), Some(Missing::SameTime));
    assert_eq!(joined(&truth, &early, &[]).err(), Some(Missing::Requests));
}

#[test]
fn releases_that_differ_only_in_their_intervals_do_not_differ() {
    let mut random = Random::new(3);
    let pairs = 1_000;
    let mut changed = 0;
    for _ in 0..pairs {
        let mut side = || {
            let truth = Truth::new(&mut random, 900, 2.0, 0.6);
            let mut any = |all: &[u32]| {
                let every_s = all[(random.uniform() * all.len() as f64) as usize];
                let phase_s = (random.uniform() * f64::from(every_s)) as u32;
                Reports { every_s, phase_s }
            };
            let (metrics, cpu) = (any(&METRICS_S), any(&PROFILES_S));
            let foreign = random.uniform() < 0.5;
            let requests = windows(1, metrics, &[(0, 900)], foreign);
            let profiles = windows(2, cpu, &[(0, 900)], foreign);
            joined(&truth, &profiles, &requests).unwrap()
        };
        let (baseline, candidate) = (side(), side());
        let change = compare_cost(
            Sides {
                baseline: baseline.exposures.as_slice(),
                candidate: candidate.exposures.as_slice(),
            },
            Sides {
                baseline: baseline.costs.as_slice(),
                candidate: candidate.costs.as_slice(),
            },
            &CostConfig::default(),
        );
        changed += u32::from(change.grew() || change.shrank());
    }
    println!("{changed} of {pairs} pairs are said to differ");
    // 1 % of them are expected at most; more than 20 would be by chance once in a thousand runs.
    assert!(changed <= 20, "{changed} of {pairs}");
}

#[test]
fn a_change_is_seen_between_releases_of_different_intervals() {
    let mut random = Random::new(4);
    let mut side = |metrics_s, profiles_s, cost_ms| {
        let truth = Truth::new(&mut random, 900, cost_ms, 0.6);
        let of = |every_s| Reports { every_s, phase_s: 3 };
        let requests = windows(1, of(metrics_s), &[(0, 900)], true);
        let profiles = windows(2, of(profiles_s), &[(0, 900)], true);
        joined(&truth, &profiles, &requests).unwrap()
    };
    let (baseline, candidate) = (side(60, 10, 2.0), side(10, 15, 2.4));
    let change = compare_cost(
        Sides {
            baseline: baseline.exposures.as_slice(),
            candidate: candidate.exposures.as_slice(),
        },
        Sides {
            baseline: baseline.costs.as_slice(),
            candidate: candidate.costs.as_slice(),
        },
        &CostConfig::default(),
    );
    assert!(change.grew(), "{change:?}");
}

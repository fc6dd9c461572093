//! Profiles of a program with a thousand functions, before and after a change of one of them that is known.

use emberline_analysis::{
    change::{ExposureWindow, Sides},
    functions::{FunctionSeries, FunctionWindow},
};

use super::{COST_PER_SAMPLE, Random};

pub const RUNTIME: u64 = 0;
pub const HANDLER: u64 = 1;
pub const MIDDLES: u64 = 30;
/// The first function of [`MIDDLES`].
pub const FIRST_MIDDLE: u64 = 100;
pub const LEAVES: u64 = 1000;
pub const FIRST_LEAF: u64 = 1000;
/// The leaf that changes, ...
pub const PLANTED: u64 = 5000;
/// ... what it is called afterwards where it is renamed, ...
pub const RENAMED: u64 = 5001;
/// ... and one that changes as well.
pub const SECOND: u64 = 5002;

/// Share of the runtime's and the handler's own code, and of a middle function's in its total.
const OWN_OF_FRAMES: f64 = 0.02;
const OWN_OF_MIDDLE: f64 = 0.05;

/// What a release changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    Nothing,
    /// A leaf of this share of the route's cost costs so many times as much.
    Leaf(f64, f64),
    /// Every function costs so many times as much.
    All(f64),
    /// Everything below one middle function, and that itself, costs so many times as much.
    Middle(f64),
    /// A leaf of this share has another name, and costs so many times as much.
    Renamed(f64, f64),
    /// A leaf of this share is part of its caller.
    Inlined(f64),
    /// The same, and another leaf of this share costs so many times as much.
    InlinedAndLeaf(f64, f64, f64),
}

/// What disturbs the measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Disturbance {
    Nothing,
    /// Each leaf's rate in each window: standard deviation of its logarithm.
    Bursts(f64),
    /// Samples come by so many at a time.
    Clumps(u64),
    /// The level of each middle function wanders on each side on its own: standard deviation of its logarithm, which
    /// remembers ten windows.
    Wander(f64),
    /// Each middle function is called more or less often, on each side on its own: standard deviation of its logarithm.
    Mix(f64),
}

/// A library runtime, a handler, middle functions and leaves of Zipf weight below them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Program {
    pub windows: usize,
    /// Samples a side, expected.
    pub samples: f64,
    pub change: Change,
    pub disturbance: Disturbance,
}

/// What is expected of a function in a window on one side, as a share of the route's cost before the change.
struct Expected {
    /// By leaf: its middle function and its share.
    leaves: Vec<(u64, usize, f64)>,
    middles: Vec<f64>,
    handler: f64,
    runtime: f64,
}

impl Program {
    /// The middle functions that hold the planted leaf and the second one; the first is the one that changes as a whole.
    pub fn middle_of_planted(seed: u64) -> u64 {
        FIRST_MIDDLE + 3 + seed % (MIDDLES - 3)
    }

    pub fn middle_of_second(seed: u64) -> u64 {
        FIRST_MIDDLE + 3 + (seed + 7) % (MIDDLES - 3)
    }

    fn expected(&self, is_candidate: bool, seed: u64) -> Expected {
        let (share, second) = match self.change {
            Change::Leaf(share, _) | Change::Renamed(share, _) | Change::Inlined(share) => (share, 0.0),
            Change::InlinedAndLeaf(share, second, _) => (share, second),
            Change::Nothing | Change::All(_) | Change::Middle(_) => (0.0, 0.0),
        };
        let planted = (Self::middle_of_planted(seed) - FIRST_MIDDLE) as usize;
        let other = (Self::middle_of_second(seed) - FIRST_MIDDLE) as usize;
        let of_leaves = (1.0 - share - second - 2.0 * OWN_OF_FRAMES) * (1.0 - OWN_OF_MIDDLE);
        let weights: f64 = (1..=LEAVES).map(|rank| 1.0 / rank as f64).sum();
        let mut middles = vec![0.0; MIDDLES as usize];
        let mut leaves = Vec::new();
        for at in 0..LEAVES {
            let (middle, share) = ((at % MIDDLES) as usize, of_leaves / weights / (at + 1) as f64);
            middles[middle] += share * OWN_OF_MIDDLE / (1.0 - OWN_OF_MIDDLE);
            leaves.push((FIRST_LEAF + at, middle, share));
        }
        let mut expected = Expected {
            leaves,
            middles,
            handler: OWN_OF_FRAMES,
            runtime: OWN_OF_FRAMES,
        };
        let mut add = |function, middle, share: f64| {
            if share > 0.0 {
                expected.leaves.push((function, middle, share));
            }
        };
        match (is_candidate, self.change) {
            (true, Change::Leaf(share, factor)) => add(PLANTED, planted, share * factor),
            (true, Change::Renamed(share, factor)) => add(RENAMED, planted, share * factor),
            (true, Change::Inlined(_)) => {}
            (true, Change::InlinedAndLeaf(_, second, factor)) => add(SECOND, other, second * factor),
            _ => {
                add(PLANTED, planted, share);
                add(SECOND, other, second);
            }
        }
        match self.change {
            Change::Inlined(share) | Change::InlinedAndLeaf(share, ..) if is_candidate => {
                expected.middles[planted] += share;
            }
            Change::All(factor) if is_candidate => {
                expected.leaves.iter_mut().for_each(|leaf| leaf.2 *= factor);
                expected.middles.iter_mut().for_each(|own| *own *= factor);
                expected.handler *= factor;
                expected.runtime *= factor;
            }
            Change::Middle(factor) if is_candidate => {
                let below = expected.leaves.iter_mut().filter(|leaf| leaf.1 == planted);
                below.for_each(|leaf| leaf.2 *= factor);
                expected.middles[planted] *= factor;
            }
            _ => {}
        }
        expected
    }

    pub fn draw(&self, seed: u64) -> (Sides<Vec<ExposureWindow>>, Vec<FunctionSeries>) {
        let mut random = Random::new(seed);
        let mut exposures = Sides::<Vec<ExposureWindow>>::default();
        let series = |function, is_library, callers| FunctionSeries {
            function,
            is_library,
            callers,
            ..FunctionSeries::default()
        };
        let mut frames = [series(RUNTIME, true, vec![]), series(HANDLER, false, vec![RUNTIME])];
        let mut middles: Vec<FunctionSeries> = (0..MIDDLES)
            .map(|at| series(FIRST_MIDDLE + at, false, vec![HANDLER]))
            .collect();
        let of_leaf = |function, middle| series(function, false, vec![FIRST_MIDDLE + middle as u64]);
        let mut leaves: Vec<FunctionSeries> = Vec::new();
        for is_candidate in [false, true] {
            let expected = self.expected(is_candidate, seed);
            for (at, &(function, middle, _)) in expected.leaves.iter().enumerate() {
                match leaves
                    .iter()
                    .skip(at.min(LEAVES as usize))
                    .any(|l| l.function == function)
                {
                    true => {}
                    false => leaves.push(of_leaf(function, middle)),
                }
            }
            let at_start: Vec<f64> = (0..MIDDLES).map(|_| random.normal()).collect();
            let mut wandered = at_start.clone();
            for window in 0..self.windows {
                let start = window as i64 * 10 + i64::from(is_candidate) * 1_000_000;
                let requests = random.poisson(200.0) as f64;
                let per_share = self.samples / self.windows as f64 * requests / 200.0;
                let keeps = (-0.1f64).exp();
                let levels: Vec<f64> = wandered
                    .iter_mut()
                    .zip(&at_start)
                    .map(|(level, constant)| match self.disturbance {
                        Disturbance::Wander(sd) => {
                            *level = keeps * *level + (1.0 - keeps * keeps).sqrt() * random.normal();
                            (sd * *level - 0.5 * sd * sd).exp()
                        }
                        Disturbance::Mix(sd) => (sd * constant - 0.5 * sd * sd).exp(),
                        _ => 1.0,
                    })
                    .collect();
                let mut draw = |mean: f64| match self.disturbance {
                    Disturbance::Clumps(size) => size * random.poisson(mean / size as f64),
                    Disturbance::Bursts(sd) => {
                        let level = (sd * random.normal() - 0.5 * sd * sd).exp();
                        random.poisson(mean * level)
                    }
                    _ => random.poisson(mean),
                };
                let mut of_middles: Vec<u64> = Vec::new();
                for ((series, own), level) in middles.iter_mut().zip(&expected.middles).zip(&levels) {
                    let own = draw(per_share * own * level);
                    of_middles.push(own);
                    row(series, is_candidate, start, own, own);
                }
                for (at, &(function, middle, share)) in expected.leaves.iter().enumerate() {
                    let samples = draw(per_share * share * levels[middle]);
                    of_middles[middle] += samples;
                    let rest = at.min(LEAVES as usize);
                    let series = leaves[rest..].iter_mut().find(|l| l.function == function);
                    row(series.expect("all are there"), is_candidate, start, samples, samples);
                }
                for (series, &total) in middles.iter_mut().zip(&of_middles) {
                    set_total(series, is_candidate, start, total);
                }
                let own = draw(per_share * expected.handler);
                let total = own + of_middles.iter().sum::<u64>();
                row(&mut frames[1], is_candidate, start, own, total);
                let own = draw(per_share * expected.runtime);
                row(&mut frames[0], is_candidate, start, own, own + total);
                let exposure = ExposureWindow {
                    start,
                    exposure: requests,
                };
                match is_candidate {
                    false => exposures.baseline.push(exposure),
                    true => exposures.candidate.push(exposure),
                }
            }
        }
        let functions = frames.into_iter().chain(middles).chain(leaves);
        (exposures, functions.collect())
    }
}

fn rows_of(series: &mut FunctionSeries, is_candidate: bool) -> &mut Vec<FunctionWindow> {
    match is_candidate {
        false => &mut series.baseline,
        true => &mut series.candidate,
    }
}

fn row(series: &mut FunctionSeries, is_candidate: bool, start: i64, own: u64, total: u64) {
    if total > 0 {
        rows_of(series, is_candidate).push(FunctionWindow {
            start,
            self_cost: own as f64 * COST_PER_SAMPLE,
            total_cost: total as f64 * COST_PER_SAMPLE,
            self_samples: own,
            total_samples: total,
        });
    }
}

/// Of a function whose own samples of that window, if any, have a row.
fn set_total(series: &mut FunctionSeries, is_candidate: bool, start: i64, total: u64) {
    match rows_of(series, is_candidate)
        .last_mut()
        .filter(|row| row.start == start)
    {
        Some(row) => {
            row.total_cost = total as f64 * COST_PER_SAMPLE;
            row.total_samples = total;
        }
        None => row(series, is_candidate, start, 0, total),
    }
}

//! Simulated traffic with fixed seeds: what the false-alarm rates and delays are measured on.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod program;

use emberline_analysis::{
    change::{ExposureWindow, Sides},
    functions::{FunctionSeries, FunctionWindow},
    latency::{LatencyConfig, LatencyOutcome},
    latency_watch::LatencyWatch,
};
use emberline_model::histogram::Histogram;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut k) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            k += 1;
        }
        k
    }
}

/// What disturbs the measurements besides a release.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Nothing.
    None,
    /// In 10 % of windows everything is up to five times slower, for both releases.
    SharedBursts,
    /// The level of both wanders together (first-order autoregression, standard deviation 30 %).
    SharedDrift,
    /// The level of each release differs by 5 % (standard deviation) from window to window.
    OwnJitter,
    /// In 20 % of windows, for each release on its own, 15 % of the requests wait 20 ms longer.
    OwnStalls,
    /// In 1 of 60 windows, for each release on its own, everything is three times slower.
    OwnBursts,
    /// As `OwnBursts`, but each lasts three windows, 1 in 300 windows.
    OwnLongBursts,
}

pub const NOISES: [Noise; 7] = [
    Noise::None,
    Noise::SharedBursts,
    Noise::SharedDrift,
    Noise::OwnJitter,
    Noise::OwnStalls,
    Noise::OwnBursts,
    Noise::OwnLongBursts,
];

/// One route of two releases.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Median duration of the baseline, seconds.
    pub median: f64,
    /// Standard deviation of the logarithm of durations.
    pub spread: f64,
    /// Mean requests per window and release.
    pub requests: f64,
    pub noise: Noise,
    /// The candidate's durations are multiplied by this ...
    pub factor: f64,
    /// ... and then grow by this, seconds.
    pub added: f64,
    /// First window with the change.
    pub from: usize,
}

impl Default for Route {
    fn default() -> Route {
        Route {
            median: 0.0015,
            spread: 0.4,
            requests: 50.0,
            noise: Noise::None,
            factor: 1.0,
            added: 0.0,
            from: 0,
        }
    }
}

/// State of the noise between windows.
#[derive(Default)]
pub struct NoiseState {
    drift: f64,
    burst_left: [u32; 2],
}

impl Route {
    /// Histograms of both releases in window `at`.
    pub fn window(&self, at: usize, state: &mut NoiseState, random: &mut Random) -> [Histogram; 2] {
        let mut level = [1.0; 2];
        let mut stalled = [0.0; 2];
        match self.noise {
            Noise::None => {}
            Noise::SharedBursts => {
                if random.chance(0.1) {
                    level = [1.0 + 4.0 * random.uniform(); 2];
                }
            }
            Noise::SharedDrift => {
                state.drift = 0.9 * state.drift + 0.3 * 0.19f64.sqrt() * random.normal();
                level = [state.drift.exp(); 2];
            }
            Noise::OwnJitter => level = level.map(|l| l * (0.05 * random.normal()).exp()),
            Noise::OwnStalls => stalled = stalled.map(|_| if random.chance(0.2) { 0.15 } else { 0.0 }),
            Noise::OwnBursts | Noise::OwnLongBursts => {
                let (chance, length) = if self.noise == Noise::OwnBursts {
                    (1.0 / 60.0, 1)
                } else {
                    (1.0 / 300.0, 3)
                };
                for (left, level) in state.burst_left.iter_mut().zip(&mut level) {
                    if *left == 0 && random.chance(chance) {
                        *left = length;
                    }
                    if *left > 0 {
                        *left -= 1;
                        *level = 3.0;
                    }
                }
            }
        }
        [0, 1].map(|side| {
            let mut histogram = Histogram::new();
            for _ in 0..random.poisson(self.requests) {
                let mut seconds = self.median * level[side] * (self.spread * random.normal()).exp();
                if random.chance(stalled[side]) {
                    seconds += 0.020;
                }
                if side == 1 && at >= self.from {
                    seconds = seconds * self.factor + self.added;
                }
                histogram.record_ns((seconds * 1e9) as u64);
            }
            histogram
        })
    }

    /// Watches a pair of releases, both live all the time, and answers in which window (counted from 0, the
    /// candidate's first) a slowdown was stated.
    pub fn watch(&self, windows: usize, seed: u64, config: &LatencyConfig) -> Option<usize> {
        let (mut random, mut state) = (Random::new(seed), NoiseState::default());
        let mut watch = LatencyWatch::new(config.clone());
        for at in 0..windows {
            let [baseline, candidate] = self.window(at, &mut state, &mut random);
            watch.push(at as i64 * 10, &baseline, &candidate);
        }
        slower_at(&watch)
    }

    /// The same where the candidate replaces the baseline after 30 windows.
    pub fn watch_replaced(&self, windows: usize, seed: u64, config: &LatencyConfig) -> Option<usize> {
        let (mut random, mut state) = (Random::new(seed), NoiseState::default());
        let mut watch = LatencyWatch::new(config.clone());
        let empty = Histogram::new();
        for at in 0..30 + windows {
            let [baseline, candidate] = self.window(at, &mut state, &mut random);
            match at < 30 {
                true => watch.push((at as i64 - 30) * 10, &baseline, &empty),
                false => watch.push((at as i64 - 30) * 10, &empty, &candidate),
            }
        }
        slower_at(&watch)
    }

    /// Share of watches in which a slowdown was stated, and their windows, sorted.
    pub fn operate(&self, runs: u64, windows: usize, config: &LatencyConfig) -> (f64, Vec<usize>) {
        let mut fired: Vec<usize> = (0..runs).filter_map(|seed| self.watch(windows, seed, config)).collect();
        fired.sort_unstable();
        (fired.len() as f64 / runs as f64, fired)
    }
}

fn slower_at(watch: &LatencyWatch) -> Option<usize> {
    let verdict = watch.verdict();
    let slower = verdict.outcome == LatencyOutcome::Slower;
    verdict
        .fired_at_window
        .filter(|_| slower)
        .map(|start| (start / 10) as usize)
}

/// Leaf functions of a route under two frames that hold everything (0: runtime, a library; 1: handler).
#[derive(Debug, Clone, Copy)]
pub struct Profiled {
    pub windows: usize,
    pub requests: f64,
    pub leaves: usize,
    /// Samples per request in all.
    pub samples_per_request: f64,
    /// Standard deviation of the logarithm of each leaf's rate in each window.
    pub burstiness: f64,
    /// This leaf ...
    pub changed: Option<usize>,
    /// ... costs so many times as much in the candidate.
    pub factor: f64,
}

pub const COST_PER_SAMPLE: f64 = 1e9 / 99.0;
pub const RUNTIME: u64 = 0;
pub const HANDLER: u64 = 1;
pub const FIRST_LEAF: u64 = 10;

impl Profiled {
    pub fn draw(&self, seed: u64) -> (Sides<Vec<ExposureWindow>>, Vec<FunctionSeries>) {
        let mut random = Random::new(seed);
        let mut frames = [RUNTIME, HANDLER].map(|id| FunctionSeries {
            function: id,
            is_library: id == RUNTIME,
            callers: if id == HANDLER { vec![RUNTIME] } else { Vec::new() },
            ..FunctionSeries::default()
        });
        let mut leaves: Vec<FunctionSeries> = (0..self.leaves)
            .map(|leaf| FunctionSeries {
                function: FIRST_LEAF + leaf as u64,
                callers: vec![HANDLER],
                ..FunctionSeries::default()
            })
            .collect();
        // Zipf weights.
        let weight_sum: f64 = (1..=self.leaves).map(|rank| 1.0 / rank as f64).sum();
        let mut exposures = Sides::<Vec<ExposureWindow>>::default();
        for side in 0..2 {
            for window in 0..self.windows {
                let start = window as i64 * 10 + side as i64 * 1_000_000;
                let requests = random.poisson(self.requests);
                let mut all = 0;
                for (at, leaf) in leaves.iter_mut().enumerate() {
                    let share = 1.0 / (at + 1) as f64 / weight_sum;
                    let burst = (self.burstiness * random.normal() - 0.5 * self.burstiness * self.burstiness).exp();
                    let factor = if side == 1 && self.changed == Some(at) {
                        self.factor
                    } else {
                        1.0
                    };
                    let samples = random.poisson(requests as f64 * self.samples_per_request * share * burst * factor);
                    all += samples;
                    row(leaf, side, start, samples, samples);
                }
                frames.iter_mut().for_each(|f| row(f, side, start, 0, all));
                let exposure = ExposureWindow {
                    start,
                    exposure: requests as f64,
                };
                if side == 0 {
                    exposures.baseline.push(exposure);
                } else {
                    exposures.candidate.push(exposure);
                }
            }
        }
        (exposures, frames.into_iter().chain(leaves).collect())
    }
}

fn row(series: &mut FunctionSeries, side: usize, start: i64, own: u64, total: u64) {
    let row = FunctionWindow {
        start,
        self_cost: own as f64 * COST_PER_SAMPLE,
        total_cost: total as f64 * COST_PER_SAMPLE,
        self_samples: own,
        total_samples: total,
    };
    if total > 0 {
        if side == 0 {
            series.baseline.push(row);
        } else {
            series.candidate.push(row);
        }
    }
}

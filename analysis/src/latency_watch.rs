//! The latency verdict as a machine that is fed one window after the other; [`crate::latency`] says what it means.
//!
//! Guarantees: what it says about a window depends on the windows fed so far, and once stated, a change stays stated
//! with its dates. Only counts and the last windows of the baseline drive it; the durations of judged windows are kept
//! to show the evidence.
//!
//! Wrong on purpose: it keeps every judged window, about a kilobyte each, so whoever feeds it for days must bound that.
//!
//! One file because it is one machine: each step reads and writes the state that the others do. What is pure of it (quantiles,
//! e-processes, configuration) stands in files of its own.

use std::collections::{BTreeMap, VecDeque};

use emberline_model::{
    alert::ComparisonMode,
    histogram::{Histogram, MIN_INDEX, bucket_index, bucket_upper},
    time::WINDOW_S,
};

use crate::{
    e_process::{Cap, EProcess, Exceedance, Null},
    latency::{
        JudgedWindow, LatencyConfig, LatencyOutcome, LatencyVerdict, LatencyWindow, QuantileEvidence, estimate_quantile,
    },
    statistics::upper_rank,
};

/// Share of the baseline's windows that stay below the threshold in before/after mode.
const RESTLESS_WINDOWS: f64 = 0.9;

/// Windows of either half of the question whether latency still falls.
const FALL_WINDOWS: usize = 2;
/// By so much the later half must be faster to be called falling.
const FALL: f64 = 1.05;
/// And by so many standard deviations.
const FALL_DEVIATIONS: f64 = 2.0;

/// Judges one route of two releases. Windows may be in any order; windows with the same start (for example of several
/// instances) are merged. Pass all windows since the candidate's first request, and the baseline's windows before it:
/// the false-alarm guarantee counts from the first window passed.
pub fn judge_latency(
    baseline: &[LatencyWindow],
    candidate: &[LatencyWindow],
    config: &LatencyConfig,
) -> LatencyVerdict {
    judge_warm_latency(baseline, candidate, &[], config)
}

/// Like [`judge_latency`], but excludes warm-up windows, which only serve to recognise what was slow from the start.
/// The exclusion must not depend on the data (the age of an instance does not): then it does not affect the guarantee.
pub fn judge_warm_latency(
    baseline: &[LatencyWindow],
    candidate: &[LatencyWindow],
    warming: &[LatencyWindow],
    config: &LatencyConfig,
) -> LatencyVerdict {
    let mut windows: BTreeMap<i64, [Histogram; 3]> = BTreeMap::new();
    for (at, side) in [baseline, candidate, warming].into_iter().enumerate() {
        for window in side {
            windows.entry(window.start).or_default()[at].merge(&window.histogram);
        }
    }
    let mut watch = LatencyWatch::new(config.clone());
    for (start, [baseline, candidate, warming]) in &windows {
        watch.push_warming(*start, baseline, candidate, warming);
    }
    watch.verdict()
}

/// Windows judged together: one, or several on a quiet route.
#[derive(Debug, Clone)]
struct Block {
    mode: ComparisonMode,
    first: i64,
    last: i64,
    /// Empty in before/after mode, where the reference serves.
    baseline: Histogram,
    candidate: Histogram,
    /// Windows with requests of the candidate.
    windows: u64,
}

/// A closed block and what was counted in it.
#[derive(Debug, Clone)]
struct JudgedBlock {
    block: Block,
    slower: Vec<Option<Exceedance>>,
    /// Empty in before/after mode.
    faster: Vec<Option<Exceedance>>,
    standing: JudgedWindow,
}

/// A stated change: when, and what it rests on.
#[derive(Debug, Clone, Copy)]
struct Stated {
    at: i64,
    first_block: usize,
    leading: usize,
}

/// A watch over one route of two releases; [`judge_latency`] feeds it a list of windows.
#[derive(Debug, Clone)]
pub struct LatencyWatch {
    config: LatencyConfig,
    slower: EProcess,
    faster: EProcess,
    /// Evidence that there would be, had every request exceeded.
    possible: EProcess,
    stated_slower: Option<Stated>,
    stated_faster: Option<Stated>,
    open: Option<Block>,
    blocks: Vec<JudgedBlock>,
    /// What windows showed in which the candidate was warming up.
    warming: Vec<JudgedWindow>,
    /// The candidate's newest windows, warm or not.
    newest: VecDeque<Histogram>,
    first_candidate: Option<i64>,
    last_baseline: Option<i64>,
    last_candidate: Option<i64>,
    reference_windows: VecDeque<Histogram>,
    reference: Histogram,
    windows_used: u64,
    windows_skipped: u64,
}

impl LatencyWatch {
    /// A watch without any windows.
    pub fn new(config: LatencyConfig) -> LatencyWatch {
        let process = EProcess::new(config.quantiles.len());
        LatencyWatch {
            config,
            slower: process.clone(),
            faster: process.clone(),
            possible: process,
            stated_slower: None,
            stated_faster: None,
            open: None,
            blocks: Vec::new(),
            warming: Vec::new(),
            newest: VecDeque::new(),
            first_candidate: None,
            last_baseline: None,
            last_candidate: None,
            reference_windows: VecDeque::new(),
            reference: Histogram::new(),
            windows_used: 0,
            windows_skipped: 0,
        }
    }

    /// Adds a window; starts must increase. Either histogram may be empty.
    pub fn push(&mut self, start: i64, baseline: &Histogram, candidate: &Histogram) {
        self.push_warming(start, baseline, candidate, &Histogram::new());
    }

    /// The same, with the candidate's requests to instances that were warming up.
    pub fn push_warming(&mut self, start: i64, baseline: &Histogram, candidate: &Histogram, warming: &Histogram) {
        if baseline.count() > 0 {
            self.last_baseline = Some(start);
        }
        let first = if candidate.count() + warming.count() > 0 {
            *self.first_candidate.get_or_insert(start)
        } else {
            self.first_candidate.unwrap_or(start)
        };
        let settle_s = i64::from(self.config.settle_windows) * WINDOW_S;
        // What is stated already recovers by falling.
        if start < first + settle_s && self.stated_slower.is_none() && self.still_falls() {
            self.windows_skipped += u64::from(candidate.count() > 0);
            let mut all = candidate.clone();
            all.merge(warming);
            self.note_warming(start, baseline, &all);
        } else {
            if candidate.count() > 0 {
                self.last_candidate = Some(start);
            }
            self.note_warming(start, baseline, warming);
            self.judge_window(start, baseline, candidate);
        }
        if settle_s > 0 && candidate.count() + warming.count() > 0 {
            let mut all = candidate.clone();
            all.merge(warming);
            self.newest.push_back(all);
            if self.newest.len() > 2 * FALL_WINDOWS {
                self.newest.pop_front();
            }
        }
        if baseline.count() > 0 {
            self.remember_reference(baseline);
        }
    }

    /// Whether the candidate's newest windows are faster than those before them by more than chance.
    fn still_falls(&self) -> bool {
        if self.newest.len() < 2 * FALL_WINDOWS {
            return false;
        }
        let (mut older, mut newer) = (Histogram::new(), Histogram::new());
        for (at, window) in self.newest.iter().enumerate() {
            if at < FALL_WINDOWS { &mut older } else { &mut newer }.merge(window);
        }
        let (n, m) = (older.count(), newer.count());
        let least = self.config.min_block_requests.max(1);
        let Some(median) = older.bucket_at_rank(n.div_ceil(2)).map(bucket_upper) else {
            return false;
        };
        if n < least || m < least {
            return false;
        }
        let slow = newer.count_above(bucket_index(median / FALL).max(MIN_INDEX) - 1) as f64;
        let deviation = (0.25 * m as f64 * (1.0 + m as f64 / n as f64)).sqrt();
        slow < 0.5 * m as f64 - FALL_DEVIATIONS * deviation
    }

    /// Notes what a window shows of instances that warm up.
    fn note_warming(&mut self, start: i64, baseline: &Histogram, warming: &Histogram) {
        if warming.count() == 0 {
            return;
        }
        let least = self.config.min_block_requests.max(1);
        let counts = if baseline.count() >= least {
            self.exceedances_in_same_window(baseline, warming)
        } else {
            self.exceedances_of_reference(warming)
        };
        let mode = if baseline.count() > 0 {
            ComparisonMode::Concurrent
        } else {
            ComparisonMode::BeforeAfter
        };
        let leading = self.slower.leading().0;
        self.warming.push(JudgedWindow {
            window: start,
            mode,
            e_value_ln: self.slower.ln_value(),
            exceeding: counts.get(leading).copied().flatten().is_some_and(|e| e.holds()),
            warming: true,
        });
    }

    fn judge_window(&mut self, start: i64, baseline: &Histogram, candidate: &Histogram) {
        let Some(first_candidate) = self.first_candidate else {
            return;
        };
        let served = u64::from(candidate.count() > 0);
        if start < first_candidate + i64::from(self.config.skip_first_windows) * WINDOW_S {
            self.windows_skipped += served;
            return;
        }
        let live_since = start - i64::from(self.config.live_gap_windows) * WINDOW_S;
        let live = |last: Option<i64>| last.is_some_and(|last| last > live_since);
        if !live(self.last_candidate) {
            return self.drop_open();
        }
        let mode = if live(self.last_baseline) {
            ComparisonMode::Concurrent
        } else {
            ComparisonMode::BeforeAfter
        };
        if self.open.as_ref().is_some_and(|open| open.mode != mode) {
            self.drop_open();
        }
        let open = self.open.get_or_insert_with(|| Block {
            mode,
            first: start,
            last: start,
            baseline: Histogram::new(),
            candidate: Histogram::new(),
            windows: 0,
        });
        open.last = start;
        open.baseline.merge(baseline);
        open.candidate.merge(candidate);
        open.windows += served;
        let least = self.config.min_block_requests.max(1);
        let against = match mode {
            ComparisonMode::Concurrent => open.baseline.count(),
            ComparisonMode::BeforeAfter => self.reference.count(),
        };
        if open.candidate.count() >= least
            && against >= least
            && let Some(block) = self.open.take()
        {
            self.judge_block(block);
        }
    }

    fn drop_open(&mut self) {
        self.windows_skipped += self.open.take().map_or(0, |open| open.windows);
    }

    fn remember_reference(&mut self, baseline: &Histogram) {
        self.reference_windows.push_back(baseline.clone());
        if self.reference_windows.len() > self.config.before_after_windows.max(1) {
            self.reference_windows.pop_front();
        }
        self.reference = Histogram::new();
        self.reference_windows
            .iter()
            .for_each(|window| self.reference.merge(window));
    }

    fn judge_block(&mut self, block: Block) {
        let (alpha, share) = (self.config.alpha, self.config.disturbed_share);
        let (slower, faster, cap) = match block.mode {
            ComparisonMode::Concurrent => (
                self.exceedances_in_same_window(&block.baseline, &block.candidate),
                self.exceedances_in_same_window(&block.candidate, &block.baseline),
                Cap::new(alpha, self.config.min_windows, share),
            ),
            ComparisonMode::BeforeAfter => (
                self.exceedances_of_reference(&block.candidate),
                Vec::new(),
                Cap::new(alpha, self.config.before_after_min_windows, share),
            ),
        };
        let possible: Vec<_> = slower.iter().map(|e| e.map(Exceedance::at_most)).collect();
        self.slower.push(&slower, cap);
        self.possible.push(&possible, cap);
        // Keeps its steps in line with the blocks; a block without entries is a factor of one.
        let nothing = vec![None; self.config.quantiles.len()];
        self.faster
            .push(if faster.is_empty() { &nothing } else { &faster }, cap);

        let leading = self
            .stated_slower
            .map_or_else(|| self.slower.leading().0, |stated| stated.leading);
        let standing = JudgedWindow {
            window: block.last,
            mode: block.mode,
            e_value_ln: self.slower.ln_value(),
            exceeding: slower.get(leading).copied().flatten().is_some_and(|e| e.holds()),
            warming: false,
        };
        self.windows_used += block.windows;
        self.blocks.push(JudgedBlock {
            block,
            slower,
            faster,
            standing,
        });
        if self.stated_slower.is_none() {
            self.stated_slower = self.state(&self.slower, Direction::Slower);
        }
        if self.stated_faster.is_none() {
            self.stated_faster = self.state(&self.faster, Direction::Faster);
        }
    }

    /// Counts against the baseline's quantile of the same block.
    fn exceedances_in_same_window(&self, reference: &Histogram, judged: &Histogram) -> Vec<Option<Exceedance>> {
        let n = reference.count();
        let count = |&q: &f64| {
            let rank = ((q * n as f64).ceil() as u64).clamp(1, n.max(1));
            let null = Null::SameWindow {
                above: (n + 1 - rank) as f64,
                below: rank as f64,
            };
            let quantile = reference.bucket_at_rank(rank).map_or(0.0, bucket_upper);
            (n > 0).then(|| self.exceedance(quantile, judged, null))
        };
        self.config.quantiles.iter().map(count).collect()
    }

    /// Counts against a bound on the quantile of the baseline's last windows.
    fn exceedances_of_reference(&self, judged: &Histogram) -> Vec<Option<Exceedance>> {
        let confidence = 1.0 - self.config.alpha / self.config.quantiles.len().max(1) as f64;
        let count = |&q: &f64| {
            let rank = upper_rank(self.reference.count(), q, confidence)?;
            let bound = self.reference.bucket_at_rank(rank).map_or(0.0, bucket_upper);
            let restless = self.restless_quantile(q);
            Some(self.exceedance(bound.max(restless), judged, Null::Bound { chance: 1.0 - q }))
        };
        self.config.quantiles.iter().map(count).collect()
    }

    /// The quantile in the baseline's restless windows: the one that nine of ten of its windows (joined where they
    /// are small) stay below. A candidate must leave the range in which the baseline wandered by itself.
    fn restless_quantile(&self, q: f64) -> f64 {
        let mut quantiles = Vec::new();
        let mut joined = Histogram::new();
        for window in &self.reference_windows {
            joined.merge(window);
            if joined.count() >= self.config.min_block_requests {
                let rank = ((q * joined.count() as f64).ceil() as u64).max(1);
                quantiles.push(joined.bucket_at_rank(rank).map_or(0.0, bucket_upper));
                joined = Histogram::new();
            }
        }
        quantiles.sort_by(f64::total_cmp);
        let at = (RESTLESS_WINDOWS * quantiles.len() as f64).ceil() as usize;
        quantiles.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    fn exceedance(&self, quantile: f64, judged: &Histogram, null: Null) -> Exceedance {
        let threshold = self.above_floor(quantile);
        let bucket = if threshold > 0.0 {
            bucket_index(threshold)
        } else {
            MIN_INDEX - 1
        };
        Exceedance {
            above: judged.count_above(bucket),
            requests: judged.count(),
            null,
        }
    }

    /// The value that a growth worth stating must pass.
    fn above_floor(&self, seconds: f64) -> f64 {
        (seconds * (1.0 + self.config.floor_relative)).max(seconds + self.config.floor_seconds)
    }

    /// Whether the newest block completes a verdict.
    fn state(&self, process: &EProcess, direction: Direction) -> Option<Stated> {
        if process.ln_value() < (1.0 / self.config.alpha).ln() {
            return None;
        }
        let (leading, first_block) = process.leading();
        let evidence = self.blocks.get(first_block..)?;
        let carries = |block: &&JudgedBlock| {
            let counts = if direction == Direction::Slower {
                &block.slower
            } else {
                &block.faster
            };
            counts.get(leading).copied().flatten().is_some_and(|e| e.holds())
        };
        if evidence.iter().filter(carries).count() < self.config.min_windows as usize {
            return None;
        }
        let (baseline, candidate, _) = self.pool(evidence);
        if baseline.count().min(candidate.count()) < self.config.min_requests {
            return None;
        }
        // The evidence as it will be shown must agree; it can disagree when traffic moves between quiet and busy hours.
        let (slow, fast) = if direction == Direction::Slower {
            (&candidate, &baseline)
        } else {
            (&baseline, &candidate)
        };
        let quantile = self.config.quantiles[leading];
        let agrees = slow.quantile(quantile)? > self.above_floor(fast.quantile(quantile)?);
        agrees.then_some(Stated {
            at: evidence.last()?.block.last,
            first_block,
            leading,
        })
    }

    /// Durations of both releases behind some blocks. One before/after block makes all of it before/after: the
    /// reference must not be counted once per block.
    fn pool(&self, blocks: &[JudgedBlock]) -> (Histogram, Histogram, ComparisonMode) {
        let (mut baseline, mut candidate) = (Histogram::new(), Histogram::new());
        for judged in blocks {
            baseline.merge(&judged.block.baseline);
            candidate.merge(&judged.block.candidate);
        }
        if blocks
            .iter()
            .any(|judged| judged.block.mode == ComparisonMode::BeforeAfter)
        {
            return (self.reference.clone(), candidate, ComparisonMode::BeforeAfter);
        }
        (baseline, candidate, ComparisonMode::Concurrent)
    }

    /// The verdict on all windows so far.
    pub fn verdict(&self) -> LatencyVerdict {
        let needed = (1.0 / self.config.alpha).ln();
        let (outcome, stated) = match (self.stated_slower, self.stated_faster) {
            (Some(slower), _) => (LatencyOutcome::Slower, Some(slower)),
            (None, Some(faster)) => (LatencyOutcome::Faster, Some(faster)),
            (None, None) => (self.nothing_stated(needed), None),
        };
        let direction = if outcome == LatencyOutcome::Faster {
            Direction::Faster
        } else {
            Direction::Slower
        };
        let process = if direction == Direction::Faster {
            &self.faster
        } else {
            &self.slower
        };
        let evidence = &self.blocks[stated.map_or(0, |stated| stated.first_block)..];
        let (baseline, candidate, mode) = self.pool(evidence);
        let leading = stated.map_or_else(|| process.leading().0, |stated| stated.leading);
        let quantiles: Vec<QuantileEvidence> = (0..self.config.quantiles.len())
            .map(|at| self.quantile_evidence(at, evidence, direction, process, (&baseline, &candidate)))
            .collect();
        let shift = quantiles
            .get(leading)
            .and_then(|q| Some(q.candidate?.value - q.baseline?.value));
        LatencyVerdict {
            outcome,
            mode,
            fired_at_window: stated.map(|stated| stated.at),
            since_window: stated.and_then(|_| evidence.first()).map(|judged| judged.block.first),
            e_value_ln: process.ln_value(),
            e_value_ln_peak: process.ln_peak(),
            e_value_ln_needed: needed,
            alpha: self.config.alpha,
            leading_quantile: self.config.quantiles.get(leading).copied(),
            quantiles,
            shift_seconds: shift,
            mean_shift_seconds: candidate.mean().and_then(|mean| Some(mean - baseline.mean()?)),
            n_baseline: baseline.count(),
            n_candidate: candidate.count(),
            baseline,
            candidate,
            windows_used: self.windows_used,
            windows_skipped: self.windows_skipped + self.open.as_ref().map_or(0, |open| open.windows),
            judged: self.judged(),
        }
    }

    /// What stood after each window, those of warming instances included.
    fn judged(&self) -> Vec<JudgedWindow> {
        let blocks = self.blocks.iter().map(|judged| judged.standing);
        let mut judged: Vec<JudgedWindow> = self.warming.iter().copied().chain(blocks).collect();
        judged.sort_by_key(|judged| judged.window);
        judged
    }

    fn nothing_stated(&self, needed_ln: f64) -> LatencyOutcome {
        let least = self
            .config
            .min_requests
            .max(self.config.min_block_requests * u64::from(self.config.min_windows));
        let (baseline, candidate, _) = self.pool(&self.blocks);
        let seen = baseline.count().min(candidate.count());
        if self.possible.ln_peak() >= needed_ln && seen >= least {
            return LatencyOutcome::NoChange;
        }
        let blocks = self.blocks.len() as f64;
        if seen == 0 {
            return LatencyOutcome::TooFewSamples { needed_requests: least };
        }
        let blocks_needed = (blocks * needed_ln / self.possible.ln_peak().max(0.1))
            .ceil()
            .max(blocks + 1.0);
        let needed = (seen as f64 / blocks * blocks_needed).ceil() as u64;
        LatencyOutcome::TooFewSamples {
            needed_requests: needed.max(least),
        }
    }

    fn quantile_evidence(
        &self,
        at: usize,
        evidence: &[JudgedBlock],
        direction: Direction,
        process: &EProcess,
        (baseline, candidate): (&Histogram, &Histogram),
    ) -> QuantileEvidence {
        let quantile = self.config.quantiles[at];
        let counts = |judged: &JudgedBlock| match direction {
            Direction::Slower => judged.slower.get(at).copied().flatten(),
            Direction::Faster => judged.faster.get(at).copied().flatten(),
        };
        let all: Vec<Exceedance> = evidence.iter().filter_map(counts).collect();
        QuantileEvidence {
            quantile,
            baseline: estimate_quantile(baseline, quantile),
            candidate: estimate_quantile(candidate, quantile),
            exceedances: all.iter().map(|e| e.above).sum(),
            expected: all.iter().map(|e| e.null.share() * e.requests as f64).sum(),
            requests: all.iter().map(|e| e.requests).sum(),
            e_value_ln: process.ln_value_of(at),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Slower,
    Faster,
}

//! The latency verdict as a machine that is fed one window after the other; [`crate::latency`] says what it means.
//!
//! Guarantees: what it says about a window depends on the windows fed so far, and once stated, a change stays stated
//! with its dates. A window costs what is in it, and what a watch keeps does not grow with the time ([`crate::latency_past`]), but
//! for what windows showed, until that is taken ([`LatencyWatch::take_judged`]).
//!
//! One file because it is one machine: each step reads and writes the state that the others do. What is pure of it stands in
//! files of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use emberline_model::{alert::ComparisonMode, histogram::Histogram, time::WINDOW_S};

use crate::{
    blocks,
    e_process::{ALTERNATIVES, EProcess},
    latency::{HeldBack, JudgedWindow, LatencyConfig, LatencyVerdict, LatencyWindow},
    latency_past::Past,
    latency_reference::{EFFECTS, ODDS, Reference, Settled, buckets_of},
    latency_sums::Pooled,
    levels::SmallLevel,
    packed::Log,
    strata::{Counts, Ranks, Tilt},
    stratum::{Stratum, counts},
};

/// The most a stratum says, as a share of what a verdict needs: one window never carries one.
const MOST_OF_STRATUM: f64 = 0.5;
/// A release whose requests are rare is live for so many times their mean distance after the last one.
const RARE: f64 = 8.0;
/// And at most for so many windows.
const RARE_MOST_WINDOWS: i64 = 60;
/// Without its baseline a candidate is judged for so many seconds, if nothing was stated: what is slow later may be the hour's doing.
const AFTER_S: i64 = 3_600;
/// Seconds after a statement whose windows are still evidence.
const SHOWN_S: i64 = 300;
/// Windows whose ranks are kept, to see whether what is gross falls.
const NEWEST: usize = 30;

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

/// A stated change: when, and what it rests on.
#[derive(Debug, Clone)]
pub(crate) struct Stated {
    pub(crate) at: i64,
    /// When it most likely began.
    pub(crate) first: i64,
    /// 0 for ranks, then the quantiles.
    pub(crate) feature: usize,
    /// The baseline's last window with requests, as of the statement.
    pub(crate) last_baseline: Option<i64>,
    /// Requests of the blocks since it began that are over, until some minutes after the statement.
    pub(crate) evidence: Pooled,
}

impl Stated {
    /// Whether a block is shown as evidence: what comes long after the statement may be its end.
    pub(crate) fn shows(&self, block: i64, block_s: i64) -> bool {
        (block + 1) * block_s <= self.at + SHOWN_S
    }
}

/// Both witnesses of one direction.
#[derive(Debug, Clone)]
pub(crate) struct Witnesses {
    pub(crate) requests: EProcess,
    pub(crate) blocks: EProcess,
}

impl Witnesses {
    fn new(features: usize) -> Witnesses {
        Witnesses {
            requests: EProcess::new(features),
            blocks: EProcess::new(features),
        }
    }

    pub(crate) fn are_sure(&self, config: &LatencyConfig) -> bool {
        self.requests.ln_value() >= needed_ln(config.alpha) && self.blocks.ln_value() >= needed_ln(config.block_alpha)
    }
}

/// Seconds of a block.
fn block_s(config: &LatencyConfig) -> i64 {
    i64::from(config.block_windows.max(1)) * WINDOW_S
}

/// Natural logarithm of the e-value needed at `alpha`.
pub(crate) fn needed_ln(alpha: f64) -> f64 {
    (1.0 / alpha).ln()
}

/// A watch over one route of two releases; [`judge_latency`] feeds it a list of windows.
#[derive(Debug, Clone)]
pub struct LatencyWatch {
    pub(crate) config: Arc<LatencyConfig>,
    pub(crate) slower: Witnesses,
    pub(crate) faster: Witnesses,
    /// Evidence that there would be, had every request taken longer: of ranks alone, the quantiles add nothing then.
    pub(crate) possible: Witnesses,
    pub(crate) stated_slower: Option<Box<Stated>>,
    pub(crate) stated_faster: Option<Box<Stated>>,
    pub(crate) held_back: Option<HeldBack>,
    /// Whether a gross slowdown lasts: each window is a block, those of warming instances included.
    pub(crate) lasting: EProcess,
    /// Effects and variances of the newest windows behind it.
    pub(crate) newest: VecDeque<SmallLevel>,
    open: Option<Stratum>,
    /// Windows of the candidate since the baseline's last request, whole blocks that no stratum has taken: it may be gone.
    silent: Log,
    /// The block of time that is being filled, by its number.
    pub(crate) block: Option<(i64, Stratum)>,
    /// Blocks that the newest window ended.
    finished: Vec<(i64, Stratum)>,
    pub(crate) past: Past,
    /// What windows showed, until it is taken.
    judged: Vec<JudgedWindow>,
    /// The first window and the newest.
    origin: Option<i64>,
    pub(crate) now: i64,
    pub(crate) first_candidate: Option<i64>,
    pub(crate) last_baseline: Option<i64>,
    last_candidate: Option<i64>,
    candidates: u64,
    pub(crate) reference: Reference,
    /// What a candidate that came later is compared with, once it is needed.
    pub(crate) settled: Option<Box<Settled>>,
    pub(crate) windows_used: u64,
    windows_skipped: u64,
}

impl LatencyWatch {
    /// A watch without any windows; many may share one configuration.
    pub fn new(config: impl Into<Arc<LatencyConfig>>) -> LatencyWatch {
        let config = config.into();
        let features = 1 + config.quantiles.len();
        let block_windows = i64::from(config.block_windows.max(1));
        let reference_blocks = i64::try_from(config.reference_windows).unwrap_or(i64::MAX) / block_windows;
        let block_s = block_s(&config);
        LatencyWatch {
            slower: Witnesses::new(features),
            faster: Witnesses::new(features),
            possible: Witnesses::new(1),
            stated_slower: None,
            stated_faster: None,
            held_back: None,
            lasting: EProcess::new(1),
            newest: VecDeque::new(),
            open: None,
            silent: Log::default(),
            block: None,
            finished: Vec::new(),
            past: Past::new(block_s, reference_blocks),
            judged: Vec::new(),
            origin: None,
            now: 0,
            first_candidate: None,
            last_baseline: None,
            last_candidate: None,
            candidates: 0,
            reference: Reference::new(&config, block_s),
            settled: None,
            windows_used: 0,
            windows_skipped: 0,
            config,
        }
    }

    /// Adds a window; starts must increase. Either histogram may be empty.
    pub fn push(&mut self, start: i64, baseline: &Histogram, candidate: &Histogram) {
        self.push_warming(start, baseline, candidate, &Histogram::new());
    }

    /// The same, with the candidate's requests to instances that were warming up.
    pub fn push_warming(&mut self, start: i64, baseline: &Histogram, candidate: &Histogram, warming: &Histogram) {
        self.now = start;
        self.origin.get_or_insert(start);
        // What it had before this window is known before this window is judged.
        self.reference.advance(start, &self.config.quantiles);
        if baseline.count() > 0 {
            self.last_baseline = Some(start);
        }
        if candidate.count() > 0 {
            self.last_candidate = Some(start);
            self.candidates += candidate.count();
        }
        if candidate.count() + warming.count() > 0 {
            self.first_candidate.get_or_insert(start);
        }
        self.note_warming(start, baseline, warming);
        self.note_lasting(baseline, candidate, warming);
        self.judge_window(start, baseline, candidate);
        self.reference.push(start, baseline, &self.config.quantiles);
        if baseline.count() > 0 {
            self.settled = None;
        }
        let (finished, block_s) = (std::mem::take(&mut self.finished), self.block_s());
        for (number, block) in &finished {
            self.past.push(*number, block, &self.reference);
            let stated = [&mut self.stated_slower, &mut self.stated_faster];
            for stated in stated
                .into_iter()
                .flatten()
                .filter(|stated| stated.shows(*number, block_s))
            {
                stated.evidence.add(block, &self.reference);
            }
        }
        self.state(!finished.is_empty());
    }

    /// The window at which a slowdown was stated: cheaper to ask than for the whole verdict.
    pub fn stated_at(&self) -> Option<i64> {
        self.stated_slower.as_ref().map(|stated| stated.at)
    }

    /// Windows with requests of the candidate that were judged.
    pub fn windows_used(&self) -> u64 {
        self.windows_used
    }

    /// Forgets what was stated and the evidence so far, and goes on with what is known of the baseline: for a slowdown that is over.
    /// The bound on false statements holds anew from here.
    pub fn begin_anew(&mut self) {
        let features = 1 + self.config.quantiles.len();
        self.slower = Witnesses::new(features);
        self.faster = Witnesses::new(features);
        self.possible = Witnesses::new(1);
        self.lasting = EProcess::new(1);
        self.newest = VecDeque::new();
        (self.stated_slower, self.stated_faster, self.held_back) = (None, None, None);
        // Windows that are joined already belong to what is over.
        self.drop_open();
    }

    /// What windows showed since this was last asked for, in the order in which it became known; those of warming instances included.
    pub fn take_judged(&mut self) -> Vec<JudgedWindow> {
        std::mem::take(&mut self.judged)
    }

    /// Bytes that the watch takes, as far as it asked for them.
    pub fn bytes(&self) -> usize {
        let histogram = |histogram: &Histogram| 16 * histogram.buckets().len();
        let stratum = |of: &Stratum| histogram(&of.baseline) + histogram(&of.candidate) + 4 * of.thresholds.len();
        let witnesses = |of: &Witnesses| of.requests.heap_bytes() + of.blocks.heap_bytes();
        let evidence =
            |of: &Stated| size_of::<Stated>() + histogram(&of.evidence.baseline) + histogram(&of.evidence.candidate);
        let stated = [&self.stated_slower, &self.stated_faster];
        size_of::<LatencyWatch>()
            + [&self.slower, &self.faster, &self.possible]
                .map(witnesses)
                .iter()
                .sum::<usize>()
            + stated.into_iter().flatten().map(|of| evidence(of)).sum::<usize>()
            + self.lasting.heap_bytes()
            + size_of::<SmallLevel>() * self.newest.capacity()
            + self.open.as_ref().map_or(0, stratum)
            + self.block.as_ref().map_or(0, |(_, block)| stratum(block))
            + self.silent.heap_bytes()
            + self.past.heap_bytes()
            + size_of::<JudgedWindow>() * self.judged.capacity()
            + self.reference.heap_bytes()
            + self.settled.as_ref().map_or(0, |settled| settled.heap_bytes())
    }

    /// What a beginning in this stratum is called.
    fn label(&self, first: i64) -> i32 {
        i32::try_from(first - self.origin.unwrap_or(first)).unwrap_or(i32::MAX)
    }

    pub(crate) fn began(&self, label: i32) -> i64 {
        self.origin.unwrap_or(0) + i64::from(label)
    }

    /// Notes what a window shows of instances that warm up.
    fn note_warming(&mut self, start: i64, baseline: &Histogram, warming: &Histogram) {
        if warming.count() == 0 {
            return;
        }
        let mode = if baseline.count() > 0 {
            ComparisonMode::Concurrent
        } else {
            ComparisonMode::BeforeAfter
        };
        let exceeding = if baseline.count() > 0 {
            self.exceeds(baseline, warming, 0)
        } else {
            self.exceeds(&self.reference.pooled(), warming, 0)
        };
        self.judged.push(JudgedWindow {
            window: start,
            mode,
            e_value_ln: self.slower.requests.ln_value(),
            exceeding,
            warming: true,
        });
    }

    /// Notes whether most of the candidate's requests took longer in a window.
    fn note_lasting(&mut self, baseline: &Histogram, candidate: &Histogram, warming: &Histogram) {
        let ranks = match (&self.settled, baseline.count()) {
            (Some(settled), 0) => self.ranks_of_all(&settled.pooled, candidate, warming),
            _ => self.ranks_of_all(baseline, candidate, warming),
        };
        if ranks.baseline.min(ranks.candidate) > 0 {
            self.lasting.step([blocks::ln_factors_of_gross(ranks.position())]);
            if self.newest.len() == NEWEST {
                self.newest.pop_front();
            }
            self.newest
                .push_back(SmallLevel::of((ranks.effect(), ranks.variance())));
        }
    }

    fn ranks_of_all(&self, baseline: &Histogram, candidate: &Histogram, warming: &Histogram) -> Ranks {
        let down = self.down();
        if warming.count() == 0 {
            return Ranks::of(baseline, candidate, down);
        }
        let mut all = candidate.clone();
        all.merge(warming);
        Ranks::of(baseline, &all, down)
    }

    /// The mode in which a window is judged; `None` while the candidate is silent, or the baseline gone for long.
    fn mode(&self, start: i64) -> Option<ComparisonMode> {
        let live = |last: Option<i64>, seconds_per_request: Option<f64>| {
            let rare = seconds_per_request.map_or(0, |seconds| (RARE * seconds / WINDOW_S as f64) as i64);
            let gap = i64::from(self.config.live_gap_windows).max(rare.min(RARE_MOST_WINDOWS));
            last.is_some_and(|last| last > start - gap * WINDOW_S)
        };
        let served_s = (start + WINDOW_S - self.first_candidate?) as f64;
        if !live(self.last_candidate, Some(served_s / self.candidates.max(1) as f64)) {
            return None;
        }
        if live(self.last_baseline, self.reference.seconds_per_request()) {
            return Some(ComparisonMode::Concurrent);
        }
        // How a stated slowdown goes on is followed for as long as it is asked for.
        let is_followed = self.stated_slower.is_some();
        let is_recent = self.last_baseline.is_none_or(|last| start - last <= AFTER_S);
        (is_followed || is_recent).then_some(ComparisonMode::BeforeAfter)
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
        let Some(mode) = self.mode(start) else {
            self.block = None;
            return self.drop_open();
        };
        if self.open.as_ref().is_some_and(|open| open.mode != mode) {
            self.drop_open();
            self.block = None;
            if mode == ComparisonMode::BeforeAfter {
                let silent = std::mem::take(&mut self.silent);
                if let Some(first) = silent.front() {
                    self.past.truncate(first.div_euclid(self.block_s()));
                }
                for window in silent.iter() {
                    self.take(window.number, mode, &Histogram::new(), &window.histogram());
                }
            }
        }
        if mode == ComparisonMode::Concurrent {
            if baseline.count() > 0 {
                self.silent = Log::default();
            } else if self.silent.front().is_some() || start.rem_euclid(self.block_s()) == 0 {
                self.silent.push(start, 0, &[candidate]);
            }
        }
        self.take(start, mode, baseline, candidate);
    }

    /// Takes a window into its stratum and its block, and judges what is full.
    fn take(&mut self, start: i64, mode: ComparisonMode, baseline: &Histogram, candidate: &Histogram) {
        self.fill_block(start, mode, baseline, candidate);
        if self.open.is_none() {
            self.open = Some(Stratum::new(mode, start, self.thresholds()));
        }
        if let Some(open) = &mut self.open {
            open.add(start, baseline, candidate);
        }
        let least = self.config.min_stratum_requests.max(1);
        let is_full = match mode {
            ComparisonMode::Concurrent => self.open.as_ref().is_some_and(|open| open.baseline.count() >= least),
            // A level of its own belongs to a block and not to each window.
            ComparisonMode::BeforeAfter => self.ends_block(start),
        };
        let open = self.open.take_if(|open| is_full && open.candidate.count() >= least);
        if let Some(stratum) = open {
            match mode {
                ComparisonMode::Concurrent => {
                    self.silent = Log::default();
                    self.judge_concurrent(&stratum);
                }
                ComparisonMode::BeforeAfter => self.judge_after(&stratum),
            }
        }
        if self.ends_block(start) {
            self.finish_block();
        }
    }

    fn finish_block(&mut self) {
        let Some((number, block)) = self.block.take() else {
            return;
        };
        if block.mode == ComparisonMode::Concurrent {
            self.witness(&block);
        }
        if block.candidate.count() > 0 {
            self.finished.push((number, block));
        }
    }

    fn ends_block(&self, start: i64) -> bool {
        let block_s = self.block_s();
        (start + WINDOW_S).rem_euclid(block_s) == 0
    }

    pub(crate) fn block_s(&self) -> i64 {
        block_s(&self.config)
    }

    fn fill_block(&mut self, start: i64, mode: ComparisonMode, baseline: &Histogram, candidate: &Histogram) {
        let number = start.div_euclid(self.block_s());
        // Windows may be missing, and longer than ours.
        if self.block.as_ref().is_some_and(|(at, _)| *at != number) {
            self.finish_block();
        }
        if self.block.is_none() {
            self.block = Some((number, Stratum::new(mode, start, self.thresholds())));
        }
        if let Some((_, block)) = &mut self.block {
            block.add(start, baseline, candidate);
        }
    }

    fn drop_open(&mut self) {
        self.windows_skipped += self.open.take().map_or(0, |open| open.windows);
    }

    /// Buckets that the candidate is moved down by before it is compared.
    fn down(&self) -> i16 {
        buckets_of(self.config.tested_relative)
    }

    fn thresholds(&self) -> Vec<Option<i16>> {
        self.reference.thresholds(self.config.min_requests)
    }

    fn judge_concurrent(&mut self, stratum: &Stratum) {
        let down = self.down();
        let (b, c) = (&stratum.baseline, &stratum.candidate);
        let most = MOST_OF_STRATUM * needed_ln(self.config.alpha);
        let cut = |factors: [f64; ALTERNATIVES]| factors.map(|ln| ln.min(most));
        let ranks = Ranks::of(b, c, down);
        let tilts: [Tilt; ALTERNATIVES] = ranks.tilts(EFFECTS);
        let factors = |ranks: Ranks, b: &Histogram, c: &Histogram| -> Vec<[f64; ALTERNATIVES]> {
            let of_counts = stratum.thresholds.iter().map(|threshold| {
                let counts: Option<Counts> = threshold.map(|threshold| counts(b, c, threshold, down));
                cut(counts.map_or([0.0; ALTERNATIVES], |counts| counts.ln_factors(ODDS)))
            });
            std::iter::once(cut(ranks.ln_factors(&tilts)))
                .chain(of_counts)
                .collect()
        };
        let at = self.label(stratum.first);
        self.slower.requests.step_at(at, factors(ranks, b, c));
        self.faster.requests.step_at(at, factors(Ranks::of(c, b, down), c, b));
        let all_slower = Ranks {
            slower_pairs: ranks.baseline as f64 * ranks.candidate as f64,
            ..ranks
        };
        self.possible.requests.step([cut(all_slower.ln_factors(&tilts))]);
        self.keep(stratum);
    }

    fn witness(&mut self, block: &Stratum) {
        let (b, c) = (&block.baseline, &block.candidate);
        if b.count().min(c.count()) == 0 {
            return;
        }
        let down = self.down();
        let thresholds = &block.thresholds;
        let positions = |b: &Histogram, c: &Histogram| {
            let of_counts = thresholds
                .iter()
                .map(|t| t.map_or(0.5, |t| counts(b, c, t, down).position()));
            let all: Vec<f64> = std::iter::once(Ranks::of(b, c, down).position())
                .chain(of_counts)
                .collect();
            all.into_iter().map(blocks::ln_factors)
        };
        self.slower.blocks.step(positions(b, c));
        self.faster.blocks.step(positions(c, b));
        self.possible.blocks.step([blocks::ln_factors(1.0)]);
    }

    /// A block of a candidate whose baseline is gone.
    fn judge_after(&mut self, stratum: &Stratum) {
        if self.settled.is_none() {
            let down = buckets_of(self.config.before_after_tested_relative);
            let (quantiles, least) = (&self.config.quantiles, self.config.min_requests);
            self.settled = self.reference.settled(quantiles, down, least).map(Box::new);
        }
        let Some(settled) = &self.settled else {
            self.windows_skipped += stratum.windows;
            return;
        };
        let most = MOST_OF_STRATUM * needed_ln(self.config.alpha);
        let by_ranks = settled.by_ranks(&stratum.candidate);
        let mut factors = vec![by_ranks.ln_factors];
        let mut positions = vec![by_ranks.position];
        for at in 0..self.config.quantiles.len() {
            let compared = settled.by_threshold(at, &stratum.candidate);
            factors.push(compared.as_ref().map_or([0.0; ALTERNATIVES], |c| c.ln_factors));
            positions.push(compared.as_ref().map_or(0.5, |c| c.position));
        }
        let cut = |factors: [f64; ALTERNATIVES]| factors.map(|ln| ln.min(most));
        let at = self.label(stratum.first);
        self.slower.requests.step_at(at, factors.into_iter().map(cut));
        self.slower.blocks.step(positions.into_iter().map(blocks::ln_factors));
        self.possible.requests.step([[most; ALTERNATIVES]]);
        self.possible.blocks.step([blocks::ln_factors(1.0)]);
        // Keeps its steps in line: a stratum that says nothing is a factor of one.
        let nothing = || vec![[0.0; ALTERNATIVES]; 1 + self.config.quantiles.len()];
        self.faster.requests.step_at(at, nothing());
        self.faster.blocks.step(nothing());
        self.keep(stratum);
    }

    fn keep(&mut self, stratum: &Stratum) {
        let feature = self
            .stated_slower
            .as_ref()
            .map_or_else(|| self.slower.requests.leading().0, |stated| stated.feature);
        let exceeding = match (stratum.mode, &self.settled) {
            (ComparisonMode::BeforeAfter, Some(settled)) => self.exceeds(&settled.pooled, &stratum.candidate, feature),
            _ => self.exceeds(&stratum.baseline, &stratum.candidate, feature),
        };
        self.windows_used += stratum.windows;
        self.judged.push(JudgedWindow {
            window: stratum.last,
            mode: stratum.mode,
            e_value_ln: self.slower.requests.ln_value(),
            exceeding,
            warming: false,
        });
    }

    /// Whether more of the candidate's requests than expected lie above the baseline's by what is worth stating.
    fn exceeds(&self, baseline: &Histogram, candidate: &Histogram, feature: usize) -> bool {
        let down = buckets_of(self.config.floor_relative);
        match feature
            .checked_sub(1)
            .and_then(|at| self.thresholds().get(at).copied().flatten())
        {
            Some(threshold) if feature > 1 => counts(baseline, candidate, threshold, down / 2).effect() > 0.0,
            _ => Ranks::of(baseline, candidate, down).effect() > 0.0,
        }
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.windows_skipped + self.open.as_ref().map_or(0, |open| open.windows)
    }

    /// What windows showed and was not taken, in order of time.
    pub(crate) fn standings(&self) -> Vec<JudgedWindow> {
        let mut all = self.judged.clone();
        // Of one window, what warming instances showed stands first.
        all.sort_by_key(|judged| (judged.window, !judged.warming));
        all
    }
}

//! The latency verdict as a machine that is fed one window after the other; [`crate::latency`] says what it means.
//!
//! Guarantees: what it says about a window depends on the windows fed so far, and once stated, a change stays stated
//! with its dates. Only counts and the last windows of the baseline drive it; the durations of judged windows are kept
//! to show the evidence.
//!
//! Wrong on purpose: it keeps every judged window, about a kilobyte each, so whoever feeds it for days must bound that.
//!
//! One file because it is one machine: each step reads and writes the state that the others do. What is pure of it stands in
//! files of its own.

use std::collections::BTreeMap;

use emberline_model::{alert::ComparisonMode, histogram::Histogram, time::WINDOW_S};

use crate::{
    blocks,
    e_process::{ALTERNATIVES, EProcess},
    latency::{HeldBack, JudgedWindow, LatencyConfig, LatencyVerdict, LatencyWindow},
    latency_reference::{EFFECTS, ODDS, Reference, SPAN_S, Settled, buckets_of},
    latency_sums::{Pooled, Spans, Sums},
    strata::{Counts, Ranks},
    stratum::{Judged, Stratum, at_most, counts},
};

/// The most a stratum says, as a share of what a verdict needs: one window never carries one.
const MOST_OF_STRATUM: f64 = 0.5;
/// A release whose requests are rare is live for so many times their mean distance after the last one.
const RARE: f64 = 8.0;
/// And at most for so many windows.
const RARE_MOST_WINDOWS: i64 = 60;

/// What takes so many times as long is gross.
const GROSS: f64 = 2.5;
/// What begins so many seconds after the release, ...
const LATE_S: i64 = 600;
/// ... must be so many times as large.
const LATE_FLOORS: f64 = 3.0;

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stated {
    pub(crate) at: i64,
    pub(crate) first: usize,
    /// 0 for ranks, then the quantiles.
    pub(crate) feature: usize,
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

    fn are_sure(&self, config: &LatencyConfig) -> bool {
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
    pub(crate) config: LatencyConfig,
    pub(crate) slower: Witnesses,
    pub(crate) faster: Witnesses,
    /// Evidence that there would be, had every request taken longer.
    pub(crate) possible: Witnesses,
    pub(crate) stated_slower: Option<Stated>,
    pub(crate) stated_faster: Option<Stated>,
    pub(crate) held_back: Option<HeldBack>,
    /// Whether a gross slowdown lasts: each window is a block, those of warming instances included.
    lasting: EProcess,
    /// Ranks of the windows behind it.
    pub(crate) newest: Vec<Ranks>,
    open: Option<Stratum>,
    /// Windows of the candidate since the baseline's last request, whole blocks that no stratum has taken: it may be gone.
    silent: Vec<(i64, Histogram)>,
    /// The block of time that is being filled, by its number.
    block: Option<(i64, Stratum)>,
    pub(crate) judged: Vec<Judged>,
    /// The same joined by block, and by longer span.
    pub(crate) by_block: Spans,
    pub(crate) by_span: Spans,
    sums: Sums,
    /// What windows showed in which the candidate was warming up.
    warming: Vec<JudgedWindow>,
    /// The newest window.
    now: i64,
    first_candidate: Option<i64>,
    last_baseline: Option<i64>,
    last_candidate: Option<i64>,
    candidates: u64,
    pub(crate) reference: Reference,
    /// What a candidate that came later is compared with, once it is needed.
    pub(crate) settled: Option<Settled>,
    pub(crate) windows_used: u64,
    windows_skipped: u64,
}

impl LatencyWatch {
    /// A watch without any windows.
    pub fn new(config: LatencyConfig) -> LatencyWatch {
        let witnesses = Witnesses::new(1 + config.quantiles.len());
        LatencyWatch {
            slower: witnesses.clone(),
            faster: witnesses.clone(),
            possible: witnesses,
            stated_slower: None,
            stated_faster: None,
            held_back: None,
            lasting: EProcess::new(1),
            newest: Vec::new(),
            open: None,
            silent: Vec::new(),
            block: None,
            judged: Vec::new(),
            by_block: Spans::new(block_s(&config)),
            by_span: Spans::new(SPAN_S),
            sums: Sums::default(),
            warming: Vec::new(),
            now: 0,
            first_candidate: None,
            last_baseline: None,
            last_candidate: None,
            candidates: 0,
            reference: Reference::new(config.reference_windows, block_s(&config)),
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
        if baseline.count() > 0 {
            self.reference.push(start, baseline);
            self.settled = None;
        }
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
        self.warming.push(JudgedWindow {
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
            self.newest.push(ranks);
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

    /// The mode in which a window is judged; `None` while the candidate is silent.
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
        Some(match live(self.last_baseline, self.reference.seconds_per_request()) {
            true => ComparisonMode::Concurrent,
            false => ComparisonMode::BeforeAfter,
        })
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
                for (start, candidate) in std::mem::take(&mut self.silent) {
                    self.take(start, mode, &Histogram::new(), &candidate);
                }
            }
        }
        if mode == ComparisonMode::Concurrent {
            if baseline.count() > 0 {
                self.silent.clear();
            } else if !self.silent.is_empty() || start.rem_euclid(self.block_s()) == 0 {
                self.silent.push((start, candidate.clone()));
            }
        }
        self.take(start, mode, baseline, candidate);
        self.state();
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
                    self.silent.clear();
                    self.judge_concurrent(stratum);
                }
                ComparisonMode::BeforeAfter => self.judge_after(stratum),
            }
        }
        if self.ends_block(start)
            && let Some((_, block)) = self.block.take()
            && block.mode == ComparisonMode::Concurrent
        {
            self.witness(&block);
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
        if self.block.as_ref().is_some_and(|(at, _)| *at != number)
            && let Some((_, block)) = self.block.take()
            && block.mode == ComparisonMode::Concurrent
        {
            self.witness(&block);
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
        let least = self.config.min_requests;
        self.config
            .quantiles
            .iter()
            .map(|&q| self.reference.threshold(q, least))
            .collect()
    }

    fn judge_concurrent(&mut self, stratum: Stratum) {
        let down = self.down();
        let (b, c) = (&stratum.baseline, &stratum.candidate);
        let thresholds = &stratum.thresholds;
        let most = MOST_OF_STRATUM * needed_ln(self.config.alpha);
        let cut = |factors: [f64; ALTERNATIVES]| factors.map(|ln| ln.min(most));
        let (ranks, back) = (Ranks::of(b, c, down), Ranks::of(c, b, down));
        let count = |(b, c): (&Histogram, &Histogram)| -> Vec<Option<Counts>> {
            thresholds.iter().map(|t| t.map(|t| counts(b, c, t, down))).collect()
        };
        let (up, down) = (count((b, c)), count((c, b)));
        let factors = |ranks: &Ranks, counts: &[Option<Counts>]| -> Vec<[f64; ALTERNATIVES]> {
            let of_counts = counts
                .iter()
                .map(|c| cut(c.map_or([0.0; ALTERNATIVES], |c| c.ln_factors(ODDS))));
            std::iter::once(cut(EFFECTS.map(|effect| ranks.ln_factor(effect))))
                .chain(of_counts)
                .collect()
        };
        self.slower.requests.step(factors(&ranks, &up));
        self.faster.requests.step(factors(&back, &down));
        let (most_ranks, most_counts) = at_most(&ranks, &up);
        self.possible.requests.step(factors(&most_ranks, &most_counts));
        self.keep(stratum, ranks, up);
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
        let sure = vec![blocks::ln_factors(1.0); 1 + thresholds.len()];
        self.possible.blocks.step(sure);
    }

    /// A block of a candidate whose baseline is gone.
    fn judge_after(&mut self, stratum: Stratum) {
        if self.settled.is_none() {
            let down = buckets_of(self.config.before_after_tested_relative);
            let (quantiles, least) = (&self.config.quantiles, self.config.min_requests);
            self.settled = self.reference.settled(quantiles, down, least);
        }
        let Some(settled) = &self.settled else {
            self.windows_skipped += stratum.windows;
            return;
        };
        let most = MOST_OF_STRATUM * needed_ln(self.config.alpha);
        let (ranks, by_ranks) = settled.by_ranks(&stratum.candidate);
        let mut factors = vec![by_ranks.ln_factors];
        let mut positions = vec![by_ranks.position];
        let mut all_counts = Vec::new();
        for at in 0..self.config.quantiles.len() {
            let compared = settled.by_threshold(at, &stratum.candidate);
            factors.push(compared.as_ref().map_or([0.0; ALTERNATIVES], |(_, c)| c.ln_factors));
            positions.push(compared.as_ref().map_or(0.5, |(_, c)| c.position));
            all_counts.push(compared.map(|(counts, _)| counts));
        }
        let cut = |factors: [f64; ALTERNATIVES]| factors.map(|ln| ln.min(most));
        self.slower.requests.step(factors.into_iter().map(cut));
        self.slower.blocks.step(positions.into_iter().map(blocks::ln_factors));
        let sure = vec![[most; ALTERNATIVES]; 1 + self.config.quantiles.len()];
        self.possible.requests.step(sure);
        let sure = vec![blocks::ln_factors(1.0); 1 + self.config.quantiles.len()];
        self.possible.blocks.step(sure);
        // Keeps its steps in line: a stratum that says nothing is a factor of one.
        let nothing = || vec![[0.0; ALTERNATIVES]; 1 + self.config.quantiles.len()];
        self.faster.requests.step(nothing());
        self.faster.blocks.step(nothing());
        self.keep(stratum, ranks, all_counts);
    }

    fn keep(&mut self, stratum: Stratum, ranks: Ranks, counts: Vec<Option<Counts>>) {
        let feature = self
            .stated_slower
            .map_or_else(|| self.slower.requests.leading().0, |stated| stated.feature);
        let exceeding = match (stratum.mode, &self.settled) {
            (ComparisonMode::BeforeAfter, Some(settled)) => self.exceeds(&settled.pooled, &stratum.candidate, feature),
            _ => self.exceeds(&stratum.baseline, &stratum.candidate, feature),
        };
        self.windows_used += stratum.windows;
        let standing = JudgedWindow {
            window: stratum.last,
            mode: stratum.mode,
            e_value_ln: self.slower.requests.ln_value(),
            exceeding,
            warming: false,
        };
        let judged = Judged {
            stratum,
            ranks,
            counts,
            standing,
        };
        self.by_block.push(&judged);
        self.by_span.push(&judged);
        self.judged.push(judged);
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

    /// States what the newest windows complete.
    fn state(&mut self) {
        if self.stated_slower.is_none() && self.slower.requests.ln_value() >= needed_ln(self.config.alpha) {
            match self.may_state().or_else(|why| self.is_gross().ok_or(why)) {
                Ok(stated) => (self.stated_slower, self.held_back) = (Some(stated), None),
                Err(why) => self.held_back = Some(why),
            }
        }
        if self.stated_faster.is_none() && self.faster.are_sure(&self.config) {
            let (feature, first) = self.faster.requests.leading();
            let pooled = self.pool_from(first);
            if pooled.is_large_enough(&self.config) && pooled.turned().is_worth_stating(&self.config, 1.0) {
                let at = self.now;
                self.stated_faster = Some(Stated { at, first, feature });
            }
        }
    }

    /// The slowdown that the evidence carries, or why it is not stated.
    fn may_state(&mut self) -> Result<Stated, HeldBack> {
        if !self.slower.are_sure(&self.config) {
            return Err(HeldBack::FewBlocks);
        }
        let mut why = HeldBack::Small;
        for feature in 0..=self.config.quantiles.len() {
            if self.slower.requests.ln_value_of(feature) < needed_ln(self.config.alpha) {
                continue;
            }
            let first = self.slower.requests.beginning(feature);
            let evidence = &self.judged[first.min(self.judged.len())..];
            // What is cheap to know is asked first.
            if self.falls(feature, evidence) {
                why = HeldBack::Falls;
                continue;
            }
            let floors = self.floors(evidence);
            let pooled = self.pool_from(first);
            if !pooled.is_large_enough(&self.config) || !pooled.is_worth_stating(&self.config, floors) {
                continue;
            }
            // Blocks that are alike say less than their number.
            let likeness = self.likeness(feature, first);
            if self.slower.blocks.ln_value() < likeness * needed_ln(self.config.block_alpha) {
                why = HeldBack::FewBlocks;
                continue;
            }
            if self.wanders(feature, first) || self.drifts(feature) {
                why = HeldBack::Wanders;
                continue;
            }
            return Ok(Stated {
                at: self.now,
                first,
                feature,
            });
        }
        Err(why)
    }

    /// A slowdown so large that fewer blocks carry it: the requests take twice as long, in each window, and it does not fall.
    fn is_gross(&mut self) -> Option<Stated> {
        if self.lasting.ln_value() < needed_ln(self.config.gross_block_alpha) {
            return None;
        }
        let (feature, first) = self.slower.requests.leading();
        let pooled = self.pool_from(first);
        let evidence = self.judged.get(first..)?;
        let is_gross = pooled.is_large_enough(&self.config)
            && pooled.is_worth_stating(&self.config, self.floors(evidence))
            && pooled.times() >= GROSS;
        let since = self.lasting.beginning(0);
        let at = self.now;
        (is_gross && !self.lately_falls(since) && !self.falls(feature, evidence)).then_some(Stated {
            at,
            first,
            feature,
        })
    }

    /// How many floors a slowdown must be: a release brings it along, and what begins later may have another cause.
    fn floors(&self, evidence: &[Judged]) -> f64 {
        let begins = evidence.first().map_or(0, |judged| judged.stratum.first);
        let is_late = self.first_candidate.is_some_and(|first| begins > first + LATE_S);
        if is_late { LATE_FLOORS } else { 1.0 }
    }

    /// Durations of both releases behind some strata. One before/after stratum makes all of it before/after: the
    /// reference must not be counted once per stratum.
    pub(crate) fn pool(&self, strata: &[Judged]) -> Pooled {
        let mut pooled = Pooled::default();
        strata.iter().for_each(|judged| pooled.add(judged));
        self.against_reference(pooled)
    }

    /// The same of all strata from `first` on, without adding them up anew.
    fn pool_from(&mut self, first: usize) -> Pooled {
        let pooled = self.sums.from(first, &self.judged).clone();
        self.against_reference(pooled)
    }

    fn against_reference(&self, mut pooled: Pooled) -> Pooled {
        if pooled.mode == ComparisonMode::BeforeAfter {
            pooled.baseline = self.reference.pooled();
        }
        pooled
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.windows_skipped + self.open.as_ref().map_or(0, |open| open.windows)
    }

    /// What stood after each window, those of warming instances included.
    pub(crate) fn standings(&self) -> Vec<JudgedWindow> {
        let strata = self.judged.iter().map(|judged| judged.standing);
        let mut all: Vec<JudgedWindow> = self.warming.iter().copied().chain(strata).collect();
        all.sort_by_key(|judged| judged.window);
        all
    }
}

//! The error verdict: does the candidate release fail more often than the baseline on one route?
//!
//! The exact hypothesis: "a request to the candidate fails with no greater chance than one to the baseline". Per block
//! of windows in which both serve, the failures of both are counted; the factor of a block is the likelihood of these
//! counts if the candidate failed more often, over their likelihood if both failed with the average of the two chances.
//! Its expectation is at most 1 whatever the common chance is, and less if the candidate fails more rarely: per request
//! the factors are linear in that chance, and their geometric mean is at most their arithmetic one, which is 1 (Turner,
//! Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping"). The
//! chance of the baseline is estimated from earlier blocks only. Nothing is approximated: a share of zero, or of one in
//! a million, needs no large numbers. [`crate::e_process`] turns it into evidence that may be examined after each
//! window: P(ever a false "fails more often") <= alpha for each watched route. A failure that hits both releases
//! cancels.
//!
//! If the releases do not serve at the same time, the chance is bounded by the baseline's last windows, including their
//! worst tenth, and the verdict needs more windows.
//!
//! Guarantees: pure; the result for a window depends on no later window; one window is never enough for a verdict; an
//! increase below the floor is not reported.
//!
//! Wrong on purpose: requests inside a window count as independent; a disturbance that makes one release fail in two
//! consecutive windows looks like its fault, and the alert has to be dropped when it disappears.
//!
//! One file because the watch is one state machine with the few numbers that it reports: every step reads and writes
//! the same state. What it shares with latency is in `e_process`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use emberline_model::{alert::ComparisonMode, time::WINDOW_S};

use crate::{
    e_process::{Cap, EProcess, Exceedance, Null},
    latency::JudgedWindow,
    statistics::normal_quantile,
};

/// Share of the baseline's windows whose failures stay below the bound in before/after mode.
const RESTLESS_WINDOWS: f64 = 0.9;
/// The smallest plausible failure rate of a baseline: no failures so far do not prove that there never are any.
const LEAST_CHANCE: f64 = 1e-4;
/// How long a candidate is judged without its baseline, in seconds, if nothing was reported.
const AFTER_S: i64 = 3_600;
/// Blocks kept to date an increase.
const MOST_BLOCKS: usize = 32;

/// Requests of one release on one route in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorWindow {
    /// Start, seconds since the Unix epoch.
    pub start: i64,
    /// The total.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
}

/// When an increase in failures is reported, and with which certainty.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorConfig {
    /// False-positive probability per watched route, over its whole lifetime.
    pub alpha: f64,
    /// Increase in the share of failures that is ignored: the lower end of the candidate's interval must exceed it.
    pub floor_share: f64,
    /// Minimum failures of the candidate.
    pub min_errors: u64,
    /// First windows of the candidate that are not judged. A cold start is slow but does not fail, so this is short.
    pub skip_first_windows: u32,
    /// Blocks of windows required for a verdict.
    pub min_windows: u32,
    /// The same if the releases are not live together.
    pub before_after_min_windows: u32,
    /// Windows of the baseline that serve as reference if the releases are not live together.
    pub before_after_windows: usize,
    /// A release counts as live for this many windows after its last request.
    pub live_gap_windows: u32,
    /// Windows are joined until each side has this many requests.
    pub min_block_requests: u64,
    /// Share of windows in which another cause makes only one release fail; accounted for in advance.
    pub disturbed_share: f64,
}

impl Default for ErrorConfig {
    fn default() -> ErrorConfig {
        ErrorConfig {
            alpha: 0.001,
            floor_share: 0.01,
            min_errors: 5,
            skip_first_windows: 1,
            min_windows: 2,
            before_after_min_windows: 6,
            before_after_windows: 30,
            live_gap_windows: 6,
            min_block_requests: 10,
            disturbed_share: 0.000_2,
        }
    }
}

/// Failures among requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Requests.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
}

impl Failures {
    /// The share that failed; 0 without requests.
    pub fn share(&self) -> f64 {
        self.errors as f64 / self.requests.max(1) as f64
    }

    /// Wilson's 95 % interval of the chance of a failure.
    pub fn interval(&self) -> (f64, f64) {
        wilson(self, normal_quantile(0.975))
    }

    fn add(&mut self, other: Failures) {
        self.requests += other.requests;
        self.errors += other.errors;
    }
}

fn wilson(of: &Failures, z: f64) -> (f64, f64) {
    let n = of.requests as f64;
    if n == 0.0 {
        return (0.0, 1.0);
    }
    let (share, z2) = (of.share(), z * z);
    let middle = share + z2 / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let of_all = 1.0 + z2 / n;
    (((middle - half) / of_all).max(0.0), ((middle + half) / of_all).min(1.0))
}

/// The verdict with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorVerdict {
    /// Whether the evidence comes from releases live together.
    pub mode: ComparisonMode,
    /// First window at which the candidate was found to fail more often; `None` if it was not.
    pub fired_at_window: Option<i64>,
    /// The window in which this most likely began, as estimated at the verdict.
    pub since_window: Option<i64>,
    /// Natural logarithm of the e-value's largest value so far.
    pub e_value_ln_peak: f64,
    /// False-positive probability over the whole lifetime.
    pub alpha: f64,
    /// Failures of the baseline in the evidence; without a verdict, of the newest blocks.
    pub baseline: Failures,
    /// Failures of the candidate since it most likely began.
    pub candidate: Failures,
    /// Windows with requests of the candidate that were judged.
    pub windows_used: u64,
    /// How the evidence developed: windows not yet taken from the watch.
    pub judged: Vec<JudgedWindow>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    mode: ComparisonMode,
    first: i64,
    last: i64,
    baseline: Failures,
    candidate: Failures,
    windows: u64,
}

#[derive(Debug, Clone, Copy)]
struct JudgedBlock {
    first: i64,
    baseline: SmallFailures,
    candidate: SmallFailures,
    /// Share of failures of the candidate minus the baseline's.
    growth: f32,
    is_after: bool,
    exceeding: bool,
}

/// Failures in half the bytes, because there are many watches: requests and failures, in this order.
#[derive(Debug, Clone, Copy)]
struct SmallFailures(u32, u32);

impl SmallFailures {
    fn of(failures: Failures) -> SmallFailures {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        SmallFailures(small(failures.requests), small(failures.errors))
    }

    fn failures(self) -> Failures {
        Failures {
            requests: u64::from(self.0),
            errors: u64::from(self.1),
        }
    }
}

/// A reported increase and its evidence.
#[derive(Debug, Clone, Copy)]
struct Stated {
    at: i64,
    first: i64,
    evidence: Evidence,
}

#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    baseline: Failures,
    candidate: Failures,
    is_after: bool,
}

impl Evidence {
    fn add(&mut self, baseline: Failures, candidate: Failures, is_after: bool) {
        self.baseline.add(baseline);
        self.candidate.add(candidate);
        self.is_after |= is_after;
    }
}

/// A watch over the failures of one route of two releases; [`judge_errors`] feeds it a list of windows. What it keeps
/// is bounded, except for the results of windows until they are taken ([`ErrorWatch::take_judged`]).
#[derive(Debug, Clone)]
pub struct ErrorWatch {
    config: Arc<ErrorConfig>,
    process: EProcess,
    /// The newest blocks, as long as the candidate fails in one of them.
    blocks: VecDeque<JudgedBlock>,
    open: Option<Block>,
    reference: VecDeque<SmallFailures>,
    stated: Option<Stated>,
    judged: Vec<JudgedWindow>,
    /// The candidate's first window.
    first: Option<i64>,
    /// The last windows of the baseline and of the candidate.
    last: [Option<i64>; 2],
    windows_used: u64,
}

/// Judges one route of two releases. Windows may be in any order; windows with the same start are added up.
pub fn judge_errors(baseline: &[ErrorWindow], candidate: &[ErrorWindow], config: &ErrorConfig) -> ErrorVerdict {
    let mut windows: BTreeMap<i64, [Failures; 2]> = BTreeMap::new();
    for (at, side) in [baseline, candidate].into_iter().enumerate() {
        for window in side {
            windows.entry(window.start).or_default()[at].add(Failures {
                requests: window.requests,
                errors: window.errors,
            });
        }
    }
    let mut watch = ErrorWatch::new(config.clone());
    for (&start, &[baseline, candidate]) in &windows {
        watch.push(start, baseline, candidate);
    }
    watch.verdict()
}

impl ErrorWatch {
    /// A watch without any windows; many may share one configuration.
    pub fn new(config: impl Into<Arc<ErrorConfig>>) -> ErrorWatch {
        ErrorWatch {
            config: config.into(),
            process: EProcess::new(1),
            blocks: VecDeque::new(),
            open: None,
            reference: VecDeque::new(),
            stated: None,
            judged: Vec::new(),
            first: None,
            last: [None; 2],
            windows_used: 0,
        }
    }

    /// Adds a window: requests and failures of both releases; starts must increase. Either may be empty; more failures
    /// than requests count as all of them.
    pub fn push(&mut self, start: i64, baseline: Failures, candidate: Failures) {
        let [baseline, candidate] = [baseline, candidate].map(|side| Failures {
            errors: side.errors.min(side.requests),
            ..side
        });
        for (last, side) in self.last.iter_mut().zip([baseline, candidate]) {
            if side.requests > 0 {
                *last = Some(start);
            }
        }
        if candidate.requests > 0 {
            self.first.get_or_insert(start);
        }
        let gap_s = i64::from(self.config.live_gap_windows) * WINDOW_S;
        let live = |last: Option<i64>| last.is_some_and(|last| last > start - gap_s);
        let skipped_s = i64::from(self.config.skip_first_windows) * WINDOW_S;
        // A reported increase is followed for as long as windows are pushed.
        let is_recent = self.stated.is_some() || self.last[0].is_none_or(|last| start - last <= AFTER_S);
        if self.first.is_some_and(|first| start >= first + skipped_s) && live(self.last[1]) && is_recent {
            let mode = if live(self.last[0]) {
                ComparisonMode::Concurrent
            } else {
                ComparisonMode::BeforeAfter
            };
            self.fill(start, mode, baseline, candidate);
        } else {
            self.open = None;
        }
        if baseline.requests > 0 {
            if self.reference.len() >= self.config.before_after_windows.max(1) {
                self.reference.pop_front();
            }
            self.reference.push_back(SmallFailures::of(baseline));
        }
    }

    /// The window at which an increase was reported: cheaper than the whole verdict.
    pub fn stated_at(&self) -> Option<i64> {
        self.stated.map(|stated| stated.at)
    }

    /// Forgets the report and the evidence so far: for an increase that is over.
    pub fn begin_anew(&mut self) {
        self.process = EProcess::new(1);
        (self.blocks, self.open, self.stated) = (VecDeque::new(), None, None);
    }

    /// The results of windows since the last call, in order.
    pub fn take_judged(&mut self) -> Vec<JudgedWindow> {
        std::mem::take(&mut self.judged)
    }

    /// Bytes allocated by the watch, as far as it knows.
    pub fn bytes(&self) -> usize {
        size_of::<ErrorWatch>()
            + self.process.heap_bytes()
            + size_of::<JudgedBlock>() * self.blocks.capacity()
            + size_of::<SmallFailures>() * self.reference.capacity()
            + size_of::<JudgedWindow>() * self.judged.capacity()
    }

    fn fill(&mut self, start: i64, mode: ComparisonMode, baseline: Failures, candidate: Failures) {
        if self.open.is_some_and(|open| open.mode != mode) {
            self.open = None;
        }
        let reference = self.pooled_reference();
        let open = self.open.get_or_insert(Block {
            mode,
            first: start,
            last: start,
            baseline: Failures::default(),
            candidate: Failures::default(),
            windows: 0,
        });
        open.last = start;
        open.baseline.add(baseline);
        open.candidate.add(candidate);
        open.windows += u64::from(candidate.requests > 0);
        let against = match mode {
            ComparisonMode::Concurrent => open.baseline.requests,
            ComparisonMode::BeforeAfter => reference.requests,
        };
        let least = self.config.min_block_requests.max(1);
        if open.candidate.requests >= least
            && against >= least
            && let Some(block) = self.open.take()
        {
            self.judge(block, reference);
        }
    }

    fn pooled_reference(&self) -> Failures {
        self.reference.iter().fold(Failures::default(), |mut all, window| {
            all.add(window.failures());
            all
        })
    }

    fn judge(&mut self, block: Block, reference: Failures) {
        let config = Arc::clone(&self.config);
        let (null, blocks) = match block.mode {
            ComparisonMode::Concurrent => {
                // Only from previous blocks: that makes the factor one of a fair bet.
                let expected = (reference.errors as f64 + 0.5) / (reference.requests as f64 + 1.0);
                let null = Null::Share {
                    errors: block.baseline.errors,
                    requests: block.baseline.requests,
                    expected: expected.clamp(LEAST_CHANCE, 0.9),
                };
                (null, config.min_windows)
            }
            ComparisonMode::BeforeAfter => {
                let bound = wilson(&reference, normal_quantile(1.0 - config.alpha)).1;
                let chance = bound.max(self.restless_share()).clamp(LEAST_CHANCE, 0.99);
                (Null::Bound { chance }, config.before_after_min_windows)
            }
        };
        let counted = Exceedance {
            above: block.candidate.errors,
            requests: block.candidate.requests,
            null,
        };
        let cap = Cap::new(config.alpha, blocks, config.disturbed_share);
        self.process.push(&[Some(counted)], cap);
        let usual = match block.mode {
            ComparisonMode::Concurrent => block.baseline.share(),
            ComparisonMode::BeforeAfter => reference.share(),
        };
        let growth = block.candidate.share() - usual;
        self.windows_used += block.windows;
        let exceeding = growth > config.floor_share / 2.0;
        self.judged.push(JudgedWindow {
            window: block.last,
            mode: block.mode,
            e_value_ln: self.process.ln_value(),
            exceeding,
            warming: false,
        });
        if let Some(stated) = &mut self.stated {
            let is_after = block.mode == ComparisonMode::BeforeAfter;
            stated.evidence.add(block.baseline, block.candidate, is_after);
            return;
        }
        if self.blocks.len() == MOST_BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back(JudgedBlock {
            first: block.first,
            baseline: SmallFailures::of(block.baseline),
            candidate: SmallFailures::of(block.candidate),
            growth: growth as f32,
            is_after: block.mode == ComparisonMode::BeforeAfter,
            exceeding,
        });
        self.stated = self.state(block.last);
        // No increase begins in blocks without failures.
        if self.stated.is_some() || self.blocks.iter().all(|judged| judged.candidate.1 == 0) {
            self.blocks = VecDeque::new();
        }
    }

    /// The share of failures that nine out of ten of the baseline's windows stay below.
    fn restless_share(&self) -> f64 {
        let mut shares: Vec<f64> = self.reference.iter().map(|of| of.failures().share()).collect();
        shares.sort_by(f64::total_cmp);
        let at = (RESTLESS_WINDOWS * shares.len() as f64).ceil() as usize;
        shares.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// Whether the newest block completes a verdict.
    fn state(&self, now: i64) -> Option<Stated> {
        if self.process.ln_value() < (1.0 / self.config.alpha).ln() {
            return None;
        }
        let forgotten = (self.process.steps() as usize).saturating_sub(self.blocks.len());
        let from = self.process.leading().1.cast_unsigned() as usize;
        let began = self.began(from.saturating_sub(forgotten));
        let evidence = || self.blocks.iter().skip(began);
        let carrying = evidence().filter(|judged| judged.exceeding).count();
        let pooled = self.pool(evidence());
        let against = self.against(&pooled);
        let is_worth_it = pooled.candidate.errors >= self.config.min_errors
            && pooled.candidate.interval().0 >= against.share() + self.config.floor_share
            && carrying >= self.config.min_windows as usize;
        is_worth_it.then_some(Stated {
            at: now,
            first: self.blocks.get(began)?.first,
            evidence: pooled,
        })
    }

    /// The block in which it most likely began, not before `from`: the first of the last run of blocks that show half
    /// of the newest increase, allowing gaps of two blocks. The e-process cannot tell: if some requests always fail, it
    /// hardly notices when a small increase begins.
    fn began(&self, from: usize) -> usize {
        let last = self.blocks.len().saturating_sub(1);
        let half = self.blocks.back().map_or(0.0, |newest| newest.growth / 2.0);
        let (mut began, mut quiet) = (last, 0);
        for (at, judged) in self.blocks.iter().enumerate().skip(from).rev() {
            if judged.growth >= half {
                (began, quiet) = (at, 0);
            } else {
                quiet += 1;
                if quiet > 2 {
                    break;
                }
            }
        }
        began
    }

    /// Failures of both in some blocks.
    fn pool<'a>(&self, blocks: impl Iterator<Item = &'a JudgedBlock>) -> Evidence {
        let mut pooled = Evidence::default();
        blocks.for_each(|of| pooled.add(of.baseline.failures(), of.candidate.failures(), of.is_after));
        pooled
    }

    /// What the candidate's failures are compared with: the reference, if any block lacks the baseline.
    fn against(&self, evidence: &Evidence) -> Failures {
        if evidence.is_after {
            self.pooled_reference()
        } else {
            evidence.baseline
        }
    }

    /// The verdict on all windows so far.
    pub fn verdict(&self) -> ErrorVerdict {
        let evidence = match &self.stated {
            Some(stated) => stated.evidence,
            None => self.pool(self.blocks.iter()),
        };
        ErrorVerdict {
            mode: if evidence.is_after {
                ComparisonMode::BeforeAfter
            } else {
                ComparisonMode::Concurrent
            },
            fired_at_window: self.stated.map(|stated| stated.at),
            since_window: self.stated.map(|stated| stated.first),
            e_value_ln_peak: self.process.ln_peak(),
            alpha: self.config.alpha,
            baseline: self.against(&evidence),
            candidate: evidence.candidate,
            windows_used: self.windows_used,
            judged: self.judged.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_of_a_block_is_a_fair_bet_whatever_the_chance() {
        // Every outcome of a block, weighted by its probability.
        let probability = |n: u64, k: u64, p: f64| {
            let choose = (0..k).fold(1.0, |all, i| all * (n - i) as f64 / (i + 1) as f64);
            choose * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
        };
        for (n, m) in [(10, 10), (4, 17), (17, 4)] {
            for expected in [1e-4, 0.02, 0.3] {
                for alternative in [0.1, 0.3, 0.6, 0.9] {
                    for (p, q) in [
                        (0.001, 0.001),
                        (0.05, 0.05),
                        (0.5, 0.5),
                        (0.97, 0.97),
                        (0.5, 0.2),
                        (0.1, 0.0),
                    ] {
                        let mut mean = 0.0;
                        for a in 0..=n {
                            let null = Null::Share {
                                errors: a,
                                requests: n,
                                expected,
                            };
                            for b in 0..=m {
                                let factor = null.ln_ratio(b, m, alternative).exp();
                                mean += factor * probability(n, a, p) * probability(m, b, q);
                            }
                        }
                        assert!(mean <= 1.0 + 1e-9, "{n} {m} {expected} {alternative} {p} {q}: {mean}");
                    }
                }
            }
        }
    }
}

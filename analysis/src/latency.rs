//! The latency verdict: is the candidate release slower than the baseline on one route, for one source release?
//!
//! "Is it slower at all" is tested, "is it worth stating" is decided apart by the estimated size.
//!
//! Two witnesses must agree. The first counts requests: per stratum (a window, or several on a quiet route) the ranks of the
//! candidate's requests among the baseline's, and how many of each lie above the median and the ninth decile of the
//! baseline's last half hour ([`crate::strata`]). If nothing changed these follow known distributions whatever the
//! distribution of latency, and noise that hits both releases cancels. The second counts blocks of time
//! ([`crate::blocks`]), so that sessions and a bad minute say little. [`crate::e_process`] makes of both evidence that may be
//! looked at after each window: P(ever a false "slower") <= the smaller alpha, for each watched route.
//!
//! When the releases do not serve at the same time, the baseline's last half hour is what the candidate is compared
//! with, and its restlessness is part of what is expected without a change ([`crate::latency_reference`]).
//! [`ComparisonMode::BeforeAfter`] says so. An hour after the baseline's last request nothing more is stated.
//!
//! What the witnesses are sure of is held back ([`HeldBack`]) while its estimated size is small, while it falls (a release that
//! starts cold), while levels wander as far by themselves, and, where the baseline is gone, while it grows by itself. A gross
//! slowdown is stated after fewer blocks.
//!
//! Guarantees: a verdict is a pure function of the windows; every factor of the evidence of releases that serve together has a mean of
//! at most 1 given the windows before; what it says about a window depends on no later window,
//! so a verdict computed after a restart dates the slowdown as before. One window never carries a verdict.
//!
//! Wrong on purpose: (1) a level that one instance keeps for a quarter of an hour is a slow release for all that can be known from
//! one instance; what is left of such alarms is printed by the example `replay`. (2) The two releases must receive the same
//! kind of requests; nothing here can see that they do not. (3) What begins ten minutes or more after the release must be
//! three times as large to be stated. (4) Means are reported but never tested.

use emberline_model::{
    alert::ComparisonMode,
    histogram::{Histogram, bucket_lower, bucket_upper},
};

use crate::statistics::{lower_rank, upper_rank};

/// Requests of one release on one route in one window, all its instances merged.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyWindow {
    /// Start, seconds since the Unix epoch.
    pub start: i64,
    /// Durations.
    pub histogram: Histogram,
}

/// When a slowdown is reported, and with which certainty.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyConfig {
    /// False-positive probability per watched route, over its whole lifetime, as far as requests are independent.
    pub alpha: f64,
    /// The same as far as blocks of time are; both must be sure.
    pub block_alpha: f64,
    /// The same for a gross slowdown, whose blocks are single windows, those of the warm-up included.
    pub gross_block_alpha: f64,
    /// Windows of a block. What clings together for longer than this counts as several accidents.
    pub block_windows: u32,
    /// Quantiles whose thresholds are tested, beside ranks. p99 needs more requests than most routes have in an hour.
    pub quantiles: Vec<f64>,
    /// Relative increase that is not tested, a bucket of a histogram is 2.2 %.
    pub tested_relative: f64,
    /// The same when the releases are not live together: drift is no release's doing.
    pub before_after_tested_relative: f64,
    /// Estimated relative increase that is worth stating.
    pub floor_relative: f64,
    /// Estimated increase in seconds that is worth stating; the larger of the two floors applies.
    pub floor_seconds: f64,
    /// By how many standard errors the candidate must lie from the baseline, those of levels that wander by themselves included.
    pub wander_errors: f64,
    /// First windows of the candidate that are not judged: caches are cold, connections new.
    pub skip_first_windows: u32,
    /// Windows of the baseline that serve as reference: thresholds, restlessness, and all there is to compare with when the
    /// releases are not live together.
    pub reference_windows: usize,
    /// A release counts as live for this many windows after its last request, and longer where requests are rare.
    pub live_gap_windows: u32,
    /// Windows are joined until each side has this many requests.
    pub min_stratum_requests: u64,
    /// Minimum requests of each release in the evidence.
    pub min_requests: u64,
}

impl Default for LatencyConfig {
    fn default() -> LatencyConfig {
        LatencyConfig {
            alpha: 0.01,
            block_alpha: 0.01,
            gross_block_alpha: 0.02,
            block_windows: 3,
            quantiles: vec![0.5, 0.9],
            tested_relative: 0.02,
            before_after_tested_relative: 0.05,
            floor_relative: 0.12,
            floor_seconds: 0.000_05,
            wander_errors: 2.6,
            skip_first_windows: 1,
            reference_windows: 180,
            live_gap_windows: 6,
            min_stratum_requests: 3,
            min_requests: 20,
        }
    }
}

/// Outcome of the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyOutcome {
    /// The candidate is slower by more than the floor.
    Slower,
    /// The baseline is slower by more than the floor. Reported only if both are live; raises no alert.
    Faster,
    /// Enough data, and no slowdown was found.
    NoChange,
    /// Too little data: even if every request had been slower, it would not have been enough for a verdict.
    TooFewSamples {
        /// Requests each release needs in all, roughly, at the present traffic.
        needed_requests: u64,
    },
}

/// Why evidence of a slowdown is not stated (yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// A few blocks of time carry it: a bad minute or a few sessions.
    FewBlocks,
    /// The estimated growth is below the floor.
    Small,
    /// Levels wander as far by themselves: with these instances it cannot be told from that.
    Wanders,
    /// It is described better as what goes away than as what stays, or it is too young to tell: the release is warming up.
    Falls,
}

/// An estimate of a quantile in seconds, with its distribution-free 95 % interval on bucket edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantileEstimate {
    /// The quantile, within 1.08 %.
    pub value: f64,
    /// Lower end; absent when there are too few requests for one.
    pub low: Option<f64>,
    /// Upper end; absent when there are too few requests for one.
    pub high: Option<f64>,
}

/// One quantile of both releases over the evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantileEvidence {
    /// Which quantile, 0 to 1.
    pub quantile: f64,
    /// Of the baseline.
    pub baseline: Option<QuantileEstimate>,
    /// Of the candidate.
    pub candidate: Option<QuantileEstimate>,
    /// Requests of the judged release above the threshold: the quantile of the baseline's newest half hour.
    pub exceedances: u64,
    /// Number expected without a change.
    pub expected: f64,
    /// Requests counted.
    pub requests: u64,
    /// Natural logarithm of this quantile's e-value at the newest window.
    pub e_value_ln: f64,
}

/// State after one judged window, for charts and for [`crate::alert_state`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedWindow {
    /// Start of the window that completed the judgement, seconds since the Unix epoch.
    pub window: i64,
    /// How its threshold was found.
    pub mode: ComparisonMode,
    /// Natural logarithm of the e-value after it.
    pub e_value_ln: f64,
    /// More of the candidate's requests exceeded the leading quantile's threshold than without a change.
    pub exceeding: bool,
    /// The candidate was warming up: the window is not evidence.
    pub warming: bool,
}

/// The verdict with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyVerdict {
    /// What it says.
    pub outcome: LatencyOutcome,
    /// Whether the evidence comes from releases live together.
    pub mode: ComparisonMode,
    /// First window at which the outcome (slower or faster) was reached; it is never withdrawn here.
    pub fired_at_window: Option<i64>,
    /// The window in which the change most likely began, as estimated at the verdict.
    pub since_window: Option<i64>,
    /// The baseline's last window with requests when the outcome was reached.
    pub last_baseline_window: Option<i64>,
    /// Natural logarithm of the e-value at the newest window.
    pub e_value_ln: f64,
    /// Its largest value so far.
    pub e_value_ln_peak: f64,
    /// What it must reach: ln(1 / alpha).
    pub e_value_ln_needed: f64,
    /// Natural logarithm of the e-value that counts blocks of time and not requests.
    pub block_e_value_ln: f64,
    /// What it must reach: ln(1 / block alpha).
    pub block_e_value_ln_needed: f64,
    /// Chance that a request to the candidate takes longer than one to the baseline; one half without a change.
    pub slower_share: Option<f64>,
    /// Why nothing is stated although the evidence suffices.
    pub held_back: Option<HeldBack>,
    /// False-positive probability over the whole lifetime.
    pub alpha: f64,
    /// Per tested quantile, over the windows since the change began, until five minutes after the verdict (if there is none, what is kept of those that were judged).
    pub quantiles: Vec<QuantileEvidence>,
    /// The quantile with the most evidence.
    pub leading_quantile: Option<f64>,
    /// Candidate minus baseline at that quantile, seconds.
    pub shift_seconds: Option<f64>,
    /// Candidate minus baseline of the means, seconds: means of a caller and its callee can be compared.
    pub mean_shift_seconds: Option<f64>,
    /// Durations of the baseline behind `quantiles`, for other quantiles and for drawing.
    pub baseline: Histogram,
    /// Durations of the candidate behind `quantiles`.
    pub candidate: Histogram,
    /// Requests in `baseline`.
    pub n_baseline: u64,
    /// Requests in `candidate`.
    pub n_candidate: u64,
    /// Windows with requests of the candidate that were judged.
    pub windows_used: u64,
    /// Windows with requests of the candidate that were not: warm-up, or nothing to compare with.
    pub windows_skipped: u64,
    /// How the evidence grew: of windows that were not taken from the watch before.
    pub judged: Vec<JudgedWindow>,
}

/// A quantile of a histogram with its distribution-free 95 % interval; `None` when the histogram is empty.
pub fn estimate_quantile(histogram: &Histogram, quantile: f64) -> Option<QuantileEstimate> {
    let value = histogram.quantile(quantile)?;
    let n = histogram.count();
    let edge = |rank: u64, of: fn(i16) -> f64| histogram.bucket_at_rank(rank).map_or(0.0, of);
    Some(QuantileEstimate {
        value,
        low: lower_rank(n, quantile, 0.975).map(|rank| edge(rank, bucket_lower)),
        high: upper_rank(n, quantile, 0.975).map(|rank| edge(rank, bucket_upper)),
    })
}

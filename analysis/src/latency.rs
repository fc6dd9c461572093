//! The latency verdict: is the candidate release slower than the baseline on one route, for one source release?
//!
//! What is tested, exactly: "no quantile of the candidate lies above the baseline's by more than the floor". Per
//! window the threshold is the baseline's own `q`-quantile of the *same* window, moved up by the floor and to the
//! upper edge of its histogram bucket; the candidate's requests above it are counted. If nothing changed, the count
//! follows a beta-binomial distribution whatever the distribution of latency (order statistics of two samples of
//! one population), or stays below it; so noise that hits both releases cancels. The threshold's own uncertainty is
//! inside that distribution, which is why a plain quantile serves and a window of ten requests can be used.
//! [`crate::e_process`] turns the counts into evidence that may be looked at after each window: P(ever a false
//! "slower") <= alpha for each watched route.
//!
//! When the releases do not serve at the same time, the threshold is the bound that lies above the quantile of the
//! baseline's last windows with confidence 1 - alpha / quantiles and above nine of ten of those windows' own quantiles,
//! and more windows must carry the verdict. Drift beyond the baseline's own restlessness is then counted as the
//! release's doing: [`ComparisonMode::BeforeAfter`] says so.
//!
//! Guarantees: a verdict is a pure function of the windows; what it says about a window depends on no later window,
//! so a verdict computed after a restart dates the slowdown as before. One window never carries a verdict.
//!
//! A release that starts cold is slow for a while. The first windows of each instance are given apart
//! ([`crate::latency_watch::judge_warm_latency`]) and are no evidence; and while the release is young, a window is judged only when those before it
//! no longer fall. That question is asked of earlier windows alone, so whether a window is judged does not depend on what it
//! holds, and the bound on false verdicts stays as it is. A cold start that is longer than both, or falls too slowly to be
//! seen on little traffic, is stated as a slowdown and resolved when it is over.
//!
//! Wrong on purpose: (1) requests inside a window count as independent; a disturbance that hits one release alone in
//! two windows in a row looks like a slow release, and the alert's went-away rule must take it back. (2) The two
//! releases must receive the same kind of requests; nothing here can see that they do not. (3) For a minute after the
//! baseline's last request neither mode has evidence. (4) Means are reported but never tested.

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
    /// False-positive probability per watched route, over its whole lifetime.
    pub alpha: f64,
    /// Quantiles whose thresholds are tested. p99 needs more requests than most routes have in a window.
    pub quantiles: Vec<f64>,
    /// Relative increase that is ignored.
    pub floor_relative: f64,
    /// Increase in seconds that is ignored; the larger of the two floors applies. Half a millisecond is less than one
    /// time slice of the Linux scheduler: a smaller difference between two processes may come from the core they run
    /// on. For smaller changes see CPU per request ([`crate::change`]), which has no such floor.
    pub floor_seconds: f64,
    /// First windows of the candidate that are not judged: caches are cold, connections new.
    pub skip_first_windows: u32,
    /// Number of windows after the candidate's first one that are not judged while its latency still falls (warm-up).
    /// 0 disables this.
    pub settle_windows: u32,
    /// Windows (or blocks of windows on quiet routes) required for a verdict. This caps the weight of a single one.
    pub min_windows: u32,
    /// The same when the releases are not live together.
    pub before_after_min_windows: u32,
    /// Windows of the baseline that serve as reference when the releases are not live together.
    pub before_after_windows: usize,
    /// A release counts as live for this many windows after its last request.
    pub live_gap_windows: u32,
    /// Windows are joined until each side has this many requests.
    pub min_block_requests: u64,
    /// Minimum requests of each release in the evidence.
    pub min_requests: u64,
    /// Share of windows in which another cause slows only one release (1 in 5000 is one in 14 hours); accounted for
    /// in every window. At 1 in 500 the price, 0.14 nats a window, hides +20 % on a route with widely spread latency,
    /// and simulated false alarms do not decrease: the floor leaves more room.
    pub disturbed_share: f64,
}

impl Default for LatencyConfig {
    fn default() -> LatencyConfig {
        LatencyConfig {
            alpha: 0.001,
            quantiles: vec![0.5, 0.9],
            floor_relative: 0.10,
            floor_seconds: 0.000_5,
            skip_first_windows: 1,
            settle_windows: 0,
            min_windows: 2,
            before_after_min_windows: 6,
            before_after_windows: 30,
            live_gap_windows: 6,
            min_block_requests: 10,
            min_requests: 20,
            disturbed_share: 0.000_2,
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
    /// Requests of the judged release above the thresholds.
    pub exceedances: u64,
    /// Maximum number expected without a change.
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
    /// Natural logarithm of the e-value at the newest window.
    pub e_value_ln: f64,
    /// Its largest value so far.
    pub e_value_ln_peak: f64,
    /// What it must reach: ln(1 / alpha).
    pub e_value_ln_needed: f64,
    /// False-positive probability over the whole lifetime.
    pub alpha: f64,
    /// Per tested quantile, over the windows since the change began (all judged windows if there is no verdict).
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
    /// How the evidence grew.
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

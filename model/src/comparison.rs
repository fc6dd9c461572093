//! Two releases side by side: what is compared, and what the comparison says. These nouns are also the JSON of the API,
//! and its OpenAPI document is generated from these comments; the statistics are in the analysis crate.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{coverage::Coverage, histogram::Histogram, id::HexId, resolve::ResolvedStacks, workload::Release};

/// What costs are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Requests served in the same windows.
    #[default]
    Request,
    /// Seconds of instances observed.
    Second,
    /// Nothing: plain sums.
    Total,
}

impl Per {
    /// `request`, `second` or `total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Per::Request => "request",
            Per::Second => "second",
            Per::Total => "total",
        }
    }
}

impl std::str::FromStr for Per {
    type Err = String;

    fn from_str(text: &str) -> Result<Per, String> {
        match text {
            "request" => Ok(Per::Request),
            "second" => Ok(Per::Second),
            "total" => Ok(Per::Total),
            other => Err(format!("unknown `per={other}`: use `request`, `second` or `total`")),
        }
    }
}

/// Stacks and requests of one release in one slice of time, all instances together.
#[derive(Debug, Clone, Default)]
pub struct WindowCost {
    /// Start, seconds since the Unix epoch.
    pub start_unix_s: i64,
    /// Number of profile windows added up; windows of several instances with the same start count once.
    pub windows: u64,
    /// Requests served meanwhile; a partly covered window contributes its share.
    pub requests: f64,
    /// Seconds covered by profiles, over all instances.
    pub instance_seconds: f64,
    /// `(stack id, value, samples)`.
    pub stacks: Vec<(u64, i64, u64)>,
}

/// One side of a comparison. If costs are divided by requests, it contains only the time covered by both signals.
#[derive(Debug, Clone)]
pub struct SideData {
    /// The release.
    pub release: Release,
    /// First second of the requested range.
    pub from_unix_s: i64,
    /// Second after the end of the requested range.
    pub to_unix_s: i64,
    /// Slices of time, at most a hundred, sorted by start.
    pub windows: Vec<WindowCost>,
    /// Durations of all requests in the range, including those that costs are not divided by.
    pub latency: Histogram,
    /// How much of the range both signals cover.
    pub coverage: Coverage,
    /// True for gauges (memory in use, goroutines): a slice's value is its mean, summed over instances and weighted by
    /// covered time, and the range's value is the mean of its slices.
    pub is_gauge: bool,
    /// Stacks carry routes, whether this one or others. `false` if no route was requested.
    pub has_stacks_of_routes: bool,
    /// Names of the stacks.
    pub resolved: Arc<ResolvedStacks>,
    /// Builds whose code ran.
    pub build_ids: Vec<String>,
}

impl SideData {
    /// True when its CPU can be divided by requests.
    pub fn is_divisible(&self) -> bool {
        self.coverage.missing.is_none() && self.windows.iter().any(|piece| piece.requests > 0.0)
    }

    /// True when it has profiles whose stacks carry no routes.
    pub fn says_no_routes(&self) -> bool {
        self.coverage.profiles_s > 0 && !self.has_stacks_of_routes
    }
}

/// What was compared on one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SideSummary {
    /// The version.
    pub version: String,
    /// Start of the range, milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// End of the range.
    pub to_ms: i64,
    /// Windows of profiles used.
    pub windows: u64,
    /// Requests that values are divided by; all requests seen if they are divided by something else.
    pub requests: u64,
    /// Seconds of instances observed.
    pub seconds: f64,
    /// How much of the range both signals cover, and why there is no cost per request, if so.
    pub coverage: Coverage,
    /// Stack samples.
    pub samples: u64,
    /// Sum of all stacks, exact, in the unit of the profile type: nanoseconds of CPU, bytes, a count.
    pub total: i64,
    /// What values are divided by: requests, seconds or 1.
    pub divisor: f64,
    /// `total` divided by `divisor`.
    pub value: f64,
    /// Builds whose code ran.
    pub build_ids: Vec<String>,
    /// Share of the value whose leaf has a name, 0 to 1.
    pub resolved_ratio: f64,
}

/// Confidence in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Survives the false discovery rate.
    Strong,
    /// Suggestive only.
    Weak,
    /// Indistinguishable from no change.
    Noise,
    /// Too few samples to judge.
    Few,
}

/// What happened to a function between the releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FunctionState {
    /// Only in the candidate.
    New,
    /// Only in the baseline.
    Gone,
    /// Costs more.
    Up,
    /// Costs less.
    Down,
    /// No significant change.
    Same,
}

impl FunctionState {
    /// `new`, `gone`, `up`, `down` or `same`.
    pub fn as_str(self) -> &'static str {
        match self {
            FunctionState::New => "new",
            FunctionState::Gone => "gone",
            FunctionState::Up => "up",
            FunctionState::Down => "down",
            FunctionState::Same => "same",
        }
    }
}

/// One function of a comparison. Raw values are exact integers in the unit of the profile type (nanoseconds of CPU, bytes,
/// a count); costs are divided by the side's divisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FunctionRow {
    /// Function identifier, 16 hexadecimal digits.
    #[schema(value_type = String)]
    pub id: HexId,
    /// Normalised name.
    pub name: String,
    /// Base name of the file its code was loaded from.
    pub module: String,
    /// Library code.
    pub library: bool,
    /// Raw self value of the baseline.
    // The aliases read alerts that earlier versions stored.
    #[serde(alias = "self_a_ns")]
    pub raw_self_a: i64,
    /// Raw self value of the candidate.
    #[serde(alias = "self_b_ns")]
    pub raw_self_b: i64,
    /// Raw total value of the baseline.
    #[serde(alias = "total_a_ns")]
    pub raw_total_a: i64,
    /// Raw total value of the candidate.
    #[serde(alias = "total_b_ns")]
    pub raw_total_b: i64,
    /// Self cost of the baseline.
    pub self_a: f64,
    /// Self cost of the candidate.
    pub self_b: f64,
    /// Total cost of the baseline.
    pub total_a: f64,
    /// Total cost of the candidate.
    pub total_b: f64,
    /// `self_b - self_a`.
    pub delta_self: f64,
    /// `total_b - total_a`.
    pub delta_total: f64,
    /// `total_b / total_a`; null when the baseline has none.
    pub ratio: Option<f64>,
    /// `delta_self` as a share of the whole change; the shares of all functions add up to 1.
    pub contribution: f64,
    /// Lower end of the 95 % interval of `delta_total`.
    pub low: f64,
    /// Upper end of the 95 % interval of `delta_total`.
    pub high: f64,
    /// Benjamini–Hochberg adjusted p-value of a change of the total by more than 5 %.
    pub q_value: f64,
    /// Confidence.
    pub confidence: Confidence,
    /// Kind of change.
    pub state: FunctionState,
}

/// Overall judgement of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The cost changed.
    Changed,
    /// No significant change.
    NoChange,
    /// Too few samples on one side.
    TooFewSamples,
}

/// Total cost of both sides and its difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CostChange {
    /// Cost of the baseline.
    pub baseline: f64,
    /// Cost of the candidate.
    pub candidate: f64,
    /// Difference.
    pub delta: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// Candidate over baseline.
    pub ratio: Option<f64>,
    /// That it changed by more than 1 %, in either direction.
    pub p_value: f64,
}

/// One quantile of both releases, with 95 % intervals, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuantilePair {
    /// Quantile, 0 to 1.
    pub q: f64,
    /// Baseline.
    pub baseline_ms: Option<f64>,
    /// Lower end.
    pub baseline_low_ms: Option<f64>,
    /// Upper end.
    pub baseline_high_ms: Option<f64>,
    /// Candidate.
    pub candidate_ms: Option<f64>,
    /// Lower end.
    pub candidate_low_ms: Option<f64>,
    /// Upper end.
    pub candidate_high_ms: Option<f64>,
}

/// Latency of both releases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LatencyEvidence {
    /// p50, p90, p99.
    pub quantiles: Vec<QuantilePair>,
    /// Requests of the baseline.
    pub baseline_n: u64,
    /// Requests of the candidate.
    pub candidate_n: u64,
}

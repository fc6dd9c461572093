//! Schemas of nouns that the model crate defines. The model knows nothing of OpenAPI, so their fields are written
//! down again here; a test serialises the real ones and fails when a field is missing on either side.

use utoipa::ToSchema;

/// One function of a comparison.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct FunctionRow {
    /// 16 hexadecimal digits.
    id: String,
    /// Normalised name.
    name: String,
    /// Base name of the file its code was loaded from.
    module: String,
    /// Code that the application's owner did not write.
    library: bool,
    /// Exact self value of the baseline.
    self_a_ns: i64,
    /// Exact self value of the candidate.
    self_b_ns: i64,
    /// Exact total value of the baseline.
    total_a_ns: i64,
    /// Exact total value of the candidate.
    total_b_ns: i64,
    /// Divided by the baseline's divisor.
    self_a: f64,
    /// Divided by the candidate's divisor.
    self_b: f64,
    /// Divided by the baseline's divisor.
    total_a: f64,
    /// Divided by the candidate's divisor.
    total_b: f64,
    /// `self_b - self_a`.
    delta_self: f64,
    /// `total_b - total_a`.
    delta_total: f64,
    /// `total_b / total_a`; null when the baseline has none.
    ratio: Option<f64>,
    /// `delta_self` as a share of the whole change.
    contribution: f64,
    /// Lower end of the 95 % interval of `delta_total`.
    low: f64,
    /// Upper end of the 95 % interval of `delta_total`.
    high: f64,
    /// Benjamini–Hochberg adjusted p-value.
    q_value: f64,
    /// How sure.
    confidence: Confidence,
    /// What happened.
    state: FunctionState,
}

/// How sure a row is.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum Confidence {
    Strong,
    Weak,
    Noise,
    Few,
}

/// What happened to a function.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum FunctionState {
    New,
    Gone,
    Up,
    Down,
    Same,
}

/// What costs are divided by.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum Per {
    Request,
    Second,
    Total,
}

/// What a comparison as a whole says.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum Judgement {
    Changed,
    NoChange,
    TooFewSamples,
}

/// One side of a comparison. Only windows whose two signals arrived count.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct DiffSide {
    version: String,
    from_ms: i64,
    to_ms: i64,
    /// Windows of profiles used.
    windows: u64,
    /// Those that values are divided by; where they are divided by no requests, all that were seen.
    requests: u64,
    /// Seconds of instances observed.
    seconds: f64,
    coverage: Coverage,
    samples: u64,
    /// Exact.
    total_ns: i64,
    /// Requests, seconds or 1.
    divisor: f64,
    /// `total_ns / divisor`.
    value: f64,
    build_ids: Vec<String>,
    /// Share of the value whose leaf has a name, 0 to 1.
    resolved_ratio: f64,
}

/// How much of a range both signals cover. What was spent is divided by what was served in that time alone.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct Coverage {
    /// Seconds that both cover.
    covered_s: u64,
    /// Seconds that profiles of the type cover.
    profiles_s: u64,
    /// Seconds that requests are known of.
    requests_s: u64,
    /// Instances that sent profiles.
    profiled_instances: u64,
    /// Instances whose requests are known.
    counted_instances: u64,
    joined_by: JoinedBy,
    /// Why nothing can be divided by requests; null where something can.
    missing: Option<Missing>,
}

/// Whose windows were joined: each instance's that reports both signals with its own, or, where none does, the release's.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum JoinedBy {
    Instance,
    Release,
}

/// Which signal is missing. `same_time`: both arrived, never of the same time.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum Missing {
    Requests,
    Profiles,
    Both,
    SameTime,
}

/// The whole cost of both sides and its difference.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct CostChange {
    baseline: f64,
    candidate: f64,
    delta: f64,
    /// Lower end of the 95 % interval of `delta`.
    low: f64,
    /// Upper end of the 95 % interval of `delta`.
    high: f64,
    ratio: Option<f64>,
    /// Two-sided.
    p_value: f64,
}

/// One quantile of both releases with 95 % intervals.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct QuantilePair {
    q: f64,
    baseline_ms: Option<f64>,
    baseline_low_ms: Option<f64>,
    baseline_high_ms: Option<f64>,
    candidate_ms: Option<f64>,
    candidate_low_ms: Option<f64>,
    candidate_high_ms: Option<f64>,
}

/// Latency of both releases.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct LatencyEvidence {
    quantiles: Vec<QuantilePair>,
    baseline_n: u64,
    candidate_n: u64,
}

/// A release's route got slower.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct Alert {
    /// The same after a restart.
    id: String,
    state: AlertStatus,
    /// `latency`.
    kind: String,
    namespace: String,
    service: String,
    baseline: String,
    candidate: String,
    route: String,
    /// Calling release (`service@version`); null when several or unknown ones call.
    source: Option<String>,
    mode: ComparisonMode,
    started_ms: i64,
    updated_ms: i64,
    resolved_ms: Option<i64>,
    sentence: String,
    function: Option<GuiltyFunction>,
    functions: Vec<FunctionRow>,
    latency: LatencyEvidence,
    e_value: f64,
    alpha: f64,
    windows: u64,
    client_server: ClientServerSplit,
    /// Callers' slowdowns that this one explains.
    folded: Vec<String>,
    /// Path of the Compare page.
    diff_url: String,
    /// Why it was not sent, when it was not.
    suppressed_reason: Option<String>,
    ended_reason: Option<String>,
}

/// Where an alert stands.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum AlertStatus {
    Suspected,
    Firing,
    Recovering,
    Resolved,
}

/// Whether both releases served at the same time.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) enum ComparisonMode {
    Concurrent,
    BeforeAfter,
}

/// The function that explains a slowdown.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct GuiltyFunction {
    id: String,
    name: String,
    module: String,
    delta_ns_per_request: f64,
    /// As a share of the route's growth.
    share: f64,
    /// Only code that the service's owners did not write explains the growth.
    library: bool,
    /// Library function that it calls and that took most of the growth; null when it took it itself.
    callee: Option<String>,
}

/// Difference of the medians seen from both ends.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never built")]
pub(crate) struct ClientServerSplit {
    client_delta_ms: Option<f64>,
    server_delta_ms: Option<f64>,
}

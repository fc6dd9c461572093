//! Alerts: what the verdict runner states and the pages show.

use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    comparison::{FunctionRow, LatencyEvidence},
    id::HexId,
};

/// State of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// There is evidence, but not for long enough.
    Suspected,
    /// Confirmed and sent to the receivers.
    Firing,
    /// The newest windows no longer show it.
    Recovering,
    /// Over.
    Resolved,
}

/// Whether the two releases were live at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonMode {
    /// Both live: noise common to both cancels out.
    Concurrent,
    /// One after the other: drift is possible.
    BeforeAfter,
}

/// The function that explains a slowdown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GuiltyFunction {
    /// Function identifier, 16 hexadecimal digits.
    #[schema(value_type = String)]
    pub id: HexId,
    /// Normalised name.
    pub name: String,
    /// Base name of the file its code was loaded from.
    pub module: String,
    /// Growth of its total CPU time per request, nanoseconds.
    pub delta_ns_per_request: f64,
    /// That growth as a share of the route's; 1 where the route grew by less.
    pub share: f64,
    /// True when only library code explains the growth.
    #[serde(default)]
    pub library: bool,
    /// Library function it calls that caused most of that growth; null when the growth is in the function itself.
    #[serde(default)]
    pub callee: Option<String>,
    /// Its name in the baseline; null when it had the same.
    #[serde(default)]
    pub formerly: Option<String>,
}

impl GuiltyFunction {
    /// Name for sentences, including its former name and the callee that took the time, if any.
    pub fn words(&self) -> String {
        let formerly = self.formerly.as_ref().map(|name| format!(" (formerly `{name}`)"));
        let callee = self.callee.as_ref().map(|callee| format!(", in `{callee}`"));
        let more = [formerly, callee].map(Option::unwrap_or_default).concat();
        format!("`{}`{more}", self.name)
    }
}

/// Difference of the medians seen from both ends of the edge, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClientServerSplit {
    /// Seen by the callers.
    pub client_delta_ms: Option<f64>,
    /// Seen by the release itself.
    pub server_delta_ms: Option<f64>,
}

/// A regression of a release on a route, with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// Hash of the alert's subject; stable across restarts.
    pub id: String,
    /// State.
    pub state: AlertStatus,
    /// `latency`: it got slower; `client_latency`: its callers wait longer, and not because it got slower; `errors`: it fails more often.
    pub kind: String,
    /// Namespace of the service that changed.
    pub namespace: String,
    /// The service that changed.
    pub service: String,
    /// Baseline release.
    pub baseline: String,
    /// Candidate release.
    pub candidate: String,
    /// Route template.
    pub route: String,
    /// Calling release (`service@version`); null for several or unknown callers.
    pub source: Option<String>,
    /// Whether both releases were live.
    pub mode: ComparisonMode,
    /// Window of the first verdict, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Latest window judged.
    pub updated_ms: i64,
    /// When it ended.
    pub resolved_ms: Option<i64>,
    /// Why it ended, unless the route recovered or is no longer called.
    #[serde(default)]
    pub ended_reason: Option<String>,
    /// Summary in one sentence.
    pub sentence: String,
    /// Guilty function.
    pub function: Option<GuiltyFunction>,
    /// The functions that changed most, per request.
    pub functions: Vec<FunctionRow>,
    /// Quantiles of both releases; of `client_latency`, as their callers measure them.
    pub latency: LatencyEvidence,
    /// Evidence: how many times more likely the data is under a regression.
    pub e_value: f64,
    /// False-positive probability per edge and release, over the whole lifetime.
    pub alpha: f64,
    /// Windows used.
    pub windows: u64,
    /// Client against server.
    pub client_server: ClientServerSplit,
    /// Slowdowns of callers that this one explains.
    pub folded: Vec<String>,
    /// Path of the Compare page with this comparison.
    pub diff_url: String,
    /// Why it was not sent, when it was not.
    pub suppressed_reason: Option<String>,
}

/// The current alerts: written by the verdict runner, read by the web service.
#[derive(Debug, Clone, Default)]
pub struct AlertsBoard(Arc<RwLock<Vec<Alert>>>);

impl AlertsBoard {
    /// A copy of all alerts, newest first.
    pub fn snapshot(&self) -> Vec<Alert> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Replaces all alerts.
    pub fn replace(&self, alerts: Vec<Alert>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = alerts;
    }
}

//! The verdict runner: which release made which route slower, since when, and which function explains it.
//!
//! After each window, for each service with two releases: the newest release (the candidate) is compared with the one
//! before it (the baseline), route by route and caller by caller, as the server side reports them. What is slower gets
//! its evidence: functions whose CPU per request grew, the split between client and server, and a link.
//!
//! Guarantees: an alert is a function of the stored windows and of the names known for addresses; a restart on the same
//! store repeats it with the same id, beginning and evidence. One alert per route and cause: callers that see the same
//! slowdown, and callers that are slower because this one is, are listed below it. The runner takes at most a tenth of
//! the time, however large the store is.
//!
//! Wrong on purpose: (1) only the newest `lookback` is judged, so a verdict on an older release is renewed from newer
//! windows, and after a restart it begins with them. (2) A caller with too few requests is judged together with all
//! such callers; when it gets enough of them it is judged on its own, and an alert may change its source then.
//! (3) Failed requests count like others: a release that fails quickly looks fast. (4) CPU per request alone never
//! raises an alert.

mod alerts;
mod evidence;
mod folding;
mod releases;
mod runner;
mod units;

use std::time::Duration;

use emberline_analysis::{latency::LatencyConfig, went_away::AlertConfig};
use emberline_model::function::OwnCode;
use serde::{Deserialize, Serialize};

pub(crate) use runner::{Memory, VerdictRunner};

/// Settings of the verdict runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerdictConfig {
    /// When a slowdown is stated.
    pub latency: LatencyConfig,
    /// How an alert fires, recovers and resolves.
    pub alert: AlertConfig,
    /// How long after the end of a window its batches may take to arrive.
    pub grace: Duration,
    /// How long an alert stays suspected, after its verdict, while addresses wait for their names.
    pub wait_for_symbols: Duration,
    /// Windows after the verdict that still become part of its evidence; then the evidence stands.
    pub evidence_windows: u32,
    /// Requests to each of the releases from which a caller is judged on its own.
    pub min_source_requests: u64,
    /// What is own code of which service, where that is set; a function of it is named before any other.
    pub own_code: OwnCode,
}

impl Default for VerdictConfig {
    fn default() -> VerdictConfig {
        let latency = LatencyConfig::default();
        VerdictConfig {
            min_source_requests: latency.min_requests,
            latency,
            // One more window that shows it: the e-process has been through two already, and a burst that outlives
            // three windows is worth a look.
            alert: AlertConfig {
                confirm_windows: 1,
                ..AlertConfig::default()
            },
            grace: Duration::from_secs(4),
            wait_for_symbols: Duration::from_secs(30),
            evidence_windows: 30,
            own_code: OwnCode::default(),
        }
    }
}

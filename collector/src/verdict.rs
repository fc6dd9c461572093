//! The verdict runner: which release made which route slower, since when, and which function explains it.
//!
//! After each window, for each service with two releases: the newest release (the candidate) is compared with the one that
//! it replaces (the baseline, [`emberline_storage::baseline_of`]), route by route and caller by caller, as the server side
//! reports them, and as callers do that say which release answered; and so are the two releases of each alert that is open, until it is over, whichever release is newest by
//! then. What is slower gets its evidence: functions whose CPU per request grew, the split between client and server, and a
//! link. The first windows of each instance (`warm_up`) are no evidence.
//!
//! Guarantees: a verdict is a function of the stored windows and of the names known for addresses; a restart on the same
//! store repeats it with the same id, beginning and evidence. An alert that fired is open until it is over
//! ([`crate::alert_book`]). One alert per route and cause: callers that see the same
//! slowdown, and callers that are slower because this one is, are listed below it. What callers wait longer is an alert of its own
//! where the release itself takes longer by less than half of that. Between runs a watch is kept per route and caller
//! (`watching`), which is fed each window once; runs ask the store for new windows and those of the last minutes. The runner takes
//! at most a tenth of the time, however large the store is.
//!
//! Wrong on purpose: (1) evidence is gathered for a day, and then anew, so that what has to be read after a restart has an end; an
//! alert that is open keeps the day it was stated in, for two days at most. What comes more than three minutes late is
//! judged only after a restart. (2) A caller with too few requests is judged together with all
//! such callers; when it gets enough of them it is judged on its own, and an alert may change its source then.
//! (3) To latency failed requests count like others, and a release that fails quickly looks fast: failures are judged by
//! themselves ([`emberline_analysis::errors`]). Callers that fail because this one does are alerts of their own. (4) CPU per request alone never
//! raises an alert.

mod alerts;
mod evidence;
mod feeding;
mod folding;
mod links;
mod runner;
mod sentences;
mod units;
mod watching;

use std::time::Duration;

use emberline_analysis::{alert_state::AlertConfig, errors::ErrorConfig, latency::LatencyConfig};
use emberline_model::function::OwnCode;

pub(crate) use folding::{AlertKey, CLIENT_LATENCY, ERRORS};
pub(crate) use runner::{Memory, VerdictRunner};

/// Settings of the verdict runner.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictConfig {
    /// Warm-up time of an instance; its windows are ignored until then.
    pub warm_up: Duration,
    /// How long after their last window the releases of an open alert are judged, at most.
    pub watch: Duration,
    /// When a slowdown is reported.
    pub latency: LatencyConfig,
    /// When an increase in failures is reported.
    pub errors: ErrorConfig,
    /// How an alert fires, recovers and resolves.
    pub alert: AlertConfig,
    /// How long after the end of a window its batches may still arrive.
    pub grace: Duration,
    /// How long an alert stays suspected after its verdict while addresses are being symbolized.
    pub wait_for_symbols: Duration,
    /// Windows after the verdict that are still added to its evidence.
    pub evidence_windows: u32,
    /// Minimum requests to each release before a caller is judged separately.
    pub min_source_requests: u64,
    /// Configured own code per service; its functions are named before any others.
    pub own_code: OwnCode,
}

impl VerdictConfig {
    /// The defaults with another warm-up.
    pub fn with_warm_up(warm_up: Duration) -> VerdictConfig {
        VerdictConfig {
            warm_up,
            ..VerdictConfig::default()
        }
    }
}

impl Default for VerdictConfig {
    fn default() -> VerdictConfig {
        let latency = LatencyConfig::default();
        VerdictConfig {
            warm_up: Duration::from_secs(45),
            watch: Duration::from_secs(6 * 3600),
            min_source_requests: latency.min_requests,
            latency,
            errors: ErrorConfig::default(),
            // One more window that shows it: blocks of time have confirmed it already.
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

//! Liveness and readiness. `healthy` is for restarts: it answers as long as the process runs. `ready` is for traffic:
//! it says no, with the reason, while queries would fail.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use crate::state::Web;

/// Answer of `/-/ready`.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    /// Why it is not ready.
    reason: Option<String>,
}

/// `/-/healthy`.
pub(crate) async fn healthy() -> &'static str {
    "healthy\n"
}

/// `/-/ready`: 200 or 503.
pub(crate) async fn ready(State(web): State<Web>) -> Response {
    let reason = why_not_ready(&web);
    let status = if reason.is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(Readiness {
            ready: reason.is_none(),
            reason,
        }),
    )
        .into_response()
}

/// Why the server is not ready; `None` if it is.
pub(crate) fn why_not_ready(web: &Web) -> Option<String> {
    if let Err(reason) = (web.ready)() {
        return Some(reason);
    }
    let stats = web.store.stats();
    if stats.hot_available {
        return None;
    }
    let why = stats
        .hot_error
        .unwrap_or_else(|| "rebuilding from the journal".to_owned());
    Some(format!("the query engine is not open: {why}; ingestion continues"))
}

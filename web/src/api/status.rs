//! `/api/v1/status`: the server's own status.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use emberline_model::metric::{LossCount, Unit};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::json::Json,
    http::error::{ApiError, ErrorBody},
    probes::health,
    query::params::{Parameter, Params},
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[];

/// Status of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// Version of the program.
    version: String,
    /// Process ID, as in the lock file of its store.
    pid: u32,
    /// Start of the process.
    started_ms: i64,
    /// Whether queries can be answered.
    ready: bool,
    /// Why it is not ready.
    not_ready_reason: Option<String>,
    /// Losses, damage and failures since start-up, by kind, including kinds with a count of 0.
    losses: Vec<LossRow>,
    /// Counters and sizes of the store.
    #[schema(value_type = Object)]
    store: emberline_storage::StoreStats,
    /// Counters of ingest.
    #[schema(value_type = Object)]
    ingest: serde_json::Value,
    /// Connections of this server: open, allowed, refused and closed, by reason.
    #[schema(value_type = Object)]
    connections: serde_json::Value,
    /// Symbolization.
    symbols: Symbols,
    /// Configured own-code prefixes by service (`--own-code`).
    own_code: BTreeMap<String, Vec<String>>,
}

/// A counter whose growth indicates loss, damage or failure.
#[derive(Debug, Serialize, ToSchema)]
struct LossRow {
    /// Name of the metric, without `_total`.
    name: &'static str,
    /// What it counts.
    help: &'static str,
    /// What to do about it.
    remedy: &'static str,
    /// `count`, `bytes` or `seconds`.
    unit: Unit,
    /// Count since start-up.
    count: u64,
}

impl From<LossCount> for LossRow {
    fn from(loss: LossCount) -> LossRow {
        LossRow {
            name: loss.name,
            help: loss.help,
            remedy: loss.remedy,
            unit: loss.unit,
            count: loss.count,
        }
    }
}

/// Progress of symbolization.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Symbols {
    /// Builds whose code was seen.
    builds: u64,
    /// Native locations seen.
    locations: u64,
    /// Number of those for which symbols were looked up.
    resolved: u64,
}

/// Status of the server.
#[utoipa::path(get, path = "/api/v1/status", responses(
    (status = 200, body = Status), (status = "default", body = ErrorBody),
))]
pub(crate) async fn status(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Status>, ApiError> {
    Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let not_ready_reason = health::why_not_ready(&web);
    let mut symbols = Symbols::default();
    for build in web.store.builds() {
        symbols.builds += 1;
        symbols.locations += build.locations;
        symbols.resolved += build.resolved;
    }
    let store = web.store.stats();
    let losses = store.losses().into_iter().chain((web.losses)());
    Ok(Json(Status {
        version: web.version.clone(),
        pid: std::process::id(),
        started_ms: web.started_ms,
        ready: not_ready_reason.is_none(),
        not_ready_reason,
        losses: losses.map(LossRow::from).collect(),
        store,
        ingest: (web.ingest_status)(),
        connections: (web.connection_status)(),
        symbols,
        own_code: web.own_code.services().clone(),
    }))
}

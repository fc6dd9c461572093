//! `/api/v1/services`: what reports, in which releases.

use std::collections::HashMap;

use axum::extract::{RawQuery, State};
use emberline_model::{Side, workload::Component};
use emberline_storage::{Range, ReleaseInfo, RequestQuery, WorkloadFilter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::{json::Json, red::Red},
    http::error::{ApiError, ErrorBody},
    query::{
        catalog,
        params::{FROM, Parameter, Params, TO},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[FROM, TO];

/// Reporting services.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Services {
    /// By namespace and name.
    services: Vec<Service>,
}

/// A service and its releases.
#[derive(Debug, Serialize, ToSchema)]
struct Service {
    /// May be empty.
    namespace: String,
    service: String,
    /// Newest first.
    releases: Vec<Release>,
    /// Versions that report at the end of the range, newest first.
    live_versions: Vec<String>,
    /// Requests served, over the seconds observed.
    requests_per_second: f64,
    /// 0 to 1.
    error_ratio: f64,
    /// Null without requests.
    p99_ms: Option<f64>,
}

/// A release and what it reported in the range.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Release {
    version: String,
    /// When it was first seen, or its start as declared through the API; may be before the range. Releases are
    /// ordered by it.
    first_seen_ms: i64,
    /// Whether the start was declared through the API (`POST /api/v1/releases`).
    stated: bool,
    /// End of its last window in the range.
    last_seen_ms: i64,
    /// It still reported at the end of the range.
    live: bool,
    instances: Vec<String>,
    build_ids: Vec<String>,
    /// Reporting components: `application`, `proxy` or both.
    components: Vec<Component>,
}

impl Release {
    /// A release at the end of a range.
    pub(super) fn of(info: &ReleaseInfo, range: Range, now_s: i64) -> Release {
        Release {
            version: info.version.clone(),
            first_seen_ms: info.first_seen_s * 1000,
            stated: info.is_stated,
            last_seen_ms: info.last_seen_s * 1000,
            live: catalog::is_live(info, range, now_s),
            instances: info.instances.clone(),
            build_ids: info.build_ids.clone(),
            components: info.components.clone(),
        }
    }
}

/// Services and their releases, with what they served.
#[utoipa::path(get, path = "/api/v1/services", responses(
    (status = 200, body = Services), (status = "default", body = ErrorBody),
))]
pub(crate) async fn services(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Services>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let range = params.shared_range()?;
    let served = RequestQuery {
        side: Some(Side::Server),
        ..RequestQuery::new(WorkloadFilter::default(), range)
    };
    let (known, rows) = tokio::try_join!(catalog::all_services(&web.store, range), web.store.ask(served))?;
    let mut reds: HashMap<(&str, &str), Red> = HashMap::new();
    for row in &rows {
        reds.entry((&row.reporter.namespace, &row.reporter.service))
            .or_default()
            .add(row);
    }
    let now_s = web.clock.now_unix_s();
    let services = known.iter().map(|known| {
        let red = reds
            .remove(&(known.namespace.as_str(), known.service.as_str()))
            .unwrap_or_default();
        let releases: Vec<Release> = known
            .releases
            .iter()
            .map(|info| Release::of(info, range, now_s))
            .collect();
        Service {
            namespace: known.namespace.clone(),
            service: known.service.clone(),
            live_versions: releases.iter().filter(|r| r.live).map(|r| r.version.clone()).collect(),
            releases,
            requests_per_second: red.requests() as f64 / catalog::observed_seconds(&known.releases, range),
            error_ratio: red.error_ratio(),
            p99_ms: red.quantiles().p99_ms,
        }
    });
    Ok(Json(Services {
        services: services.collect(),
    }))
}

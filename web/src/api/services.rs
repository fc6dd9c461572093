//! `/api/v1/services`: the reporting services and their releases.

use std::collections::HashMap;

use axum::extract::{RawQuery, State};
use emberline_model::workload::Component;
use emberline_storage::{Range, ReleaseInfo, ServedQuery, ServicesQuery};
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
    /// By namespace and name; if there are very many, those that reported longest in the range.
    services: Vec<Service>,
    /// Number of services left out.
    left_out: u64,
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
    /// How many processes reported.
    instance_count: usize,
    build_ids: Vec<String>,
    /// Reporting components: `application`, `proxy` or both.
    components: Vec<Component>,
}

impl Release {
    /// A release at the end of a range.
    pub(super) fn of(info: ReleaseInfo, range: Range, now_s: i64) -> Release {
        Release {
            live: catalog::is_live(&info, range, now_s),
            version: info.version,
            first_seen_ms: info.first_seen_s * 1000,
            stated: info.is_stated,
            last_seen_ms: info.last_seen_s * 1000,
            instance_count: info.instance_count,
            build_ids: info.build_ids,
            components: info.components,
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
    let (known, left_out) = catalog::services(&web.store, ServicesQuery::new(range)).await?;
    let who = catalog::workloads_of(&known, left_out);
    let rows = web.store.ask(ServedQuery { who, range }).await?;
    let mut reds: HashMap<(String, String), Red> = rows
        .into_iter()
        .map(|row| {
            let red = Red {
                errors: row.errors,
                given_up: row.given_up,
                duration: row.latency,
                ..Red::default()
            };
            ((row.namespace, row.service), red)
        })
        .collect();
    let now_s = web.clock.now_unix_s();
    let services = known.into_iter().map(|known| {
        let seconds = catalog::observed_seconds(&known.releases, range);
        let name = (known.namespace, known.service);
        let red = reds.remove(&name).unwrap_or_default();
        let (namespace, service) = name;
        let releases = known.releases.into_iter();
        let releases: Vec<Release> = releases.map(|info| Release::of(info, range, now_s)).collect();
        Service {
            namespace,
            service,
            live_versions: releases.iter().filter(|r| r.live).map(|r| r.version.clone()).collect(),
            releases,
            requests_per_second: red.requests() as f64 / seconds,
            error_ratio: red.error_ratio(),
            p99_ms: red.quantiles().p99_ms,
        }
    });
    Ok(Json(Services {
        services: services.collect(),
        left_out,
    }))
}

//! `/api/v1/cardinality`: what makes the store grow, per service.
//!
//! Guarantee: counts are exact. Wrong on purpose: bytes are known only for the whole store; a service's share of the
//! rows approximates its share of them.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{RawQuery, State};
use emberline_storage::{SampleSeriesQuery, StackCountsQuery};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::json::Json,
    http::error::{ApiError, ErrorBody},
    query::params::{FROM, Parameter, Params, TO},
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[FROM, TO];

/// What is stored, per service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cardinality {
    /// Sorted by rows, descending.
    services: Vec<ServiceCardinality>,
    /// Rows of samples in the range.
    rows: u64,
    /// Total stored bytes, including data outside the range.
    stored_bytes: u64,
}

/// What is stored for one service.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceCardinality {
    namespace: String,
    service: String,
    versions: u64,
    instances: u64,
    /// Routes in sample labels.
    routes: u64,
    profile_types: u64,
    /// Combinations of instance, component, profile type, side and route.
    series: u64,
    /// Distinct stacks.
    stacks: u64,
    samples: u64,
    /// Rows of samples: one per window, series and stack.
    rows: u64,
    /// Share of all rows, 0 to 1.
    share: f64,
    /// Start of its first window with samples in the range.
    first_ms: i64,
    /// Start of its last window with samples in the range.
    last_ms: i64,
}

#[derive(Default)]
struct Counted<'a> {
    versions: BTreeSet<&'a str>,
    instances: BTreeSet<(&'a str, &'a str)>,
    routes: BTreeSet<&'a str>,
    profile_types: BTreeSet<&'a str>,
    series: u64,
    samples: u64,
    rows: u64,
    first_s: Option<i64>,
    last_s: i64,
}

/// How many series, stacks and rows each service has.
#[utoipa::path(get, path = "/api/v1/cardinality", responses(
    (status = 200, body = Cardinality), (status = "default", body = ErrorBody),
))]
pub(crate) async fn cardinality(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
) -> Result<Json<Cardinality>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let range = params.shared_range()?;
    let (series, stacks) = tokio::try_join!(
        web.store.ask(SampleSeriesQuery { range }),
        web.store.ask(StackCountsQuery { range })
    )?;
    let mut services: BTreeMap<(&str, &str), Counted<'_>> = BTreeMap::new();
    for one in &series {
        let workload = &one.workload;
        let counted = services.entry((&workload.namespace, &workload.service)).or_default();
        counted.versions.insert(&workload.version);
        counted.instances.insert((&workload.version, &workload.instance));
        if !one.route.is_empty() {
            counted.routes.insert(&one.route);
        }
        counted.profile_types.insert(&one.profile_type);
        counted.series += 1;
        counted.samples = counted.samples.saturating_add(one.samples);
        counted.rows = counted.rows.saturating_add(one.rows);
        counted.first_s = Some(counted.first_s.map_or(one.first_s, |first| first.min(one.first_s)));
        counted.last_s = counted.last_s.max(one.last_s);
    }
    let rows: u64 = services.values().map(|counted| counted.rows).sum();
    let stacks: BTreeMap<(&str, &str), u64> = stacks
        .iter()
        .map(|of| ((of.namespace.as_str(), of.service.as_str()), of.stacks))
        .collect();
    let services = services.into_iter().map(|(name, counted)| ServiceCardinality {
        namespace: name.0.to_owned(),
        service: name.1.to_owned(),
        versions: counted.versions.len() as u64,
        instances: counted.instances.len() as u64,
        routes: counted.routes.len() as u64,
        profile_types: counted.profile_types.len() as u64,
        series: counted.series,
        stacks: stacks.get(&name).copied().unwrap_or_default(),
        samples: counted.samples,
        rows: counted.rows,
        share: counted.rows as f64 / rows.max(1) as f64,
        first_ms: counted.first_s.unwrap_or_default() * 1000,
        last_ms: counted.last_s * 1000,
    });
    let mut services: Vec<ServiceCardinality> = services.collect();
    services.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.service.cmp(&b.service)));
    let stats = web.store.stats();
    Ok(Json(Cardinality {
        services,
        rows,
        stored_bytes: stats.journal_bytes.saturating_add(stats.hot_bytes),
    }))
}

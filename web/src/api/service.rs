//! `/api/v1/service`: everything on the page of one service: releases, routes, windows, alerts.
//!
//! Guarantees: the CPU of a release's routes adds up to the release's (`(none)` is CPU outside of requests);
//! `cpu_ns_per_request` times `complete_requests`, before rounding, is `complete_cpu_ns`, per route. A release has at
//! most [`MOST_POINTS`] points, however long the range: their requests and CPU are added up, and their quantiles are
//! those of all these requests.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use emberline_model::{Side, alert::Alert, workload::Component};
use emberline_storage::{Range, RequestQuery, RequestRow, Step, UsualWindowQuery};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    releases::{Figures, ReleaseStats, component_of},
    workloads_of,
};
use crate::{
    answers::{
        cost::{Cost, Costs, CpuFigures},
        json::Json,
        red::{Quantiles, Red},
    },
    http::error::{ApiError, ErrorBody},
    query::{
        catalog,
        params::{FROM, NAMESPACE, NONE, Parameter, Params, SERVICE, TO},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[SERVICE, NAMESPACE, FROM, TO];

/// The most points of a release: about as many as fit into a chart.
const MOST_POINTS: u32 = 400;
/// In ranges of at least this many seconds, points are at least quarters of an hour, which the store has
/// pre-aggregated.
const LONG_S: u32 = 16 * 3_600;
const QUARTER_OF_HOUR_S: u32 = 900;

/// Everything about one service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServicePage {
    namespace: String,
    service: String,
    /// Newest first.
    releases: Vec<ReleaseStats>,
    /// By route, then newest version first.
    routes: Vec<RouteStats>,
    /// Length of a step of `series`, in seconds.
    step_s: u32,
    /// By step, then newest version first; the component is given per release.
    series: Vec<Point>,
    /// Alerts about this service, newest first.
    alerts: Vec<Alert>,
}

/// One route of one release.
#[derive(Debug, Serialize, ToSchema)]
struct RouteStats {
    /// Route; `(none)` for CPU outside of requests.
    route: String,
    version: String,
    /// Component. A release reported by both application and proxy has a row for each.
    component: Component,
    /// Requests served.
    requests: u64,
    /// Per second observed.
    rate: f64,
    error_ratio: f64,
    #[serde(flatten)]
    quantiles: Quantiles,
    #[serde(flatten)]
    cpu: CpuFigures,
}

/// The windows of one release that start within one step.
#[derive(Debug, Serialize, ToSchema)]
struct Point {
    /// Start of the step, milliseconds since the Unix epoch.
    start_ms: i64,
    version: String,
    /// Seconds covered by the windows with these requests; 0 without request data.
    observed_s: u64,
    requests: u64,
    errors: u64,
    #[serde(flatten)]
    quantiles: Quantiles,
    cpu_ns: i64,
    /// For the time covered by both signals; null without such time or without requests.
    cpu_ns_per_request: Option<f64>,
}

/// The sums of a row.
#[derive(Default)]
struct Sums {
    red: Red,
    cpu: Cost,
    complete: Cost,
}

/// Adds up requests and costs under a key chosen by the caller; what has no key is left out.
fn group<K: Ord>(
    requests: &[(Component, &RequestRow)],
    figures: &Figures,
    key: impl Fn(&str, Component, Option<&str>, i64) -> Option<K>,
) -> BTreeMap<K, Sums> {
    let mut sums: BTreeMap<K, Sums> = BTreeMap::new();
    for (component, row) in requests {
        if let Some(key) = key(&row.reporter.version, *component, Some(&row.route), row.window_start_s) {
            sums.entry(key).or_default().red.add(row);
        }
    }
    let mut add = |costs: &Costs, pick: fn(&mut Sums) -> &mut Cost| {
        for (of, cost) in costs {
            if let Some(key) = key(&of.release.version, of.component, of.route.as_deref(), of.start_s) {
                pick(sums.entry(key).or_default()).add(cost);
            }
        }
    };
    add(&figures.cpu, |sums| &mut sums.cpu);
    add(&figures.complete, |sums| &mut sums.complete);
    sums
}

/// Length of steps for the observed time, in seconds: a day with minutes of data is shown window by window. A step is
/// no shorter than the usual window of requests, because there is no finer data.
fn step_s(range: Range, usual_window_s: u32) -> u32 {
    let at = |unix_s: i64| u32::try_from(unix_s.max(0)).unwrap_or(u32::MAX);
    let (first, last) = (at(range.from_unix_s), at(range.to_unix_s - 1));
    let long = if last.saturating_sub(first) >= LONG_S {
        QUARTER_OF_HOUR_S
    } else {
        0
    };
    Step::length_s(first, last, MOST_POINTS)
        .max(Step::holding_s(usual_window_s))
        .max(long)
}

/// One service: releases, routes, windows and alerts.
#[utoipa::path(get, path = "/api/v1/service", responses(
    (status = 200, body = ServicePage), (status = "default", body = ErrorBody),
))]
pub(crate) async fn service(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<ServicePage>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let range = params.shared_range()?;
    let known = catalog::find_service(&web.store, &params, range).await?;
    let usual = UsualWindowQuery {
        who: workloads_of(&known),
        range,
    };
    let usual_window_s = web.store.ask(usual).await?.length_s;
    let step_s = step_s(catalog::observed(&known.releases, range), usual_window_s);
    let step = Step::Seconds(step_s);
    let figures = Figures::fetch(&web, known, range, step).await?;
    // A proxy's own report is also counted under the proxy if the application reports, too.
    let both = |c: &[Component]| c.contains(&Component::Application) && c.contains(&Component::Proxy);
    let carried = match figures.known.releases.iter().any(|r| both(&r.components)) {
        false => Vec::new(),
        true => {
            let who = workloads_of(&figures.known);
            let component = Some(Component::Proxy);
            let query = RequestQuery {
                component,
                side: Some(Side::Server),
                step,
                ..RequestQuery::new(who, range)
            };
            web.store.ask(query).await?
        }
    };
    let components: BTreeMap<&str, &[Component]> = figures
        .known
        .releases
        .iter()
        .map(|r| (r.version.as_str(), r.components.as_slice()))
        .collect();
    let components_of = |version: &str| components.get(version).copied().unwrap_or_default();
    let served = figures
        .served
        .iter()
        .map(|row| (component_of(components_of(&row.reporter.version)), row));
    let carried = carried.iter().filter(|row| both(components_of(&row.reporter.version)));
    let requests: Vec<(Component, &RequestRow)> = served.chain(carried.map(|row| (Component::Proxy, row))).collect();

    let rank: BTreeMap<&str, usize> = figures
        .known
        .releases
        .iter()
        .enumerate()
        .map(|(at, r)| (r.version.as_str(), at))
        .collect();
    let rank_of = |version: &str| rank.get(version).copied().unwrap_or(usize::MAX);
    let version_of = |rank: usize| {
        figures
            .known
            .releases
            .get(rank)
            .map_or("", |r| r.version.as_str())
            .to_owned()
    };
    let routes = group(&requests, &figures, |version, component, route, _| {
        Some((route.map(str::to_owned), rank_of(version), component))
    });
    let mut series = group(&requests, &figures, |version, component, _, start_s| {
        (component == component_of(components_of(version))).then(|| (start_s, rank_of(version)))
    });
    let mut observed_s: BTreeMap<(i64, usize), u64> = BTreeMap::new();
    for row in &figures.reports {
        let at = (row.window_start_s, rank_of(&row.release.version));
        observed_s.insert(at, row.requests_s);
        // A step without requests is a zero, and a step that was not reported is a gap.
        if row.requests_s > 0 {
            series.entry(at).or_default();
        }
    }
    let seconds = catalog::observed_seconds(&figures.known.releases, range);
    let routes = routes.into_iter().map(|((route, rank, component), sums)| RouteStats {
        route: route.unwrap_or_else(|| NONE.to_owned()),
        version: version_of(rank),
        component,
        requests: sums.red.requests(),
        rate: sums.red.requests() as f64 / seconds,
        error_ratio: sums.red.error_ratio(),
        quantiles: sums.red.quantiles(),
        cpu: CpuFigures::of(&sums.cpu, &sums.complete),
    });
    let series = series.into_iter().map(|((start_s, rank), sums)| Point {
        start_ms: start_s * 1000,
        version: version_of(rank),
        observed_s: observed_s.get(&(start_s, rank)).copied().unwrap_or(0),
        requests: sums.red.requests(),
        errors: sums.red.errors,
        quantiles: sums.red.quantiles(),
        cpu_ns: sums.cpu.cpu_ns,
        cpu_ns_per_request: sums.complete.cpu_ns_per_request(),
    });
    let mut alerts = web.alerts.snapshot();
    alerts.retain(|a| a.service == figures.known.service && a.namespace == figures.known.namespace);
    let (routes, series) = (routes.collect(), series.collect());
    let releases = figures.releases(web.clock.now_unix_s());
    Ok(Json(ServicePage {
        releases,
        routes,
        step_s,
        series,
        alerts,
        namespace: figures.known.namespace,
        service: figures.known.service,
    }))
}

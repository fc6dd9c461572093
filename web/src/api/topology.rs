//! `/api/v1/topology`: who calls whom, by release, as reported by both ends.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{RawQuery, State};
use emberline_model::{Release, alert::AlertStatus, workload::Component};
use emberline_storage::{Holding, OpenQuery, Range, RequestQuery, ServicesQuery, Step};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::{
        cost::{self, Cost},
        edges::{self, Edge, End, Report, Reported, Served},
        json::Json,
        red::{Quantiles, Red},
    },
    http::error::{ApiError, ErrorBody},
    query::{
        catalog,
        params::{FROM, NAMESPACE, NONE, Parameter, Params, TO},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[FROM, TO, NAMESPACE];

/// Open streams are read from windows that begin at most this long before the end of the range.
const OPEN_SECONDS: i64 = 60;

/// Batches of a window arrive within this time of its end, unless a sender is cut off.
const ARRIVAL_SECONDS: i64 = 30;

/// The most services in a response: what they become fits into a response's share even when memory is short.
const MOST_SERVICES: usize = 1_000;

/// What a row becomes at most, in bytes: an edge with one route between two releases of its own, and its part of the
/// response.
const ROW_BYTES: usize = 3_072;

/// The call graph of a range.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Topology {
    /// One per release, and at most one each for unknown callers and callees.
    nodes: Vec<TopoNode>,
    edges: Vec<TopoEdge>,
    /// Number of services left out: if there are very many, only those that reported longest in the range are here,
    /// with their callers and callees.
    left_out: u64,
    from_ms: i64,
    to_ms: i64,
    /// False while batches of the range's last windows may still arrive.
    complete: bool,
}

/// A release or an unidentified peer.
#[derive(Debug, Serialize, ToSchema)]
struct TopoNode {
    /// `namespace/service@version`, `namespace/service`, `external` or `unknown destination`.
    id: String,
    namespace: String,
    service: String,
    version: String,
    kind: TopoNodeKind,
    /// Layer, in cards: callees are to the right of their callers.
    x: f64,
    /// Row, in cards.
    y: f64,
    /// Requests served per second observed.
    rate: f64,
    /// Requests served, per caller as reported by this node, or else by the caller.
    requests: u64,
    error_ratio: f64,
    #[serde(flatten)]
    quantiles: Quantiles,
    /// From complete windows; the application's if it reports, else the proxy's.
    cpu_ns_per_request: Option<f64>,
    /// Its own report; null if there is none.
    served: Option<EdgeSide>,
    /// Its callers' reports, which include requests that never arrived; null if there are none.
    called: Option<EdgeSide>,
    /// An alert about this release is firing.
    alert: bool,
}

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TopoNodeKind {
    /// A release.
    Service,
    /// What callers name and which did not introduce itself.
    Destination,
    /// A caller that did not introduce itself.
    External,
}

/// Requests from one node to another.
#[derive(Debug, Serialize, ToSchema)]
struct TopoEdge {
    id: String,
    /// Node id of the caller.
    source: String,
    /// Node id of the callee.
    destination: String,
    /// As reported by the callee, or else by the caller.
    requests: u64,
    /// The caller's report; null when not reported.
    client: Option<EdgeSide>,
    /// The callee's report; null when not reported.
    server: Option<EdgeSide>,
    /// From the same report as `requests`, most requests first.
    routes: Vec<EdgeRoute>,
    /// Protocol of most requests.
    protocol: String,
    /// Streams, gRPC calls and connections open at the end of the range, from the same report.
    open: u64,
}

/// What one side of an edge reported.
#[derive(Debug, Serialize, ToSchema)]
struct EdgeSide {
    requests: u64,
    /// Per second observed.
    rate: f64,
    errors: u64,
    error_ratio: f64,
    /// Requests abandoned by their callers; neither errors nor part of the quantiles.
    given_up: u64,
    #[serde(flatten)]
    quantiles: Quantiles,
    /// Total time they continued beyond their latency, in seconds: streams, slow readers, connections.
    streaming_seconds: f64,
    /// Body bytes from the caller.
    request_bytes: u64,
    /// Body bytes to the caller.
    response_bytes: u64,
    /// Streams, gRPC calls and connections open at the end of the range.
    open: u64,
}

/// One route of an edge.
#[derive(Debug, Serialize, ToSchema)]
struct EdgeRoute {
    route: String,
    requests: u64,
    errors: u64,
    #[serde(flatten)]
    quantiles: Quantiles,
}

impl EdgeSide {
    fn of(red: &Red, open: u64, seconds: f64) -> EdgeSide {
        EdgeSide {
            requests: red.requests(),
            rate: red.requests() as f64 / seconds,
            errors: red.errors,
            error_ratio: red.error_ratio(),
            given_up: red.given_up,
            quantiles: red.quantiles(),
            streaming_seconds: red.streaming_s,
            request_bytes: red.request_bytes,
            response_bytes: red.response_bytes,
            open,
        }
    }

    fn reported(side: Option<&Reported>, seconds: f64) -> Option<EdgeSide> {
        side.map(|reported| EdgeSide::of(&reported.red(), reported.open, seconds))
    }
}

impl TopoEdge {
    fn of(source: &End, destination: &End, edge: &Edge, seconds: f64) -> TopoEdge {
        let mut routes: Vec<EdgeRoute> = edge
            .best()
            .into_iter()
            .flat_map(|reported| &reported.routes)
            .map(|(route, red)| EdgeRoute {
                route: route.clone(),
                requests: red.requests(),
                errors: red.errors,
                quantiles: red.quantiles(),
            })
            .collect();
        routes.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.route.cmp(&b.route)));
        TopoEdge {
            id: format!("{} -> {}", source.id(), destination.id()),
            source: source.id(),
            destination: destination.id(),
            requests: edge.best().map_or(0, |reported| reported.red().requests()),
            client: EdgeSide::reported(edge.client.as_ref(), seconds),
            server: EdgeSide::reported(edge.server.as_ref(), seconds),
            routes,
            protocol: edge.protocol().to_owned(),
            open: edge.best().map_or(0, |reported| reported.open),
        }
    }
}

/// Releases, who calls whom, and the positions of the cards.
#[utoipa::path(get, path = "/api/v1/topology", responses(
    (status = 200, body = Topology), (status = "default", body = ErrorBody),
))]
pub(crate) async fn topology(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Topology>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let range = params.shared_range()?;
    let namespace = params.text(&NAMESPACE).map(|text| if text == NONE { "" } else { text });
    let query = ServicesQuery {
        most: MOST_SERVICES,
        ..ServicesQuery::new(range)
    };
    let (known, left_out) = catalog::services(&web.store, query).await?;
    let who = catalog::workloads_of(&known, left_out);
    let open = OpenQuery {
        who: who.clone(),
        range: Range {
            from_unix_s: range.from_unix_s.max(range.to_unix_s - OPEN_SECONDS),
            ..range
        },
    };
    let (rows, open, costs) = tokio::try_join!(
        web.store.ask(RequestQuery::new(who.clone(), range)),
        web.store.ask(open),
        cost::complete(&web.store, &who, Step::Range, range),
    )?;
    let seconds = catalog::observed_seconds(known.iter().flat_map(|k| &k.releases), range);

    let inside = |end: &End| match (namespace, end) {
        (None, _) => true,
        (Some(wanted), End::Release(release)) => release.namespace == wanted,
        (Some(wanted), End::Named { namespace, .. }) => namespace == wanted,
        (Some(_), _) => false,
    };
    // What rows become here: edges with their routes, and their part of the response.
    Holding::current().add((rows.len() * ROW_BYTES) as u64).await?;
    let mut edges = edges::join(rows);
    edges::add_open(&mut edges, &open);
    let edges_to = edges::by_callee(&edges);
    // Neighbours in other namespaces stay in the picture, together with the edges to them.
    let shown = || {
        edges
            .iter()
            .filter(|((source, destination), _)| inside(source) || inside(destination))
    };
    let reporting = known
        .iter()
        .flat_map(|k| k.releases.iter().map(|r| End::Release(k.release(&r.version))));
    let mut ends: BTreeSet<End> = reporting.filter(&inside).collect();
    ends.extend(shown().flat_map(|((source, destination), _)| [source.clone(), destination.clone()]));

    let costs = costs_by_release(costs);
    let alerts = web.alerts.snapshot();
    let firing = |release: &Release| {
        let about = |a: &&emberline_model::alert::Alert| {
            (&a.namespace, &a.service, &a.candidate) == (&release.namespace, &release.service, &release.version)
        };
        alerts.iter().filter(about).any(|a| a.state == AlertStatus::Firing)
    };
    let ends: Vec<End> = ends.into_iter().collect();
    let places = place(&web, namespace, &ends, shown().map(|(between, _)| between));
    let side = |report: Option<Report>| report.map(|report| EdgeSide::of(&report.red, report.open, seconds));
    let nodes = ends.iter().zip(places).map(|(end, place)| {
        let served = Served::of(edges_to.get(end).map_or(&[], Vec::as_slice));
        let red = &served.all;
        let (release, kind) = match end {
            End::Release(release) => (release.clone(), TopoNodeKind::Service),
            End::Named { namespace, service } => {
                let release = Release {
                    namespace: namespace.clone(),
                    service: service.clone(),
                    version: String::new(),
                };
                (release, TopoNodeKind::Destination)
            }
            other => (
                Release {
                    service: other.id(),
                    ..Release::default()
                },
                TopoNodeKind::External,
            ),
        };
        TopoNode {
            id: end.id(),
            kind,
            x: place.x,
            y: place.y,
            rate: red.requests() as f64 / seconds,
            requests: red.requests(),
            error_ratio: red.error_ratio(),
            quantiles: red.quantiles(),
            cpu_ns_per_request: costs.get(&release).and_then(Cost::cpu_ns_per_request),
            served: side(served.own),
            called: side(served.callers),
            alert: kind == TopoNodeKind::Service && firing(&release),
            namespace: release.namespace,
            service: release.service,
            version: release.version,
        }
    });
    Ok(Json(Topology {
        nodes: nodes.collect(),
        edges: shown()
            .map(|((from, to), edge)| TopoEdge::of(from, to, edge, seconds))
            .collect(),
        left_out,
        from_ms: range.from_unix_s * 1000,
        to_ms: range.to_unix_s * 1000,
        complete: range.to_unix_s + ARRIVAL_SECONDS <= web.clock.now_unix_s(),
    }))
}

/// The application's cost if it reports, otherwise the proxy's.
fn costs_by_release(costs: cost::Costs) -> BTreeMap<Release, Cost> {
    let mut by_component: BTreeMap<(Release, Component), Cost> = BTreeMap::new();
    for (key, cost) in costs {
        by_component.entry((key.release, key.component)).or_default().add(&cost);
    }
    let mut by_release = BTreeMap::new();
    // The application's entry comes first and is kept.
    for ((release, _), cost) in by_component {
        by_release.entry(release).or_insert(cost);
    }
    by_release
}

/// Positions of the cards; `ends` is sorted.
fn place<'a>(
    web: &Web,
    namespace: Option<&str>,
    ends: &[End],
    edges: impl Iterator<Item = &'a (End, End)>,
) -> Vec<crate::answers::layout::Place> {
    let index = |end: &End| ends.binary_search(end).expect("every end of an edge is a node");
    let calls: Vec<(usize, usize)> = edges
        .map(|(source, destination)| (index(source), index(destination)))
        .collect();
    let ids: Vec<String> = ends.iter().map(End::id).collect();
    let view = namespace.map_or_else(String::new, |namespace| format!("namespace {namespace}"));
    web.layouts.place(&view, &ids, &calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::layout::Place;

    /// A short name as the allocator holds it.
    const TEXT: usize = 32;
    /// Buckets of a histogram of a busy route.
    const BUCKETS: usize = 16 * 40;

    #[test]
    fn a_row_is_charged_for_all_that_becomes_of_it() {
        // Leaves of a B-tree are two thirds full.
        let joined = (size_of::<((End, End), Edge)>() + size_of::<End>()) * 3 / 2 + 6 * TEXT;
        let reported = size_of::<(String, Red)>() + size_of::<(String, u64)>() + 2 * TEXT + BUCKETS;
        let edge = size_of::<TopoEdge>() + size_of::<EdgeRoute>() + 6 * TEXT;
        let node = size_of::<TopoNode>() + size_of::<End>() + size_of::<String>() + size_of::<Place>() + 8 * TEXT;
        let all = joined + reported + edge + node;
        assert!((ROW_BYTES / 2..=ROW_BYTES).contains(&all), "{all}");
    }
}

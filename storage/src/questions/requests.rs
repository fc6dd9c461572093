//! Which requests were served or made, and how long they took.

use std::collections::HashMap;

use emberline_model::{Component, Histogram, Release, Side};

use crate::{
    hot::{Span, database::REQUESTS, rows::SERIES_REQUESTS},
    questions::{
        columns::Columns,
        selection::{WorkloadFilter, push_complete},
        sql::Sql,
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Which requests to add up.
///
/// No request counts twice: where an application and the proxy beside it both report a side of a window, the
/// application's report is used, unless `component` asks for one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestQuery {
    /// Who reports them.
    pub who: WorkloadFilter,
    /// Without `only_complete`: whose report. With it: whose CPU the requests are to divide. For the proxy's that is
    /// the proxy's report; for the application's it is whoever counted them.
    pub component: Option<Component>,
    /// The end that reports. `None`: both, in rows of their own.
    pub side: Option<Side>,
    /// Only this route.
    pub route: Option<String>,
    /// Only requests from (server side) or to (client side) this release.
    pub source: Option<Release>,
    /// Only windows whose two signals arrived.
    pub only_complete: bool,
    /// Which windows share their rows.
    pub step: Step,
    /// Rows of their own for each instance.
    pub by_instance: bool,
    /// When.
    pub range: Range,
}

impl RequestQuery {
    /// All requests of some workloads in a range.
    pub fn new(who: WorkloadFilter, range: Range) -> RequestQuery {
        RequestQuery {
            who,
            component: None,
            side: None,
            route: None,
            source: None,
            only_complete: false,
            step: Step::Range,
            by_instance: false,
            range,
        }
    }
}

/// Requests that agree in everything but their duration.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are added up.
    pub window_start_s: i64,
    /// Who reports them.
    pub reporter: Release,
    /// Which instance; empty when all are added up.
    pub instance: String,
    /// Whose report it is.
    pub component: Component,
    /// The end that reports.
    pub side: Side,
    /// Route template.
    pub route: String,
    /// The release at the other end, when it introduced itself.
    pub peer: Option<Release>,
    /// HTTP method; empty where there is none.
    pub method: String,
    /// `http/1.1`, `http/2`, `grpc` or `tcp`.
    pub protocol: String,
    /// HTTP status; for gRPC the `grpc-status`; 0 when no response came.
    pub status: u16,
    /// They failed.
    pub error: bool,
    /// Durations.
    pub duration: Histogram,
    /// Body bytes received from the caller.
    pub request_bytes: u64,
    /// Body bytes sent to the caller.
    pub response_bytes: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    window: u32,
    reporter: Release,
    instance: String,
    component: Component,
    side: Side,
    route: String,
    peer: Option<Release>,
    method: String,
    protocol: String,
    status: u16,
    error: bool,
}

#[derive(Default)]
struct Sums {
    duration: Histogram,
    request_bytes: u64,
    response_bytes: u64,
}

/// Answers a request query.
pub(crate) fn requests(reader: &Reader<'_>, span: &Span, query: &RequestQuery) -> Result<Vec<RequestRow>, Failure> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let mut sums: HashMap<Key, Sums> = HashMap::new();
    statement(span, query).run(reader, |columns| add(&columns, query, &mut sums))?;
    let mut sums: Vec<(Key, Sums)> = sums.into_iter().collect();
    sums.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = sums.into_iter().map(|(key, sums)| RequestRow {
        window_start_s: i64::from(key.window),
        reporter: key.reporter,
        instance: key.instance,
        component: key.component,
        side: key.side,
        route: key.route,
        peer: key.peer,
        method: key.method,
        protocol: key.protocol,
        status: key.status,
        error: key.error,
        duration: sums.duration,
        request_bytes: sums.request_bytes,
        response_bytes: sums.response_bytes,
    });
    Ok(rows.collect())
}

fn statement(span: &Span, query: &RequestQuery) -> Sql {
    let mut sql = Sql::new("WITH ");
    if query.only_complete {
        push_complete(&mut sql, &query.who, span);
        sql.push(", ");
    }
    let reporter = match (query.component, query.only_complete) {
        (Some(Component::Application), true) | (None, _) => None,
        (component, _) => component,
    };
    let push_rows = |sql: &mut Sql| {
        sql.hours(REQUESTS, span)
            .push(" r JOIN series d ON d.series_id = r.series_id");
    };
    let push_which = |sql: &mut Sql| {
        sql.push(" WHERE ").within("r.ts", span);
        sql.push(" AND d.profile_type = ").bind(SERIES_REQUESTS.to_owned());
        query.who.push(sql);
    };
    // Decided over all routes of a side, because the two may name their routes differently; and looked up beside the
    // rows, because a window function would keep all of them, durations and all.
    if reporter.is_none() {
        sql.push("reporters AS (SELECT r.ts, d.workload_id, r.side, min(d.component) AS component FROM ");
        push_rows(&mut sql);
        push_which(&mut sql);
        sql.push(" GROUP BY 1, 2, 3), ");
    }
    sql.push(
        "reported AS (SELECT r.*, d.workload_id, d.namespace, d.service, d.version, d.instance, d.component FROM ",
    );
    push_rows(&mut sql);
    if reporter.is_none() {
        sql.push(
            " JOIN reporters o ON o.ts = r.ts AND o.workload_id = d.workload_id AND o.side = r.side
                AND o.component = d.component",
        );
    }
    push_which(&mut sql);
    if let Some(component) = reporter {
        sql.push(" AND d.component = ").bind(component.code());
    }
    sql.push(
        ") SELECT r.ts, r.namespace, r.service, r.version, r.instance, r.component, r.side, r.route, r.peer_namespace,
            r.peer_service, r.peer_version, r.method, r.protocol, r.status, r.error, r.zero_count, r.sum, r.min, r.max,
            r.bucket, r.n, r.request_bytes, r.response_bytes FROM reported r WHERE true",
    );
    if let Some(side) = query.side {
        sql.push(" AND r.side = ").bind(side.code());
    }
    sql.and_equals("r.route", query.route.as_ref());
    if let Some(source) = &query.source {
        sql.and_equals("r.peer_namespace", Some(&source.namespace))
            .and_equals("r.peer_service", Some(&source.service))
            .and_equals("r.peer_version", Some(&source.version));
    }
    if query.only_complete {
        sql.push(" AND EXISTS (FROM complete c WHERE c.ts = r.ts AND c.workload_id = r.workload_id");
        if let Some(component) = query.component {
            sql.push(" AND c.component = ").bind(component.code());
        }
        sql.push(")");
    }
    sql
}

fn add(columns: &Columns<'_>, query: &RequestQuery, sums: &mut HashMap<Key, Sums>) -> Result<(), Failure> {
    let window = columns.u32(0)?;
    let (namespace, service, version) = (columns.text(1)?, columns.text(2)?, columns.text(3)?);
    let (instance, component, side) = (columns.text(4)?, columns.u8(5)?, columns.u8(6)?);
    let route = columns.text(7)?;
    let (peer_namespace, peer_service, peer_version) = (columns.text(8)?, columns.text(9)?, columns.text(10)?);
    let (method, protocol) = (columns.text(11)?, columns.text(12)?);
    let (status, error) = (columns.u16(13)?, columns.flag(14)?);
    let (zero_count, sum, min, max) = (columns.u64(15)?, columns.f64(16)?, columns.f64(17)?, columns.f64(18)?);
    let (bucket, n) = (columns.list(19)?, columns.list(20)?);
    let (request_bytes, response_bytes) = (columns.u64(21)?, columns.u64(22)?);
    for row in 0..columns.rows() {
        // Rows have a side since they are written from the noun; another code would be damage.
        let Some(side) = Side::from_code(u32::from(side[row])) else {
            continue;
        };
        let key = Key {
            window: query.step.start_of(window[row]),
            reporter: Release {
                namespace: namespace.string(row),
                service: service.string(row),
                version: version.string(row),
            },
            instance: if query.by_instance {
                instance.string(row)
            } else {
                String::new()
            },
            component: Component::from_code(u32::from(component[row])),
            side,
            route: route.string(row),
            peer: peer_service.get(row).map(|service| Release {
                namespace: peer_namespace.string(row),
                service: service.to_owned(),
                version: peer_version.string(row),
            }),
            method: method.string(row),
            protocol: protocol.string(row),
            status: status[row],
            error: error.value(row),
        };
        let buckets = bucket.i16(row)?.into_iter().zip(n.u64(row)?);
        let duration = Histogram::from_parts(zero_count[row], sum[row], min[row], max[row], buckets);
        let sums = sums.entry(key).or_default();
        sums.duration.merge(&duration);
        sums.request_bytes = sums.request_bytes.saturating_add(request_bytes[row]);
        sums.response_bytes = sums.response_bytes.saturating_add(response_bytes[row]);
    }
    Ok(())
}

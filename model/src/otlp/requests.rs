//! Requests ⇄ OTLP metrics. Ours are one exponential histogram per series, and one sum that marks the window; those of
//! others are any metric that [`super::durations`] lists, as a histogram of any kind and temporality.
//!
//! Guarantees: a window covers the seconds that its points cover, wherever they begin; what is left out is counted by
//! reason and named. Requests that two scopes of a process count are counted once.
//!
//! One file because both directions share one set of names and attributes, and what is written here has to be read here
//! unchanged. Histograms, durations and cumulative streams are files of their own; what is left is their order.

use std::collections::{HashMap, HashSet};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point,
    },
};
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Decoded, attribute,
    buckets::{Counts, Extremes},
    durations::Duration,
    find_peer, find_text, names, peer_attributes,
    points::{drawn, window_of},
    resource, scope,
    streams::{self, CumulativePoint},
    text, workload_of,
    writers::{Writer, counted_by_another},
};
use crate::{
    batch::{RequestSeries, WorkloadWindow},
    histogram::SCALE,
    workload::{Component, Side, Workload},
};

const NS: u64 = 1_000_000_000;

/// Flag of a point that only says that its series is gone.
const NO_RECORDED_VALUE: u32 = 1;
/// The memory that a request may expand to by default.
const MEMORY_OF_ONE_REQUEST: u64 = 128 << 20;

/// Encodes the requests of one window, even if it is idle.
pub fn encode_requests(window: &WorkloadWindow) -> ExportMetricsServiceRequest {
    let start = window.start_unix_s.max(0) as u64 * NS;
    let end = start + u64::from(window.length_s) * NS;
    let total: u64 = window.requests.iter().map(|r| r.duration.count()).sum();
    let mut metrics = vec![sum_metric(
        names::WINDOW_REQUESTS,
        "{request}",
        vec![number(Vec::new(), start, end, total)],
    )];
    for (side, name) in [
        (Side::Server, names::SERVER_DURATION),
        (Side::Client, names::CLIENT_DURATION),
    ] {
        let points: Vec<_> = window
            .requests
            .iter()
            .filter(|r| r.side == side)
            .map(|r| histogram_point(r, start, end))
            .collect();
        if !points.is_empty() {
            metrics.push(Metric {
                name: name.to_owned(),
                unit: "s".to_owned(),
                data: Some(Data::ExponentialHistogram(ExponentialHistogram {
                    data_points: points,
                    aggregation_temporality: AggregationTemporality::Delta.into(),
                })),
                ..Metric::default()
            });
        }
    }
    for (name, bytes) in [
        (
            names::REQUEST_BYTES,
            (|r: &RequestSeries| r.request_bytes) as fn(&RequestSeries) -> u64,
        ),
        (names::RESPONSE_BYTES, |r: &RequestSeries| r.response_bytes),
    ] {
        let with_bytes = window.requests.iter().filter(|r| bytes(r) > 0);
        let points: Vec<_> = with_bytes
            .map(|r| number(series_attributes(r, true), start, end, bytes(r)))
            .collect();
        if !points.is_empty() {
            metrics.push(sum_metric(name, "By", points));
        }
    }
    let streaming = window.requests.iter().filter(|r| r.streaming_s > 0.0);
    let points: Vec<_> = streaming
        .map(|r| NumberDataPoint {
            value: Some(number_data_point::Value::AsDouble(r.streaming_s)),
            ..number(series_attributes(r, true), start, end, 0)
        })
        .collect();
    if !points.is_empty() {
        metrics.push(sum_metric(names::STREAMING, "s", points));
    }
    let open = window.requests.iter().filter(|r| r.open > 0);
    let data_points: Vec<_> = open
        .map(|r| number(series_attributes(r, true), start, end, r.open))
        .collect();
    if !data_points.is_empty() {
        metrics.push(Metric {
            name: names::OPEN.to_owned(),
            unit: "{request}".to_owned(),
            data: Some(Data::Gauge(Gauge { data_points })),
            ..Metric::default()
        });
    }
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(&window.workload, window.component)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn sum_metric(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        data: Some(Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Delta.into(),
            is_monotonic: true,
        })),
        ..Metric::default()
    }
}

fn number(attributes: Vec<KeyValue>, start: u64, end: u64, value: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: start,
        time_unix_nano: end,
        value: Some(number_data_point::Value::AsInt(
            i64::try_from(value).unwrap_or(i64::MAX),
        )),
        ..NumberDataPoint::default()
    }
}

fn series_attributes(series: &RequestSeries, with_side: bool) -> Vec<KeyValue> {
    let mut attributes = vec![
        text(names::ROUTE, &series.route),
        text(names::METHOD, &series.method),
        attribute(names::STATUS, Value::IntValue(i64::from(series.status))),
        text(names::PROTOCOL, &series.protocol),
    ];
    attributes.extend(peer_attributes(series.peer.as_ref()));
    if !series.destination.is_empty() {
        attributes.push(text(names::DESTINATION, &series.destination));
    }
    if series.error {
        attributes.push(text(names::ERROR_TYPE, &series.status.to_string()));
    }
    if with_side {
        attributes.push(text(names::SIDE, series.side.as_str()));
    }
    attributes
}

fn histogram_point(series: &RequestSeries, start: u64, end: u64) -> ExponentialHistogramDataPoint {
    let h = &series.duration;
    let positive = h.buckets().first().zip(h.buckets().last()).map(|(first, last)| {
        let mut counts = vec![0; (i32::from(last.0) - i32::from(first.0) + 1) as usize];
        h.buckets().iter().for_each(|b| counts[(b.0 - first.0) as usize] = b.1);
        Buckets {
            offset: i32::from(first.0),
            bucket_counts: counts,
        }
    });
    ExponentialHistogramDataPoint {
        attributes: series_attributes(series, false),
        start_time_unix_nano: start,
        time_unix_nano: end,
        count: h.count(),
        sum: Some(h.sum()),
        scale: SCALE,
        zero_count: h.zero_count(),
        positive,
        min: Some(h.min()),
        max: Some(h.max()),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// Takes request durations (and the window marks of our own senders) out of a metrics request. Dropped, counted and
/// named: other metrics, durations that are not histograms, and histograms that cannot be read. Points that count from
/// the start of their stream are in [`Decoded::cumulative`], for [`super::grow`].
pub fn decode_metrics(request: ExportMetricsServiceRequest) -> Decoded {
    decode_metrics_within(request, MEMORY_OF_ONE_REQUEST)
}

/// [`decode_metrics`] for a request whose buckets may expand to about `limit` bytes of memory.
pub fn decode_metrics_within(request: ExportMetricsServiceRequest, limit: u64) -> Decoded {
    let mut decoded = Decoded::default();
    let mut room = bucket_room(limit);
    for group in request.resource_metrics {
        let Some((workload, component)) = workload_of(group.resource.as_ref()) else {
            for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                let shape = metric.data.as_ref().map_or("empty", shape_of);
                decoded.refuse("", &metric.name, shape, "no_service_name", data_points(metric));
            }
            continue;
        };
        let attributes = group.resource.map(|resource| resource.attributes).unwrap_or_default();
        let own = attributes.iter().any(|attribute| attribute.key == names::COMPONENT);
        let process = identity(0, &attributes);
        let mut beside: HashMap<String, Beside> = HashMap::new();
        let twice = counted_twice(&group.scope_metrics);
        for scope in group.scope_metrics {
            let (name, version) = scope.scope.map(|scope| (scope.name, scope.version)).unwrap_or_default();
            let newer: HashSet<String> = scope
                .metrics
                .iter()
                .filter(|metric| {
                    data_points(metric) > 0 && Duration::named(&metric.name).is_some_and(|d| d.newer.is_none())
                })
                .map(|metric| metric.name.clone())
                .collect();
            let from = From {
                workload: &workload,
                component,
                process: identity(process, &[text("", &name)]),
                resource: process,
                writer: Writer {
                    scope: &name,
                    version: &version,
                    own,
                },
            };
            let is_twice = twice.contains(&name);
            for metric in scope.metrics {
                match (metric.name.as_str(), metric.data) {
                    (names::WINDOW_REQUESTS, Some(Data::Sum(sum))) => {
                        for point in sum.data_points {
                            let (start, length) = window_of(point.start_time_unix_nano, point.time_unix_nano);
                            decoded.window(&workload, component, start, length).has_requests = true;
                        }
                    }
                    (
                        name @ (names::REQUEST_BYTES | names::RESPONSE_BYTES | names::STREAMING),
                        Some(Data::Sum(Sum { data_points, .. })),
                    )
                    | (name @ names::OPEN, Some(Data::Gauge(Gauge { data_points }))) => {
                        add_beside(&mut beside, name, data_points);
                    }
                    (name, Some(data)) => match Duration::named(name) {
                        // The same requests under the older of two names.
                        Some(known) if known.newer.is_some_and(|name| newer.contains(name)) => {}
                        // The same requests by another scope.
                        Some(known) if is_twice && known.side == Side::Server => {}
                        Some(known) => durations(known, &metric.unit, data, &from, &mut room, &mut decoded),
                        None => {
                            let shape = shape_of(&data);
                            decoded.refuse(&workload.service, name, shape, "unknown_metric", count_points(&data));
                        }
                    },
                    (_, None) => {}
                }
            }
        }
        put_beside(&mut decoded, &workload, component, beside);
    }
    decoded
}

/// Scopes of a process whose server durations another of its scopes counts, too.
fn counted_twice(scopes: &[ScopeMetrics]) -> HashSet<String> {
    let measures = |metric: &Metric| {
        data_points(metric) > 0 && Duration::named(&metric.name).is_some_and(|known| known.side == Side::Server)
    };
    let measuring: Vec<&str> = scopes
        .iter()
        .filter(|scope| scope.metrics.iter().any(measures))
        .filter_map(|scope| scope.scope.as_ref().map(|scope| scope.name.as_str()))
        .collect();
    let twice = measuring.iter().filter(|scope| counted_by_another(scope, &measuring));
    twice.map(|scope| (*scope).to_owned()).collect()
}

/// Buckets that may be made of a request: half of its memory at what one takes.
pub fn bucket_room(limit: u64) -> usize {
    usize::try_from(limit / 32).unwrap_or(usize::MAX)
}

/// The origin of points.
struct From<'a> {
    workload: &'a Workload,
    component: Component,
    /// Hash of resource and scope.
    process: u128,
    /// Hash of the resource.
    resource: u128,
    writer: Writer<'a>,
}

/// Reads the points of a metric that measures requests.
fn durations(
    known: &'static Duration,
    unit: &str,
    data: Data,
    from: &From<'_>,
    room: &mut usize,
    decoded: &mut Decoded,
) {
    let (service, points, shape) = (&from.workload.service, count_points(&data), shape_of(&data));
    let Some(unit) = known.seconds(unit) else {
        return decoded.refuse(service, known.name, shape, "unknown_unit", points);
    };
    let (temporality, points): (i32, Vec<Counted>) = match data {
        Data::Histogram(histogram) => {
            let points = histogram.data_points.into_iter().map(Counted::of_explicit);
            (histogram.aggregation_temporality, points.collect())
        }
        Data::ExponentialHistogram(histogram) => {
            let points = histogram.data_points.into_iter().map(Counted::of_exponential);
            (histogram.aggregation_temporality, points.collect())
        }
        _ => return decoded.refuse(service, known.name, shape, "not_a_histogram", points),
    };
    let cumulative = match AggregationTemporality::try_from(temporality) {
        Ok(AggregationTemporality::Delta) => false,
        Ok(AggregationTemporality::Cumulative) => true,
        _ => return decoded.refuse(service, known.name, shape, "no_temporality", points.len() as u64),
    };
    for point in points.into_iter().filter(|point| !point.nothing_recorded) {
        let counts = match point.counts {
            Ok(_) if point.start > point.end => Err("bad_times"),
            counts => counts,
        };
        let counts = match counts {
            Ok(counts) => counts,
            Err(reason) => {
                decoded.refuse(service, known.name, shape, reason, 1);
                continue;
            }
        };
        let series = known.series(&point.attributes, from.writer);
        let begun = format!("{} {:016x}", point.start, counts.bounds_hash());
        let stream = identity(from.process, &[text(known.name, &begun)]);
        let stream = identity(stream, &point.attributes);
        if cumulative {
            decoded.cumulative.push(CumulativePoint {
                workload: from.workload.clone(),
                component: from.component,
                process: from.resource,
                stream,
                start_unix_ns: point.start,
                time_unix_ns: point.end,
                metric: known,
                unit,
                series,
                counts,
                said: point.said,
            });
            continue;
        }
        match counts.histogram(point.said, unit, drawn(stream, point.end), room) {
            Ok(duration) => {
                if counts.are_too_wide(point.said, unit) {
                    decoded.doubt(service, known.name, shape, "bounds_too_wide", 1);
                }
                let (start, length) = window_of(point.start, point.end);
                let window = decoded.window(from.workload, from.component, start, length);
                window.has_requests = true;
                window.requests.push(RequestSeries { duration, ..series });
            }
            Err(reason) => decoded.refuse(service, known.name, shape, reason, 1),
        }
    }
}

/// A point of either kind of histogram.
struct Counted {
    attributes: Vec<KeyValue>,
    start: u64,
    end: u64,
    said: Extremes,
    counts: Result<Counts, &'static str>,
    nothing_recorded: bool,
}

impl Counted {
    fn of_explicit(mut point: HistogramDataPoint) -> Counted {
        Counted {
            counts: Counts::of_explicit(&mut point),
            said: Extremes {
                sum: point.sum,
                min: point.min,
                max: point.max,
                ..Extremes::default()
            },
            attributes: point.attributes,
            start: point.start_time_unix_nano,
            end: point.time_unix_nano,
            nothing_recorded: point.flags & NO_RECORDED_VALUE != 0,
        }
    }

    fn of_exponential(mut point: ExponentialHistogramDataPoint) -> Counted {
        Counted {
            counts: Counts::of_exponential(&mut point),
            said: Extremes {
                sum: point.sum,
                min: point.min,
                max: point.max,
                ..Extremes::default()
            },
            attributes: point.attributes,
            start: point.start_time_unix_nano,
            end: point.time_unix_nano,
            nothing_recorded: point.flags & NO_RECORDED_VALUE != 0,
        }
    }
}

/// Hash of attributes in any order, on top of another one.
fn identity(of: u128, attributes: &[KeyValue]) -> u128 {
    let mut written: Vec<Vec<u8>> = attributes.iter().map(Message::encode_to_vec).collect();
    written.sort_unstable();
    let mut hash = Xxh3::new();
    hash.update(&of.to_le_bytes());
    for attribute in &written {
        hash.update(&(attribute.len() as u64).to_le_bytes());
        hash.update(attribute);
    }
    hash.digest128()
}

fn add_beside(beside: &mut HashMap<String, Beside>, name: &str, points: Vec<NumberDataPoint>) {
    for point in points {
        let start = window_of(point.start_time_unix_nano, point.time_unix_nano).0;
        let side = find_text(&point.attributes, names::SIDE).unwrap_or_default();
        let entry = beside.entry(series_key(start, &side, &point.attributes)).or_default();
        entry.add(name, point.value);
    }
}

fn put_beside(decoded: &mut Decoded, workload: &Workload, component: Component, mut beside: HashMap<String, Beside>) {
    if beside.is_empty() {
        return;
    }
    let is_theirs = |window: &&mut WorkloadWindow| window.workload == *workload && window.component == component;
    for window in decoded.windows.iter_mut().filter(is_theirs) {
        for series in &mut window.requests {
            let key = series_key(
                window.start_unix_s,
                series.side.as_str(),
                &series_attributes(series, false),
            );
            if let Some(beside) = beside.remove(&key) {
                series.request_bytes = beside.request_bytes;
                series.response_bytes = beside.response_bytes;
                series.streaming_s = beside.streaming_s;
                series.open = beside.open;
            }
        }
    }
}

/// What belongs to a histogram but is in metrics of its own.
#[derive(Default)]
struct Beside {
    request_bytes: u64,
    response_bytes: u64,
    streaming_s: f64,
    open: u64,
}

impl Beside {
    fn add(&mut self, name: &str, value: Option<number_data_point::Value>) {
        let (whole, seconds) = match value {
            Some(number_data_point::Value::AsInt(value)) => (u64::try_from(value).unwrap_or(0), 0.0),
            Some(number_data_point::Value::AsDouble(value)) if value.is_finite() && value > 0.0 => (0, value),
            _ => return,
        };
        match name {
            names::REQUEST_BYTES => self.request_bytes = self.request_bytes.saturating_add(whole),
            names::RESPONSE_BYTES => self.response_bytes = self.response_bytes.saturating_add(whole),
            names::STREAMING => self.streaming_s += seconds,
            _ => self.open = self.open.saturating_add(whole),
        }
    }
}

/// Joins a byte count with its histogram: every attribute of the series, in any order.
fn series_key(start: i64, side: &str, attributes: &[KeyValue]) -> String {
    let peer = find_peer(attributes).map(|p| p.to_string()).unwrap_or_default();
    let part = |key| find_text(attributes, key).unwrap_or_default();
    [
        &start.to_string(),
        side,
        &part(names::ROUTE),
        &part(names::METHOD),
        &part(names::STATUS),
        &part(names::PROTOCOL),
        &part(names::ERROR_TYPE),
        &part(names::DESTINATION),
        &peer,
    ]
    .join("\u{0}")
}

fn shape_of(data: &Data) -> &'static str {
    let cumulative = |temporality| temporality == i32::from(AggregationTemporality::Cumulative);
    match data {
        Data::Gauge(_) => "gauge",
        Data::Sum(_) => "sum",
        Data::Summary(_) => "summary",
        Data::Histogram(h) if cumulative(h.aggregation_temporality) => streams::SHAPE,
        Data::Histogram(_) => "histogram",
        Data::ExponentialHistogram(h) if cumulative(h.aggregation_temporality) => "cumulative exponential histogram",
        Data::ExponentialHistogram(_) => "exponential histogram",
    }
}

fn data_points(metric: &Metric) -> u64 {
    metric.data.as_ref().map_or(0, count_points)
}

fn count_points(data: &Data) -> u64 {
    (match data {
        Data::Gauge(m) => m.data_points.len(),
        Data::Sum(m) => m.data_points.len(),
        Data::Histogram(m) => m.data_points.len(),
        Data::ExponentialHistogram(m) => m.data_points.len(),
        Data::Summary(m) => m.data_points.len(),
    }) as u64
}

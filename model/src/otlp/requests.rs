//! Requests ⇄ OTLP metrics: one exponential histogram per series, and one sum that marks the window.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    },
};

use super::{
    Decoded, attribute, find_int, find_peer, find_text, names, peer_attributes, resource, scope, text, workload_of,
};
use crate::{
    batch::{RequestSeries, WorkloadWindow},
    histogram::{Histogram, MAX_INDEX, MIN_INDEX, SCALE, bucket_index},
    time::whole_seconds,
    workload::{ROUTE_OTHER, Side},
};

const NS: u64 = 1_000_000_000;

/// The most buckets a foreign histogram point may have on one side of zero.
const MAX_BUCKETS: usize = 10_000;
/// Coarser histograms are left out: a bucket of this scale is 19 % wide, which is as coarse as the 160 buckets of
/// OpenTelemetry's SDKs get between a microsecond and a day.
const COARSEST_SCALE: i32 = 2;

/// Encodes the requests of one window; an idle window still says that it was one.
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

/// Takes request durations (and the window marks of our own senders) out of a metrics request. Left out, and
/// counted: other metrics, cumulative points, histograms coarser than scale 2, points without a service.
pub fn decode_metrics(request: ExportMetricsServiceRequest) -> Decoded {
    let mut decoded = Decoded::default();
    for group in request.resource_metrics {
        let metrics = group.scope_metrics.into_iter().flat_map(|s| s.metrics);
        let Some((workload, component)) = workload_of(group.resource.as_ref()) else {
            let points = metrics.map(|m| data_points(&m)).sum();
            decoded.reject("no_service_name", points);
            continue;
        };
        let mut bytes: HashMap<String, (u64, u64)> = HashMap::new();
        for metric in metrics {
            match (metric.name.as_str(), metric.data) {
                (names::WINDOW_REQUESTS, Some(Data::Sum(sum))) => {
                    for point in sum.data_points {
                        let (start, length) = window_of(point.start_time_unix_nano, point.time_unix_nano);
                        decoded.window(&workload, component, start, length).has_requests = true;
                    }
                }
                (
                    name @ (names::SERVER_DURATION | names::CLIENT_DURATION),
                    Some(Data::ExponentialHistogram(histogram)),
                ) => {
                    let side = if name == names::SERVER_DURATION {
                        Side::Server
                    } else {
                        Side::Client
                    };
                    let delta = histogram.aggregation_temporality == i32::from(AggregationTemporality::Delta);
                    if !delta {
                        decoded.reject("cumulative_histogram", histogram.data_points.len() as u64);
                        continue;
                    }
                    let in_milliseconds = metric.unit == "ms";
                    for point in histogram.data_points {
                        let (start, length) = window_of(point.start_time_unix_nano, point.time_unix_nano);
                        match decode_point(&point, side, in_milliseconds) {
                            Ok(series) => {
                                let window = decoded.window(&workload, component, start, length);
                                window.has_requests = true;
                                window.requests.push(series);
                            }
                            Err(reason) => decoded.reject(reason, 1),
                        }
                    }
                }
                (name @ (names::REQUEST_BYTES | names::RESPONSE_BYTES), Some(Data::Sum(sum))) => {
                    for point in sum.data_points {
                        let start = window_of(point.start_time_unix_nano, point.time_unix_nano).0;
                        let Some(number_data_point::Value::AsInt(value)) = point.value else {
                            continue;
                        };
                        let side = find_text(&point.attributes, names::SIDE).unwrap_or_default();
                        let entry = bytes.entry(series_key(start, &side, &point.attributes)).or_default();
                        let value = u64::try_from(value).unwrap_or(0);
                        if name == names::REQUEST_BYTES {
                            entry.0 += value;
                        } else {
                            entry.1 += value;
                        }
                    }
                }
                (_, data) => {
                    let points = data.as_ref().map_or(0, count_points);
                    decoded.reject("unknown_metric", points);
                }
            }
        }
        if bytes.is_empty() {
            continue;
        }
        for window in decoded
            .windows
            .iter_mut()
            .filter(|w| w.workload == workload && w.component == component)
        {
            for series in &mut window.requests {
                let key = series_key(
                    window.start_unix_s,
                    series.side.as_str(),
                    &series_attributes(series, false),
                );
                if let Some((request, response)) = bytes.remove(&key) {
                    series.request_bytes = request;
                    series.response_bytes = response;
                }
            }
        }
    }
    decoded
}

/// What joins a byte count with its histogram: every attribute of the series, whatever their order.
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
        &peer,
    ]
    .join("\u{0}")
}

/// What a point covers: its own time, whenever its sender's windows begin.
fn window_of(start: u64, end: u64) -> (i64, u32) {
    let ns = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    whole_seconds(ns(start), ns(end))
}

fn unit_of(in_milliseconds: bool) -> f64 {
    if in_milliseconds { 1e-3 } else { 1.0 }
}

/// What one of several finer buckets gets of a count; all of them together get all of it.
fn share(count: u64, piece: i32, pieces: i32) -> u64 {
    let up_to = |piece: i32| (u128::from(count) * piece.unsigned_abs() as u128 / pieces.unsigned_abs() as u128) as u64;
    up_to(piece + 1) - up_to(piece)
}

fn decode_point(
    point: &ExponentialHistogramDataPoint,
    side: Side,
    in_milliseconds: bool,
) -> Result<RequestSeries, &'static str> {
    let empty = Buckets::default();
    if point
        .negative
        .as_ref()
        .is_some_and(|n| n.bucket_counts.iter().any(|&c| c > 0))
    {
        return Err("negative_duration");
    }
    if point.scale < COARSEST_SCALE || point.scale > 20 {
        return Err("histogram_scale");
    }
    let positive = point.positive.as_ref().unwrap_or(&empty);
    if positive.bucket_counts.len() > MAX_BUCKETS {
        return Err("too_many_buckets");
    }
    // A unit of milliseconds shifts every bound by log2(1000) * 32 = 318.9 buckets: rounding costs 0.2 %.
    let shift = if in_milliseconds { -319 } else { 0 };
    let down = (point.scale - SCALE).max(0);
    let pieces = 1i32 << (SCALE - point.scale).max(0);
    let known = |bound: Option<f64>, otherwise: i16| match bound {
        Some(value) if value.is_finite() && value > 0.0 => bucket_index(value * unit_of(in_milliseconds)),
        _ => otherwise,
    };
    let (lowest, highest) = (known(point.min, MIN_INDEX), known(point.max, MAX_INDEX));
    let positive_buckets = positive
        .bucket_counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0);
    let buckets = positive_buckets.flat_map(|(at, &count)| {
        let index = positive.offset.saturating_add(at as i32);
        let first = (index >> down).saturating_mul(pieces).saturating_add(shift);
        (0..pieces).map(move |piece| {
            let fine = first
                .saturating_add(piece)
                .clamp(i32::from(MIN_INDEX), i32::from(MAX_INDEX)) as i16;
            // What lies in the bucket of the extremes cannot lie beyond them.
            let fine = if pieces > 1 && lowest <= highest {
                fine.clamp(lowest, highest)
            } else {
                fine
            };
            (fine, share(count, piece, pieces))
        })
    });
    let unit = unit_of(in_milliseconds);
    let finite = |value: Option<f64>| value.filter(|v| v.is_finite() && *v >= 0.0).unwrap_or(0.0) * unit;
    let duration = Histogram::from_parts(
        point.zero_count,
        finite(point.sum),
        finite(point.min),
        finite(point.max),
        buckets,
    );
    let route = find_text(&point.attributes, names::ROUTE).filter(|r| !r.is_empty());
    Ok(RequestSeries {
        side,
        route: route.unwrap_or_else(|| ROUTE_OTHER.to_owned()),
        method: find_text(&point.attributes, names::METHOD).unwrap_or_default(),
        peer: find_peer(&point.attributes),
        protocol: find_text(&point.attributes, names::PROTOCOL).unwrap_or_else(|| "http/1.1".to_owned()),
        status: find_int(&point.attributes, names::STATUS)
            .and_then(|s| u16::try_from(s).ok())
            .unwrap_or(0),
        error: find_text(&point.attributes, names::ERROR_TYPE).is_some(),
        duration,
        request_bytes: 0,
        response_bytes: 0,
    })
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

//! Histograms with explicit bounds, as SDKs send them unless told otherwise: no count is lost, quantiles stay within the
//! sender's buckets, and few values are not all put at one end.

use emberline_model::{RequestSeries, Side, otlp};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, Summary, SummaryDataPoint, metric::Data,
    },
    resource::v1::Resource,
};
use proptest::prelude::*;
use prost::Message;

const NS: u64 = 1_000_000_000;
/// The bounds that the semantic conventions advise, in seconds.
pub(crate) const ADVISED: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

/// A request with one metric of a service.
pub(crate) fn request(name: &str, unit: &str, data: Data) -> ExportMetricsServiceRequest {
    let metric = Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(data),
        ..Metric::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![text("service.name", "shop")],
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// What an SDK counts of some values.
pub(crate) fn counted(values: &[f64], bounds: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; bounds.len() + 1];
    for value in values {
        counts[bounds.partition_point(|bound| bound < value)] += 1;
    }
    counts
}

fn point(values: &[f64], bounds: &[f64], with_extremes: bool) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: vec![text("http.route", "/quote/:id")],
        start_time_unix_nano: 1_790_000_003 * NS,
        time_unix_nano: 1_790_000_063 * NS + 7,
        count: values.len() as u64,
        sum: Some(values.iter().sum()),
        bucket_counts: counted(values, bounds),
        explicit_bounds: bounds.to_vec(),
        min: with_extremes.then(|| values.iter().copied().fold(f64::INFINITY, f64::min)),
        max: with_extremes.then(|| values.iter().copied().fold(0.0, f64::max)),
        ..HistogramDataPoint::default()
    }
}

fn delta(point: HistogramDataPoint) -> Data {
    Data::Histogram(Histogram {
        data_points: vec![point],
        aggregation_temporality: 1,
    })
}

fn taken(request: ExportMetricsServiceRequest) -> RequestSeries {
    let mut decoded = otlp::decode_metrics(request);
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.windows[0].requests.remove(0)
}

proptest! {
    #[test]
    fn no_count_is_lost_and_quantiles_stay_within_the_senders_bucket(
        values in prop::collection::vec(0.000_2f64..20.0, 1..200), milliseconds: bool, with_extremes: bool,
    ) {
        let scaled = |values: &[f64]| -> Vec<f64> { values.iter().map(|v| if milliseconds { v * 1e3 } else { *v }).collect() };
        let (sent, bounds) = (scaled(&values), scaled(&ADVISED));
        let (name, unit) = if milliseconds { ("http.server.duration", "") } else { ("http.server.request.duration", "s") };
        let series = taken(request(name, unit, delta(point(&sent, &bounds, with_extremes))));
        let duration = &series.duration;
        prop_assert_eq!(duration.count(), values.len() as u64);
        prop_assert!((duration.sum() - values.iter().sum::<f64>()).abs() < 1e-6);
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let largest = *sorted.last().unwrap();
        if with_extremes {
            prop_assert!((duration.max() - largest).abs() < 1e-9 && (duration.min() - sorted[0]).abs() < 1e-9);
        }
        for q in [0.1, 0.5, 0.9] {
            let exact = sorted[((q * sorted.len() as f64).ceil() as usize).max(1) - 1];
            let at = ADVISED.partition_point(|bound| *bound < exact);
            let low = at.checked_sub(1).map_or(0.0, |below| ADVISED[below]);
            // Beyond the last bound nothing is known without the largest value.
            let high = ADVISED.get(at).copied().unwrap_or(if with_extremes { largest } else { ADVISED[13] });
            let read = duration.quantile(q).unwrap();
            prop_assert!(read >= low * 0.978 && read <= high * 1.023, "{} for {} in {}..{}", read, exact, low, high);
        }
    }
}

#[test]
fn a_bucket_that_holds_one_value_at_a_time_is_not_always_at_one_end() {
    // Alone in 10 to 25 ms, a thousand exports one after the other.
    let mut positions = Vec::new();
    for export in 0..1000u64 {
        let mut sent = point(&[0.02], &ADVISED, false);
        sent.time_unix_nano += export * 60 * NS;
        let series = taken(request("http.server.request.duration", "s", delta(sent)));
        assert_eq!(series.duration.count(), 1);
        positions.push((series.duration.quantile(0.5).unwrap() / 0.01).ln() / 2.5f64.ln());
    }
    let mean = positions.iter().sum::<f64>() / 1000.0;
    assert!((mean - 0.5).abs() < 0.04, "{mean}");
    let below = positions.iter().filter(|p| **p < 0.25).count();
    assert!((200..300).contains(&below), "{below} of 1000 in the lowest quarter");
}

#[test]
fn values_that_were_rounded_to_zero_are_zeros_and_windows_cover_what_was_measured() {
    let bounds = [0.0, 5.0, 10.0];
    let mut sent = point(&[0.0, 0.0, 0.0, 3.0], &bounds, true);
    sent.attributes = vec![
        text("http.route", "/quote/<int:id>"),
        text("http.method", "GET"),
        text("http.status_code", "503"),
    ];
    let decoded = otlp::decode_metrics(request("http.server.duration", "ms", delta(sent)));
    let window = &decoded.windows[0];
    assert_eq!((window.start_unix_s, window.length_s), (1_790_000_003, 60));
    let series = &window.requests[0];
    assert_eq!((series.duration.zero_count(), series.duration.count()), (3, 4));
    assert_eq!((series.duration.min(), series.duration.max()), (0.0, 0.003));
    assert_eq!(
        (
            series.route.as_str(),
            series.method.as_str(),
            series.status,
            series.error
        ),
        ("/quote/{id}", "GET", 503, true)
    );
}

#[test]
fn what_cannot_be_read_is_named_with_metric_and_shape() {
    let broken = |change: fn(&mut HistogramDataPoint)| {
        let mut sent = point(&[0.02, 0.3], &ADVISED, true);
        change(&mut sent);
        delta(sent)
    };
    let name = "http.server.request.duration";
    let summary = Data::Summary(Summary {
        data_points: vec![SummaryDataPoint::default(); 3],
    });
    for (name, unit, data, reason, shape, points) in [
        (
            name,
            "s",
            broken(|p| p.explicit_bounds.clear()),
            "no_buckets",
            "histogram",
            1,
        ),
        (
            name,
            "s",
            broken(|p| p.explicit_bounds[3] = f64::NAN),
            "malformed_histogram",
            "histogram",
            1,
        ),
        (
            name,
            "s",
            broken(|p| p.explicit_bounds.swap(1, 2)),
            "malformed_histogram",
            "histogram",
            1,
        ),
        (
            name,
            "s",
            broken(|p| p.bucket_counts.truncate(5)),
            "malformed_histogram",
            "histogram",
            1,
        ),
        (
            name,
            "s",
            broken(|p| p.explicit_bounds.iter_mut().for_each(|b| *b -= 1.0)),
            "negative_duration",
            "histogram",
            1,
        ),
        (
            name,
            "s",
            broken(|p| std::mem::swap(&mut p.start_time_unix_nano, &mut p.time_unix_nano)),
            "bad_times",
            "histogram",
            1,
        ),
        (name, "By", broken(|_| {}), "unknown_unit", "histogram", 1),
        (name, "s", summary.clone(), "not_a_histogram", "summary", 3),
        (
            "http.server.active_requests",
            "s",
            summary,
            "unknown_metric",
            "summary",
            3,
        ),
        (
            name,
            "s",
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint::default(); 2],
                aggregation_temporality: 0,
            }),
            "no_temporality",
            "histogram",
            2,
        ),
    ] {
        let decoded = otlp::decode_metrics(request(name, unit, data));
        assert!(decoded.windows.is_empty(), "{reason}");
        let expected = otlp::Rejected::of(reason, name, points).sent_by("shop", shape);
        assert_eq!(decoded.rejected, [expected]);
    }
    // A mark that a series is gone, and one that counted nothing, are no losses.
    for change in [(|p| p.flags = 1) as fn(&mut HistogramDataPoint), |p| {
        p.count = 0;
        p.bucket_counts.clear();
        p.explicit_bounds.clear();
    }] {
        let decoded = otlp::decode_metrics(request(name, "s", broken(change)));
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    }
}

#[test]
fn the_same_requests_under_two_names_count_once() {
    let old = request("http.server.duration", "ms", delta(point(&[20.0], &[10.0, 25.0], true)));
    let new = request(
        "http.server.request.duration",
        "s",
        delta(point(&[0.02], &ADVISED, true)),
    );
    let mut both = new.clone();
    let metrics = old.resource_metrics[0].scope_metrics[0].metrics.clone();
    both.resource_metrics[0].scope_metrics[0].metrics.extend(metrics);
    let count = |request| -> u64 {
        let decoded = otlp::decode_metrics(request);
        assert!(decoded.rejected.is_empty());
        decoded
            .windows
            .iter()
            .flat_map(|w| &w.requests)
            .map(|r| r.duration.count())
            .sum()
    };
    assert_eq!((count(old.clone()), count(new.clone()), count(both)), (1, 1, 1));
    // Two instrumentations measure different requests.
    let mut apart = new;
    apart.resource_metrics[0]
        .scope_metrics
        .extend(old.resource_metrics[0].scope_metrics.clone());
    assert_eq!(count(apart), 2);
}

/// `findings/fastapi-counts-its-requests-beside-the-instrumentation.sh`: a framework measures what its middleware measures, too.
#[test]
fn the_same_requests_of_two_scopes_count_once() {
    let of = |scope: &str, name: &str, unit: &str, values: &[f64]| {
        let mut sent = request(name, unit, delta(point(values, &ADVISED, true)));
        let mut of_scope = sent.resource_metrics[0].scope_metrics.remove(0);
        of_scope.scope = Some(InstrumentationScope {
            name: scope.into(),
            ..InstrumentationScope::default()
        });
        of_scope
    };
    let counted = |scopes: &[ScopeMetrics]| {
        let mut sent = request("", "", delta(point(&[], &ADVISED, false)));
        sent.resource_metrics[0].scope_metrics = scopes.to_vec();
        let decoded = otlp::decode_metrics(sent);
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let requests = decoded.windows.iter().flat_map(|window| &window.requests);
        requests.map(|series| series.duration.count()).sum::<u64>()
    };
    let (old, new) = ("http.server.duration", "http.server.request.duration");
    let own = of("fastapi", new, "s", &[0.01, 0.02]);
    let asgi = of("opentelemetry.instrumentation.asgi", old, "ms", &[10.0, 20.0]);
    assert_eq!(counted(std::slice::from_ref(&own)), 2, "alone it is the only one");
    assert_eq!(counted(&[asgi.clone(), own.clone()]), 2);
    assert_eq!(counted(&[own.clone(), asgi]), 2, "in any order");
    // Applications that are mounted: the outer one counts theirs as well.
    let mounted = of("opentelemetry.instrumentation.fastapi", new, "s", &[0.01, 0.02, 0.03]);
    assert_eq!(counted(&[own.clone(), mounted]), 3);
    // Calls are others than requests.
    let calls = of(
        "opentelemetry.instrumentation.asgi",
        "http.client.request.duration",
        "s",
        &[0.01],
    );
    assert_eq!(counted(&[own.clone(), calls]), 3);
    let flask = of("opentelemetry.instrumentation.flask", old, "ms", &[1.0]);
    assert_eq!(counted(&[own, flask]), 3, "another server of the process");
    // With routes where there are some.
    let http = "@opentelemetry/instrumentation-http";
    let (node, hono) = (of(http, new, "s", &[0.01, 0.02]), of("@hono/otel", new, "s", &[0.02]));
    let node_calls = of(http, "http.client.request.duration", "s", &[0.01]);
    assert_eq!(counted(&[node.clone(), hono]), 1);
    assert_eq!(counted(&[node, node_calls]), 3);
}

/// `findings/grpc-python-counts-all-calls-below-five-seconds-as-one.sh`: seconds over bounds that were made for milliseconds.
#[test]
fn bounds_of_milliseconds_for_seconds_are_told() {
    let of_milliseconds = [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0];
    let told = |values: &[f64], bounds: &[f64], with_extremes| {
        let data = delta(point(values, bounds, with_extremes));
        let decoded = otlp::decode_metrics(request("grpc.server.call.duration", "s", data));
        assert_eq!(decoded.windows[0].requests[0].duration.count(), values.len() as u64);
        let changed = decoded.changed.iter().map(|changed| changed.reason);
        changed.collect::<Vec<_>>()
    };
    assert_eq!(
        told(&[0.001, 0.001, 0.001, 1.0], &of_milliseconds, true),
        ["bounds_too_wide"]
    );
    assert_eq!(told(&[0.001, 0.002], &of_milliseconds, false), ["bounds_too_wide"]);
    // The extremes say how long they took.
    assert_eq!(told(&[0.001, 0.002], &of_milliseconds, true), [""; 0]);
    assert_eq!(told(&[2.0, 2.5], &of_milliseconds, true), [""; 0]);
    for with_extremes in [false, true] {
        assert_eq!(told(&[0.001, 0.001, 0.001, 1.0], &ADVISED, with_extremes), [""; 0]);
    }
}

/// What OpenTelemetry's SDK for Python sent, as it sent it: requests to the server by route and status.
fn sent(name: &str) -> std::collections::BTreeMap<(String, u16, bool), u64> {
    let path = format!("{}/tests/fixtures/others/{name}", env!("CARGO_MANIFEST_DIR"));
    let request = ExportMetricsServiceRequest::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    let mut counted = std::collections::BTreeMap::new();
    for series in otlp::decode_metrics(request)
        .windows
        .into_iter()
        .flat_map(|window| window.requests)
        .filter(|series| series.side == Side::Server)
    {
        *counted.entry((series.route, series.status, series.error)).or_default() += series.duration.count();
    }
    counted
}

/// `findings/fastapi-counts-its-requests-beside-the-instrumentation.sh`: 13 requests, which were 26.
#[test]
fn fastapi_inside_the_asgi_middleware_has_each_request_once() {
    let route = |route: &str| (route.to_owned(), 200, false);
    let expected = [(route("/quote/{item}"), 10), (route("/stock/item/{item}"), 3)];
    assert_eq!(sent("fastapi-0.165.0-asgi.metrics.pb"), expected.into());
}

/// `findings/tornado-counts-a-failed-request-twice.sh`: four requests, of which Tornado counts two twice, by the route.
#[test]
fn tornado_has_its_routes_and_its_own_idea_of_failures() {
    let of = |route: &str, status, error| (route.to_owned(), status, error);
    let expected = [
        (of("/failing", 200, false), 1),
        (of("/failing", 500, true), 1),
        (of("/missing", 404, false), 2),
        (of("/quote/{item}", 200, false), 2),
    ];
    assert_eq!(sent("tornado-0.66b1.metrics.pb"), expected.into());
}

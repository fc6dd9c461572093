//! Request durations in every shape that SDKs send, over HTTP into a real store: what is taken, and what is said of the rest.

use std::collections::BTreeMap;

use crate::support::{ManualClock, Server, T0, wire::post};
use emberline_model::Side;
use emberline_storage::{Range, RequestQuery, WindowQuery, WorkloadFilter};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, exponential_histogram_data_point::Buckets, metric::Data,
    },
    resource::v1::Resource,
};
use prost::Message;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const NAME: &str = "http.server.request.duration";
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

fn at(second: i64) -> u64 {
    ((T0 + second) * 1_000_000_000) as u64
}

/// A metric of a process of the service `shop`.
fn request(instance: &str, name: &str, unit: &str, data: Data) -> ExportMetricsServiceRequest {
    let metric = Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(data),
        ..Metric::default()
    };
    let attributes = vec![text("service.name", "shop"), text("service.instance.id", instance)];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes,
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

/// Counts below 0.1 s, up to 0.2 s and above, from one second after the start of the test to another.
fn point(route: &str, from: i64, until: i64, counts: [u64; 3]) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: vec![text("http.route", route)],
        start_time_unix_nano: at(from),
        time_unix_nano: at(until),
        count: counts.iter().sum(),
        sum: Some(counts[0] as f64 * 0.05 + counts[1] as f64 * 0.15 + counts[2] as f64 * 0.3),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![0.1, 0.2],
        ..HistogramDataPoint::default()
    }
}

fn explicit(aggregation_temporality: i32, data_points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(Histogram {
        data_points,
        aggregation_temporality,
    })
}

async fn send(server: &Server, request: &ExportMetricsServiceRequest) -> String {
    let (status, answer) = post(server.http, "/v1/metrics", &[PROTOBUF], &request.encode_to_vec()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn stored(server: &Server) -> BTreeMap<String, u64> {
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery::new(WorkloadFilter::service("shop"), Range::ALL);
    let mut routes = BTreeMap::new();
    for row in server.store.ask(query).await.unwrap() {
        *routes.entry(row.route).or_default() += row.duration.count();
    }
    routes
}

async fn requests_stored(server: &Server) -> u64 {
    stored(server).await.values().sum()
}

/// Starts, after the start of the test, and lengths of the windows that were stored.
async fn windows(server: &Server) -> Vec<(i64, u32)> {
    server.store.flush_applied().await.unwrap();
    let query = WindowQuery {
        who: WorkloadFilter::service("shop"),
        component: None,
        range: Range::ALL,
    };
    let marks = server.store.ask(query).await.unwrap();
    marks
        .iter()
        .map(|mark| (mark.window_start_s - T0, mark.length_s))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_that_sdks_send_is_taken() {
    let exponential = |aggregation_temporality: i32, scale: i32| {
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint {
                start_time_unix_nano: at(61),
                time_unix_nano: at(71),
                count: 2,
                sum: Some(0.3),
                scale,
                positive: Some(Buckets {
                    offset: -30,
                    bucket_counts: vec![1, 1],
                }),
                ..ExponentialHistogramDataPoint::default()
            }],
            aggregation_temporality,
        })
    };
    let bounds = |temporality| explicit(temporality, vec![point("/a", 61, 71, [1, 1, 0])]);
    for (name, unit, data) in [
        (NAME, "s", bounds(DELTA)),
        (NAME, "s", bounds(CUMULATIVE)),
        (NAME, "s", exponential(CUMULATIVE, 5)),
        (NAME, "s", exponential(DELTA, 5)),
        (NAME, "s", exponential(DELTA, 1)),
        (NAME, "ms", exponential(DELTA, 5)),
        ("http.server.duration", "s", exponential(DELTA, 5)),
        ("rpc.server.duration", "s", exponential(DELTA, 5)),
        ("http.server.duration", "ms", bounds(CUMULATIVE)),
        ("http.client.request.duration", "s", bounds(CUMULATIVE)),
        ("rpc.client.call.duration", "", bounds(DELTA)),
    ] {
        let server = Server::start(|_| {}).await;
        let said = format!("{name} {unit} {data:?}");
        let answer = send(&server, &request("a", name, unit, data)).await;
        assert!(answer.ends_with("\r\n\r\n"), "nothing is left out: {answer} of {said}");
        assert_eq!(requests_stored(&server).await, 2, "{said}");
        assert_eq!(windows(&server).await, [(61, 10)], "{said}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_a_minute_is_a_window_of_that_minute() {
    let server = Server::start(|_| {}).await;
    for from in [3, 63, 123] {
        send(
            &server,
            &request(
                "a",
                NAME,
                "s",
                explicit(DELTA, vec![point("/a", from, from + 60, [600, 0, 0])]),
            ),
        )
        .await;
    }
    assert_eq!(windows(&server).await, [(3, 60), (63, 60), (123, 60)]);
    assert_eq!(requests_stored(&server).await, 1800);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cumulative_exports_store_their_growth_once() {
    let server = Server::start(|_| {}).await;
    let export = |instance: &str, start: i64, until: i64, counts: [u64; 3]| {
        request(
            instance,
            NAME,
            "s",
            explicit(CUMULATIVE, vec![point("/quote/:id", start, until, counts)]),
        )
    };
    for (instance, start, until, counts) in [
        ("a", 65, 120, [5, 0, 0]),
        ("b", 70, 121, [1, 0, 0]),
        ("a", 65, 180, [9, 2, 0]),
        // Sent again, because the answer was lost; and one that was overtaken.
        ("a", 65, 180, [9, 2, 0]),
        ("a", 65, 120, [5, 0, 0]),
        // An export was lost.
        ("a", 65, 300, [20, 2, 0]),
        // The process began anew under the same name, and counted more than the one before.
        ("a", 310, 360, [30, 0, 1]),
    ] {
        server.clock.set(T0 + until);
        let answer = send(&server, &export(instance, start, until, counts)).await;
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert_eq!(
        stored(&server).await,
        BTreeMap::from([("/quote/{id}".to_owned(), 22 + 31 + 1)])
    );
    assert_eq!(
        windows(&server).await,
        [(65, 55), (70, 51), (120, 60), (180, 120), (310, 50)]
    );
    let status = (server.collector.status_probe())();
    assert!(status["cumulative_buckets"].as_u64().unwrap() > 0);
    assert_eq!(status["refused_metrics"], serde_json::json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_anew_begins_at_the_first_export_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(T0);
    let export = |until: i64, count: u64| {
        request(
            "a",
            NAME,
            "s",
            explicit(CUMULATIVE, vec![point("/a", 5, until, [count, 0, 0])]),
        )
    };
    let server = Server::start_in(dir.path().to_owned(), clock.clone(), |_| {}).await;
    clock.set(T0 + 60);
    send(&server, &export(60, 10)).await;
    server.stop().await;

    clock.set(T0 + 100);
    let server = Server::start_in(dir.path().to_owned(), clock.clone(), |_| {}).await;
    clock.set(T0 + 180);
    let answer = send(&server, &export(120, 17)).await;
    for part in [
        "1 for reason `cumulative_base`",
        "(data points of http.server.request.duration, cumulative histogram)",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let answer = send(&server, &export(180, 20)).await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(
        requests_stored(&server).await,
        13,
        "what came between the two looks is not counted, and not twice"
    );
    assert_eq!(windows(&server).await, [(5, 55), (120, 60)]);
    let status = (server.collector.status_probe())();
    let row = &status["refused_metrics"][0];
    assert_eq!(
        (&row["service"], &row["metric"], &row["points"]),
        (&"shop".into(), &NAME.into(), &1.into())
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_said_and_counted_by_a_later_export() {
    let server = Server::start(|config| config.limits.max_cumulative_buckets = 100).await;
    // A stream with two bounds weighs 25.
    let export = |until: i64, routes: usize, count: u64| {
        let points = (0..routes).map(|route| point(&format!("/{route}"), 61, until, [count, 0, 0]));
        request("a", NAME, "s", explicit(CUMULATIVE, points.collect()))
    };
    send(&server, &export(120, 1, 1)).await;
    let answer = send(&server, &export(180, 4, 2)).await;
    assert!(answer.contains("4 for reason `max_cumulative_buckets`"), "{answer}");
    assert_eq!(requests_stored(&server).await, 1);
    send(&server, &export(240, 2, 9)).await;
    assert_eq!(
        stored(&server).await,
        BTreeMap::from([("/0".to_owned(), 9), ("/1".to_owned(), 9)])
    );
    assert_eq!(windows(&server).await, [(61, 59), (120, 120)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_from_the_future_does_not_hide_those_that_follow() {
    let server = Server::start(|_| {}).await;
    let export = |until: i64, count: u64| {
        request(
            "a",
            NAME,
            "s",
            explicit(CUMULATIVE, vec![point("/a", 61, until, [count, 0, 0])]),
        )
    };
    let answer = send(&server, &export(100_000, 3)).await;
    assert!(
        answer.contains("1 for reason `in_the_future`") && answer.contains("clock"),
        "{answer}"
    );
    send(&server, &export(120, 5)).await;
    assert_eq!(requests_stored(&server).await, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_named_in_the_answer_and_on_the_status_page() {
    let server = Server::start(|_| {}).await;
    let gauge = || {
        Data::Gauge(Gauge {
            data_points: vec![NumberDataPoint::default(); 3],
        })
    };
    let answer = send(&server, &request("a", NAME, "s", gauge())).await;
    let said = "3 for reason `not_a_histogram` (data points of http.server.request.duration, gauge): request durations are \
                only accepted as histograms; record the metric as a histogram";
    assert!(answer.contains(said), "{answer}");
    send(&server, &request("a", NAME, "s", gauge())).await;
    let answer = send(&server, &request("a", "jvm.threads", "", gauge())).await;
    assert!(
        answer.contains("(data points of jvm.threads, gauge): only request durations are accepted"),
        "{answer}"
    );
    let rows = (server.collector.status_probe())()["refused_metrics"].clone();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["metric"] == NAME)
        .unwrap();
    assert_eq!(
        (&row["shape"], &row["reason"], &row["points"]),
        (&"gauge".into(), &"not_a_histogram".into(), &6.into())
    );
    assert!(row["remedy"].as_str().unwrap().contains("histogram"));
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let hour = explicit(DELTA, vec![point("/a", -86_401, 0, [1, 0, 0])]);
    let answer = send(&server, &request("a", NAME, "s", hour)).await;
    assert!(
        answer.contains("1 for reason `window_too_long`") && answer.contains("OTEL_METRIC_EXPORT_INTERVAL"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_logs_are_answered_and_not_kept() {
    let server = Server::start(|_| {}).await;
    // One resource with one scope with two items.
    let message = [0x0a, 6, 0x12, 4, 0x12, 0, 0x12, 0];
    let json = ("content-type", "application/json");
    for (path, text, rejected) in [
        (
            "/v1/traces",
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{}]}]}]}"#,
            "rejectedSpans",
        ),
        (
            "/v1/logs",
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{}]}]}]}"#,
            "rejectedLogRecords",
        ),
    ] {
        let (status, answer) = post(server.http, path, &[PROTOBUF], &message).await;
        assert_eq!(status, 200, "{answer}");
        assert!(
            answer.contains("not supported yet") && answer.contains("application/x-protobuf"),
            "{answer}"
        );
        let (status, answer) = post(server.http, path, &[json], text.as_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["partialSuccess"][rejected], "2", "{answer}");
        let (status, answer) = post(server.http, path, &[json], b"{}").await;
        assert_eq!((status, answer.ends_with("{}")), (200, true), "{answer}");
        for (kind, body) in [
            (PROTOBUF, &message[..3]),
            (json, &b"["[..]),
            (("content-type", "text/plain"), &b"{}"[..]),
        ] {
            let (status, answer) = post(server.http, path, &[kind], body).await;
            assert!(matches!(status, 400 | 415), "{status}: {answer}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_sdks_measure_have_an_edge_to_the_name_they_asked_for() {
    let server = Server::start(|_| {}).await;
    let mut sent = point("", 61, 71, [3, 0, 0]);
    sent.attributes = vec![
        text("server.address", "inventory.prod.svc.cluster.local"),
        text("http.request.method", "GET"),
    ];
    send(
        &server,
        &request("a", "http.client.request.duration", "s", explicit(DELTA, vec![sent])),
    )
    .await;
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery::new(WorkloadFilter::service("shop"), Range::ALL);
    let rows = server.store.ask(query).await.unwrap();
    assert_eq!(
        (rows.len(), rows[0].side, rows[0].duration.count()),
        (1, Side::Client, 3)
    );
    assert_eq!((&rows[0].peer, rows[0].destination.as_str()), (&None, "prod/inventory"));
    server.stop().await;
}

/// One template in the spelling of three frameworks, through three doors.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_one_spelling_whatever_door_it_comes_in_by() {
    let server = Server::start(|_| {}).await;
    send(
        &server,
        &request(
            "a",
            NAME,
            "s",
            explicit(DELTA, vec![point("/quote/<int:id>", 61, 71, [4, 0, 0])]),
        ),
    )
    .await;
    let upload = format!("/api/ingest?service=shop&from={}&until={}", T0 + 61, T0 + 71);
    let (status, answer) = post(
        server.http,
        &format!("{upload}&route=%2Fquote%2F%3Aid"),
        &[],
        b"main;work 7\n",
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = post(
        server.http,
        &format!(
            "/ingest?name=shop%7Broute%3D%2Fquote%2F%5Bid%5D%7D&from={}&until={}",
            T0 + 61,
            T0 + 71
        ),
        &[],
        b"main;work 5\n",
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(stored(&server).await.into_keys().collect::<Vec<_>>(), ["/quote/{id}"]);
    let query = emberline_storage::StackQuery {
        route: Some("/quote/{id}".to_owned()),
        ..emberline_storage::StackQuery::new(
            WorkloadFilter::service("shop"),
            emberline_model::ProfileType::CPU,
            Range::ALL,
        )
    };
    let samples = server.store.ask(query).await.unwrap().samples;
    assert_eq!(samples, 12);
    server.stop().await;
}

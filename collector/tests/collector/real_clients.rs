//! One request of each real client that speaks HTTP, as it came over the wire (`make bench NAME=clients` records them):
//! taken, and read back with the totals that a reader of another make counts in them.

use crate::support::{Server, wire::raw};
use emberline_storage::{Range, RequestQuery, StackQuery, WindowQuery, WorkloadFilter};

/// A moment after the requests were recorded.
const RECORDED_UNIX_S: i64 = 1_795_342_900;

/// Sends a recorded request to a server whose clock stands at the time of the recording.
async fn replay(recorded: &[u8]) -> Server {
    let server = Server::start(|_| {}).await;
    server.clock.set(RECORDED_UNIX_S);
    let text = send(&server, recorded).await;
    assert!(
        !text.contains("dropped: ") && !text.contains("partialSuccess"),
        "{text}"
    );
    server.store.flush_applied().await.unwrap();
    server
}

/// Sends a recorded request, and answers what came back.
async fn send(server: &Server, recorded: &[u8]) -> String {
    let line = recorded.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
    let (line, rest) = recorded.split_at(line);
    let request = [line, b"Host: collector\r\nConnection: close\r\n", rest].concat();
    let (status, text) = raw(server.http, &request).await;
    assert_eq!(status, 200, "{text}");
    text
}

async fn total(server: &Server, service: &str, profile_type: &str) -> i64 {
    let who = WorkloadFilter {
        version: Some("v9".to_owned()),
        ..WorkloadFilter::service(service)
    };
    let query = StackQuery::new(who, profile_type, Range::ALL);
    server.store.ask(query).await.unwrap().value
}

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
const WALL: &str = "wall:wall:nanoseconds:wall:nanoseconds";

#[tokio::test(flavor = "multi_thread")]
async fn pyroscope_io_of_python_pushes() {
    let server = replay(include_bytes!("../fixtures/push.v1.PusherService-Push-proto.http")).await;
    assert_eq!(total(&server, "pyshop", CPU).await, 3_860_000_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pyroscope_of_node_sends_wall_and_cpu_in_one_file() {
    let server = replay(include_bytes!("../fixtures/ingest-octet-stream.http")).await;
    assert_eq!(total(&server, "nodeshop", WALL).await, 3_662_322_000);
    assert_eq!(total(&server, "nodeshop", CPU).await, 814_532_254);
    let samples = "wall:samples:count:wall:nanoseconds";
    assert_eq!(total(&server, "nodeshop", samples).await, 213);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_datadogs_pprof_is_uploaded() {
    let server = replay(include_bytes!("../fixtures/api-ingest-plain.http")).await;
    assert_eq!(total(&server, "ddshop", WALL).await, 4_060_368_000);
    let samples = "wall:sample:count:wall:nanoseconds";
    assert_eq!(total(&server, "ddshop", samples).await, 234);
    server.stop().await;
}

/// The SDK chose scale 4 for the one route and 5 for the other: neither is left out.
#[tokio::test(flavor = "multi_thread")]
async fn histograms_of_opentelemetrys_sdk_are_taken_at_the_scale_it_chose() {
    for (recorded, service) in [
        (&include_bytes!("../fixtures/v1-metrics-json.http")[..], "oteljs-http"),
        (
            &include_bytes!("../fixtures/v1-metrics-x-protobuf.http")[..],
            "oteljs-proto",
        ),
    ] {
        let server = replay(recorded).await;
        let query = RequestQuery::new(WorkloadFilter::service(service), Range::ALL);
        let rows = server.store.ask(query).await.unwrap();
        let of = |route: &str| {
            let rows = rows.iter().filter(|row| row.route == route);
            rows.map(|row| row.duration.count()).sum::<u64>()
        };
        assert_eq!((of("/checkout"), of("/cart/{id}")), (100, 400), "{service}");
        let checkout = rows.iter().find(|row| row.route == "/checkout").unwrap();
        let (p50, max) = (checkout.duration.quantile(0.5).unwrap(), checkout.duration.max());
        assert!((0.020..0.027).contains(&p50), "{p50}");
        assert!((max - 0.046).abs() < 1e-9, "{max}");
        server.stop().await;
    }
}

/// A moment after the exports with default settings were recorded.
const DEFAULTS_RECORDED_UNIX_S: i64 = 1_795_795_320;

/// Requests served by route, and the windows they came in.
async fn served(server: &Server, service: &str) -> (Vec<(String, u64)>, Vec<(i64, u32)>) {
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery {
        side: Some(emberline_model::Side::Server),
        ..RequestQuery::new(WorkloadFilter::service(service), Range::ALL)
    };
    let mut routes = std::collections::BTreeMap::new();
    for row in server.store.ask(query).await.unwrap() {
        *routes.entry(row.route).or_default() += row.duration.count();
    }
    let query = WindowQuery {
        who: WorkloadFilter::service(service),
        component: None,
        range: Range::ALL,
    };
    let windows = server.store.ask(query).await.unwrap();
    let windows = windows.iter().map(|mark| (mark.window_start_s, mark.length_s));
    (routes.into_iter().collect(), windows.collect())
}

/// Flask under its instrumentation, nothing set but the address: `http.server.duration` in whole milliseconds, fixed bounds,
/// cumulative, the route under `http.target`. 60 requests, then 40 and 25 of another route.
#[tokio::test(flavor = "multi_thread")]
async fn flask_with_default_settings_is_taken() {
    let server = Server::start(|_| {}).await;
    server.clock.set(DEFAULTS_RECORDED_UNIX_S);
    let exports: [&[u8]; 2] = [
        include_bytes!("../fixtures/otelpy-defaults-1.http"),
        include_bytes!("../fixtures/otelpy-defaults-2.http"),
    ];
    for export in exports {
        let text = send(&server, export).await;
        // The instrumentation also counts requests under way, which is no duration.
        assert!(
            text.contains("1 for reason `unknown_metric`") && text.contains("http.server.active_requests"),
            "{text}"
        );
    }
    let (routes, windows) = served(&server, "otelpy-defaults").await;
    let expected = [("/checkout".to_owned(), 25), ("/quote/{item}".to_owned(), 100)];
    assert_eq!(routes, expected);
    assert_eq!(
        windows,
        [(1_795_795_301, 2)],
        "from the first request to the last export: two windows of one start"
    );
    server.stop().await;
}

/// A server under the SDK for Node and its HTTP instrumentation, nothing set but the address and the interval: fixed
/// bounds, cumulative. 60 requests, then none, then 40 and 25 of another route.
#[tokio::test(flavor = "multi_thread")]
async fn node_with_default_settings_is_taken() {
    let server = Server::start(|_| {}).await;
    server.clock.set(DEFAULTS_RECORDED_UNIX_S);
    let exports: [&[u8]; 4] = [
        include_bytes!("../fixtures/oteljs-defaults-1.http"),
        include_bytes!("../fixtures/oteljs-defaults-2.http"),
        include_bytes!("../fixtures/oteljs-defaults-3.http"),
        include_bytes!("../fixtures/oteljs-defaults-4.http"),
    ];
    for export in exports {
        let text = send(&server, export).await;
        assert!(!text.contains("dropped: "), "{text}");
        // An exporter that heard no answer sends again.
        send(&server, export).await;
    }
    let (routes, windows) = served(&server, "oteljs-defaults").await;
    let expected = [("/checkout".to_owned(), 25), ("/quote/{id}".to_owned(), 100)];
    assert_eq!(routes, expected);
    assert_eq!(
        windows,
        [
            (1_795_795_304, 1),
            (1_795_795_305, 1),
            (1_795_795_306, 1),
            (1_795_795_307, 1)
        ]
    );
    let query = RequestQuery::new(WorkloadFilter::service("oteljs-defaults"), Range::ALL);
    let rows = server.store.ask(query).await.unwrap();
    let quotes = rows.iter().filter(|row| row.route == "/quote/{id}");
    let mut duration = emberline_model::Histogram::new();
    quotes.for_each(|row| duration.merge(&row.duration));
    // The exporter counted 51 of 100 up to 5 ms and 45 more up to 10 ms, 0.5176 s in all.
    let p50 = duration.quantile(0.5).unwrap();
    assert!((0.004..0.0052).contains(&p50), "{p50}");
    assert!((duration.sum() - 0.5176).abs() < 1e-4, "{}", duration.sum());
    server.stop().await;
}

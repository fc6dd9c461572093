//! One request of each real client that speaks HTTP, as it came over the wire (`make bench NAME=clients` records them):
//! taken, and read back with the totals that a reader of another make counts in them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::support::{Server, wire::raw};
use emberline_storage::{Range, RequestQuery, StackQuery, WorkloadFilter};

/// A moment after the requests were recorded.
const RECORDED_UNIX_S: i64 = 1_795_342_900;

/// Sends a recorded request to a server whose clock stands at the time of the recording.
async fn replay(recorded: &[u8]) -> Server {
    let server = Server::start(|_| {}).await;
    server.clock.set(RECORDED_UNIX_S);
    let line = recorded.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
    let (line, rest) = recorded.split_at(line);
    let request = [line, b"Host: collector\r\nConnection: close\r\n", rest].concat();
    let (status, text) = raw(server.http, &request).await;
    assert_eq!(status, 200, "{text}");
    assert!(!text.contains("left out") && !text.contains("partialSuccess"), "{text}");
    server.store.flush_applied().await.unwrap();
    server
}

async fn total(server: &Server, service: &str, profile_type: &str) -> i64 {
    let who = WorkloadFilter {
        version: Some("v9".to_owned()),
        ..WorkloadFilter::service(service)
    };
    let query = StackQuery::new(who, profile_type, Range::ALL);
    server.store.stacks(query).await.unwrap().value
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
        let rows = server.store.requests(query).await.unwrap();
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

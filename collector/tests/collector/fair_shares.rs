//! A sender that makes names up takes nothing from another: through real connections from different addresses.

use std::{net::SocketAddr, sync::Arc};

use crate::support::{
    ManualClock, Server, T0, profile, series, window,
    wire::{self, framed, grpc, http2, whole},
};
use emberline_model::{
    ProfileType, Side, WorkloadWindow,
    otlp::{encode_profiles, encode_requests},
};
use emberline_storage::{Range, RequestQuery, StackQuery, WorkloadFilter};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use serde_json::Value;

/// Processes that are made up.
const MADE_UP: usize = 20_000;
const PER_REQUEST: usize = 1_000;
const ATTACKER: [u8; 4] = [127, 0, 0, 2];
const HONEST: [u8; 4] = [127, 0, 0, 3];
const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];

/// One request from an address of this machine.
async fn post_from(from: [u8; 4], to: SocketAddr, path: &str, body: &[u8]) -> (u16, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let stream = socket.connect(to).await.unwrap();
    wire::post_on(stream, path, PROTOBUF, body).await
}

fn of_shop(version: &str, start_unix_s: i64) -> WorkloadWindow {
    let mut window = window("shop", version, start_unix_s);
    window.requests = vec![series(Side::Server, "/a", None, &[1_000_000])];
    window.profiles = vec![profile(start_unix_s, &[("/a", &["leaf", "main"], 100)])];
    window
}

/// Sends requests and a profile of a release; the answers say that all of it was kept.
async fn reports(server: &Server, version: &str) {
    let window = of_shop(version, server.clock_s() - 20);
    for (path, body) in [
        ("/v1/metrics", encode_requests(&window).encode_to_vec()),
        ("/v1/profiles", encode_profiles(&window).encode_to_vec()),
    ] {
        let (status, text) = post_from(HONEST, server.http, path, &body).await;
        assert_eq!(status, 200, "{version} {path}: {text}");
        assert!(!text.contains("reason"), "{version} {path}: {text}");
    }
}

/// Processes of as many services as there are processes; says how many requests were refused, each to be sent again.
async fn makes_up(server: &Server, round: &str) -> usize {
    let mut refused = 0;
    for request in 0..MADE_UP / PER_REQUEST {
        let mut all = ExportMetricsServiceRequest::default();
        for n in 0..PER_REQUEST {
            let mut window = of_shop("1", server.clock_s() - 20);
            window.workload.service = format!("made-up-{round}-{request}-{n}");
            all.resource_metrics.extend(encode_requests(&window).resource_metrics);
        }
        let (status, text) = post_from(ATTACKER, server.http, "/v1/metrics", &all.encode_to_vec()).await;
        if status == 503 {
            refused += 1;
            let head = text.split("\r\n\r\n").next().unwrap().to_lowercase();
            let pause = head
                .split("retry-after: ")
                .nth(1)
                .unwrap()
                .split("\r\n")
                .next()
                .unwrap();
            assert!((1..=4).contains(&pause.parse::<u32>().unwrap()), "{head}");
        } else {
            assert_eq!(status, 200, "{text}");
        }
    }
    refused
}

async fn stored(server: &Server, version: &str) -> (u64, i64) {
    server.store.flush_applied().await.unwrap();
    let who = WorkloadFilter {
        version: Some(version.to_owned()),
        ..WorkloadFilter::service("shop")
    };
    let requests = server
        .store
        .ask(RequestQuery::new(who.clone(), Range::ALL))
        .await
        .unwrap();
    let stacks = StackQuery::new(who, ProfileType::CPU, Range::ALL);
    let rows = server.store.ask(stacks).await.unwrap().rows;
    (
        requests.iter().map(|row| row.duration.count()).sum(),
        rows.iter().map(|row| row.value).sum(),
    )
}

fn shares(server: &Server) -> Value {
    server.collector.status_probe()()["shares"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_made_up_processes_keep_no_new_release_out() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(T0 + 60);
    let mut server = Server::start_in(folder.path().to_owned(), Arc::clone(&clock), |_| {}).await;
    server.spawn_tasks();
    reports(&server, "v1").await;
    clock.set(T0 + 70);
    reports(&server, "v1").await;
    assert!(makes_up(&server, "a").await >= 9, "most are told to come again");
    reports(&server, "v2").await;
    assert_eq!(stored(&server, "v2").await, (1, 100_000_000), "in its first window");
    reports(&server, "v1").await;
    let told = shares(&server);
    assert_eq!(told["workloads"]["is_full"], true, "{told}");
    assert_eq!(told["workloads"]["largest_senders"][0]["sender"], "127.0.0.2", "{told}");
    let refused = &told["refused"][0];
    assert_eq!(
        (&refused["table"], &refused["sender"]),
        (&"workloads".into(), &"127.0.0.2".into())
    );
    assert!(refused["count"].as_u64().unwrap() >= 9_000, "{told}");
    server.stop().await;

    // Whoever comes first after a restart takes no place of those who were known, nor of those who are new.
    clock.set(T0 + 100);
    let mut server = Server::start_in(folder.path().to_owned(), clock, |_| {}).await;
    server.spawn_tasks();
    let known = shares(&server)["workloads"]["used"].as_u64().unwrap();
    assert!(
        (1..10).contains(&known),
        "what came in one window only is not kept: {known}"
    );
    assert!(makes_up(&server, "b").await >= 9);
    reports(&server, "v1").await;
    reports(&server, "v3").await;
    assert_eq!(stored(&server, "v3").await, (1, 100_000_000));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_one_address_makes_up_are_folded_and_not_those_of_another() {
    let server = Server::start(|config| config.limits.max_routes_per_service = 100).await;
    let send = async |from, routes: std::ops::Range<usize>| {
        let mut window = of_shop("1", T0 + 40);
        let route = |n| series(Side::Server, &format!("/r{n}"), None, &[1_000_000]);
        window.requests = routes.map(route).collect();
        let body = encode_requests(&window).encode_to_vec();
        post_from(from, server.http, "/v1/metrics", &body).await
    };
    let (status, text) = send(ATTACKER, 1_000..3_000).await;
    assert!(
        status == 200 && text.contains("1900 for reason `max_routes_per_service`"),
        "{text}"
    );
    let (status, text) = send(HONEST, 0..50).await;
    assert!(status == 200 && !text.contains("reason"), "{text}");
    let (_, text) = send(HONEST, 50..60).await;
    assert!(text.contains("10 for reason `max_routes_per_service`"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_place_is_told_to_come_again_over_grpc_too() {
    let server = Server::start(|config| config.limits.max_workloads = 1).await;
    let mut sender = http2(server.grpc).await;
    for (version, expected) in [("1", "0"), ("2", "14"), ("1", "0")] {
        let message = framed(&encode_requests(&of_shop(version, T0 + 40)).encode_to_vec());
        let answer = sender.send_request(grpc(wire::EXPORT_METRICS, whole(message))).await;
        let answer = answer.unwrap();
        let has_details = answer.headers().contains_key("grpc-status-details-bin");
        let (code, message) = wire::status(answer).await;
        assert_eq!(if code.is_empty() { "0" } else { &code }, expected, "{message}");
        assert_eq!(has_details, expected == "14", "the pause is in the details: {message}");
    }
    server.stop().await;
}

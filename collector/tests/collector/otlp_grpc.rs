//! OTLP over gRPC, through a real socket into a real store.

use std::str::FromStr;

use crate::support::{
    Numbers, Server, T0,
    asking::{requests_of, sum_of},
    profile, release, series, window,
};
use bytes::Bytes;
use emberline_model::{
    BatchId, ProfileType, RawCodec, Side, Signal, WorkloadWindow,
    batch::BATCH_ID_HEADER,
    otlp::{encode_profiles, encode_requests},
};
use emberline_storage::{Range, RequestQuery, WorkloadFilter};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse, metrics_service_client::MetricsServiceClient,
        },
        profiles::v1development::{ExportProfilesServiceRequest, profiles_service_client::ProfilesServiceClient},
    },
    metrics::v1::{Gauge, Metric, NumberDataPoint, metric::Data},
    resource::v1::Resource,
};
use tonic::{Code, Request, Status, codec::CompressionEncoding, metadata::MetadataValue, transport::Channel};

fn shop() -> WorkloadWindow {
    let mut shop = window("shop", "1", T0);
    shop.requests = vec![
        series(
            Side::Server,
            "/a/{id}",
            Some(release("front", "7")),
            &[1_000_000, 2_000_000],
        ),
        series(Side::Client, "/b", Some(release("cart", "2")), &[3_000_000]),
    ];
    shop.profiles = vec![profile(
        T0,
        &[
            ("/a/{id}", &["shop::leaf", "shop::handler"], 120),
            ("", &["tokio::park"], 30),
        ],
    )];
    shop
}

fn id(sequence: u64, signal: Signal) -> String {
    BatchId {
        sender: "demo/shop/1/shop-1-0/application".into(),
        epoch: 5,
        sequence,
        signal,
    }
    .to_string()
}

fn with_id<T>(message: T, id: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(BATCH_ID_HEADER, MetadataValue::from_str(id).unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn both_signals_arrive_whole_in_every_compression() {
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let server = Server::start(|_| {}).await;
        let channel = server.channel().await;
        let mut metrics = MetricsServiceClient::new(channel.clone());
        let mut profiles = ProfilesServiceClient::new(channel);
        if let Some(compression) = compression {
            metrics = metrics.send_compressed(compression);
            profiles = profiles.send_compressed(compression);
        }
        let answer = metrics
            .export(with_id(encode_requests(&shop()), &id(1, Signal::Requests)))
            .await
            .unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        let answer = profiles
            .export(with_id(encode_profiles(&shop()), &id(1, Signal::Profiles)))
            .await
            .unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        assert_eq!(requests_of(&server, "shop").await, 3);
        assert_eq!(
            sum_of(&server, WorkloadFilter::service("shop"), ProfileType::CPU).await,
            150_000_000
        );
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_arrives_twice_is_acknowledged_and_stored_once() {
    let server = Server::start(|_| {}).await;
    let mut metrics = MetricsServiceClient::new(server.channel().await);
    for _ in 0..3 {
        metrics
            .export(with_id(encode_requests(&shop()), &id(1, Signal::Requests)))
            .await
            .unwrap();
    }
    assert_eq!(requests_of(&server, "shop").await, 3);
    metrics
        .export(with_id(encode_requests(&shop()), &id(2, Signal::Requests)))
        .await
        .unwrap();
    assert_eq!(requests_of(&server, "shop").await, 6);
    let status = (server.collector.status_probe())();
    assert_eq!(
        (&status["metrics"]["stored"], &status["metrics"]["duplicate"]),
        (&2.into(), &2.into())
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_id_that_cannot_be_right_is_refused_by_name() {
    let server = Server::start(|_| {}).await;
    let mut metrics = MetricsServiceClient::new(server.channel().await);
    for bad in ["", "1;2;1", "x;1;1;s", "1;1;9;s", &id(1, Signal::Profiles)] {
        let refused = metrics
            .export(with_id(encode_requests(&shop()), bad))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
        assert!(refused.message().contains(BATCH_ID_HEADER), "{}", refused.message());
    }
    assert_eq!(requests_of(&server, "shop").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_bytes_are_refused_for_good_and_name_the_setting() {
    let server = Server::start(|config| config.max_request_bytes = 100_000).await;
    let mut big = shop();
    let mut numbers = Numbers(1);
    big.requests = (0..3_000)
        .map(|n| {
            series(
                Side::Server,
                &format!("/{n}/{}", "x".repeat(200)),
                None,
                &numbers.durations(1, 2.0),
            )
        })
        .collect();
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut metrics = MetricsServiceClient::new(server.channel().await);
        if let Some(compression) = compression {
            metrics = metrics.send_compressed(compression);
        }
        let refused = metrics.export(encode_requests(&big)).await.unwrap_err();
        // Senders retry RESOURCE_EXHAUSTED, which would never end.
        assert_eq!(refused.code(), Code::OutOfRange, "{compression:?} {refused}");
        assert!(refused.message().contains("`max_request_mb`"), "{refused}");
    }
    assert_eq!(requests_of(&server, "shop").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_store_nothing() {
    let server = Server::start(|_| {}).await;
    let mut broken = prost::Message::encode_to_vec(&encode_requests(&shop()));
    broken.truncate(broken.len() - 7);
    let path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let refused = send_raw(server.channel().await, path, Bytes::from(broken))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("metrics request"), "{refused}");
    assert_eq!(requests_of(&server, "shop").await, 0);

    // Tables that do not fit together: the whole request is refused.
    let mut lying: ExportProfilesServiceRequest = encode_profiles(&shop());
    lying.resource_profiles[0].scope_profiles[0].profiles[0].samples[1].stack_index = 77;
    let refused = ProfilesServiceClient::new(server.channel().await)
        .export(lying)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("stack index 77"), "{refused}");
    assert_eq!(
        sum_of(&server, WorkloadFilter::service("shop"), ProfileType::CPU).await,
        0
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_told_and_the_rest_is_stored() {
    let server = Server::start(|config| config.limits.max_routes_per_service = 2).await;
    let mut windows = encode_requests(&shop());
    let unknown = Metric {
        name: "queue.length".into(),
        data: Some(Data::Gauge(Gauge {
            data_points: vec![NumberDataPoint::default(); 4],
        })),
        ..Metric::default()
    };
    windows.resource_metrics[0].scope_metrics[0].metrics.push(unknown);
    let mut old = window("shop", "1", T0 - 300_000);
    old.requests = vec![series(Side::Server, "/a/{id}", None, &[5])];
    windows.resource_metrics.extend(encode_requests(&old).resource_metrics);
    let mut other = window("shop", "1", T0 + 10);
    other.requests = vec![
        series(Side::Server, "/c", None, &[5]),
        series(Side::Server, "/d", None, &[5]),
    ];
    windows
        .resource_metrics
        .extend(encode_requests(&other).resource_metrics);
    let mut nobody = encode_requests(&shop());
    nobody.resource_metrics[0].resource = Some(Resource::default());
    windows.resource_metrics.extend(nobody.resource_metrics);

    let mut metrics = MetricsServiceClient::new(server.channel().await);
    let answer = metrics
        .export(windows)
        .await
        .unwrap()
        .into_inner()
        .partial_success
        .unwrap();
    for part in [
        "4 for reason `unknown_metric`",
        "1 for reason `older_than_retention`",
        "`no_service_name`",
        "2 for reason `max_routes_per_service`",
    ] {
        assert!(answer.error_message.contains(part), "{part}: {}", answer.error_message);
    }
    assert!(answer.rejected_data_points >= 8, "{answer:?}");
    assert_eq!(requests_of(&server, "shop").await, 5);
    let query = RequestQuery::new(WorkloadFilter::service("shop"), Range::ALL);
    let other: u64 = server
        .store
        .ask(query)
        .await
        .unwrap()
        .iter()
        .filter(|r| r.route == "other")
        .map(|r| r.duration.count())
        .sum();
    assert_eq!(other, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_nothing_is_kept_is_still_acknowledged_under_its_id() {
    let server = Server::start(|_| {}).await;
    let mut old = window("shop", "1", T0 - 300_000);
    old.requests = vec![series(Side::Server, "/a/{id}", None, &[5])];
    let mut metrics = MetricsServiceClient::new(server.channel().await);
    for _ in 0..2 {
        let request = with_id(encode_requests(&old), &id(1, Signal::Requests));
        let answer = metrics
            .export(request)
            .await
            .unwrap()
            .into_inner()
            .partial_success
            .unwrap();
        assert!(
            answer.error_message.contains("older_than_retention"),
            "{}",
            answer.error_message
        );
    }
    let status = (server.collector.status_probe())();
    assert_eq!(
        (&status["metrics"]["stored"], &status["metrics"]["duplicate"]),
        (&1.into(), &1.into())
    );
    assert_eq!(requests_of(&server, "shop").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_logs_are_answered_and_not_kept() {
    let server = Server::start(|_| {}).await;
    // One resource with one scope with two items; no field of an item is read.
    let message = Bytes::from_static(&[0x0a, 6, 0x12, 4, 0x12, 0, 0x12, 0]);
    for (path, said) in [
        (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "OTEL_TRACES_EXPORTER=none",
        ),
        (
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            "OTEL_LOGS_EXPORTER=none",
        ),
    ] {
        let answer = send_raw(server.channel().await, path, message.clone()).await.unwrap();
        // The answers of all signals have one shape.
        let answer: ExportMetricsServiceResponse = prost::Message::decode(answer).unwrap();
        let answer = answer.partial_success.unwrap();
        assert_eq!(answer.rejected_data_points, 2);
        assert!(answer.error_message.contains(said), "{}", answer.error_message);
        let answer = send_raw(server.channel().await, path, Bytes::new()).await.unwrap();
        assert!(answer.is_empty(), "nothing was left out of nothing");
        let refused = send_raw(server.channel().await, path, Bytes::from_static(&[0x0a, 9]))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_still_knows_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let clock = crate::support::ManualClock::at(T0 + 60);
    for round in 0..2 {
        let server = Server::start_in(dir.path().to_owned(), clock.clone(), |_| {}).await;
        let mut metrics = MetricsServiceClient::new(server.channel().await);
        metrics
            .export(with_id(encode_requests(&shop()), &id(1, Signal::Requests)))
            .await
            .unwrap();
        assert_eq!(requests_of(&server, "shop").await, 3, "round {round}");
        server.stop().await;
    }
}

/// Sends bytes as the message of a call.
async fn send_raw(channel: Channel, path: &'static str, bytes: Bytes) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    client
        .unary(Request::new(bytes), path, RawCodec)
        .await
        .map(tonic::Response::into_inner)
}

/// A batch under another's id made that one's own batch a duplicate, acknowledged and lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_another_sender_costs_that_one_nothing() {
    let server = Server::start(|_| {}).await;
    let mut metrics = MetricsServiceClient::new(server.channel().await);
    let of_thief = || {
        let mut thief = shop();
        thief.workload.service = "thief".to_owned();
        encode_requests(&thief)
    };
    for _ in 0..2 {
        let answer = metrics
            .export(with_id(of_thief(), &id(1, Signal::Requests)))
            .await
            .unwrap();
        let partial = answer.into_inner().partial_success.unwrap();
        assert_eq!(partial.rejected_data_points, 0, "it is stored all the same");
        assert!(
            partial.error_message.contains("foreign_batch_id"),
            "{}",
            partial.error_message
        );
    }
    // Nothing that would say whose it is.
    let empty = ExportMetricsServiceRequest::default();
    metrics.export(with_id(empty, &id(1, Signal::Requests))).await.unwrap();
    for _ in 0..2 {
        metrics
            .export(with_id(encode_requests(&shop()), &id(1, Signal::Requests)))
            .await
            .unwrap();
    }
    assert_eq!(requests_of(&server, "shop").await, 3, "stored, and once");
    server.stop().await;
}

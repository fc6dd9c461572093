//! OTLP over HTTP, through a real socket into a real store.

use crate::support::{
    Server, T0,
    asking::{gzip, requests_of, send, sum_of},
    profile, series, window,
};
use emberline_model::{
    ProfileType, Side, WorkloadWindow,
    batch::BATCH_ID_HEADER,
    otlp::{encode_profiles, encode_requests},
};
use emberline_storage::{Range, StackQuery, WorkloadFilter};
use http::StatusCode;
use prost::Message;

fn shop() -> WorkloadWindow {
    let mut shop = window("shop", "1", T0);
    shop.requests = vec![series(Side::Server, "/a/{id}", None, &[1_000_000, 2_000_000])];
    shop.profiles = vec![profile(T0, &[("/a/{id}", &["shop::leaf", "shop::handler"], 120)])];
    shop
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_profiles_arrive_in_every_compression() {
    let server = Server::start(|_| {}).await;
    let message = encode_requests(&shop()).encode_to_vec();
    let packed = [
        ("identity", message.clone()),
        ("gzip", gzip(&message)),
        ("zstd", zstd::encode_all(&message[..], 3).unwrap()),
    ];
    for (sequence, (encoding, body)) in packed.into_iter().enumerate() {
        let id = format!("7;{};1;demo/shop/1/shop-1-0/application", sequence + 1);
        let headers = [PROTOBUF, ("content-encoding", encoding), (BATCH_ID_HEADER, id.as_str())];
        for _ in 0..2 {
            let answer = send(&server, "/v1/metrics", &headers, body.clone()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            assert!(answer.body.is_empty(), "nothing was left out");
        }
    }
    assert_eq!(requests_of(&server, "shop").await, 6, "each batch twice, stored once");

    let body = encode_profiles(&shop()).encode_to_vec();
    for path in ["/v1/profiles", "/v1development/profiles"] {
        let answer = send(&server, path, &[PROTOBUF], body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let total = sum_of(&server, WorkloadFilter::service("shop"), ProfileType::CPU).await;
    assert_eq!(
        total, 240_000_000,
        "without an id a batch is stored as often as it arrives"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_bodies_are_refused_with_a_reason_and_store_nothing() {
    let server = Server::start(|_| {}).await;
    let message = encode_requests(&shop()).encode_to_vec();
    let packed = gzip(&message);
    let cut = |bytes: &[u8], by: usize| bytes[..bytes.len() - by].to_vec();
    for (encoding, body, word) in [
        ("identity", cut(&message, 5), "metrics request"),
        ("gzip", cut(&packed, 9), "not valid gzip"),
        (
            "zstd",
            cut(&zstd::encode_all(&message[..], 3).unwrap(), 3),
            "not valid zstd",
        ),
        ("gzip", gzip(&cut(&message, 5)), "metrics request"),
    ] {
        let answer = send(
            &server,
            "/v1/metrics",
            &[PROTOBUF, ("content-encoding", encoding)],
            body,
        )
        .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text().contains(word), "{word}: {}", answer.text());
        assert!(answer.headers.get("retry-after").is_none());
    }
    let answer = send(
        &server,
        "/v1/metrics",
        &[PROTOBUF, (BATCH_ID_HEADER, "nonsense")],
        message,
    )
    .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(
        answer.text().contains("emberline-batch-id: nonsense"),
        "{}",
        answer.text()
    );
    assert_eq!(requests_of(&server, "shop").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_stops_at_the_decompressed_limit() {
    let server = Server::start(|config| config.max_request_bytes = 1 << 20).await;
    let zeros = vec![0u8; 64 << 20];
    for (encoding, body) in [
        ("gzip", gzip(&zeros)),
        ("zstd", zstd::encode_all(&zeros[..], 3).unwrap()),
        ("identity", vec![0; 2 << 20]),
    ] {
        let answer = send(
            &server,
            "/v1/profiles",
            &[PROTOBUF, ("content-encoding", encoding)],
            body,
        )
        .await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{encoding}");
        assert!(answer.text().contains("`max_request_mb`"), "{}", answer.text());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_is_refused_and_told_what_is_accepted() {
    let server = Server::start(|_| {}).await;
    let answer = send(&server, "/v1/metrics", &[("content-type", "text/xml")], b"{}".to_vec()).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        answer.text().contains("`application/x-protobuf` or `application/json`"),
        "{}",
        answer.text()
    );
    let answer = send(
        &server,
        "/v1/metrics",
        &[PROTOBUF, ("content-encoding", "br")],
        Vec::new(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(answer.headers["accept-encoding"], "gzip, zstd");
    let answer = send(&server, "/v1/nothing", &[PROTOBUF], Vec::new()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text().contains("/v1/metrics"), "{}", answer.text());
    server.stop().await;
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test(flavor = "multi_thread")]
async fn json_is_taken_and_answered_in_json() {
    let server = Server::start(|_| {}).await;
    let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}"#;
    let start = T0 * 1_000_000_000;
    let end = start + 10_000_000_000;
    let metrics = format!(
        r#"{{"resourceMetrics":[{{{resource},"scopeMetrics":[{{"metrics":[
            {{"name":"http.server.request.duration","unit":"s","exponentialHistogram":{{"aggregationTemporality":1,"dataPoints":[
                {{"startTimeUnixNano":"{start}","timeUnixNano":{end},"count":"5","sum":0.5,"scale":5,
                  "positive":{{"offset":-106,"bucketCounts":["5"]}},
                  "attributes":[{{"key":"http.route","value":{{"stringValue":"/a"}}}}]}}]}}}},
            {{"name":"unknown.metric","gauge":{{"dataPoints":[{{"asInt":"1"}},{{"asDouble":2}}]}}}}]}}]}}]}}"#
    );
    let answer = send(&server, "/v1/metrics", &[JSON], metrics.clone().into_bytes()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    let partial: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(partial["partialSuccess"]["rejectedDataPoints"], "2", "{partial}");
    assert_eq!(requests_of(&server, "shop").await, 5);

    let profiles = format!(
        r#"{{"resourceProfiles":[{{{resource},"scopeProfiles":[{{"profiles":[{{"timeUnixNano":"{start}","durationNano":"10000000000",
            "sampleType":{{"typeStrindex":1,"unitStrindex":2}},"periodType":{{"typeStrindex":1,"unitStrindex":2}},
            "samples":[{{"stackIndex":1,"values":["70"],"linkIndex":1}}]}}]}}]}}],
            "dictionary":{{"stringTable":["","cpu","nanoseconds","main"],"functionTable":[{{}},{{"nameStrindex":3}}],
            "locationTable":[{{}},{{"lines":[{{"functionIndex":1}}]}}],"stackTable":[{{}},{{"locationIndices":[1]}}],
            "linkTable":[{{}},{{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174"}}],
            "mappingTable":[{{}}],"attributeTable":[{{}}]}}}}"#
    );
    for path in ["/v1/profiles", "/v1development/profiles"] {
        let answer = send(&server, path, &[JSON], profiles.clone().into_bytes()).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "{}"));
    }
    server.store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::service("shop"), ProfileType::CPU, Range::ALL);
    let rows = server.store.ask(query).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.value).sum::<i64>(), 140);

    for (body, word) in [
        (profiles.replace("5B8EFF", "5B8EF"), "traceId"),
        (
            profiles.replace("\"stackIndex\":1", "\"stackIndex\":9"),
            "stack index 9",
        ),
        (
            profiles.replace("\"stackIndex\":1", "\"locationsStartIndex\":1"),
            "before 1.8",
        ),
        ("{".to_owned(), "line 1"),
    ] {
        let answer = send(&server, "/v1/profiles", &[JSON], body.into_bytes()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.text().contains(word), "{word}: {}", answer.text());
    }
    server.stop().await;
}

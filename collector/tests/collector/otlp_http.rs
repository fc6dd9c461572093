//! OTLP over HTTP, through a real socket into a real store.

use std::io::Write;

use crate::support::{Server, T0, profile, series, window};
use bytes::Bytes;
use emberline_model::{
    ProfileType, Side, WorkloadWindow,
    batch::BATCH_ID_HEADER,
    otlp::{encode_profiles, encode_requests},
};
use emberline_storage::{Range, RequestQuery, StackQuery, WorkloadFilter};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use prost::Message;

fn shop() -> WorkloadWindow {
    let mut shop = window("shop", "1", T0);
    shop.requests = vec![series(Side::Server, "/a/{id}", None, &[1_000_000, 2_000_000])];
    shop.profiles = vec![profile(T0, &[("/a/{id}", &["shop::leaf", "shop::handler"], 120)])];
    shop
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The message of the `google.rpc.Status` body, found without decoding it.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

async fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::post(path).header("host", "collector");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = sender
        .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
        .await
        .unwrap();
    let (parts, body) = reply.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

async fn requests_stored(server: &Server) -> u64 {
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery::new(WorkloadFilter::service("shop"), Range::ALL);
    server
        .store
        .ask(query)
        .await
        .unwrap()
        .iter()
        .map(|row| row.duration.count())
        .sum()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

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
            let answer = post(&server, "/v1/metrics", &headers, body.clone()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            assert!(answer.body.is_empty(), "nothing was left out");
        }
    }
    assert_eq!(requests_stored(&server).await, 6, "each batch twice, stored once");

    let body = encode_profiles(&shop()).encode_to_vec();
    for path in ["/v1/profiles", "/v1development/profiles"] {
        let answer = post(&server, path, &[PROTOBUF], body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    server.store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::service("shop"), ProfileType::CPU, Range::ALL);
    let total: i64 = server
        .store
        .ask(query)
        .await
        .unwrap()
        .rows
        .iter()
        .map(|row| row.value)
        .sum();
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
        let answer = post(
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
    let answer = post(
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
    assert_eq!(requests_stored(&server).await, 0);
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
        let answer = post(
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
    let answer = post(&server, "/v1/metrics", &[("content-type", "text/xml")], b"{}".to_vec()).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        answer.text().contains("`application/x-protobuf` or `application/json`"),
        "{}",
        answer.text()
    );
    let answer = post(
        &server,
        "/v1/metrics",
        &[PROTOBUF, ("content-encoding", "br")],
        Vec::new(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(answer.headers["accept-encoding"], "gzip, zstd");
    let answer = post(&server, "/v1/nothing", &[PROTOBUF], Vec::new()).await;
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
    let answer = post(&server, "/v1/metrics", &[JSON], metrics.clone().into_bytes()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    let partial: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(partial["partialSuccess"]["rejectedDataPoints"], "2", "{partial}");
    assert_eq!(requests_stored(&server).await, 5);

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
        let answer = post(&server, path, &[JSON], profiles.clone().into_bytes()).await;
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
        let answer = post(&server, "/v1/profiles", &[JSON], body.into_bytes()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.text().contains(word), "{word}: {}", answer.text());
    }
    server.stop().await;
}

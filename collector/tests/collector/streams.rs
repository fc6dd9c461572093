//! Streams that break the rules (catalogue C9): each ends with a status or is cut, stores nothing, and holds up nobody.

use crate::support::{
    Server, T0, series, window,
    wire::{EXPORT_METRICS, framed, grpc, http2, post, raw, stalled, status, torn, whole},
};
use emberline_model::{Side, WorkloadWindow, otlp::encode_requests};
use emberline_storage::{Range, RequestQuery, WorkloadFilter};
use prost::Message;

fn shop() -> WorkloadWindow {
    let mut shop = window("shop", "1", T0);
    shop.requests = vec![series(Side::Server, "/a", None, &[1_000_000])];
    shop
}

fn message() -> Vec<u8> {
    framed(&encode_requests(&shop()).encode_to_vec())
}

async fn requests_stored(server: &Server) -> u64 {
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery::new(WorkloadFilter::service("shop"), Range::ALL);
    let rows = server.store.ask(query).await.unwrap();
    rows.iter().map(|row| row.duration.count()).sum()
}

async fn send_well(server: &Server) {
    let answer = http2(server.grpc)
        .await
        .send_request(grpc(EXPORT_METRICS, whole(message())))
        .await;
    assert_eq!(status(answer.unwrap()).await.0, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_message_is_refused_and_stores_nothing() {
    let server = Server::start(|_| {}).await;
    let mut sender = http2(server.grpc).await;
    let whole_message = message();
    for at in [0, 3, 5, whole_message.len() / 2, whole_message.len() - 1] {
        let body = whole(whole_message[..at].to_vec());
        let answer = sender.send_request(grpc(EXPORT_METRICS, body)).await.unwrap();
        let (code, text) = status(answer).await;
        assert!(code != "0" && !code.is_empty(), "cut at {at}: {code} {text}");
    }
    assert_eq!(requests_stored(&server).await, 0);
    send_well(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_claims_four_gigabytes_is_refused_before_they_come() {
    let server = Server::start(|_| {}).await;
    let mut sender = http2(server.grpc).await;
    // The stream stays open: only the prefix can have led to the answer.
    let body = stalled(vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    let answer = sender.send_request(grpc(EXPORT_METRICS, body)).await.unwrap();
    let (code, text) = status(answer).await;
    assert_eq!(code, (tonic::Code::OutOfRange as i32).to_string(), "{text}");
    assert!(text.contains("max_request_mb"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stall_hold_up_nobody() {
    // Far fewer turns than stalled uploads, and nobody is timed out before the test ends.
    let server = Server::start(|config| {
        config.max_concurrent_requests = 2;
        config.request_timeout = std::time::Duration::from_secs(600);
    })
    .await;
    let mut stalled_calls = Vec::new();
    for _ in 0..4 {
        let mut sender = http2(server.grpc).await;
        for _ in 0..50 {
            let half = message()[..20].to_vec();
            stalled_calls.push(tokio::spawn(sender.send_request(grpc(EXPORT_METRICS, stalled(half)))));
        }
        sender.ready().await.unwrap();
        stalled_calls.push(tokio::spawn(async move {
            sender.send_request(grpc("/", stalled(Vec::new()))).await
        }));
    }
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
        let head = "POST /v1/metrics HTTP/1.1\r\nHost: c\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9000\r\n\r\nab";
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
            .await
            .unwrap();
        slow.push(stream);
    }
    send_well(&server).await;
    let body = encode_requests(&shop()).encode_to_vec();
    let protobuf = [("content-type", "application/x-protobuf")];
    assert_eq!(post(server.http, "/v1/metrics", &protobuf, &body).await.0, 200);
    assert_eq!(requests_stored(&server).await, 2);
    stalled_calls.iter().for_each(tokio::task::JoinHandle::abort);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_reset_stores_nothing_and_gives_its_place_back() {
    let server = Server::start(|config| config.max_concurrent_requests = 1).await;
    for _ in 0..20 {
        let mut sender = http2(server.grpc).await;
        let body = torn(message()[..10].to_vec());
        assert!(sender.send_request(grpc(EXPORT_METRICS, body)).await.is_err());
        let head = "POST /v1/metrics HTTP/1.1\r\nHost: c\r\nContent-Type: application/x-protobuf\r\nContent-Length: 90\r\n\r\nab";
        let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
            .await
            .unwrap();
        drop(stream);
    }
    assert_eq!(requests_stored(&server).await, 0);
    send_well(&server).await;
    assert_eq!(requests_stored(&server).await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_is_cut_off_and_told_so() {
    let server = Server::start(|config| config.request_timeout = std::time::Duration::from_millis(300)).await;
    let mut sender = http2(server.grpc).await;
    let body = stalled(message()[..10].to_vec());
    let answer = sender.send_request(grpc(EXPORT_METRICS, body)).await.unwrap();
    let (code, text) = status(answer).await;
    assert_eq!(code, (tonic::Code::DeadlineExceeded as i32).to_string(), "{text}");
    assert!(text.contains("request_timeout"), "{text}");
    let head = "POST /v1/metrics HTTP/1.1\r\nHost: c\r\nContent-Type: application/x-protobuf\r\nConnection: close\r\nContent-Length: 90\r\n\r\nab";
    let (code, text) = raw(server.http, head.as_bytes()).await;
    assert_eq!(code, 503, "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_of_nothing_ends_the_call_and_not_the_server() {
    let server = Server::start(|_| {}).await;
    let mut sender = http2(server.grpc).await;
    let mut request = grpc(EXPORT_METRICS, stalled(message()));
    request.headers_mut().insert("grpc-timeout", "0m".parse().unwrap());
    let answer = sender.send_request(request).await.unwrap();
    let (code, text) = status(answer).await;
    assert!(code != "0", "{code} {text}");
    send_well(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_types_and_http_1_get_an_answer_on_the_grpc_port() {
    let server = Server::start(|_| {}).await;
    let mut request = grpc(EXPORT_METRICS, whole(message()));
    request
        .headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    let answer = http2(server.grpc).await.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 415, "{answer:?}");
    assert_eq!(requests_stored(&server).await, 0);
    let http1 = post(
        server.grpc,
        EXPORT_METRICS,
        &[("content-type", "application/grpc")],
        &message(),
    )
    .await;
    assert!(!http1.1.contains("grpc-status: 0"), "{http1:?}");
    assert_eq!(requests_stored(&server).await, 0);
    // Noise instead of a preface.
    raw(server.grpc, &[0xff; 64]).await;
    raw(server.http, b"\x16\x03\x01 not http\r\n\r\n").await;
    send_well(&server).await;
    server.stop().await;
}

/// Many clients read the answer when they have sent everything: it must still be there.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_who_sends_everything_before_reading() {
    let server = Server::start(|config| config.max_request_bytes = 2 << 20).await;
    let address = server.http;
    let send = move |headers: &str, length: usize| {
        let head = format!("POST /v1/metrics HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{headers}\r\n\r\n");
        let bytes = [head.into_bytes(), vec![0; length]].concat();
        tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(&bytes)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
        })
    };
    let length = 7 << 20;
    let declared = format!("Content-Length: {length}");
    for (content_type, status) in [("application/x-protobuf", "413"), ("text/xml", "415")] {
        let answer = send(&format!("Content-Type: {content_type}\r\n{declared}"), length)
            .await
            .unwrap();
        let answer = answer.unwrap_or_else(|error| panic!("{status} did not arrive: {error}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    // What is beyond all bounds is told at once to who asks first.
    let asks = "Content-Type: text/xml\r\nExpect: 100-continue\r\nContent-Length: 4000000";
    let answer = send(asks, 0).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    send_well(&server).await;
    server.stop().await;
}

//! Whose fault it is: callers that leave, deadlines, resets, statuses of gRPC, requests that nobody can read, and
//! destinations that are not there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::support::*;

/// The caller of `/late` has read its message: a reset must not overtake it.
static MESSAGE_READ: Notify = Notify::const_new();

/// An application of HTTP/2 that does to each request what its path says: `/reset/7` resets the stream with code 7,
/// `/late/7` does so after a message, `/http/404` answers with that status, `/silent/300` says nothing for so many
/// milliseconds and then one message.
async fn app() -> SocketAddr {
    raw_app(|stream: TcpStream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let path = request.uri().path().to_owned();
            let (what, number) = path[1..].split_once('/').unwrap();
            let (what, number) = (what.to_owned(), number.parse::<u32>().unwrap());
            let grpc = Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            tokio::spawn(async move {
                match what.as_str() {
                    "reset" => respond.send_reset(number.into()),
                    "late" => {
                        let mut body = respond.send_response(grpc, false).unwrap();
                        body.send_data(Bytes::from_static(b"\0\0\0\0\x01a"), false).unwrap();
                        MESSAGE_READ.notified().await;
                        body.send_reset(number.into());
                    }
                    "http" => {
                        let answer = Response::builder().status(number as u16).body(()).unwrap();
                        respond.send_response(answer, true).unwrap();
                    }
                    _ => {
                        tokio::time::sleep(Duration::from_millis(u64::from(number))).await;
                        let Ok(mut body) = respond.send_response(grpc, false) else {
                            return;
                        };
                        let _ = body.send_data(Bytes::from_static(b"\0\0\0\0\x01a"), false);
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        let _ = body.send_trailers(trailers);
                    }
                }
            });
        }
    })
    .await
}

fn call(path: &str, timeout: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("http://test{path}"))
        .header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(Empty::new()).unwrap()
}

fn status_in(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[test]
fn a_reset_before_the_answer_is_the_status_that_the_caller_gets_and_the_record_says() {
    block_on(async {
        let proxy = inbound("echo", "", app().await, "");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        // Codes of HTTP/2 that a server resets a stream with, and the statuses that gRPC gives them.
        for (n, (code, status, error)) in [
            (1, 13, true),
            (2, 13, true),
            (8, 1, false),
            (11, 8, false),
            (12, 7, false),
        ]
        .into_iter()
        .enumerate()
        {
            let response = sender
                .send_request(call(&format!("/reset/{code}"), None))
                .await
                .unwrap();
            assert_eq!(status_in(response.headers()), Some(status), "code {code}");
            drop(response);
            let series = recorded(proxy.telemetry(), n as u64 + 1).await;
            assert!(
                series.iter().any(|s| (s.status, s.error) == (status, error)),
                "code {code}: {series:#?}"
            );
        }
        stop(proxy).await;
    });
}

#[test]
fn a_reset_after_a_message_is_passed_on_with_its_code_and_recorded_as_the_caller_reads_it() {
    block_on(async {
        for (code, status, error) in [(2, 13, true), (7, 14, true), (8, 1, false)] {
            let proxy = inbound("echo", "", app().await, "");
            let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
            let response = sender.send_request(call(&format!("/late/{code}"), None)).await.unwrap();
            let mut body = response.into_body();
            body.frame().await.unwrap().unwrap();
            MESSAGE_READ.notify_one();
            let failed = body.frame().await.unwrap().unwrap_err();
            let source = std::error::Error::source(&failed).and_then(|e| e.downcast_ref::<h2::Error>());
            assert_eq!(source.and_then(h2::Error::reason), Some(h2::Reason::from(code)));
            let series = recorded(proxy.telemetry(), 1).await;
            assert_eq!((series[0].status, series[0].error), (status, error), "code {code}");
            stop(proxy).await;
        }
    });
}

#[test]
fn an_answer_without_a_grpc_status_has_that_of_its_http_status() {
    block_on(async {
        for (http, status, error) in [(404, 12, true), (401, 16, false), (503, 14, true), (418, 2, true)] {
            let proxy = inbound("echo", "", app().await, "");
            let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
            let response = sender.send_request(call(&format!("/http/{http}"), None)).await.unwrap();
            assert_eq!(response.status(), http);
            let series = recorded(proxy.telemetry(), 1).await;
            assert_eq!((series[0].status, series[0].error), (status, error), "{http}");
            stop(proxy).await;
        }
    });
}

#[test]
fn a_call_that_its_deadline_ends_is_status_4_and_an_error_at_both_ends() {
    block_on(async {
        let server = inbound("echo", "", app().await, "");
        let text = yaml(
            "front",
            &format!(
                "outbound: [{{listen: 127.0.0.1:0, service: echo, destinations: [{{address: {}}}]}}]",
                server.addresses().inbound[0]
            ),
        );
        let client = proxy(&text);
        let mut sender = connect_http2(client.addresses().outbound[0]).await;
        let waiting = sender.send_request(call("/silent/60000", Some("50m")));
        // The caller's own clock cancels the call.
        assert!(tokio::time::timeout(Duration::from_millis(500), waiting).await.is_err());
        for telemetry in [client.telemetry(), server.telemetry()] {
            let series = recorded(telemetry, 1).await;
            assert_eq!((series[0].status, series[0].error), (4, true), "{series:#?}");
        }
        stop(client).await;
        stop(server).await;
    });
}

#[test]
fn a_silent_stream_of_grpc_is_not_cut_by_the_time_of_ordinary_requests() {
    block_on(async {
        let proxy = inbound("echo", "", app().await, ", timeouts: {request_ms: 50}");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let response = sender.send_request(call("/silent/300", None)).await.unwrap();
        let answer = response.into_body().collect().await.unwrap();
        assert_eq!(status_in(answer.trailers().unwrap()), Some(0));
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].status, series[0].error), (0, false));
        stop(proxy).await;
    });
}

#[test]
fn a_body_that_left_at_once_does_not_double_the_time_of_its_request() {
    block_on(async {
        let silent = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let proxy = inbound("cart", "", silent, ", timeouts: {request_ms: 1000}");
        let address = proxy.addresses().inbound[0];
        let started = Instant::now();
        let (head, _) = get(address, "/").await;
        assert_eq!(status(&head), 504);
        let without = started.elapsed();
        let started = Instant::now();
        let answer = send_raw(
            address,
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        )
        .await;
        assert_eq!(status(&answer), 504, "{answer}");
        // It was twice as long.
        assert!(
            started.elapsed() < without + Duration::from_millis(800),
            "{:?}",
            started.elapsed()
        );
        stop(proxy).await;
    });
}

#[test]
fn requests_that_nobody_can_read_are_counted_with_a_reason() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = inbound("cart", "\"/\"", app.address, "");
        let address = proxy.addresses().inbound[0];
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        for (sent, expected) in [
            (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
            (long.into_bytes(), 431),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The proxy may close before it was all sent.
            let _ = stream.write_all(&sent).await;
            let head = read_head(&mut stream).await;
            assert!(head.is_empty() || status(&head) == expected, "{head}");
        }
        let mut series = recorded(proxy.telemetry(), 2).await;
        series.sort_by_key(|s| s.status);
        let found: Vec<_> = series
            .iter()
            .map(|s| (s.route.as_str(), s.status, s.error, s.protocol.as_str()))
            .collect();
        assert_eq!(
            found,
            [("other", 400, false, "http/1.1"), ("other", 431, false, "http/1.1")]
        );
        let metrics = proxy.metrics();
        for reason in ["bad_request", "head_too_long"] {
            let name = format!("emberline_proxy_requests_refused_total{{reason=\"{reason}\"}}");
            assert_eq!(metric(&metrics, &name), 1, "{reason}");
        }
        assert_eq!(app.requests(), 0);
        stop(proxy).await;
    });
}

#[test]
fn requests_carry_the_name_of_whom_they_are_for_also_when_nobody_is_there() {
    block_on(async {
        let database = raw_app(|mut stream: TcpStream| async move {
            stream.read_exact(&mut [0; 8]).await.unwrap();
            let _ = stream.write_all(b"ready").await;
        })
        .await;
        let app = App::named("payments").await;
        let listener = |service: &str, routes: &str, to: SocketAddr| {
            format!(
                "{{listen: 127.0.0.1:0, service: {service}, routes: [{routes}], destinations: [{{address: {to}}}]}}"
            )
        };
        let text = yaml(
            "shop",
            &format!(
                "limits: {{detect_ms: 50}}\noutbound: [{}, {}, {}]",
                listener("payments", "\"/pay\"", app.address),
                listener("checkout", "\"/pay\"", nobody().await),
                listener("postgres", "", database)
            ),
        );
        let proxy = proxy(&text);
        let outbound = proxy.addresses().outbound.clone();
        assert_eq!(get(outbound[0], "/pay").await.1, "payments");
        assert_eq!(status(&get(outbound[1], "/pay").await.0), 503);
        assert_eq!(send_raw(outbound[2], b"\0\0\0\x08\x04\xd2\x16\x2f").await, "ready");
        let mut found: Vec<_> = recorded(proxy.telemetry(), 3)
            .await
            .into_iter()
            .map(|s| (s.destination, s.peer, s.protocol, s.status, s.error))
            .collect();
        found.sort();
        let row = |destination: &str, protocol: &str, status, error| {
            (destination.to_owned(), None, protocol.to_owned(), status, error)
        };
        assert_eq!(
            found,
            [
                row("checkout", "http/1.1", 503, true),
                row("payments", "http/1.1", 200, false),
                row("postgres", "tcp", 0, false),
            ]
        );
        assert!(proxy.metrics().contains("destination=\"postgres\""));
        stop(proxy).await;
    });
}

/// A caller that leaves while it sends is no error either.
#[test]
fn a_caller_that_leaves_in_the_middle_of_its_upload_is_told_apart() {
    block_on(async {
        let (listener, address): (TcpListener, SocketAddr) = listen().await;
        let (asked, mut was_asked) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            asked.send(()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let proxy = inbound("cart", "\"/\"", address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
            .await
            .unwrap();
        was_asked.recv().await.unwrap();
        drop(stream);
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].status, series[0].error), (499, false));
        stop(proxy).await;
    });
}

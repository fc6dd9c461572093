//! HTTP/2 and gRPC: streams, trailers, statuses.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::support::*;

fn frames(frames: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> AnyBody {
    StreamBody::new(frames.map(Ok)).boxed_unsync()
}

fn trailers(status: &'static str) -> Frame<Bytes> {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from_static(status));
    map.insert("x-own", HeaderValue::from_static("kept"));
    Frame::trailers(map)
}

/// A gRPC application: `/shop.Echo/Say` echoes, `/shop.Echo/Refuse` answers with trailers only, `/shop.Echo/Fail` fails
/// after a message, `/shop.Echo/Hang` never ends, `/plain` is no gRPC.
pub(super) async fn grpc_app() -> SocketAddr {
    raw_app(|stream: TcpStream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            assert!(!request.headers().contains_key("x-emberline-peer"));
            let path = request.uri().path().to_owned();
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(match path.as_str() {
                "/shop.Echo/Hang" => response.body(frames(stream::pending())).unwrap(),
                "/plain" => Response::new(whole("plain")),
                "/shop.Echo/Refuse" => response.header("grpc-status", "7").body(whole("")).unwrap(),
                "/shop.Echo/Fail" => {
                    let message = Frame::data(Bytes::from_static(b"\0\0\0\0\x02ab"));
                    response.body(frames(stream::iter([message, trailers("13")]))).unwrap()
                }
                _ => {
                    let pieces = request
                        .into_body()
                        .into_data_stream()
                        .map(|piece| Frame::data(piece.unwrap()));
                    response
                        .body(frames(pieces.chain(stream::iter([trailers("0")]))))
                        .unwrap()
                }
            })
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

pub(super) fn call(path: &str, body: AnyBody) -> Request<AnyBody> {
    Request::builder()
        .method("POST")
        .uri(format!("http://test{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

pub(super) fn status_of(trailers: Option<&HeaderMap>) -> Option<&str> {
    trailers?.get("grpc-status")?.to_str().ok()
}

#[test]
fn unary_calls_keep_their_trailers_and_count_by_grpc_status() {
    block_on(async {
        let app = grpc_app().await;
        let proxy = inbound("echo", "\"/shop.Echo/Say\", \"/shop.Echo/{method}\"", app, "");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        for _ in 0..3 {
            let response = sender
                .send_request(call("/shop.Echo/Say", whole("\0\0\0\0\x02ab")))
                .await
                .unwrap();
            let answer = response.into_body().collect().await.unwrap();
            assert_eq!(status_of(answer.trailers()), Some("0"));
            assert_eq!(answer.trailers().unwrap()["x-own"], "kept");
            assert_eq!(answer.to_bytes(), Bytes::from_static(b"\0\0\0\0\x02ab"));
        }
        // Trailers only: the status stands in the head.
        let response = sender.send_request(call("/shop.Echo/Refuse", whole(""))).await.unwrap();
        assert_eq!(status_of(Some(response.headers())), Some("7"));
        drop(response);
        let response = sender.send_request(call("/shop.Echo/Fail", whole(""))).await.unwrap();
        assert_eq!(
            status_of(response.into_body().collect().await.unwrap().trailers()),
            Some("13")
        );
        let plain = Request::builder().uri("http://test/plain").body(whole("")).unwrap();
        let response = sender.send_request(plain).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "plain");

        let mut series: Vec<_> = recorded(proxy.telemetry(), 6)
            .await
            .into_iter()
            .map(|s| (s.route, s.protocol, s.status, s.error, s.duration.count()))
            .collect();
        series.sort();
        let row =
            |route: &str, protocol: &str, status, error, n| (route.to_owned(), protocol.to_owned(), status, error, n);
        assert_eq!(
            series,
            [
                row("/shop.Echo/Say", "grpc", 0, false, 3),
                row("/shop.Echo/{method}", "grpc", 7, false, 1),
                row("/shop.Echo/{method}", "grpc", 13, true, 1),
                row("other", "http/2", 200, false, 1),
            ]
        );
        stop(proxy).await;
    });
}

#[test]
fn streams_pass_message_by_message_in_both_directions() {
    block_on(async {
        let app = grpc_app().await;
        let proxy = inbound("echo", "\"/shop.Echo/Say\"", app, ", protocol: http2");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let messages = stream::unfold(receive, |mut receive| async move {
            Some((Frame::data(receive.recv().await?), receive))
        });
        let response = sender
            .send_request(call("/shop.Echo/Say", frames(messages)))
            .await
            .unwrap();
        let mut body = response.into_body();
        for n in 0..20 {
            let message = Bytes::from(format!("\0\0\0\0\x0amessage-{n:02}"));
            send.send(message.clone()).unwrap();
            // The next one is sent only when this one has come back.
            let frame = tokio::time::timeout(PATIENCE, body.frame())
                .await
                .expect("held back")
                .unwrap()
                .unwrap();
            assert_eq!(frame.into_data().unwrap(), message);
        }
        drop(send);
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(status_of(Some(&end)), Some("0"));
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].request_bytes, series[0].response_bytes), (300, 300));
        stop(proxy).await;
    });
}

#[test]
fn many_streams_share_few_connections_to_the_application() {
    block_on(async {
        let app = grpc_app().await;
        let proxy = inbound("echo", "\"/shop.Echo/Say\"", app, "");
        let address = proxy.addresses().inbound[0];
        let callers: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(async move {
                    let sender = connect_http2(address).await;
                    let calls = (0..25).map(|_| {
                        let mut sender = sender.clone();
                        async move {
                            let response = sender
                                .send_request(call("/shop.Echo/Say", whole("hello")))
                                .await
                                .unwrap();
                            let answer = response.into_body().collect().await.unwrap();
                            assert_eq!(status_of(answer.trailers()), Some("0"));
                        }
                    });
                    futures_util::future::join_all(calls).await;
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        recorded(proxy.telemetry(), 100).await;
        let connections = metric(&proxy.metrics(), "emberline_proxy_upstream_connections_total");
        assert!((1..=2).contains(&connections), "{connections}");
        stop(proxy).await;
    });
}

#[test]
fn a_request_with_two_authorities_is_refused_over_http_2_too() {
    block_on(async {
        let app = grpc_app().await;
        let proxy = inbound("echo", "", app, "");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        for (uri, host, expected) in [("http://a/plain", "b", 400), ("http://a/plain", "a", 200)] {
            let request = Request::builder()
                .uri(uri)
                .header("host", host)
                .body(whole(""))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{uri} {host}");
            response.into_body().collect().await.unwrap();
        }
        assert_eq!(metric(&proxy.metrics(), "emberline_proxy_upstream_responses_total"), 1);
        stop(proxy).await;
    });
}

#[test]
fn a_missing_application_is_unavailable_in_the_words_of_grpc() {
    block_on(async {
        let proxy = inbound("echo", "\"/shop.Echo/Say\"", nobody().await, "");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let response = sender.send_request(call("/shop.Echo/Say", whole("x"))).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), status_of(Some(response.headers()))),
            (200, Some("14"))
        );
        assert_eq!(response.headers()["x-emberline-error"], "upstream_connection_failure");
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!(
            (series[0].status, series[0].error, flag(&proxy.metrics(), "UF")),
            (14, true, 1)
        );
        stop(proxy).await;
    });
}

#[test]
fn a_cancelled_call_is_recorded_once_as_cancelled() {
    block_on(async {
        let app = grpc_app().await;
        let proxy = inbound("echo", "\"/shop.Echo/Say\"", app, "");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let response = sender.send_request(call("/shop.Echo/Hang", whole(""))).await.unwrap();
        // Dropping the answer resets the stream.
        drop(response);
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!(
            (series[0].status, series[0].error, flag(&proxy.metrics(), "DC")),
            (1, false, 1)
        );
        stop(proxy).await;
    });
}

#[test]
fn the_connection_to_an_application_that_restarts_is_opened_anew() {
    block_on(async {
        let (listener, address) = listen().await;
        let serve_one = |stream: TcpStream| async move {
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(whole("ok"))) });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            // Lives for a while, then goes away politely.
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        };
        tokio::spawn(async move {
            loop {
                tokio::spawn(serve_one(listener.accept().await.unwrap().0));
            }
        });
        let proxy = inbound("echo", "", address, "");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let mut n = 0;
        while metric(&proxy.metrics(), "emberline_proxy_upstream_connections_total") < 3 {
            let request = Request::builder().uri("http://test/x").body(whole("")).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
            n += 1;
        }
        assert!(recorded(proxy.telemetry(), n).await.iter().all(|s| !s.error));
        stop(proxy).await;
    });
}

//! HTTP/2 to destinations: nobody's stream waits behind another's, and what was not processed is sent again.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpStream, task::JoinSet};

use super::support::*;

/// A body that never ends, of so many bytes.
fn endless(bytes: usize) -> AnyBody {
    let first = stream::iter([Ok(Frame::data(vec![0_u8; bytes].into()))]);
    StreamBody::new(first.chain(stream::pending())).boxed_unsync()
}

/// `/hang` answers with a head and no more, `/slow` reads nothing of its body, everything else is answered with its body. At
/// most ten streams a connection. Counts its connections.
async fn app(connections: Arc<AtomicUsize>) -> SocketAddr {
    raw_app(move |stream: TcpStream| {
        connections.fetch_add(1, Ordering::SeqCst);
        async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(match request.uri().path() {
                    "/hang" => Response::new(
                        StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync(),
                    ),
                    "/slow" => {
                        let _unread = request;
                        std::future::pending().await
                    }
                    _ => Response::new(
                        Full::<Bytes>::from(request.into_body().collect().await.unwrap().to_bytes()).boxed_unsync(),
                    ),
                })
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(10)
                .initial_connection_window_size(65_535)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

fn post(path: &str, body: AnyBody) -> Request<AnyBody> {
    Request::builder()
        .method("POST")
        .uri(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

async fn is_echoed(sender: &mut SendRequest<AnyBody>) {
    let response = sender.send_request(post("/echo", whole("hello"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[test]
fn streams_up_to_the_limit_of_a_destination_do_not_hold_up_other_calls() {
    block_on(async {
        let connections = Arc::default();
        let app = app(Arc::clone(&connections)).await;
        let proxy = inbound("echo", "\"/echo\"", app, ", protocol: http2");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let mut hanging = Vec::new();
        for _ in 0..25 {
            hanging.push(sender.send_request(post("/hang", whole(""))).await.unwrap());
        }
        is_echoed(&mut sender).await;
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        let metrics = proxy.metrics();
        assert_eq!(metric(&metrics, "emberline_proxy_http2_connections"), 3);
        assert_eq!(metric(&metrics, "emberline_proxy_http2_streams"), 25);
        drop(hanging);
        eventually("streams are given back", || {
            metric(&proxy.metrics(), "emberline_proxy_http2_streams") == 0
        })
        .await;
        stop(proxy).await;
    });
}

#[test]
fn calls_that_come_at_once_get_as_many_connections_as_they_take() {
    block_on(async {
        let connections = Arc::default();
        let app = app(Arc::clone(&connections)).await;
        let proxy = inbound("echo", "\"/echo\"", app, ", protocol: http2");
        let sender = connect_http2(proxy.addresses().inbound[0]).await;
        // How many streams the application allows is not known yet, and none of these ends.
        let calls = (0..25).map(|_| {
            let mut sender = sender.clone();
            async move { sender.send_request(post("/hang", whole(""))).await.unwrap() }
        });
        let answers = join_all(calls).await;
        assert!(
            answers
                .iter()
                .all(|answer| !answer.headers().contains_key("x-emberline-error"))
        );
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        stop(proxy).await;
    });
}

#[test]
fn slow_uploads_do_not_hold_up_those_of_others() {
    block_on(async {
        let app = app(Arc::default()).await;
        let proxy = inbound("echo", "\"/echo\"", app, ", protocol: http2");
        let address = proxy.addresses().inbound[0];
        let mut slow = JoinSet::new();
        for _ in 0..3 {
            slow.spawn(async move {
                // Each from a caller of its own, and as much as a connection of the application takes.
                let mut sender = connect_http2(address).await;
                sender.send_request(post("/slow", endless(60_000))).await
            });
        }
        eventually("the uploads are on their way", || {
            metric(&proxy.metrics(), "emberline_proxy_http2_streams") == 3
        })
        .await;
        // What makes an upload a slow one.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let mut sender = connect_http2(address).await;
        is_echoed(&mut sender).await;
        slow.shutdown().await;
        stop(proxy).await;
    });
}

#[test]
fn calls_that_wait_for_a_connection_learn_together_that_there_is_none() {
    block_on(async {
        // Nobody accepts, and the queue is full: connecting takes as long as it may.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let filling = (0..8).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        let _filling: Vec<Socket> = filling.collect();
        let more = ", protocol: http2, timeouts: {connect_ms: 500}";
        let proxy = inbound("echo", "\"/echo\"", address, more);
        let sender = connect_http2(proxy.addresses().inbound[0]).await;
        let calls = (0..20).map(|_| {
            let mut sender = sender.clone();
            async move { sender.send_request(post("/echo", whole("hello"))).await.unwrap() }
        });
        for response in join_all(calls).await {
            // A call of gRPC is told by its status: UNAVAILABLE.
            assert_eq!(response.headers()["grpc-status"], "14");
            assert_eq!(response.headers()["x-emberline-error"], "upstream_connection_timeout");
        }
        let metrics = proxy.metrics();
        assert_eq!(
            metric(&metrics, "emberline_proxy_upstream_connection_failures_total"),
            1
        );
        assert_eq!(metric(&metrics, "emberline_proxy_http2_waiting"), 0);
        stop(proxy).await;
    });
}

/// Refuses the first stream of each connection once its body is there, and answers the others with theirs.
async fn refusing(refused: Arc<AtomicUsize>) -> SocketAddr {
    raw_app(move |stream: TcpStream| {
        let refused = Arc::clone(&refused);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut is_first = true;
            while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                if std::mem::take(&mut is_first) {
                    refused.fetch_add(1, Ordering::SeqCst);
                    // The body has come by then.
                    let body = async { while request.body_mut().data().await.is_some() {} };
                    tokio::select! {
                        () = body => {}
                        _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => return,
                    }
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    continue;
                }
                tokio::spawn(async move {
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    while let Some(Ok(data)) = request.body_mut().data().await {
                        send.send_data(data, false).unwrap();
                    }
                    send.send_data(Bytes::new(), true).unwrap();
                });
            }
        }
    })
    .await
}

#[test]
fn a_call_that_was_refused_unprocessed_is_sent_again_with_its_body() {
    block_on(async {
        let refused = Arc::default();
        let app = refusing(Arc::clone(&refused)).await;
        let proxy = inbound("echo", "\"/echo\"", app, ", protocol: http2");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        is_echoed(&mut sender).await;
        assert_eq!(refused.load(Ordering::SeqCst), 1);
        assert_eq!(metric(&proxy.metrics(), "emberline_proxy_retries_total"), 1);
        // It was one request.
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!(series[0].request_bytes, 5);
        stop(proxy).await;
    });
}

#[test]
fn a_long_body_that_was_refused_is_not_sent_in_part() {
    block_on(async {
        let app = refusing(Arc::default()).await;
        let proxy = inbound("echo", "\"/echo\"", app, ", protocol: http2");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let long: AnyBody = Full::from(vec![b'x'; 40_000]).boxed_unsync();
        let response = sender.send_request(post("/echo", long)).await.unwrap();
        assert_eq!(response.headers()["x-emberline-error"], "upstream_reset");
        assert_eq!(metric(&proxy.metrics(), "emberline_proxy_retries_total"), 0);
        stop(proxy).await;
    });
}

//! Connections that retire at their greatest age.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{frames::*, support::*};

async fn slow_app() -> App {
    App::start(|request| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_millis(2_500)).await;
        }
        Response::new(http_body_util::Full::from("cart"))
    })
    .await
}

fn aged(to: SocketAddr, limits: &str, more: &str) -> emberline_proxy::Proxy {
    let text = format!("limits: {{{limits}}}\ninbound:\n  - {{listen: 127.0.0.1:0, to: {to}{more}}}");
    proxy(&yaml("cart", &text))
}

#[test]
fn connections_of_callers_retire_after_what_is_in_flight() {
    block_on(async {
        let app = slow_app().await;
        let proxy = aged(app.address, "connection_age_ms: 1500", ", upstream_protocol: http1");
        let address = proxy.addresses().inbound[0];
        // HTTP/1.1: in flight at that age, then idle.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let (head, body) = read_answer(&mut stream).await;
        assert_eq!((header(&head, "connection"), body.as_str()), (Some("close"), "cart"));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(header(&read_answer(&mut idle).await.0, "connection"), None);
        let end = timeout(PATIENCE, idle.read(&mut [0; 1])).await.unwrap().unwrap();
        assert_eq!(end, 0, "closed");
        // HTTP/2: a GOAWAY, and the stream that is open completes.
        let mut sender = connect_http2(address).await;
        let slow = Request::get("http://cart/slow").body(whole("")).unwrap();
        assert_eq!(sender.send_request(slow).await.unwrap().status(), 200);
        eventually("the connection retires", || sender.is_closed()).await;
        stop(proxy).await;
        // Without an age they stay.
        let proxy = aged(app.address, "", "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        for path in ["/slow", "/"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(header(&read_answer(&mut stream).await.0, "connection"), None);
        }
        stop(proxy).await;
    });
}

#[test]
fn connections_to_destinations_retire_too() {
    block_on(async {
        for (age, expected) in [("none", 1), ("200", 3)] {
            for upstream in ["http1", "http2"] {
                let connections = Arc::new(AtomicUsize::new(0));
                let address = raw_app({
                    let connections = Arc::clone(&connections);
                    move |stream: TcpStream| {
                        connections.fetch_add(1, Ordering::SeqCst);
                        async move {
                            let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new(whole("cart"))) });
                            let _ = auto::Builder::new(TokioExecutor::new())
                                .serve_connection(TokioIo::new(stream), answer)
                                .await;
                        }
                    }
                })
                .await;
                let more = format!(", upstream_protocol: {upstream}, timeouts: {{pool_age_ms: {age}}}");
                let proxy = aged(address, "", &more);
                for _ in 0..3 {
                    assert_eq!(get(proxy.addresses().inbound[0], "/").await.1, "cart");
                    sleep(Duration::from_millis(400)).await;
                }
                assert_eq!(connections.load(Ordering::SeqCst), expected, "{upstream} {age}");
                stop(proxy).await;
            }
        }
    });
}

#[test]
fn a_connection_over_http2_that_has_no_requests_is_closed_and_one_with_a_slow_request_is_not() {
    block_on(async {
        let app = slow_app().await;
        let proxy = aged(app.address, "keep_alive_ms: 400", ", upstream_protocol: http1");
        let stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, AnyBody>(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let ended = tokio::spawn(connection);
        let request = Request::get("http://a/slow").body(whole("")).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        timeout(PATIENCE, ended)
            .await
            .expect("the connection stays open")
            .unwrap()
            .unwrap();
        let closed = "emberline_proxy_connections_broken_total{reason=\"keep_alive_timeout\"}";
        eventually("the reason", || metric(&proxy.metrics(), closed) == 1).await;
        stop(proxy).await;
    });
}

/// Frames of a connection that were read until a GOAWAY, and then until the end of a stream.
async fn until_goaway(stream: &mut TcpStream) -> Vec<(u8, u32)> {
    let mut seen = Vec::new();
    while let Some((kind, flags, of)) = timeout(PATIENCE, read_frame(stream)).await.expect("no GOAWAY") {
        if kind == GOAWAY {
            seen.push((kind, 0));
            break;
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            seen.push((kind, of));
        }
    }
    seen
}

/// Some clients give up what they have in flight when a GOAWAY comes (`findings/httpx-and-undici-give-up-what-runs-at-a-goaway.sh`).
#[test]
fn a_goaway_waits_for_the_requests_in_flight() {
    block_on(async {
        let app = slow_app().await;
        let proxy = aged(app.address, "", ", upstream_protocol: http1");
        let mut stopped = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stopped
            .write_all(&[PREFACE, &get_frame(1, "/slow")].concat())
            .await
            .unwrap();
        eventually("the request", || app.requests() == 1).await;
        let stopping = tokio::spawn(stop(proxy));
        assert_eq!(until_goaway(&mut stopped).await, [(DATA, 1), (GOAWAY, 0)]);
        drop(stopped);
        assert!(stopping.await.unwrap().drained);
    });
}

#[test]
fn a_connection_that_always_has_requests_gets_its_goaway_after_a_while() {
    block_on(async {
        let app = slow_app().await;
        let proxy = aged(app.address, "connection_age_ms: 300", ", upstream_protocol: http1");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream
            .write_all(&[PREFACE, &get_frame(1, "/slow")].concat())
            .await
            .unwrap();
        assert_eq!(until_goaway(&mut stream).await, [(GOAWAY, 0)]);
        // Its request completes all the same.
        let mut ended = Vec::new();
        while let Some((kind, flags, of)) = timeout(PATIENCE, read_frame(&mut stream)).await.unwrap() {
            if kind == DATA && flags & END_STREAM != 0 {
                ended.push(of);
            }
        }
        assert_eq!(ended, [1]);
        stop(proxy).await;
    });
}

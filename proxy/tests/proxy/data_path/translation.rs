//! Callers and destinations that speak different versions of HTTP (`upstream_protocol`).

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::support::*;

/// What arrived, as text.
async fn described(request: Request<Incoming>) -> String {
    let (head, body) = request.into_parts();
    let fields = |name: &str| {
        let values = head.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join("|")
    };
    format!(
        "{:?} {} {} authority={} host={} cookie={} coding={} length={} body={}",
        head.version,
        head.method,
        head.uri.path_and_query().unwrap(),
        head.uri.authority().map_or("", |authority| authority.as_str()),
        fields("host"),
        fields("cookie"),
        fields("transfer-encoding"),
        fields("content-length"),
        body.collect().await.unwrap().to_bytes().len()
    )
}

/// Speaks HTTP/1.1 only.
async fn http1_app() -> App {
    App::start(|request| async { Response::new(Full::from(described(request).await)) }).await
}

/// Speaks HTTP/2 only. `/reset` has its stream reset, `/trailers` ends with trailers.
async fn http2_app() -> SocketAddr {
    raw_app(|stream: TcpStream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            let body: AnyBody = match request.uri().path() {
                "/reset" => return Err("reset"),
                "/trailers" => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-sum", "7".parse().unwrap());
                    let frames = [Frame::data(Bytes::from("seven")), Frame::trailers(trailers)];
                    StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>))).boxed_unsync()
                }
                _ => Full::from(described(request).await).boxed_unsync(),
            };
            Ok(Response::builder().header("trailer", "x-sum").body(body).unwrap())
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

fn streamed(bytes: usize) -> AnyBody {
    let chunks = (0..bytes).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from("x"))));
    StreamBody::new(futures_util::stream::iter(chunks)).boxed_unsync()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn callers_over_http2_reach_what_speaks_http1_only() {
    block_on(async {
        let app = http1_app().await;
        let proxy = inbound("cart", "\"/cart/{id}\"", app.address, ", upstream_protocol: http1");
        let mut sender = connect_http2(proxy.addresses().inbound[0]).await;
        let request = |method: &str, path: &str, body: AnyBody| {
            let request = Request::builder().method(method).uri(format!("http://cart.shop{path}"));
            let cookies = request
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("te", "trailers");
            cookies.body(body).unwrap()
        };
        let response = sender
            .send_request(request("GET", "/cart/1?q=x", whole("")))
            .await
            .unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let shown = "HTTP/1.1 GET /cart/1?q=x authority= host=cart.shop cookie=a=1; b=2 coding= length= body=0";
        assert_eq!(text(response).await, shown);
        let response = sender
            .send_request(request("POST", "/cart/1", streamed(200)))
            .await
            .unwrap();
        let shown = "HTTP/1.1 POST /cart/1 authority= host=cart.shop cookie=a=1; b=2 coding=chunked length= body=200";
        assert_eq!(text(response).await, shown);
        let response = sender
            .send_request(request("PUT", "/cart/1", whole("12345")))
            .await
            .unwrap();
        assert!(text(response).await.contains("body=5"));
        // Many at a time take as many connections.
        let many = (0..20).map(|n| {
            let mut sender = sender.clone();
            let request = request("GET", &format!("/cart/{n}"), whole(""));
            async move { text(sender.send_request(request).await.unwrap()).await }
        });
        for (n, answer) in futures_util::future::join_all(many).await.into_iter().enumerate() {
            assert!(answer.contains(&format!(" /cart/{n} ")), "{answer}");
        }
        let mut call = request("POST", "/cart/1", streamed(5));
        call.headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let refused = sender.send_request(call).await.unwrap();
        assert_eq!(refused.status(), StatusCode::OK);
        assert_eq!(refused.headers()["grpc-status"], "12");
        assert_eq!(refused.headers()["x-emberline-error"], "grpc_over_http1");
        let series = recorded(proxy.telemetry(), 24).await;
        let of_grpc = series.iter().find(|series| series.protocol == "grpc").unwrap();
        assert_eq!((of_grpc.status, of_grpc.duration.count()), (12, 1));
        let others = series.iter().filter(|series| series.protocol == "http/2");
        assert_eq!(others.map(|series| series.duration.count()).sum::<u64>(), 23);
        stop(proxy).await;
    });
}

#[test]
fn callers_over_http1_reach_what_speaks_http2_only() {
    block_on(async {
        let app = http2_app().await;
        let proxy = inbound("cart", "\"/cart/{id}\"", app, ", upstream_protocol: http2");
        let address = proxy.addresses().inbound[0];
        let mut stream = TcpStream::connect(address).await.unwrap();
        use tokio::io::AsyncWriteExt;
        for (request, shown) in [
            (
                "GET /cart/1?q=x HTTP/1.1\r\nHost: cart.shop\r\nConnection: keep-alive\r\nCookie: a=1; b=2\r\n\r\n",
                "HTTP/2.0 GET /cart/1?q=x authority=cart.shop host= cookie=a=1; b=2 coding= length= body=0",
            ),
            (
                "POST /cart/2 HTTP/1.1\r\nHost: cart.shop:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "HTTP/2.0 POST /cart/2 authority=cart.shop:80 host= cookie= coding= length= body=3",
            ),
            (
                "PUT /cart/3 HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 5\r\n\r\nabcde",
                "HTTP/2.0 PUT /cart/3 authority=cart.shop host= cookie= coding= length=5 body=5",
            ),
        ] {
            stream.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = read_answer(&mut stream).await;
            assert_eq!((status(&head), body.as_str()), (200, shown));
        }
        let websocket = "GET /cart/4 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(websocket.as_bytes()).await.unwrap();
        let (head, _) = read_answer(&mut stream).await;
        assert_eq!(status(&head), 501);
        assert_eq!(header(&head, "x-emberline-error"), Some("upgrade_over_http2"));
        // The connection goes on.
        stream
            .write_all(b"GET /reset HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let (head, _) = read_answer(&mut stream).await;
        assert_eq!(status(&head), 502);
        assert_eq!(header(&head, "x-emberline-error"), Some("upstream_reset"));
        let trailers = "GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
        let answer = send_raw(address, trailers.as_bytes()).await;
        assert!(answer.ends_with("5\r\nseven\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        let series = recorded(proxy.telemetry(), 6).await;
        assert!(series.iter().all(|series| series.protocol == "http/1.1"));
        stop(proxy).await;
    });
}

#[test]
fn two_proxies_translate_there_and_back() {
    block_on(async {
        let app = http1_app().await;
        let callee = inbound("cart", "\"/cart/{id}\"", app.address, ", upstream_protocol: http1");
        let to = callee.addresses().inbound[0];
        let caller = proxy(&yaml(
            "front",
            &format!(
                "outbound:\n  - listen: 127.0.0.1:0\n    service: cart\n    upstream_protocol: http2\n    \
                 destinations: [{{address: \"{to}\"}}]\n"
            ),
        ));
        for n in 0..10 {
            let (head, body) = get(caller.addresses().outbound[0], &format!("/cart/{n}")).await;
            assert_eq!(status(&head), 200);
            assert!(body.starts_with(&format!("HTTP/1.1 GET /cart/{n} ")), "{body}");
        }
        let served = recorded(callee.telemetry(), 10).await;
        assert!(served.iter().all(|series| series.protocol == "http/2"));
        let peers = served
            .iter()
            .map(|series| series.peer.as_ref().unwrap().service.as_str());
        assert!(peers.clone().all(|peer| peer == "front"));
        let called = recorded(caller.telemetry(), 10).await;
        assert!(called.iter().all(|series| series.protocol == "http/1.1"));
        stop(caller).await;
        stop(callee).await;
    });
}

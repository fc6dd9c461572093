//! Filters that ask another service: authorization and rates that all proxies share.

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::{Buf, BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpStream;

use super::{
    services::{ask, sharing},
    support::*,
};

// Messages as the other side has them, written down again from Envoy's API.

#[derive(Clone, PartialEq, Message)]
struct Check {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Source>,
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
    #[prost(map = "string, string", tag = "10")]
    context: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(message, optional, tag = "1")]
    address: Option<Socket>,
}

#[derive(Clone, PartialEq, Message)]
struct Socket {
    #[prost(message, optional, tag = "1")]
    socket: Option<SocketName>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketName {
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, Message)]
struct Http {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "10")]
    protocol: String,
}

#[derive(Clone, PartialEq, Message)]
struct Checked {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(message, optional, tag = "2")]
    denied: Option<DeniedAs>,
    #[prost(message, optional, tag = "3")]
    ok: Option<AllowedAs>,
}

#[derive(Clone, PartialEq, Message)]
struct Code {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct DeniedAs {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Option_>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct AllowedAs {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Option_>,
    #[prost(string, repeated, tag = "5")]
    remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    of_response: Vec<Option_>,
}

/// `HeaderValueOption`.
#[derive(Clone, PartialEq, Message)]
struct Option_ {
    #[prost(message, optional, tag = "1")]
    header: Option<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn pair(key: &str, value: &str) -> Pair {
    Pair {
        key: key.into(),
        value: value.into(),
    }
}

fn header_of(key: &str, value: &str) -> Option_ {
    Option_ {
        header: Some(pair(key, value)),
    }
}

#[derive(Clone, PartialEq, Message)]
struct Limited {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<Entries>,
}

#[derive(Clone, PartialEq, Message)]
struct Entries {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Overall {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, repeated, tag = "3")]
    of_response: Vec<Pair>,
}

/// A gRPC server with one method; `answer` gets the message, and `None` is UNAVAILABLE.
async fn grpc_server<Q, A>(path: &'static str, answer: impl Fn(Q) -> Option<A> + Send + Sync + 'static) -> SocketAddr
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    let answer = Arc::new(answer);
    raw_app(move |stream: TcpStream| {
        let answer = Arc::clone(&answer);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    assert_eq!(request.uri().path(), path);
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    assert_eq!(request.headers()["te"], "trailers");
                    let mut message = request.into_body().collect().await.unwrap().to_bytes();
                    message.advance(5);
                    let answered = answer(Q::decode(message).unwrap());
                    let mut frames = Vec::new();
                    let mut trailers = HeaderMap::new();
                    let status = if answered.is_some() { "0" } else { "14" };
                    trailers.insert("grpc-status", HeaderValue::from_static(status));
                    if let Some(answered) = answered {
                        let mut frame = BytesMut::new();
                        frame.put_u8(0);
                        frame.put_u32(answered.encoded_len() as u32);
                        answered.encode_raw(&mut frame);
                        frames.push(Ok::<_, Infallible>(Frame::data(frame.freeze())));
                    }
                    frames.push(Ok(Frame::trailers(trailers)));
                    let response = Response::builder().header("content-type", "application/grpc");
                    Ok::<_, Infallible>(
                        response
                            .body(StreamBody::new(futures_util::stream::iter(frames)))
                            .unwrap(),
                    )
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// Says which headers beginning with `x-` came, but for the proxy's own.
async fn telling() -> App {
    App::start(|request| async move {
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-") && !name.as_str().starts_with("x-emberline"))
            .filter(|(name, _)| !name.as_str().starts_with("x-request-id"))
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        Response::new(Full::from(lines.join(" ")))
    })
    .await
}

fn shop(app: &App, filter: &str) -> String {
    format!(
        "service: shop, destinations: [{{address: {}}}], filters: [{filter}]",
        app.address
    )
}

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

#[test]
fn an_authorization_service_over_grpc_allows_denies_and_speaks_for_the_caller() {
    block_on(async {
        let app = telling().await;
        let seen: Arc<Mutex<Vec<Check>>> = Arc::default();
        let asked = Arc::clone(&seen);
        let authz = grpc_server(CHECK, move |check: Check| {
            asked.lock().push(check.clone());
            let http = check.attributes.unwrap().request.unwrap().http.unwrap();
            match http.path.as_str() {
                "/away" => None,
                "/bare" => Some(Checked {
                    status: Some(Code { code: 7 }),
                    ..Default::default()
                }),
                "/denied" => Some(Checked {
                    status: Some(Code { code: 16 }),
                    denied: Some(DeniedAs {
                        status: Some(Code { code: 401 }),
                        headers: vec![
                            header_of("www-authenticate", "Bearer"),
                            header_of("content-length", "7"),
                        ],
                        body: "log in".into(),
                    }),
                    ok: None,
                }),
                _ => Some(Checked {
                    status: Some(Code { code: 0 }),
                    denied: None,
                    ok: Some(AllowedAs {
                        headers: vec![header_of("x-user", "ada"), header_of("x-emberline-peer", "forged")],
                        remove: vec!["x-secret".into(), "host".into()],
                        of_response: vec![header_of("x-session", "7")],
                    }),
                }),
            }
        })
        .await;
        let filter = format!("{{ext_authz: {{address: {authz}, timeout_ms: 5000, context: {{tenant: a}}}}}}");
        let (proxy, listen) = sharing("", &[shop(&app, &filter)]).await;

        let headers = "x-user: mallory\r\nx-secret: s\r\nx-two: a\r\nx-two: b\r\n";
        let (head, body) = ask(listen, "shop", "/cart?id=1", headers).await;
        assert_eq!((status(&head), header(&head, "x-session")), (200, Some("7")));
        assert_eq!(body, "x-two=a x-two=b x-user=ada");
        let attributes = seen.lock()[0].attributes.clone().unwrap();
        assert_eq!(attributes.context["tenant"], "a");
        assert_eq!(
            attributes.source.unwrap().address.unwrap().socket.unwrap().address,
            "127.0.0.1"
        );
        let http = attributes.request.unwrap().http.unwrap();
        assert_eq!(
            (&*http.method, &*http.path, &*http.host, &*http.protocol),
            ("GET", "/cart?id=1", "shop", "HTTP/1.1")
        );
        assert_eq!((&*http.headers["x-two"], &*http.headers["x-secret"]), ("a,b", "s"));

        let (head, body) = ask(listen, "shop", "/denied", "").await;
        assert_eq!((status(&head), body.as_str()), (401, "log in"));
        assert_eq!(header(&head, "www-authenticate"), Some("Bearer"));
        assert_eq!(header(&head, "x-emberline-error"), Some("ext_authz_denied"));
        let (head, body) = ask(listen, "shop", "/bare", "").await;
        assert_eq!(status(&head), 403);
        assert!(body.contains("denies"), "{body}");
        let (head, body) = ask(listen, "shop", "/away", "").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("ext_authz_unavailable"))
        );
        assert!(body.contains("`ext_authz`"), "{body}");

        assert_eq!(app.requests(), 1, "what was not allowed reached nobody");
        recorded(proxy.telemetry(), 4).await;
        let metrics = proxy.metrics();
        assert_eq!(flag(&metrics, "UAEX"), 3);
        assert_eq!(
            metric(&metrics, "emberline_proxy_filter_failures_total{filter=\"ext_authz\"}"),
            1
        );
        stop(proxy).await;
    });
}

#[test]
fn a_denied_grpc_call_ends_with_a_grpc_status() {
    block_on(async {
        let app = telling().await;
        let authz = grpc_server(CHECK, |_: Check| {
            Some(Checked {
                status: Some(Code { code: 7 }),
                denied: Some(DeniedAs {
                    status: None,
                    headers: vec![header_of("x-why", "no")],
                    body: "not yours".into(),
                }),
                ok: None,
            })
        })
        .await;
        let filter = format!("{{ext_authz: {{address: {authz}, timeout_ms: 5000}}}}");
        let (proxy, listen) = sharing("", &[shop(&app, &filter)]).await;
        let mut sender = connect_http2(listen).await;
        let call = Request::post("http://shop/a.B/C").header("content-type", "application/grpc");
        let response = sender.send_request(call.body(whole("")).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "not yours");
        stop(proxy).await;
    });
}

#[test]
fn an_authorization_service_that_is_away_lets_pass_only_where_that_is_configured() {
    block_on(async {
        let app = telling().await;
        let filter = |more: &str| format!("{{ext_authz: {{address: {}, timeout_ms: 2000{more}}}}}", refusing());
        let (closed, at) = sharing("", &[shop(&app, &filter(""))]).await;
        assert_eq!(status(&ask(at, "shop", "/", "").await.0), 503);
        let (open, at) = sharing("", &[shop(&app, &filter(", allow_on_failure: true"))]).await;
        assert_eq!(status(&ask(at, "shop", "/", "").await.0), 200);
        let failures = "emberline_proxy_filter_failures_total{filter=\"ext_authz\"}";
        assert_eq!(metric(&open.metrics(), failures), 1);
        stop(closed).await;
        stop(open).await;
    });
}

#[test]
fn an_authorization_service_over_http_is_asked_with_the_head_alone() {
    block_on(async {
        let app = telling().await;
        let authz = App::start(|request| async move {
            let headers = request.headers();
            let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            let seen = format!(
                "{} {} {} {} {} {}",
                request.method(),
                request.uri().path(),
                text("host"),
                text("authorization"),
                text("x-tenant"),
                text("x-other")
            );
            let status = match text("authorization").as_str() {
                "good" => 200,
                "broken" => 500,
                _ => 302,
            };
            Response::builder()
                .status(status)
                .header("x-user", seen)
                .header("location", "/login")
                .body(Full::from("go there"))
                .unwrap()
        })
        .await;
        let filter = format!(
            "{{ext_authz: {{address: {}, protocol: http, timeout_ms: 5000, path_prefix: /auth, request_headers: [x-tenant], upstream_headers: [x-user]}}}}",
            authz.address
        );
        let (proxy, listen) = sharing("", &[shop(&app, &filter)]).await;
        let headers = "authorization: good\r\nx-tenant: t\r\nx-other: o\r\nx-user: mallory\r\n";
        let (head, body) = ask(listen, "shop", "/cart", headers).await;
        assert_eq!(status(&head), 200);
        assert_eq!(body, "x-other=o x-tenant=t x-user=GET /auth/cart shop good t");
        let (head, body) = ask(listen, "shop", "/cart", "").await;
        assert_eq!(
            (status(&head), header(&head, "location"), body.as_str()),
            (302, Some("/login"), "go there")
        );
        let (head, _) = ask(listen, "shop", "/cart", "authorization: broken\r\n").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("ext_authz_unavailable"))
        );
        assert_eq!(app.requests(), 1);
        stop(proxy).await;
    });
}

#[test]
fn a_rate_limit_service_counts_by_descriptors_and_refuses() {
    block_on(async {
        let app = telling().await;
        let seen: Arc<Mutex<Vec<Limited>>> = Arc::default();
        let asked = Arc::clone(&seen);
        let service = grpc_server(LIMIT, move |limited: Limited| {
            asked.lock().push(limited.clone());
            let is_over = limited
                .descriptors
                .iter()
                .flat_map(|d| &d.entries)
                .any(|e| e.value == "greedy");
            Some(Overall {
                code: if is_over { 2 } else { 1 },
                of_response: vec![pair("x-ratelimit-remaining", "3")],
            })
        })
        .await;
        let filter = format!(
            "{{rate_limit_service: {{address: {service}, domain: shop, timeout_ms: 5000, descriptors: [[{{key: kind, value: all}}, {{key: from, of: remote_address}}], [{{key: tenant, header: x-tenant}}]]}}}}"
        );
        let (proxy, listen) = sharing("", &[shop(&app, &filter)]).await;
        let (head, _) = ask(listen, "shop", "/", "").await;
        assert_eq!(
            (status(&head), header(&head, "x-ratelimit-remaining")),
            (200, Some("3"))
        );
        let (head, _) = ask(listen, "shop", "/", "x-tenant: greedy\r\n").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (429, Some("rate_limited"))
        );
        assert_eq!(header(&head, "x-ratelimit-remaining"), Some("3"));
        let descriptors: Vec<Vec<Vec<(String, String)>>> = seen
            .lock()
            .iter()
            .map(|limited| {
                assert_eq!(limited.domain, "shop");
                let entries = |d: &Entries| d.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
                limited.descriptors.iter().map(entries).collect()
            })
            .collect();
        let both = vec![
            ("kind".to_owned(), "all".to_owned()),
            ("from".to_owned(), "127.0.0.1".to_owned()),
        ];
        let tenant = vec![("tenant".to_owned(), "greedy".to_owned())];
        assert_eq!(descriptors, [vec![both.clone()], vec![both, tenant]]);
        assert_eq!(app.requests(), 1);
        stop(proxy).await;
    });
}

#[test]
fn a_rate_limit_service_that_is_away_stops_nobody_unless_it_should() {
    block_on(async {
        let app = telling().await;
        let filter = |more: &str| {
            format!(
                "{{rate_limit_service: {{address: {}, domain: d, timeout_ms: 2000, descriptors: [[{{key: a, value: b}}]]{more}}}}}",
                refusing()
            )
        };
        let (open, at) = sharing("", &[shop(&app, &filter(""))]).await;
        assert_eq!(status(&ask(at, "shop", "/", "").await.0), 200);
        let (closed, at) = sharing("", &[shop(&app, &filter(", allow_on_failure: false"))]).await;
        let (head, _) = ask(at, "shop", "/", "").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("rate_limit_unavailable"))
        );
        stop(open).await;
        stop(closed).await;
    });
}

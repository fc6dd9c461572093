//! Several services on one outbound listener: who is meant, by host, and whose telemetry it is.

use std::net::SocketAddr;

use emberline_proxy::{Proxy, config};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

/// A proxy with these entries on one listener; each begins with its `service`.
pub(super) async fn sharing(top: &str, entries: &[String]) -> (Proxy, SocketAddr) {
    let listen = nobody().await;
    let entries = entries
        .iter()
        .map(|entry| format!("\n  - {{listen: {listen}, {entry}}}"));
    let proxy = proxy(&yaml(
        "front",
        &format!("{top}outbound:{}", entries.collect::<String>()),
    ));
    assert_eq!(proxy.addresses().outbound, [listen], "one listener for all");
    (proxy, listen)
}

/// Head and body of what a host answers over HTTP/1.
pub(super) async fn ask(listen: SocketAddr, host: &str, target: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(&mut stream).await
}

/// Destination, route, protocol, status and count of all that was recorded.
pub(super) fn rows(series: Vec<emberline_model::RequestSeries>) -> Vec<(String, String, String, u16, u64)> {
    let row = |s: emberline_model::RequestSeries| (s.destination, s.route, s.protocol, s.status, s.duration.count());
    let mut rows: Vec<_> = series.into_iter().map(row).collect();
    rows.sort();
    rows
}

pub(super) fn row(
    destination: &str,
    route: &str,
    protocol: &str,
    status: u16,
    n: u64,
) -> (String, String, String, u16, u64) {
    (destination.into(), route.into(), protocol.into(), status, n)
}

#[test]
fn two_services_on_one_listener_are_told_by_host_and_have_telemetry_of_their_own() {
    block_on(async {
        let (cart, checkout) = (App::named("cart").await, App::named("checkout").await);
        let entries = [
            format!(
                "service: cart, hosts: [cart, '*.shop.example', 'both:8080'], routes: ['/items/{{id}}'], \
                 destinations: [{{address: {}}}]",
                cart.address
            ),
            format!(
                "service: checkout, hosts: [checkout, pay.shop.example, both], routes: ['/pay'], \
                 destinations: [{{address: {}}}]",
                checkout.address
            ),
        ];
        let (proxy, listen) = sharing("", &entries).await;
        for (host, service) in [
            ("cart", "cart"),
            ("CART.:8081", "cart"),
            ("eu.shop.example", "cart"),
            ("both:8080", "cart"),
            ("both", "checkout"),
            ("checkout", "checkout"),
            ("pay.shop.example:99", "checkout"),
        ] {
            assert_eq!(ask(listen, host, "/items/7", "").await.1, service, "{host}");
        }
        ask(listen, "checkout", "/pay", "").await;
        let seen = rows(recorded(proxy.telemetry(), 8).await);
        let expected = [
            row("cart", "/items/{id}", "http/1.1", 200, 4),
            row("checkout", "/pay", "http/1.1", 200, 1),
            row("checkout", "other", "http/1.1", 200, 3),
        ];
        assert_eq!(seen, expected);
        stop(proxy).await;
    });
}

#[test]
fn a_host_that_nobody_takes_is_404_nr_in_telemetry_and_access_log_and_the_connection_goes_on() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let app = App::named("cart").await;
        let entry = format!(
            "service: cart, hosts: [cart], destinations: [{{address: {}}}]",
            app.address
        );
        let log = format!("access_log: {{path: {}}}\n", path.display());
        let (proxy, listen) = sharing(&log, &[entry]).await;
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let ask = |host: &str| format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(ask("stranger").as_bytes()).await.unwrap();
        let (head, body) = read_answer(&mut stream).await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (404, Some("no_route"))
        );
        assert!(body.contains("`hosts`"), "{body}");
        assert_eq!(app.requests(), 0);
        stream.write_all(ask("cart").as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.1, "cart");
        let seen = rows(recorded(proxy.telemetry(), 2).await);
        let expected = [
            row("", "other", "http/1.1", 404, 1),
            row("cart", "other", "http/1.1", 200, 1),
        ];
        assert_eq!(seen, expected);
        let metrics = proxy.metrics();
        assert_eq!((flag(&metrics, "NR"), flag(&metrics, "DPE")), (1, 0));
        let refused = metric(&metrics, "emberline_proxy_requests_refused_total{reason=\"no_route\"}");
        assert_eq!(refused, 1, "{metrics}");
        // What is no HTTP is not for anybody either.
        assert!(
            !send_raw(listen, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
                .await
                .contains("cart")
        );
        assert_eq!(app.requests(), 1);
        stop(proxy).await;
        let log = std::fs::read_to_string(&path).unwrap();
        let entry: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        let of_entry = (
            &entry["response_flags"],
            &entry["response_code_details"],
            &entry["response_code"],
        );
        assert_eq!(of_entry, (&"NR".into(), &"no_route".into(), &404.into()), "{entry:#}");
    });
}

/// Answers over HTTP/2 with its name and gRPC's status 0.
async fn http2_app(name: &'static str) -> SocketAddr {
    raw_app(move |stream: TcpStream| async move {
        let service = service_fn(move |_: Request<Incoming>| async move {
            let response = Response::builder().header("grpc-status", "0").header("x-app", name);
            Ok::<_, std::convert::Infallible>(response.body(whole(name)).unwrap())
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

#[test]
fn over_http2_the_authority_says_who_is_meant_and_grpc_is_told_in_its_own_words() {
    block_on(async {
        let entries = [
            ("cart", http2_app("cart").await),
            ("checkout", http2_app("checkout").await),
        ]
        .map(|(service, at)| {
            format!("service: {service}, hosts: ['{service}.svc'], destinations: [{{address: {at}}}]")
        });
        let (proxy, listen) = sharing("", &entries).await;
        let mut sender = connect_http2(listen).await;
        for (host, content_type, app) in [
            ("cart.svc", "text/plain", Some("cart")),
            ("checkout.svc:50051", "application/grpc", Some("checkout")),
            ("Cart.Svc", "application/grpc", Some("cart")),
            ("nobody.svc", "text/plain", None),
            ("nobody.svc", "application/grpc", None),
        ] {
            let request = Request::builder()
                .method("POST")
                .uri(format!("http://{host}/shop.Cart/Get"))
                .header("content-type", content_type)
                .body(whole(""))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let (head, body) = response.into_parts();
            body.collect().await.unwrap();
            let is_grpc = content_type == "application/grpc";
            let status = if app.is_some() || is_grpc { 200 } else { 404 };
            assert_eq!(
                (head.status.as_u16(), head.headers.contains_key("x-app")),
                (status, app.is_some())
            );
            match app {
                Some(app) => assert_eq!(head.headers["x-app"], app),
                None => assert_eq!(head.headers["x-emberline-error"], "no_route"),
            }
            if app.is_none() && is_grpc {
                assert_eq!(head.headers["grpc-status"], "12");
            }
        }
        let seen = rows(recorded(proxy.telemetry(), 5).await);
        let expected = [
            row("", "other", "grpc", 12, 1),
            row("", "other", "http/2", 404, 1),
            row("cart", "other", "grpc", 0, 1),
            row("cart", "other", "http/2", 200, 1),
            row("checkout", "other", "grpc", 0, 1),
        ];
        assert_eq!(seen, expected);
        stop(proxy).await;
    });
}

/// What is said of these entries, each at a line of its own from the second on.
pub(super) fn message(entries: &[&str]) -> String {
    let entries: String = entries
        .iter()
        .map(|entry| format!("\n  - {{listen: 127.0.0.1:1, {entry}}}"))
        .collect();
    let text = format!("workload: {{service: a}}\noutbound:{entries}\n");
    config::parse("proxy.yaml".as_ref(), &text).map_or_else(|error| error.to_string(), |_| String::new())
}

#[test]
fn entries_of_one_listener_that_contradict_each_other_are_refused_with_their_line() {
    const TO: &str = "destinations: [{address: 127.0.0.1:9}]";
    let entry = |more: &str| format!("{TO}, {more}");
    for (one, other, expected) in [
        ("service: a, hosts: [a]", "service: b", ""),
        (
            "service: a",
            "service: b",
            "proxy.yaml:4: outbound[0] and outbound[1] both match every host of 127.0.0.1:1: add `hosts` to one of them, or give \
             each its own port",
        ),
        (
            "service: a, hosts: [a, '*.x']",
            "service: b, hosts: [b, '*.X.']",
            "proxy.yaml:4: the host `*.x` is listed twice on 127.0.0.1:1, for a and b: remove one",
        ),
        (
            "service: a, hosts: [a]",
            "service: b, hosts: [b, B]",
            "proxy.yaml:4: the host `b` is listed twice on 127.0.0.1:1, for b: remove one",
        ),
        (
            "service: a, hosts: [a]",
            "service: a, hosts: [b]",
            "proxy.yaml:4: a occurs twice on 127.0.0.1:1: use one entry with all its `hosts`",
        ),
        (
            "service: a, hosts: [a]",
            "service: b, protocol: http1",
            "proxy.yaml:4: `protocol` differs from that of outbound[0], which shares 127.0.0.1:1: use the same",
        ),
        (
            "service: a, hosts: [a b]",
            "service: b",
            "proxy.yaml:3: outbound[0].hosts[0]: `a b` is not a host (the name is invalid): use, for example, `cart`, `cart:8080` \
             or `*.cart.example`",
        ),
    ] {
        assert_eq!(message(&[&entry(one), &entry(other)]), expected, "{one} | {other}");
    }
    assert_eq!(
        message(&[&entry("service: a, protocol: tcp, hosts: [a]")]),
        "proxy.yaml:3: `hosts` has no effect with `protocol: tcp`, which has no hosts: remove one of them"
    );
    assert_eq!(
        message(&[&entry("service: a, protocol: tcp, upstream_protocol: http2")]),
        "proxy.yaml:3: `upstream_protocol` has no effect with `protocol: tcp`, which has no requests: remove one of them"
    );
}

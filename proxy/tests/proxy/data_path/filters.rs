//! What services and rules ask for besides carrying their requests: rates, faults, edits of headers, CORS, buffering.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use emberline_model::histogram::bucket_index;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    services::{ask, sharing},
    support::*,
};

/// The entry of `shop`.
pub(super) fn shop(app: &App, more: &str) -> String {
    format!("service: shop, destinations: [{{address: {}}}], {more}", app.address)
}

/// Answers with the headers of the request that begin with `x-` or are named, sorted.
async fn echoing() -> App {
    App::start(|request| async move {
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-") || *name == "content-length")
            .filter(|(name, _)| !name.as_str().starts_with("x-emberline"))
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        let trailers = request.into_body().collect().await.unwrap();
        if let Some(sum) = trailers.trailers().and_then(|t| t.get("x-sum")) {
            lines.push(format!("trailer={}", sum.to_str().unwrap()));
        }
        lines.push(format!("body={}", trailers.to_bytes().len()));
        Response::builder()
            .header("x-old", "1")
            .header("server", "app")
            .body(Full::from(lines.join(" ")))
            .unwrap()
    })
    .await
}

#[test]
fn a_rate_lets_its_burst_through_and_the_rest_is_told_when_to_come_again() {
    block_on(async {
        let app = App::named("shop").await;
        let filters = "filters: [{rate_limit: {requests: 60, per_seconds: 3600, burst: 3}}]";
        let (proxy, listen) = sharing("workers: 2\n", &[shop(&app, filters)]).await;
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let (head, body) = ask(listen, "shop", "/", "").await;
            statuses.push(status(&head));
            if status(&head) == 429 {
                assert_eq!(header(&head, "x-emberline-error"), Some("rate_limited"));
                let wait: u64 = header(&head, "retry-after").unwrap().parse().unwrap();
                assert!((50..=60).contains(&wait), "{wait}");
                assert!(body.contains("`rate_limit`"), "{body}");
            }
        }
        assert_eq!(statuses, [200, 200, 200, 429, 429]);
        assert_eq!(app.requests(), 3);
        recorded(proxy.telemetry(), 5).await;
        let metrics = proxy.metrics();
        assert_eq!(flag(&metrics, "RL"), 2);
        let refused = "emberline_proxy_requests_refused_total{reason=\"rate_limited\"}";
        assert_eq!(metric(&metrics, refused), 2);
        stop(proxy).await;
    });
}

#[test]
fn each_caller_has_a_rate_of_its_own_and_a_refused_grpc_call_reads_unavailable() {
    block_on(async {
        let app = App::named("cart").await;
        let filters = ", filters: [{rate_limit: {requests: 1, per_seconds: 3600, each: caller}}]";
        let proxy = inbound("cart", "\"/cart\"", app.address, filters);
        let address = proxy.addresses().inbound[0];
        let from = |ip: &'static str| async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            stream
                .write_all(b"GET /cart HTTP/1.1\r\nHost: cart\r\n\r\n")
                .await
                .unwrap();
            status(&read_answer(&mut stream).await.0)
        };
        assert_eq!(
            [
                from("127.0.0.1").await,
                from("127.0.0.2").await,
                from("127.0.0.1").await,
                from("127.0.0.2").await
            ],
            [200, 200, 429, 429]
        );
        let mut sender = connect_http2(address).await;
        let call = Request::post("http://cart/cart")
            .header("content-type", "application/grpc")
            .body(whole(""))
            .unwrap();
        let refused = sender.send_request(call).await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["grpc-status"]),
            (200, &"14".parse().unwrap())
        );
        stop(proxy).await;
    });
}

#[test]
fn faults_are_made_for_those_who_ask_and_a_rule_has_filters_of_its_own() {
    block_on(async {
        let app = App::named("shop").await;
        let more = "filters: [{fault: {status: 503, header: {name: x-fault, exact: fail}}}, \
             {fault: {delay_ms: 300, header: {name: x-fault, exact: wait}}}], \
             rules: [{path: {prefix: /calm}, cluster: shop, filters: []}, \
             {path: {prefix: /never}, cluster: shop, filters: [{fault: {share: 0, status: 500}}]}]";
        let (proxy, listen) = sharing("", &[shop(&app, more)]).await;
        let (head, body) = ask(listen, "shop", "/", "x-fault: fail\r\n").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("fault_injected"))
        );
        assert!(body.contains("on purpose"), "{body}");
        assert_eq!(app.requests(), 0);
        for (target, fault) in [
            ("/", ""),
            ("/calm", "x-fault: fail\r\n"),
            ("/never", "x-fault: fail\r\n"),
        ] {
            assert_eq!(ask(listen, "shop", target, fault).await.1, "shop", "{target}");
        }
        let begun = Instant::now();
        assert_eq!(ask(listen, "shop", "/", "x-fault: wait\r\n").await.1, "shop");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        let seen = recorded(proxy.telemetry(), 5).await;
        let slow = |series: &emberline_model::RequestSeries| series.duration.count_above(bucket_index(0.29));
        assert!(
            seen.iter().map(slow).sum::<u64>() >= 1,
            "the delay counts to the caller's latency"
        );
        let metrics = proxy.metrics();
        assert_eq!((flag(&metrics, "FI"), flag(&metrics, "DI")), (1, 1));
        // A connection that was answered so goes on.
        let mut stream = TcpStream::connect(listen).await.unwrap();
        for expected in [503, 200] {
            let fault = if expected == 503 { "x-fault: fail\r\n" } else { "" };
            let request = format!("GET / HTTP/1.1\r\nHost: shop\r\n{fault}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(status(&read_answer(&mut stream).await.0), expected);
        }
        stop(proxy).await;
    });
}

#[test]
fn headers_are_edited_both_ways_and_answers_of_the_proxy_have_them_too() {
    block_on(async {
        let app = echoing().await;
        let more = "filters: [{headers: {request: {remove: [x-secret], set: {x-team: shop}, append: {x-via: mesh}}, \
             response: {remove: [server], set: {x-frame: deny}, append: {x-old: '2'}}}}, \
             {headers: {response: {set: {x-frame: inner}}}}, \
             {fault: {status: 418, header: {name: x-fault}}}]";
        let (proxy, listen) = sharing("", &[shop(&app, more)]).await;
        let (head, body) = ask(listen, "shop", "/", "x-secret: 1\r\nX-Team: other\r\nx-via: me\r\n").await;
        assert_eq!(body, "x-team=shop x-via=me x-via=mesh body=0");
        assert_eq!(
            (header(&head, "server"), header(&head, "x-frame")),
            (None, Some("deny")),
            "in reverse"
        );
        assert!(head.contains("x-old: 1\r\n") && head.contains("x-old: 2\r\n"), "{head}");
        let (head, _) = ask(listen, "shop", "/", "x-fault: 1\r\n").await;
        assert_eq!((status(&head), header(&head, "x-frame")), (418, Some("deny")));
        stop(proxy).await;
        // Also when nobody is there to answer.
        let gone = format!("service: shop, destinations: [{{address: {}}}], {more}", nobody().await);
        let (proxy, listen) = sharing("", &[gone]).await;
        let (head, _) = ask(listen, "shop", "/", "").await;
        assert_eq!((status(&head), header(&head, "x-frame")), (503, Some("deny")));
        stop(proxy).await;
    });
}

#[test]
fn pages_of_listed_origins_may_call_and_others_are_told_nothing() {
    block_on(async {
        let app = echoing().await;
        let more = "filters: [{cors: {origins: ['https://shop.example'], methods: [PUT], headers: [x-token], \
             exposed_headers: [x-old], credentials: true, max_age_seconds: 60}}, {rate_limit: {requests: 2, per_seconds: 3600}}]";
        let (proxy, listen) = sharing("", &[shop(&app, more)]).await;
        let preflight = |origin: &str| {
            let request = format!(
                "OPTIONS /a HTTP/1.1\r\nHost: shop\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
            );
            async move {
                let mut stream = TcpStream::connect(listen).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                read_head(&mut stream).await
            }
        };
        let head = preflight("https://shop.example").await;
        assert_eq!(status(&head), 204);
        for (name, value) in [
            ("access-control-allow-origin", "https://shop.example"),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "x-token"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "60"),
            ("vary", "origin"),
        ] {
            assert_eq!(header(&head, name), Some(value), "{name}");
        }
        assert_eq!(app.requests(), 0, "answered here");
        let origin = "Origin: https://shop.example\r\n";
        let (head, _) = ask(listen, "shop", "/", origin).await;
        assert_eq!(
            header(&head, "access-control-allow-origin"),
            Some("https://shop.example")
        );
        assert_eq!(header(&head, "access-control-expose-headers"), Some("x-old"));
        let (head, _) = ask(listen, "shop", "/", "Origin: https://other.example\r\n").await;
        assert_eq!(
            (status(&head), header(&head, "access-control-allow-origin")),
            (200, None)
        );
        let (head, _) = ask(listen, "shop", "/", origin).await;
        assert_eq!(status(&head), 429);
        assert_eq!(
            header(&head, "access-control-allow-origin"),
            Some("https://shop.example"),
            "a page may read why it was refused"
        );
        stop(proxy).await;
    });
}

#[test]
fn a_buffered_request_reaches_its_destination_whole_or_not_at_all() {
    block_on(async {
        let app = echoing().await;
        let (proxy, listen) = sharing("", &[shop(&app, "filters: [{buffer: {request_bytes: 10}}]")]).await;
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let chunked = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(chunked.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((app.connections(), app.requests()), (0, 0), "it waits for the rest");
        stream.write_all(b"5\r\nworld\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.1, "content-length=10 body=10");
        for long in [
            "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 11\r\n\r\nhello world".to_owned(),
            format!(
                "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                "1\r\nx\r\n".repeat(11)
            ),
        ] {
            let mut stream = TcpStream::connect(listen).await.unwrap();
            stream.write_all(long.as_bytes()).await.unwrap();
            let (head, body) = read_answer(&mut stream).await;
            assert_eq!(
                (status(&head), header(&head, "x-emberline-error")),
                (413, Some("body_too_large"))
            );
            assert!(body.contains("`request_bytes`"), "{body}");
        }
        assert_eq!(app.requests(), 1);
        // Who breaks off reaches nobody.
        let mut stream = TcpStream::connect(listen).await.unwrap();
        stream.write_all(chunked.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(app.requests(), 1);
        stop(proxy).await;
    });
}

#[test]
fn trailers_of_a_buffered_request_arrive() {
    block_on(async {
        let app = echoing().await;
        let (proxy, listen) = sharing(
            "",
            &[shop(
                &app,
                "filters: [{buffer: {request_bytes: 100}}], upstream_protocol: http1",
            )],
        )
        .await;
        let mut sender = connect_http2(listen).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = [Frame::data(Bytes::from("seven")), Frame::trailers(trailers)];
        let body: AnyBody = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>))).boxed_unsync();
        let request = Request::post("http://shop/")
            .header("trailer", "x-sum")
            .body(body)
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "trailer=7 body=5");
        stop(proxy).await;
    });
}

/// As in Envoy's filter manager: the first chunk was held by the last filter when an earlier one stopped; what it held must not pass
/// the one between them a second time.
#[test]
fn no_chunk_passes_a_filter_twice_whoever_waits() {
    block_on(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let app = App::start({
            let seen = Arc::clone(&seen);
            move |request| {
                let seen = Arc::clone(&seen);
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    seen.lock().push(body.clone());
                    Response::new(Full::from(body))
                }
            }
        })
        .await;
        let more = "filters: [{fault: {delay_ms: 100}}, {buffer: {request_bytes: 100}}, {fault: {delay_ms: 100}}, \
             {buffer: {request_bytes: 100}}]";
        let (proxy, listen) = sharing("", &[shop(&app, more)]).await;
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n";
        for part in [head, "3\r\none\r\n", "3\r\ntwo\r\n", "5\r\nthree\r\n0\r\n\r\n"] {
            stream.write_all(part.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        assert_eq!(read_answer(&mut stream).await.1, "onetwothree");
        assert_eq!(*seen.lock(), ["onetwothree"]);
        stop(proxy).await;
    });
}

#[test]
fn what_is_no_http_does_not_get_past_filters_as_bytes() {
    block_on(async {
        let app = App::named("shop").await;
        for more in [", filters: [{fault: {status: 503}}]", ", forwarded: replace"] {
            let proxy = inbound("shop", "", app.address, more);
            let listen = proxy.addresses().inbound[0];
            for bytes in [" GET /x HTTP/1.1\r\nhost: a\r\n\r\n", "GET /x\r\n\r\n"] {
                let answer = send_raw(listen, bytes.as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{more} {bytes:?}: {answer}");
            }
            stop(proxy).await;
        }
        assert_eq!(app.requests(), 0);
    });
}

#[test]
fn what_a_filter_cannot_do_is_said_with_its_line() {
    use emberline_proxy::config;
    let text = |filters: &str| {
        format!("workload: {{service: a}}\ninbound: [{{listen: 127.0.0.1:1, to: 127.0.0.1:2, filters: [{filters}]}}]")
    };
    for (filters, expected) in [
        ("{}", "an empty filter"),
        ("{fault: {}}", "`fault` does nothing"),
        ("{headers: {}}", "`headers` edits nothing"),
        (
            "{fault: {delay_ms: 1}, buffer: {request_bytes: 1}}",
            "several filters in one entry",
        ),
        ("{headers: {request: {set: {Host: a}}}}", "`host` cannot be edited"),
        (
            "{headers: {response: {remove: [x-emberline-error]}}}",
            "cannot be edited",
        ),
        (
            "{headers: {request: {append: {'a b': c}}}}",
            "`a b` is not a header's name",
        ),
        ("{cors: {origins: []}}", "lets nobody call"),
        (
            "{cors: {origins: ['*'], credentials: true}}",
            "list origins instead of `*`",
        ),
        ("{cors: {origins: ['https://a.example/x']}}", "is not an origin"),
        ("{rate_limit: {requests: 0}}", "requests: 0 is out of range"),
        ("{fault: {status: 200}}", "from 400 to 599"),
        ("{rate_limt: {requests: 1}}", "did you mean `rate_limit`"),
        (
            "{rate_limit_service: {address: 'a:1', domain: d, descriptors: []}}",
            "asks about nothing",
        ),
        (
            "{rate_limit_service: {address: 'a:1', domain: '', descriptors: [[{key: a, value: b}]]}}",
            "`domain` is empty",
        ),
        (
            "{rate_limit_service: {address: 'a:1', domain: d, descriptors: [[]]}}",
            "an empty descriptor",
        ),
        (
            "{rate_limit_service: {address: 'a:1', domain: d, descriptors: [[{key: a, value: b, header: c}]]}}",
            "one of `value`, `header` and `of`",
        ),
        (
            "{ext_authz: {address: 'a:1', path_prefix: /x}}",
            "`path_prefix` has no effect with `protocol: grpc`",
        ),
        (
            "{ext_authz: {address: 'a:1', protocol: http, context: {a: b}}}",
            "`context` has no effect with `protocol: http`",
        ),
        (
            "{ext_authz: {address: 'a:1', protocol: http, path_prefix: x}}",
            "must begin with `/`",
        ),
        (
            "{ext_authz: {address: 'a:1', protocol: http, upstream_headers: [content-length]}}",
            "`content-length` cannot be passed on",
        ),
        (
            "{ext_authz: {address: 'a:1', protocol: http, request_headers: [transfer-encoding]}}",
            "`transfer-encoding` cannot be passed on",
        ),
        (
            "{ext_authz: {address: 'a:1', timeout_ms: 0}}",
            "timeout_ms: 0 is out of range",
        ),
    ] {
        let error = config::parse("proxy.yaml".as_ref(), &text(filters)).expect_err(filters);
        let message = error.to_string();
        assert!(
            message.contains(expected) && message.starts_with("proxy.yaml:2"),
            "{filters}: {message}"
        );
    }
}

#[test]
fn a_rate_of_each_caller_is_refused_where_there_is_only_one() {
    let text = "workload: {service: a}\noutbound:\n  - {listen: 127.0.0.1:1, service: b, destinations: [{address: 127.0.0.1:2}], \
                filters: [{rate_limit: {requests: 1, each: caller}}]}";
    let error = emberline_proxy::config::parse("proxy.yaml".as_ref(), text).unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("proxy.yaml:3") && message.contains("`each: caller` has no effect"),
        "{message}"
    );
}

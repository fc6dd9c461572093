//! What strangers try to bring a proxy down with: places, memory, time. Each is refused and counted, and a caller that
//! behaves is answered beside it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::support::*;

fn overloads(metrics: &str, cause: &str) -> u64 {
    metric(
        metrics,
        &format!("emberline_proxy_overloads_total{{reason=\"{cause}\"}}"),
    )
}

fn broken(metrics: &str, cause: &str) -> u64 {
    metric(
        metrics,
        &format!("emberline_proxy_connections_broken_total{{reason=\"{cause}\"}}"),
    )
}

/// An inbound proxy with limits.
fn limited(limits: &str, to: SocketAddr, more: &str) -> emberline_proxy::Proxy {
    proxy(&yaml(
        "cart",
        &format!("limits: {{{limits}}}\nroutes: [\"/\"]\ninbound: [{{listen: 127.0.0.1:0, to: {to}{more}}}]"),
    ))
}

/// An application that never answers.
async fn silent_app() -> SocketAddr {
    raw_app(|mut stream: TcpStream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// Connects from another address of this machine.
async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Reads until the other end ends the connection.
async fn wait_for_end(stream: &mut TcpStream) {
    let ended = tokio::time::timeout(PATIENCE, async {
        let mut buf = [0; 1024];
        while !matches!(stream.read(&mut buf).await, Ok(0) | Err(_)) {}
    });
    ended.await.expect("the connection stays open");
}

#[test]
fn connections_without_a_request_make_place_for_others() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = limited("max_connections: 8, share_of_caller: 1", app.address, "");
        let address = proxy.addresses().inbound[0];
        let mut held = Vec::new();
        for n in 0..60 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Half").await;
            }
            held.push(stream);
            if n % 10 == 9 {
                assert_eq!(get(address, "/").await.1, "app");
            }
        }
        eventually("the others are closed", || broken(&proxy.metrics(), "made_place") >= 50).await;
        wait_for_end(&mut held[0]).await;
        stop(proxy).await;
    });
}

#[test]
fn when_every_connection_has_a_request_new_ones_are_closed_and_other_callers_have_their_part() {
    block_on(async {
        let proxy = limited("max_connections: 8", silent_app().await, "");
        let address = proxy.addresses().inbound[0];
        let mut held = Vec::new();
        for _ in 0..6 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            held.push(stream);
        }
        eventually("all are being served", || {
            metric(&proxy.metrics(), "emberline_proxy_requests_in_flight{side=\"server\"}") == 6
        })
        .await;
        wait_for_end(&mut TcpStream::connect(address).await.unwrap()).await;
        assert_eq!(overloads(&proxy.metrics(), "connections_of_caller"), 1);
        let mut other = connect_from(2, address).await;
        other.write_all(b"GET /\x01 HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_head(&mut other).await), 400);
        drop(held);
        stop(proxy).await;
    });
}

#[test]
fn requests_that_find_no_memory_are_answered_503_until_others_have_ended() {
    block_on(async {
        let (release, wait) = tokio::sync::watch::channel(false);
        let app = App::start(move |_| {
            let mut wait = wait.clone();
            async move {
                let _ = wait.wait_for(|released| *released).await;
                http::Response::new(Full::from("late"))
            }
        })
        .await;
        let proxy = limited("memory_bytes: 1048576, share_of_caller: 1", app.address, "");
        let address = proxy.addresses().inbound[0];
        let mut asking = Vec::new();
        // One after the other: of many connections that come at once, those without a request yet make room themselves.
        while overloads(&proxy.metrics(), "memory") == 0 {
            assert!(asking.len() < 400, "none of {} is refused", asking.len());
            asking.push(tokio::spawn(async move { get(address, "/").await.0 }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        release.send_replace(true);
        let mut statuses = Vec::new();
        for asked in asking {
            statuses.push(asked.await.map_or(0, |head| status(&head)));
        }
        assert!(statuses.contains(&200), "{statuses:?}");
        assert!(
            statuses.iter().all(|status| [0, 200, 503].contains(status)),
            "{statuses:?}"
        );
        eventually("the memory is there again", || {
            metric(&proxy.metrics(), "emberline_proxy_connections_open") == 0
        })
        .await;
        for _ in 0..20 {
            assert_eq!(
                status(&get(address, "/").await.0),
                200,
                "what was charged has come back"
            );
        }
        stop(proxy).await;
    });
}

#[test]
fn heads_of_all_connections_together_are_bounded() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = limited("memory_bytes: 1048576, share_of_caller: 1", app.address, "");
        let address = proxy.addresses().inbound[0];
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(15_000));
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(head.as_bytes()).await;
            held.push(stream);
        }
        eventually("some are refused", || {
            broken(&proxy.metrics(), "no_memory_for_head") > 0
        })
        .await;
        assert_eq!(get(address, "/").await.1, "app");
        drop(held);
        eventually("all are gone", || {
            metric(&proxy.metrics(), "emberline_proxy_connections_open") == 0
        })
        .await;
        let mut whole = TcpStream::connect(address).await.unwrap();
        whole.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut whole).await.1, "app", "the memory has come back");
        stop(proxy).await;
    });
}

#[test]
fn a_few_bytes_of_compressed_headers_are_charged_for_what_they_become() {
    block_on(async {
        let proxy = limited("memory_bytes: 2097152, share_of_caller: 1", silent_app().await, "");
        let stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut answers = Vec::new();
        for _ in 0..40 {
            let mut request = http::Request::get("http://a/");
            for _ in 0..350 {
                request = request.header("a", "");
            }
            sender = sender.ready().await.unwrap();
            answers.push(sender.send_request(request.body(()).unwrap(), true).unwrap().0);
        }
        eventually("some are refused", || overloads(&proxy.metrics(), "memory") > 0).await;
        let refused = answers.pop().unwrap().await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(flag(&proxy.metrics(), "OM"), overloads(&proxy.metrics(), "memory"));
        drop((sender, answers));
        stop(proxy).await;
    });
}

#[test]
fn http2_that_is_never_begun_ends() {
    block_on(async {
        let app = App::named("app").await;
        for sent in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let proxy = limited("header_ms: 80", app.address, ", protocol: http2");
            let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
            stream.write_all(sent).await.unwrap();
            wait_for_end(&mut stream).await;
            eventually("it is counted", || broken(&proxy.metrics(), "header_timeout") == 1).await;
            stop(proxy).await;
        }
    });
}

#[test]
fn an_http2_caller_that_gives_no_room_for_its_response_is_not_waited_for() {
    block_on(async {
        let app = raw_app(|stream: TcpStream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                let _ = body.send_data(Bytes::from_static(&[7; 10_000]), true);
            }
        })
        .await;
        let proxy = limited("body_idle_ms: 100", app, "");
        let stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        let (mut sender, connection) = h2::client::Builder::new()
            .initial_window_size(0)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::get("http://a/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let ended = tokio::time::timeout(PATIENCE, body.data()).await.expect("it waits");
        assert!(matches!(ended, Some(Err(_))), "{ended:?}");
        assert_eq!(broken(&proxy.metrics(), "stream_not_taken"), 1);
        eventually("nothing is in flight", || {
            metric(&proxy.metrics(), "emberline_proxy_requests_in_flight{side=\"server\"}") == 0
        })
        .await;
        stop(proxy).await;
    });
}

#[test]
fn a_silent_caller_of_http_costs_no_connection_to_the_destination() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = limited("detect_ms: 20, keep_alive_ms: 150", app.address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        wait_for_end(&mut stream).await;
        assert_eq!(app.connections(), 0);
        stop(proxy).await;
    });
}

#[test]
fn where_routes_are_configured_nothing_goes_past_the_checks_of_http() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            let mut buf = [0; 4096];
            let n = stream.read(&mut buf).await.unwrap();
            let text = String::from_utf8_lossy(&buf[..n]).into_owned();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let proxy = limited("detect_ms: 20", app, "");
        let address = proxy.addresses().inbound[0];
        let identity = "x-emberline-peer: v1;;liar;v1;i\r\n";
        // Past ten bytes of empty lines: a request like any other.
        let sent = format!(
            "{}GET / HTTP/1.1\r\nHost: a\r\n{identity}Connection: close\r\n\r\n",
            "\r\n".repeat(8)
        );
        let answer = send_raw(address, sent.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && !answer.contains("liar"),
            "{answer}"
        );
        for (sent, what) in [
            (
                format!(" GET / HTTP/1.1\r\nHost: a\r\n{identity}\r\n"),
                "a leading blank",
            ),
            (
                format!("GET / HTTP/7.3\r\nHost: a\r\n{identity}\r\n"),
                "an unknown version",
            ),
            ("\x16\u{3}\u{1}\u{2}".to_owned(), "no HTTP at all"),
            ("EHLO a\r\n".to_owned(), "another protocol"),
        ] {
            let answer = send_raw(address, sent.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
        }
        // A method nobody knows, in two pieces: HTTP all the same.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"FRO").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let rest = format!("B / HTTP/1.1\r\nHost: a\r\n{identity}\r\n");
        stream.write_all(rest.as_bytes()).await.unwrap();
        let (head, body) = read_answer(&mut stream).await;
        assert!(status(&head) == 200 && !body.contains("liar"), "{head}{body}");
        let series = recorded(proxy.telemetry(), 6).await;
        assert!(series.iter().all(|series| series.protocol == "http/1.1"), "{series:?}");
        let refused = metric(
            &proxy.metrics(),
            "emberline_proxy_requests_refused_total{reason=\"bad_request\"}",
        );
        assert_eq!(refused, 4);
        let endless = "\r\n".repeat(40_000);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(endless.as_bytes()).await;
        wait_for_end(&mut stream).await;
        eventually("it is counted", || {
            let metrics = proxy.metrics();
            let refused = "emberline_proxy_requests_refused_total{reason=\"head_too_long\"}";
            broken(&metrics, "head_too_long") + metric(&metrics, refused) > 0
        })
        .await;
        stop(proxy).await;
    });
}

#[test]
fn the_admin_port_answers_probes_whoever_holds_its_places() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = limited("", app.address, "");
        let admin = proxy.addresses().admin;
        let mut held = Vec::new();
        for n in 0..200 {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            if n % 2 == 0 {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Half").await;
            }
            held.push(stream);
            if n % 20 == 0 {
                assert_eq!(status(&get(admin, "/ready").await.0), 200);
            }
        }
        assert_eq!(status(&get(admin, "/live").await.0), 200);
        assert!(
            get(admin, "/metrics")
                .await
                .1
                .contains("emberline_proxy_connections_open")
        );
        stop(proxy).await;
    });
}

#[test]
fn strangers_introduce_themselves_to_nobody() {
    block_on(async {
        let app = App::start(|request| async move {
            let seen = |name: &str| {
                let value = request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
                value.unwrap_or_default()
            };
            let text = format!(
                "{}|{}|{}",
                seen("x-emberline-peer"),
                seen("traceparent"),
                seen("tracestate")
            );
            http::Response::new(Full::from(text))
        })
        .await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";
        let headers = format!("x-emberline-peer: v1;shop;front;v1;f\r\ntraceparent: {trace}01\r\ntracestate: a=b\r\n");
        for (more, from, is_trusted) in [
            (", identity: ignore", 1, false),
            (", trusted_callers: [127.0.0.2]", 1, false),
            (", trusted_callers: [127.0.0.2]", 2, true),
            ("", 2, true),
        ] {
            let text = yaml(
                "cart",
                &format!(
                    "trace: {{sampled: 0}}\ninbound: [{{listen: 127.0.0.1:0, to: {}{more}}}]",
                    app.address
                ),
            );
            let proxy = proxy(&text);
            let mut stream = connect_from(from, proxy.addresses().inbound[0]).await;
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = read_answer(&mut stream).await;
            let series = recorded(proxy.telemetry(), 1).await;
            let found = (
                header(&head, "x-emberline-peer").is_some(),
                series[0].peer.is_some(),
                body,
            );
            let passed = if is_trusted {
                format!("|{trace}01|a=b")
            } else {
                format!("|{trace}00|")
            };
            assert_eq!(found, (is_trusted, is_trusted, passed), "{more} from {from}");
            stop(proxy).await;
        }
    });
}

#[test]
fn made_up_releases_leave_routes_and_real_callers_their_place() {
    block_on(async {
        let app = App::named("app").await;
        let routes = "\"/quote/{id}\", \"/checkout\", \"/cart\", \"/\"";
        let proxy = inbound("cart", routes, app.address, "");
        let address = proxy.addresses().inbound[0];
        let mut stream = connect_from(3, address).await;
        let paths = ["/quote/1", "/checkout", "/cart", "/"];
        for n in 0..2_080 {
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: a\r\nx-emberline-peer: v1;;made{n};v1;i\r\n\r\n",
                paths[n % paths.len()]
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.1, "app");
        }
        get(address, "/quote/7").await;
        get_with(address, "/checkout", "x-emberline-peer: v1;shop;front;v1;f-1\r\n").await;
        let series = recorded(proxy.telemetry(), 2_082).await;
        let of = |route: &str, peer: Option<&str>| -> u64 {
            series
                .iter()
                .filter(|s| s.route == route && s.peer.as_ref().map(|p| p.service.as_str()) == peer)
                .map(|s| s.duration.count())
                .sum()
        };
        assert_eq!((of("/quote/{id}", None), of("/checkout", Some("front"))), (1, 1));
        let of_route: u64 = series
            .iter()
            .filter(|s| s.route == "/cart")
            .map(|s| s.duration.count())
            .sum();
        assert_eq!(of_route, 520, "every request keeps its route");
        assert!(of("/cart", Some("other")) > 0);
        let metrics = proxy.metrics();
        let folded = "emberline_proxy_names_folded_total{table=\"peers\",cause=\"share_of_caller\"}";
        assert!(metric(&metrics, folded) > 0, "{metrics}");
        stop(proxy).await;
    });
}

//! Connections that switch to WebSocket, and everything that only looks like it. The frames are made up: nobody between the
//! two ends reads them.

use std::net::SocketAddr;

use emberline_model::Side;
use emberline_proxy::{Proxy, telemetry::Cut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::support::*;

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n";
const GREETING: &[u8] = b"\x81\x02hi";

/// A server that switches, greets at once and echoes from then on; what does not ask to switch gets a 200. The heads that it
/// saw come out of the channel.
async fn chat() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (seen, heads) = mpsc::unbounded_channel();
    let address = raw_app(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if !head.ends_with("\r\n\r\n") {
                    return;
                }
                let _ = seen.send(head.clone());
                let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                stream.read_exact(&mut vec![0; length]).await.unwrap();
                if header(&head, "upgrade") == Some("websocket") && header(&head, "connection") == Some("Upgrade") {
                    break;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
            stream.write_all(&[SWITCHED, GREETING].concat()).await.unwrap();
            let (mut reading, mut writing) = stream.split();
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
        }
    })
    .await;
    (address, heads)
}

/// Opens a connection, sends the handshake and reads the head of the answer.
async fn shake(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let head = tokio::time::timeout(PATIENCE, read_head(&mut stream)).await;
    (stream, head.expect("no answer"))
}

/// What comes next.
async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    let reading = tokio::time::timeout(PATIENCE, stream.read_exact(&mut read)).await;
    reading.expect("the bytes do not come").unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn frames_pass_both_ways_and_count_to_the_request_that_asked_for_them() {
    block_on(async {
        let (to, mut heads) = chat().await;
        let proxy = inbound("chat", "\"/chat\"", to, "");
        let (mut stream, head) = shake(proxy.addresses().inbound[0]).await;
        assert_eq!(
            (
                status(&head),
                header(&head, "upgrade"),
                header(&head, "connection"),
                header(&head, "sec-websocket-accept"),
                header(&head, "content-length")
            ),
            (
                101,
                Some("websocket"),
                Some("Upgrade"),
                Some("HSmrc0sMlYUkAGmm5OPpG2HaGWk="),
                None
            ),
            "{head}"
        );
        let asked = heads.recv().await.unwrap();
        assert_eq!(header(&asked, "sec-websocket-key"), Some("x3JJHMbDL1EzLkh9GBhXDw=="));
        expect(&mut stream, GREETING).await;
        // Frames that look like requests, or like no line at all, are nobody's business.
        for frame in [
            &b"\x82\x05hello"[..],
            b"GET /\" HTTP/1.1\nHost: a\n\n",
            &[b'x'; 200_000],
            b"\0",
        ] {
            let (mut reading, mut writing) = stream.split();
            let mut back = vec![0; frame.len()];
            let (wrote, read) = tokio::join!(writing.write_all(frame), reading.read_exact(&mut back));
            wrote.unwrap();
            read.unwrap();
            assert!(back == frame);
        }
        let open = proxy.telemetry().take_windows(Cut::All).into_values().flatten().next();
        let open = open.expect("it is counted while it is open");
        let sent = 7 + 25 + 200_000 + 1;
        assert_eq!((open.open, open.duration.count(), open.status), (1, 0, 101));
        assert_eq!((open.request_bytes, open.response_bytes), (sent, sent + 4));
        // The end of one direction passes on, and the other's comes back.
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        expect(&mut stream, b"bye").await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        let series = recorded(proxy.telemetry(), 1).await;
        let one = &series[0];
        assert_eq!(
            (
                one.route.as_str(),
                one.method.as_str(),
                one.protocol.as_str(),
                one.status,
                one.error
            ),
            ("/chat", "GET", "http/1.1", 101, false)
        );
        assert_eq!((one.request_bytes, one.response_bytes), (sent + 3, sent + 4 + 3));
        // The destination's connection is not used again.
        assert_eq!(get(proxy.addresses().inbound[0], "/chat").await.1, "ok");
        stop(proxy).await;
    });
}

#[test]
fn two_proxies_in_a_row_carry_it_and_know_each_other() {
    block_on(async {
        let (to, mut heads) = chat().await;
        let callee = inbound("chat", "\"/chat\"", to, "");
        let caller = proxy(&yaml(
            "frontend",
            &format!(
                "outbound:\n  - {{listen: 127.0.0.1:0, service: chat, routes: [\"/chat\"], destinations: [{{address: {}}}]}}",
                callee.addresses().inbound[0]
            ),
        ));
        let (mut stream, head) = shake(caller.addresses().outbound[0]).await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-peer")),
            (101, None),
            "{head}"
        );
        assert_eq!(header(&heads.recv().await.unwrap(), "x-emberline-peer"), None);
        expect(&mut stream, GREETING).await;
        stream.write_all(b"\x82\x01x").await.unwrap();
        expect(&mut stream, b"\x82\x01x").await;
        drop(stream);
        for (proxy, side, peer) in [(&caller, Side::Client, "chat"), (&callee, Side::Server, "frontend")] {
            let series = recorded(proxy.telemetry(), 1).await;
            assert_eq!((series[0].side, series[0].status, series[0].error), (side, 101, false));
            let found = series[0].peer.as_ref().map(|peer| peer.service.as_str());
            assert_eq!(found, Some(peer), "{series:?}");
            assert_eq!((series[0].request_bytes, series[0].response_bytes), (3, 7));
        }
        stop(caller).await;
        stop(callee).await;
    });
}

#[test]
fn a_refusal_is_passed_on_and_the_connection_goes_on_with_http() {
    block_on(async {
        let app = App::start(|request| async move {
            let refused = request.headers().contains_key("upgrade");
            http::Response::builder()
                .status(if refused { 403 } else { 200 })
                .body("answer".into())
                .unwrap()
        })
        .await;
        let proxy = inbound("chat", "\"/chat\"", app.address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        for _ in 0..2 {
            stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
            assert_eq!(status(&read_answer(&mut stream).await.0), 403);
            let plain = b"GET /chat HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(plain).await.unwrap();
            assert_eq!(status(&read_answer(&mut stream).await.0), 200);
        }
        assert_eq!(app.connections(), 1);
        recorded(proxy.telemetry(), 4).await;
        stop(proxy).await;
    });
}

/// Answers of a connection to which these bytes were sent, until the `n`-th ends in `ok`.
async fn answers(proxy: &Proxy, bytes: &[u8], n: usize) -> String {
    let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    let reading = async {
        while answer.matches("\r\n\r\nok").count() < n
            && let Ok(byte) = stream.read_u8().await
        {
            answer.push(char::from(byte));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("no answer");
    answer
}

#[test]
fn what_is_no_handshake_loses_its_upgrade_and_is_an_ordinary_request() {
    block_on(async {
        let (to, mut heads) = chat().await;
        let proxy = inbound("chat", "\"/chat\"", to, ", protocol: http1");
        let plain = "GET /chat HTTP/1.1\r\nHost: a\r\n\r\n";
        for request in [
            HANDSHAKE.replace("keep-alive, Upgrade", "keep-alive"),
            HANDSHAKE.replace("Connection: keep-alive, Upgrade\r\n", ""),
            HANDSHAKE.replace("GET", "POST"),
            HANDSHAKE
                .replace("HTTP/1.1", "HTTP/1.0")
                .replace("keep-alive, ", "keep-alive,"),
            HANDSHAKE.replace("WebSocket\r\n", "h2c\r\n"),
            HANDSHAKE.replace("WebSocket\r\n", "h2c, websocket\r\n"),
            HANDSHAKE.replace("Upgrade: WebSocket\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n"),
            HANDSHAKE.replace("Sec-WebSocket-Key", "Sec-WebSocket-Key1"),
            // A body is a body, and what is in it is no request.
            HANDSHAKE.replace(
                "\r\n\r\n",
                &format!("\r\nContent-Length: {}\r\n\r\n{plain}", plain.len()),
            ),
        ] {
            let answer = answers(&proxy, request.as_bytes(), 1).await;
            assert_eq!(status(&answer), 200, "{request}");
            let head = heads.recv().await.unwrap().to_lowercase();
            assert_eq!(
                (header(&head, "upgrade"), header(&head, "connection")),
                (None, None),
                "{head}"
            );
        }
        assert!(heads.try_recv().is_err(), "a body was taken for a request");
        stop(proxy).await;
    });
}

#[test]
fn what_is_sent_before_the_answer_is_http_until_the_destination_has_switched() {
    block_on(async {
        let (to, mut heads) = chat().await;
        let proxy = inbound("chat", "\"/chat\"", to, ", protocol: http1");
        let smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
        // It switches: these bytes are the destination's to read, after its 101.
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        let both = format!("{HANDSHAKE}{smuggled}");
        stream.write_all(both.as_bytes()).await.unwrap();
        assert_eq!(status(&read_head(&mut stream).await), 101);
        expect(&mut stream, &[GREETING, smuggled.as_bytes()].concat()).await;
        assert!(heads.recv().await.unwrap().starts_with("GET /chat "));
        drop(stream);
        recorded(proxy.telemetry(), 1).await;
        // It does not: they are a request like any other, and judged as one.
        let declined = HANDSHAKE.replace("WebSocket", "h2c");
        let ambiguous = "POST /admin HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = answers(&proxy, format!("{declined}{ambiguous}").as_bytes(), 2).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{answer}");
        assert!(heads.recv().await.unwrap().starts_with("GET /chat "));
        assert!(heads.try_recv().is_err(), "it went past the judge of framing");
        stop(proxy).await;
    });
}

#[test]
fn a_switch_to_something_else_is_502_and_tells_the_caller_nothing() {
    block_on(async {
        for answer in [
            "Connection: upgrade\r\nUpgrade: x\r\n",
            "Upgrade: websocket\r\n",
            "Connection: upgrade\r\n",
            "",
        ] {
            let app = raw_app(move |mut stream: TcpStream| async move {
                read_head(&mut stream).await;
                let head = format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\nsecret");
                let _ = stream.write_all(head.as_bytes()).await;
                std::future::pending::<()>().await;
            })
            .await;
            let proxy = inbound("chat", "\"/chat\"", app, "");
            let (mut stream, head) = shake(proxy.addresses().inbound[0]).await;
            assert_eq!(
                (status(&head), header(&head, "x-emberline-error")),
                (502, Some("upstream_protocol_error")),
                "{head}"
            );
            let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            assert!(!String::from_utf8_lossy(&body).contains("secret"));
            let series = recorded(proxy.telemetry(), 1).await;
            assert_eq!((series[0].status, series[0].error), (502, true));
            assert_eq!(flag(&proxy.metrics(), "UPE"), 1);
            stop(proxy).await;
        }
    });
}

#[test]
fn one_that_is_idle_for_too_long_ends_without_an_error() {
    block_on(async {
        let (to, _heads) = chat().await;
        let proxy = inbound("chat", "\"/chat\"", to, ", timeouts: {tcp_idle_ms: 80}");
        let (mut stream, head) = shake(proxy.addresses().inbound[0]).await;
        assert_eq!(status(&head), 101);
        expect(&mut stream, GREETING).await;
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
        assert!(matches!(ended.expect("it stays open"), Ok(0) | Err(_)));
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].status, series[0].error), (101, false));
        assert_eq!(flag(&proxy.metrics(), "SI"), 1);
        stop(proxy).await;
    });
}

#[test]
fn a_stop_waits_for_one_that_ends_and_records_one_that_does_not() {
    block_on(async {
        for (drain_seconds, ends) in [(30, true), (0, false)] {
            let (to, _heads) = chat().await;
            let proxy = proxy(&yaml(
                "chat",
                &format!(
                    "drain_seconds: {drain_seconds}\nroutes: [\"/chat\"]\ninbound: [{{listen: 127.0.0.1:0, to: {to}}}]"
                ),
            ));
            let telemetry = proxy.telemetry().clone();
            let (mut stream, head) = shake(proxy.addresses().inbound[0]).await;
            assert_eq!(status(&head), 101);
            expect(&mut stream, GREETING).await;
            let stopping = tokio::spawn(stop(proxy));
            if ends {
                // The drain has begun, or begins now: either way frames pass until the caller has had enough.
                for _ in 0..20 {
                    stream.write_all(b"\x82\x01x").await.unwrap();
                    expect(&mut stream, b"\x82\x01x").await;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                assert!(!stopping.is_finished(), "the stop did not wait");
                drop(stream);
            }
            stopping.await.unwrap();
            let mut series = totals(&telemetry);
            series.retain(|s| s.duration.count() > 0);
            assert_eq!(series.len(), 1, "{series:?}");
            assert_eq!(
                (series[0].status, series[0].error, series[0].open),
                (101, false, 0),
                "{series:?}"
            );
        }
    });
}

//! Everything that can go wrong between the proxy and its two neighbours, with what the caller and the telemetry see.

use std::time::Duration;

use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;

/// Times that a test waits for; the other tests keep the defaults, which no slow machine meets.
const SHORT: &str = ", timeouts: {request_ms: 150, idle_ms: 150}";

/// Asks once through an inbound proxy; checks the answer's status and reason and the record's flag.
async fn fails(to: std::net::SocketAddr, more: &str, expected: u16, reason: &str, flag_name: &str) {
    let proxy = inbound("cart", "\"/\"", to, more);
    let (head, body) = get(proxy.addresses().inbound[0], "/").await;
    assert_eq!(
        (status(&head), header(&head, "x-emberline-error")),
        (expected, Some(reason)),
        "{head}{body}"
    );
    let series = recorded(proxy.telemetry(), 1).await;
    assert_eq!(
        (series[0].status, series[0].error, series[0].route.as_str()),
        (expected, true, "/")
    );
    assert_eq!(flag(&proxy.metrics(), flag_name), 1);
    stop(proxy).await;
}

#[test]
fn nobody_there_is_503_uf() {
    block_on(async { fails(refusing(), "", 503, "upstream_connection_failure", "UF").await });
}

#[test]
fn no_answer_in_time_is_504_ut() {
    block_on(async {
        let silent = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        fails(silent, SHORT, 504, "upstream_request_timeout", "UT").await;
    });
}

#[test]
fn a_connection_that_ends_before_the_answer_is_502_uc() {
    block_on(async {
        let closing = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
        })
        .await;
        fails(closing, "", 502, "upstream_connection_closed", "UC").await;
    });
}

#[test]
fn what_is_no_http_is_502_upe() {
    block_on(async {
        let babbling = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await;
            std::future::pending::<()>().await;
        })
        .await;
        fails(babbling, "", 502, "upstream_protocol_error", "UPE").await;
    });
}

#[test]
fn switching_protocols_without_being_asked_is_502_upe() {
    block_on(async {
        let switching = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nsecret";
            let _ = stream.write_all(answer).await;
            std::future::pending::<()>().await;
        })
        .await;
        fails(switching, "", 502, "upstream_protocol_error", "UPE").await;
    });
}

/// An answer that breaks off is never a complete-looking one.
async fn breaks_off(start: &'static [u8], stall: bool, flag_name: &str) {
    let app = raw_app(move |mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(start).await;
        if stall {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = inbound("cart", "\"/\"", app, if stall { SHORT } else { "" });
    let answer = send_raw(proxy.addresses().inbound[0], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        !answer.ends_with("0\r\n\r\n"),
        "a truncated body looks complete: {answer}"
    );
    let series = recorded(proxy.telemetry(), 1).await;
    assert_eq!((series[0].status, series[0].error), (200, true));
    assert_eq!(flag(&proxy.metrics(), flag_name), 1, "{}", proxy.metrics());
    stop(proxy).await;
}

#[test]
fn a_stream_of_events_may_be_silent_for_longer_than_a_body() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
            let _ = stream.write_all(head).await;
            // Several times as long as a body may say nothing.
            tokio::time::sleep(Duration::from_millis(800)).await;
            let _ = stream.write_all(b"data: 2\n\n").await;
        })
        .await;
        let proxy = inbound("cart", "\"/\"", app, SHORT);
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = send_raw(proxy.addresses().inbound[0], request).await;
        assert!(answer.contains("data: 1") && answer.contains("data: 2"), "{answer}");
        assert_eq!(flag(&proxy.metrics(), "SI"), 0);
        stop(proxy).await;
    });
}

#[test]
fn an_answer_that_ends_before_its_length_is_an_error_with_uc() {
    block_on(breaks_off(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        false,
        "UC",
    ));
}

#[test]
fn an_answer_that_ends_within_a_chunk_is_an_error_with_uc() {
    block_on(breaks_off(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        false,
        "UC",
    ));
}

#[test]
fn an_answer_that_stops_moving_is_an_error_with_si() {
    block_on(breaks_off(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        true,
        "SI",
    ));
}

#[test]
fn bytes_after_an_answer_are_never_taken_for_the_next_one() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let _ = stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
                )
                .await;
            // Kept open: only the excess bytes say that it must not be used again.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        let proxy = inbound("cart", "", app, "");
        for _ in 0..3 {
            assert_eq!(get(proxy.addresses().inbound[0], "/").await.1, "ok");
        }
        stop(proxy).await;
    });
}

#[test]
fn an_answer_with_two_framings_is_framed_once() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let answer =
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
            let _ = stream.write_all(answer).await;
            std::future::pending::<()>().await;
        })
        .await;
        let proxy = inbound("cart", "", app, "");
        let answer = send_raw(
            proxy.addresses().inbound[0],
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(
            (
                header(&answer, "content-length"),
                answer.ends_with("2\r\nok\r\n0\r\n\r\n")
            ),
            (None, true),
            "{answer}"
        );
        stop(proxy).await;
    });
}

#[test]
fn an_early_answer_closes_the_connection_that_is_still_owed_a_body() {
    block_on(async {
        let app = App::start(|request| async move {
            // Answers before the body has come, and never reads it.
            drop(request);
            http::Response::new(Full::from("early"))
        })
        .await;
        let proxy = inbound("cart", "", app.address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
            .await
            .unwrap();
        assert_eq!(read_answer(&mut stream).await.1, "early");
        drop(stream);
        // Were that connection used again, the next request would be read as the rest of the body.
        for _ in 0..3 {
            assert_eq!(get(proxy.addresses().inbound[0], "/").await.1, "early");
        }
        recorded(proxy.telemetry(), 4).await;
        stop(proxy).await;
    });
}

#[test]
fn an_early_answer_is_passed_on_though_the_destination_resets_the_upload() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig\n";
            let _ = stream.write_all(answer).await;
            // Closed with a body unread: the kernel resets the connection.
        })
        .await;
        let proxy = inbound("cart", "\"/\"", app, "");
        for attempt in 0..100 {
            let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
            let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let (mut reading, mut writing) = stream.split();
            let uploading = async {
                for _ in 0..10 {
                    if writing.write_all(&[b'x'; 100_000]).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let mut answer = Vec::new();
            let reading = async {
                while !answer.ends_with(b"\r\n\r\n")
                    && let Ok(byte) = reading.read_u8().await
                {
                    answer.push(byte);
                }
            };
            tokio::select! {
                () = uploading => {}
                () = reading => {}
            }
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(status(&answer), 413, "attempt {attempt}: {answer}");
        }
        stop(proxy).await;
    });
}

#[test]
fn a_caller_that_leaves_before_the_answer_is_no_error_of_the_service_and_has_no_latency() {
    block_on(async {
        let (asked, mut was_asked) = tokio::sync::mpsc::channel(1);
        let silent = raw_app(move |mut stream: TcpStream| {
            let asked = asked.clone();
            async move {
                read_head(&mut stream).await;
                asked.send(()).await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                asked.send(()).await.unwrap();
            }
        })
        .await;
        let proxy = inbound("cart", "\"/\"", silent, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        was_asked.recv().await.unwrap();
        drop(stream);
        // The application's connection ends with the caller's.
        tokio::time::timeout(PATIENCE, was_asked.recv())
            .await
            .expect("the request goes on without its caller");
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].status, series[0].error), (499, false));
        assert_eq!(flag(&proxy.metrics(), "DC"), 1);
        assert!(
            proxy
                .metrics()
                .lines()
                .all(|line| !line.starts_with("emberline_proxy_request_duration_seconds_count")),
            "how long it waited is no latency"
        );
        stop(proxy).await;
    });
}

#[test]
fn a_caller_that_leaves_in_the_middle_of_the_answer_is_no_error_of_the_service() {
    block_on(async {
        let endless = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let proxy = inbound("cart", "\"/\"", endless, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_head(&mut stream).await;
        drop(stream);
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].status, series[0].error), (499, false));
        assert_eq!(flag(&proxy.metrics(), "DC"), 1);
        stop(proxy).await;
    });
}

#[test]
fn slow_callers_are_closed_by_named_times() {
    block_on(async {
        let app = App::start(|request| async move {
            use http_body_util::BodyExt;
            let whole = request.into_body().collect().await.is_ok();
            http::Response::new(Full::from(if whole { "app" } else { "broken" }))
        })
        .await;
        let text = yaml(
            "cart",
            &format!(
                "limits: {{header_ms: 100, body_idle_ms: 100, keep_alive_ms: 100, detect_ms: 50}}\n\
                 inbound: [{{listen: 127.0.0.1:0, to: {}, protocol: http1}}]",
                app.address
            ),
        );
        let proxy = proxy(&text);
        let address = proxy.addresses().inbound[0];
        for sent in [
            "",
            "GET / HT",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab",
        ] {
            // Returns when the proxy closes.
            send_raw(address, sent.as_bytes()).await;
        }
        // After a good request, too.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.1, "app");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok() && rest.is_empty(), "{rest:?}");
        eventually("each end is counted by its name", || {
            let metrics = proxy.metrics();
            let ended = |name: &str| {
                metric(
                    &metrics,
                    &format!("emberline_proxy_connections_broken_total{{reason=\"{name}\"}}"),
                )
            };
            (
                ended("keep_alive_timeout"),
                ended("header_timeout"),
                ended("body_timeout"),
            ) == (2, 1, 1)
        })
        .await;
        stop(proxy).await;
    });
}

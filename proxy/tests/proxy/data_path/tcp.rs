//! Protocols that nobody looks into.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;

/// Sends back every byte.
pub(super) async fn echo() -> std::net::SocketAddr {
    raw_app(|mut stream: TcpStream| async move {
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        let _ = writing.shutdown().await;
    })
    .await
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    block_on(async {
        let proxy = inbound("db", "", echo().await, ", protocol: tcp");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        for n in 0..10_u8 {
            let sent = [n; 1000];
            stream.write_all(&sent).await.unwrap();
            let mut back = [0; 1000];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, sent);
        }
        // A half-close passes on, and the other half's end comes back.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!(
            (
                series[0].route.as_str(),
                series[0].protocol.as_str(),
                series[0].method.as_str()
            ),
            ("tcp", "tcp", "")
        );
        assert_eq!(
            (series[0].request_bytes, series[0].response_bytes, series[0].error),
            (10_000, 10_000, false)
        );
        stop(proxy).await;
    });
}

#[test]
fn detection_tells_http_from_other_bytes_on_one_port() {
    block_on(async {
        // Answers HTTP to what looks like HTTP, and echoes the rest.
        let app = raw_app(|mut stream: TcpStream| async move {
            let mut buf = [0; 4096];
            let n = stream.read(&mut buf).await.unwrap();
            let answer: &[u8] = if buf.starts_with(b"GET ") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            } else {
                &buf[..n]
            };
            let _ = stream.write_all(answer).await;
        })
        .await;
        let proxy = inbound("mixed", "", app, "");
        let address = proxy.addresses().inbound[0];
        assert_eq!(get(address, "/").await.1, "ok");
        for bytes in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"EHLO test\r\n",
            b"\x00",
        ] {
            assert_eq!(send_raw(address, bytes).await.as_bytes(), bytes);
        }
        // One byte at a time, as a slow network may deliver it.
        let mut stream = TcpStream::connect(address).await.unwrap();
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert_eq!(read_answer(&mut stream).await.1, "ok");
        let series = recorded(proxy.telemetry(), 6).await;
        let of = |protocol: &str| -> u64 {
            series
                .iter()
                .filter(|s| s.protocol == protocol)
                .map(|s| s.duration.count())
                .sum()
        };
        assert_eq!((of("http/1.1"), of("tcp")), (2, 4));
        stop(proxy).await;
    });
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    block_on(async {
        for protocol in ["tcp", "auto"] {
            let app = raw_app(|mut stream: TcpStream| async move {
                stream.write_all(b"220 ready\r\n").await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            })
            .await;
            let text = yaml(
                "mail",
                &format!(
                    "limits: {{detect_ms: 50}}\ninbound: [{{listen: 127.0.0.1:0, to: {app}, protocol: {protocol}}}]"
                ),
            );
            let proxy = proxy(&text);
            let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
            let mut greeting = [0; 11];
            let heard = tokio::time::timeout(PATIENCE, stream.read_exact(&mut greeting)).await;
            assert!(heard.is_ok() && &greeting == b"220 ready\r\n", "{protocol}");
            drop(stream);
            recorded(proxy.telemetry(), 1).await;
            stop(proxy).await;
        }
    });
}

#[test]
fn a_connection_opened_in_advance_is_http_when_its_request_comes() {
    block_on(async {
        let app = App::named("app").await;
        let text = yaml(
            "cart",
            &format!(
                "limits: {{detect_ms: 20}}\ninbound: [{{listen: 127.0.0.1:0, to: {}}}]",
                app.address
            ),
        );
        let proxy = proxy(&text);
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        // Longer than the detection waits: by then the destination is connected.
        eventually("the destination is connected", || app.connections() == 1).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.1, "app");
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!(series[0].protocol, "http/1.1");
        stop(proxy).await;
    });
}

#[test]
fn a_caller_that_says_nothing_and_leaves_reaches_nobody() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = inbound("cart", "", app.address, "");
        assert_eq!(send_raw_and_half_close(proxy.addresses().inbound[0]).await, "");
        assert_eq!((count(proxy.telemetry()), app.connections()), (0, 0));
        stop(proxy).await;
    });
}

async fn send_raw_and_half_close(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn an_idle_connection_ends_and_a_dead_destination_is_an_error() {
    block_on(async {
        let idle = inbound("db", "", echo().await, ", protocol: tcp, timeouts: {tcp_idle_ms: 80}");
        let mut stream = TcpStream::connect(idle.addresses().inbound[0]).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 10]))
            .await
            .expect("it stays open");
        assert!(matches!(ended, Ok(0) | Err(_)));
        let series = recorded(idle.telemetry(), 1).await;
        assert_eq!((series[0].error, flag(&idle.metrics(), "SI")), (false, 1));
        stop(idle).await;

        let dead = inbound("db", "", refusing(), ", protocol: tcp");
        assert_eq!(send_raw(dead.addresses().inbound[0], b"").await, "");
        let series = recorded(dead.telemetry(), 1).await;
        assert_eq!((series[0].error, flag(&dead.metrics(), "UF")), (true, 1));
        stop(dead).await;
    });
}

//! What goes on beyond its answer: streams, slow readers, connections. None of it is latency, and none of it is unseen
//! while it lasts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_model::RequestSeries;
use emberline_proxy::telemetry::{Cut, Telemetry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{support::*, tcp::echo};

/// How long a stream of these tests goes on, at least.
const STREAM: Duration = Duration::from_millis(60);

/// An application that sends a head with a first chunk, and ends the body when it is told to.
async fn streaming(content_type: &'static str, end: Arc<Notify>) -> std::net::SocketAddr {
    raw_app(move |mut stream: TcpStream| {
        let end = Arc::clone(&end);
        async move {
            read_head(&mut stream).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:x\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            end.notified().await;
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
    })
    .await
}

/// Latency and what went on beyond it of one request to an application; and how long it took altogether.
async fn times_of(content_type: &'static str) -> (f64, f64, f64) {
    let end = Arc::new(Notify::new());
    let proxy = inbound(
        "news",
        "\"/events\"",
        streaming(content_type, Arc::clone(&end)).await,
        "",
    );
    let started = Instant::now();
    let mut viewer = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
    viewer
        .write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    // The stream goes on for so long after its head has come.
    read_head(&mut viewer).await;
    tokio::time::sleep(STREAM).await;
    end.notify_one();
    let series = recorded(proxy.telemetry(), 1).await;
    let all = started.elapsed().as_secs_f64();
    stop(proxy).await;
    assert_eq!((series[0].status, series[0].error), (200, false));
    (series[0].duration.max(), series[0].streaming_s, all)
}

#[test]
fn the_latency_of_a_stream_ends_with_its_head() {
    block_on(async {
        for content_type in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/x-ndjson",
            "multipart/x-mixed-replace;boundary=x",
        ] {
            let (latency, streaming, all) = times_of(content_type).await;
            assert!(
                streaming >= STREAM.as_secs_f64(),
                "{content_type}: {streaming} s of streaming"
            );
            assert!(
                latency <= all - STREAM.as_secs_f64(),
                "{content_type}: a latency of {latency} s of {all} s"
            );
        }
    });
}

#[test]
fn the_latency_of_an_ordinary_answer_ends_with_its_body() {
    block_on(async {
        let (latency, streaming, _) = times_of("application/json").await;
        assert!(latency >= STREAM.as_secs_f64(), "{latency}");
        assert!(streaming < latency, "{streaming}");
    });
}

#[test]
fn the_time_that_a_reader_takes_is_not_the_servers() {
    const BYTES: usize = 32 << 20;
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(&vec![b'x'; BYTES]).await;
        })
        .await;
        let proxy = inbound("files", "\"/file\"", app, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        let started = Instant::now();
        stream
            .write_all(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut stream).await;
        // Far more than the buffers between hold, so that the proxy waits for this reader.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut body = vec![0; BYTES];
        stream.read_exact(&mut body).await.unwrap();
        let series = recorded(proxy.telemetry(), 1).await;
        let all = started.elapsed().as_secs_f64();
        assert_eq!((series[0].status, series[0].response_bytes), (200, BYTES as u64));
        assert!(series[0].streaming_s > 0.1, "{}", series[0].streaming_s);
        assert!(series[0].duration.max() <= all - series[0].streaming_s + 1e-6);
        stop(proxy).await;
    });
}

/// What the window that runs holds of the one series there is.
fn window(telemetry: &Telemetry) -> Option<RequestSeries> {
    let windows = telemetry.take_windows(Cut::All);
    windows.into_values().flatten().next()
}

async fn ping(stream: &mut TcpStream, bytes: usize) {
    stream.write_all(&vec![b'.'; bytes]).await.unwrap();
    stream.read_exact(&mut vec![0; bytes]).await.unwrap();
}

#[test]
fn a_connection_that_stays_open_shows_its_bytes_in_every_window_and_itself_at_its_end() {
    block_on(async {
        let to = echo().await;
        let text = yaml(
            "shop",
            &format!(
                "outbound: [{{listen: 127.0.0.1:0, service: redis, protocol: tcp, destinations: [{{address: {to}}}]}}]"
            ),
        );
        let proxy = proxy(&text);
        let telemetry = proxy.telemetry().clone();
        let mut stream = TcpStream::connect(proxy.addresses().outbound[0]).await.unwrap();
        let of = |series: &RequestSeries| {
            (
                series.destination.clone(),
                series.duration.count(),
                series.open,
                series.request_bytes,
                series.response_bytes,
            )
        };
        for bytes in [100, 1000] {
            ping(&mut stream, bytes).await;
            let bytes = bytes as u64;
            assert_eq!(of(&window(&telemetry).unwrap()), ("redis".into(), 0, 1, bytes, bytes));
        }
        assert_eq!(
            of(&window(&telemetry).unwrap()).2,
            1,
            "it is open when nothing moves, too"
        );
        ping(&mut stream, 10).await;
        drop(stream);
        let series = recorded(&telemetry, 1).await;
        assert_eq!(of(&series[0]), ("redis".into(), 1, 0, 1110, 1110));
        assert_eq!(window(&telemetry), None, "nothing is open any more");
        stop(proxy).await;
    });
}

#[test]
fn what_is_open_when_the_proxy_stops_is_in_its_last_window() {
    block_on(async {
        let to = echo().await;
        let events = streaming_for_ever().await;
        let text = yaml(
            "shop",
            &format!(
                "drain_seconds: 0\nroutes: [\"/events\"]\ninbound: [{{listen: 127.0.0.1:0, to: {events}}}]\n\
                 outbound: [{{listen: 127.0.0.1:0, service: redis, protocol: tcp, destinations: [{{address: {to}}}]}}]"
            ),
        );
        let proxy = proxy(&text);
        let telemetry = proxy.telemetry().clone();
        let mut stream = TcpStream::connect(proxy.addresses().outbound[0]).await.unwrap();
        ping(&mut stream, 100).await;
        let mut viewer = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        viewer
            .write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut viewer).await;
        let metrics = proxy.metrics();
        assert_eq!(flag(&metrics, "DC"), 0);
        stop(proxy).await;
        let mut series = totals(&telemetry);
        series.retain(|s| s.duration.count() > 0);
        let found: Vec<_> = series
            .iter()
            .map(|s| (s.protocol.as_str(), s.status, s.error, s.duration.count(), s.open))
            .collect();
        assert_eq!(found, [("tcp", 0, false, 1, 0), ("http/1.1", 200, false, 1, 0)]);
        assert_eq!(series[0].response_bytes, 100);
    });
}

async fn streaming_for_ever() -> std::net::SocketAddr {
    raw_app(|mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:x\n\r\n";
        stream.write_all(head).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

#[test]
fn a_stream_is_open_while_it_is_watched_and_its_viewers_leaving_is_its_ordinary_end() {
    block_on(async {
        let proxy = inbound("news", "\"/events\"", streaming_for_ever().await, "");
        let mut viewer = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        viewer
            .write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut viewer).await;
        let mut seen = Vec::new();
        eventually("the first event is counted while the stream is open", || {
            seen.extend(window(proxy.telemetry()));
            seen.iter().map(|s| s.response_bytes).sum::<u64>() == 7
        })
        .await;
        assert!(
            seen.iter()
                .all(|s| s.open == 1 && s.duration.count() == 0 && s.status == 200)
        );
        drop(viewer);
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!(
            (
                series[0].status,
                series[0].error,
                series[0].response_bytes,
                series[0].open
            ),
            (200, false, 7, 0)
        );
        stop(proxy).await;
    });
}

#[test]
fn the_connection_of_tcp_has_the_latency_of_reaching_its_destination() {
    block_on(async {
        let proxy = inbound("db", "", echo().await, ", protocol: tcp");
        let started = Instant::now();
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        ping(&mut stream, 10).await;
        tokio::time::sleep(STREAM).await;
        drop(stream);
        let series = recorded(proxy.telemetry(), 1).await;
        let all = started.elapsed().as_secs_f64();
        assert!(series[0].streaming_s >= STREAM.as_secs_f64());
        assert!(series[0].duration.max() <= all - STREAM.as_secs_f64());
        stop(proxy).await;
    });
}

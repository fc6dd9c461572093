//! Thousands of connections that begin and do not go on take nobody's place: the real server, in the memory and with the
//! descriptors of a small container, goes on taking profiles and saying that it is ready. `make bench NAME=hostile` is the
//! long version.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use emberline_tests::{
    MEMORY_CAP_BYTES, Scratch, Server,
    flood::{self, Flood},
    get, get_json, request, serial, wait_for,
};

const DESCRIPTORS: u64 = 256;

#[test]
fn a_flood_of_connections_keeps_nobody_out_and_leaves_nothing() {
    let _serial = serial();
    let scratch = Scratch::new("hostile-connections");
    let server = Server::start_with(&scratch.path().join("data"), &[], Some(DESCRIPTORS));
    let flood = Flood {
        per_port: 300,
        time: Duration::from_secs(8),
        askers: 4,
        with_attacks: false,
    };
    let seen = flood::run(&server, flood);
    assert_eq!(seen.not_ready, [0u16; 0], "of {} answers of /-/ready", seen.ready_asked);
    assert_eq!(seen.ingest_failed, [0u16; 0], "of {} uploads", seen.ingest_ms.len());
    assert!(seen.ingest_ms.len() > 5, "{:?}", seen.ingest_ms);
    // One that comes while everybody else comes, too, may have to come again.
    let (taken, failed) = (seen.fresh_ms.len(), seen.fresh_failed.len());
    assert!(taken > 5 && failed * 5 <= taken, "{taken} uploads taken, {failed} not");
    let peak = server.peak_rss_mb();
    assert!(peak < MEMORY_CAP_BYTES as f64 / 1e6, "{peak} MB");
    // Times are the server's own; the test only says that they have an end.
    assert!(seen.idle_closed_after.is_some(), "silent connections stay for ever");
    let connections = get_json(server.web, "/api/v1/status").unwrap()["connections"].clone();
    let held = connections["limits"]["connections_per_port"].as_u64().unwrap();
    assert!(held < 300, "the flood was larger than the places: {connections:#}");
    for port in ["web", "otlp_http", "otlp_grpc"] {
        let made_room = connections["ports"][port]["ended"]["made_room"].as_u64().unwrap();
        assert!(made_room > 0, "{port}: {connections:#}");
    }
    wait_for("end of the other connections", Duration::from_secs(90), || {
        let connections = get_json(server.web, "/api/v1/status").ok()?["connections"].clone();
        let open = |port: &str| connections["ports"][port]["open"].as_u64();
        // The one that asks is among them.
        (open("web")? + open("otlp_http")? + open("otlp_grpc")? <= 1).then_some(())
    });
    let metrics = get(server.web, "/metrics").unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.contains("emberline_server_connections_ended_total"),
        "{metrics}"
    );
    let log = std::fs::read_to_string(scratch.path().join("data.server.log")).unwrap();
    let warnings = log.lines().filter(|line| line.contains("to make room")).count();
    assert!((1..=2).contains(&warnings), "one a minute at most: {log}");
    server.stop();
}

/// A keep-alive connection that is asked on now and then is nobody's flood.
#[test]
fn a_connection_that_is_in_use_outlives_a_flood_and_the_stop_waits_for_nobody_idle() {
    let _serial = serial();
    let scratch = Scratch::new("kept-connection");
    let server = Server::start_with(&scratch.path().join("data"), &[], Some(DESCRIPTORS));
    let mut kept = TcpStream::connect(server.otlp_http).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut ask = || {
        let body = "main;leaf 5\n";
        let head = format!(
            "POST /api/ingest?service=kept&version=v1&time=received HTTP/1.1\r\nHost: c\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        kept.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let read = kept.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    assert!(ask().starts_with("HTTP/1.1 200"));
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.extend((0..100).map(|_| TcpStream::connect(server.otlp_http).unwrap()));
        assert!(
            ask().starts_with("HTTP/1.1 200"),
            "the one in use was ended for silent ones"
        );
    }
    let mut ended = 0;
    for stream in &mut silent {
        stream.set_nonblocking(true).unwrap();
        ended += usize::from(!matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock));
    }
    assert!(ended > 0, "all silent ones have a place: nothing was tried");
    let answer = request(server.otlp_http, "POST", "/v1/metrics", "application/x-protobuf", b"").unwrap();
    assert_eq!(answer.status, 200);
    server.stop();
}

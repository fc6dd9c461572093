//! Who leaves before the answer costs nothing any more: a real server, real connections that are closed.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::TcpStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use emberline_tests::{Scratch, Server, get, get_json, request, serial, wait_for};

/// Different stacks of a window: what makes a question take its time.
const STACKS: u32 = 20_000;
const WINDOWS: u64 = 6;
/// Questions at once; the store answers two at a time.
const CROWD: usize = 40;

fn metric(server: &Server, name: &str) -> u64 {
    let page = get(server.web, "/metrics").unwrap();
    let page = String::from_utf8(page.body).unwrap();
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {page}"));
    value.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

fn fill(server: &Server) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for window in 1..=WINDOWS {
        let mut body = String::new();
        for stack in 0..STACKS {
            let (a, b) = (stack % 100, stack / 100);
            writeln!(body, "main;a{a};b{b};c{};leaf{stack} 1", stack % 7).unwrap();
        }
        let from = now_s / 10 * 10 - window * 10;
        let path = format!("/api/ingest?service=busy&version=v1&from={from}&until={}", from + 10);
        let answer = request(server.otlp_http, "POST", &path, "text/plain", body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
    let applied = || {
        let status = get_json(server.web, "/api/v1/status").unwrap();
        (status["store"]["lsn_applied"] == status["store"]["lsn_durable"]).then_some(())
    };
    wait_for("applied batches", Duration::from_secs(120), applied);
}

/// Sends a question without waiting for the answer.
fn begin(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.web).unwrap();
    let head = "GET /api/v1/merge?from=now-10m&limit=0 HTTP/1.1\r\nHost: emberline\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn questions_end_when_their_askers_leave() {
    let _serial = serial();
    let scratch = Scratch::new("abandoned");
    let server = Server::start(&scratch.path().join("data"));
    fill(&server);
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    // A machine may be so fast that a crowd is answered before it leaves; not every time.
    while metric(&server, "emberline_web_questions_abandoned_total") == 0 {
        rounds += 1;
        assert!(rounds <= 20, "every question was answered before its asker left");
        let crowd: Vec<TcpStream> = (0..CROWD).map(|_| begin(&server)).collect();
        wait_for("question under way", Duration::from_secs(60), || {
            let asked = metric(&server, "emberline_store_queries_total");
            (asked > 0).then_some(())
        });
        drop(crowd);
        let left = Instant::now();
        for name in ["emberline_web_questions_running", "emberline_store_queries_running"] {
            wait_for("end of abandoned questions", Duration::from_secs(60), || {
                (metric(&server, name) == 0).then_some(())
            });
        }
        longest = longest.max(left.elapsed());
    }
    println!("questions under way ended {longest:?} after their askers had left");
    // The next one is answered in full, and ingest was never in the way.
    let merged = get_json(server.web, "/api/v1/merge?from=now-10m&limit=1").unwrap();
    assert_eq!(merged["samples"], u64::from(STACKS) * WINDOWS);
    server.stop();
}

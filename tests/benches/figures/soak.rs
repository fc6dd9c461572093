//! A server under load and attack together, for long: does it grow, does it slow down, does anybody honest notice.
//!
//! `SOAK_MINUTES` sets how long (default 120). A mesh of services reports its windows in real time over OTLP/HTTP; from other
//! addresses of this machine come the requests that are made to cost memory, names that are made up, and uploads that
//! stall; questions are asked all the while. Prints how memory changed per hour (a line through the second half of
//! the time, when the tables are full) and how long honest senders waited. These send again when they are told to, as SDKs do,
//! for ten seconds in all; one that has to give up is a failure.
//!
//! Wrong on purpose: all of it runs on the cores of the server, so times include waiting for the load's own work.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use emberline_model::{WorkloadWindow, otlp, time::Clock, time::SystemClock, time::window_start};
use emberline_tests::{
    Scratch, Server,
    generator::{
        Random,
        mesh::{Build, Shape},
    },
    get, hostile, server_pid,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use crate::{Figure, cost::memory_mb, setting};

const COMMAND: &str = "make bench NAME=soak";
const PROTOBUF: &str = "application/x-protobuf";
const SERVICES: usize = 5;
const INSTANCES: usize = 4;
/// Made-up processes in one request, and the pause between requests.
const MADE_UP: usize = 500;
const PAUSE: Duration = Duration::from_millis(500);
/// Pause between two requests that cost memory.
const ATTACK_PAUSE: Duration = Duration::from_secs(2);
const STALLED: usize = 100;
/// As long as exporters of OpenTelemetry's SDKs try.
const GIVE_UP: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is measured while it runs.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    honest_ms: Mutex<Vec<f64>>,
    question_ms: Mutex<Vec<f64>>,
    made_up: AtomicU64,
    told_to_wait: AtomicU64,
    sent_again: AtomicU64,
    refusals: Mutex<Vec<String>>,
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// A pause that ends early when all is over.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50).min(time));
        }
    }
}

fn push(list: &Mutex<Vec<f64>>, value: f64) {
    list.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(value);
}

/// One POST from an address of this machine; answers the status.
fn post(from: u8, to: SocketAddr, path: &str, body: &[u8]) -> Result<u16> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((IpAddr::from([127, 0, 0, from]), 0)).into())?;
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.0\r\nHost: c\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.context("not an HTTP answer")
}

/// The instances of one service report each window when it is over.
fn report(seen: &Seen, server: &Server, service: usize) {
    let build = Build::new(&format!("soak-{service}"), 1, &Shape::SMALL);
    let mut random = Random::new(service as u64);
    let mut last = window_start(SystemClock.now_unix_s());
    while seen.goes_on() {
        let now = window_start(SystemClock.now_unix_s());
        if now == last {
            seen.pause(Duration::from_millis(200));
            continue;
        }
        for instance in 0..INSTANCES {
            let requests = build.requests(&mut random, instance, last);
            let profiles = build.window(&mut random, instance, last);
            for (path, body) in [
                ("/v1/metrics", otlp::encode_requests(&requests).encode_to_vec()),
                ("/v1/profiles", otlp::encode_profiles(&profiles).encode_to_vec()),
            ] {
                let asked = Instant::now();
                let answer = loop {
                    let answer = post(1, server.otlp_http, path, &body);
                    let later = matches!(answer, Ok(503)) && asked.elapsed() < GIVE_UP && seen.goes_on();
                    if !later {
                        break answer;
                    }
                    seen.sent_again.fetch_add(1, Ordering::Relaxed);
                    seen.pause(Duration::from_secs(1));
                };
                match answer {
                    Ok(200) => push(&seen.honest_ms, asked.elapsed().as_secs_f64() * 1e3),
                    // At the end nobody waits any more.
                    _ if !seen.goes_on() => {}
                    other => {
                        let refusals = seen.refusals.lock();
                        let mut refusals = refusals.unwrap_or_else(std::sync::PoisonError::into_inner);
                        refusals.push(format!("{path}: {other:?}"));
                    }
                }
            }
        }
        last = now;
    }
}

/// Names without end.
fn make_up(seen: &Seen, server: &Server, window: &WorkloadWindow) {
    let mut number = 0u64;
    while seen.goes_on() {
        let mut all = ExportMetricsServiceRequest::default();
        for _ in 0..MADE_UP {
            number += 1;
            let mut window = window.clone();
            window.start_unix_s = window_start(SystemClock.now_unix_s());
            window.workload.service = format!("made-up-{}", number / 10);
            window.workload.instance = format!("{number}");
            let metrics = otlp::encode_requests(&window);
            all.resource_metrics.extend(metrics.resource_metrics);
        }
        match post(2, server.otlp_http, "/v1/metrics", &all.encode_to_vec()) {
            Ok(503) => drop(seen.told_to_wait.fetch_add(1, Ordering::Relaxed)),
            _ => drop(seen.made_up.fetch_add(1, Ordering::Relaxed)),
        }
        seen.pause(PAUSE);
    }
}

fn attack(seen: &Seen, server: &Server) {
    let attacks = hostile::attacks(hostile::max_request_bytes(server));
    for attack in attacks.iter().cycle() {
        if !seen.goes_on() {
            return;
        }
        hostile::send(server.otlp_http, attack, 1);
        seen.pause(ATTACK_PAUSE);
    }
}

fn ask(seen: &Seen, server: &Server) {
    let paths = [
        "/api/v1/services",
        "/api/v1/topology",
        "/api/v1/status",
        "/api/v1/merge?selector={service=\"soak-0\"}&from=now-10m",
    ];
    for path in paths.iter().cycle() {
        if !seen.goes_on() {
            return;
        }
        let asked = Instant::now();
        if get(server.web, path).is_ok_and(|answer| answer.status == 200) {
            push(&seen.question_ms, asked.elapsed().as_secs_f64() * 1e3);
        }
        seen.pause(Duration::from_secs(1));
    }
}

/// The slope of a line through points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * q) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let minutes = setting("SOAK_MINUTES").unwrap_or(120).max(1);
    let scratch = Scratch::new("bench-soak");
    let data = scratch.path().join("data");
    let server = Server::start(&data);
    println!("{}", server.cap_in_words());
    let pid = server_pid(&data);
    let seen = Seen::default();
    let mut memory: Vec<(f64, f64)> = Vec::new();
    let made_up = Build::new("made-up", 1, &Shape::SMALL).requests(&mut Random::new(1), 0, 0);
    let started = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let (seen, server, made_up) = (&seen, &server, &made_up);
        for service in 0..SERVICES {
            scope.spawn(move || report(seen, server, service));
        }
        scope.spawn(move || make_up(seen, server, made_up));
        scope.spawn(move || attack(seen, server));
        scope.spawn(move || ask(seen, server));
        let mut looks = 0;
        let mut open = hostile::stalled(server, STALLED);
        let outcome = loop {
            std::thread::sleep(LOOK_EVERY);
            let hours = started.elapsed().as_secs_f64() / 3600.0;
            let now = memory_mb(pid, "VmRSS");
            if now.is_nan() {
                break Err(anyhow::anyhow!("the server is gone"));
            }
            memory.push((hours, now));
            looks += 1;
            if looks % 30 == 0 {
                println!("{:6.2} h  {:8.1} MB", hours, memory.last().map_or(0.0, |point| point.1));
                open = hostile::stalled(server, STALLED);
            }
            if hours * 60.0 >= minutes as f64 {
                break Ok(());
            }
        };
        drop(open);
        seen.over.store(true, Ordering::Relaxed);
        outcome
    })?;
    let hours = started.elapsed().as_secs_f64() / 3600.0;
    let peak = server.peak_rss_mb();
    ensure!(get(server.web, "/-/ready")?.status == 200, "the server is not ready");
    server.stop();
    let take = |list: Mutex<Vec<f64>>| list.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let refusals = seen
        .refusals
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    println!(
        "made-up requests taken {}, told to wait {}; honest requests sent again {}, given up {}; {peak:.0} MB at most",
        seen.made_up.into_inner(),
        seen.told_to_wait.into_inner(),
        seen.sent_again.into_inner(),
        refusals.len()
    );
    ensure!(
        refusals.is_empty(),
        "honest senders were refused: {:?}",
        &refusals[..refusals.len().min(5)]
    );
    let (mut honest, mut questions) = (take(seen.honest_ms), take(seen.question_ms));
    let second_half = &memory[memory.len() / 2..];
    let n = honest.len();
    Ok(vec![
        Figure::plain("soak_hours", hours, "h", 1, COMMAND),
        Figure::plain(
            "soak_rss_slope_mb_per_hour",
            slope(second_half),
            "MB/h",
            second_half.len(),
            COMMAND,
        ),
        Figure::plain("soak_peak_rss_mb", peak, "MB", 1, COMMAND),
        Figure::plain("soak_ingest_p50_ms", quantile(&mut honest, 0.5), "ms", n, COMMAND),
        Figure::plain("soak_ingest_p99_ms", quantile(&mut honest, 0.99), "ms", n, COMMAND),
        Figure::plain(
            "soak_question_p99_ms",
            quantile(&mut questions, 0.99),
            "ms",
            questions.len(),
            COMMAND,
        ),
    ])
}

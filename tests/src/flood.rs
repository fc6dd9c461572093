//! Connections made to cost a server its places: thousands that begin and do not go on, on every port, beside questions and
//! requests that cost as much as they can.
//!
//! Guarantees: what is opened is bounded in number and in time, and goes to addresses of this machine only; whatever the
//! server closes is opened anew, at most once a second each. Every well-behaved request meanwhile is measured.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{Server, get, hostile, request};

/// How a connection keeps the server waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// 60 kB of a head without an end.
    HalfHead,
    /// Nothing at all.
    Silent,
    /// A byte of a body every second.
    SlowBody,
    /// Questions whose answers are never read.
    NotReading,
    /// HTTP/2 that begins and asks nothing.
    Framed,
}

const KINDS: [Kind; 5] = [
    Kind::HalfHead,
    Kind::Silent,
    Kind::SlowBody,
    Kind::NotReading,
    Kind::Framed,
];

/// What the flood is made of.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// Connections held on each port.
    pub per_port: usize,
    /// How long it lasts.
    pub time: Duration,
    /// Threads that ask heavy questions.
    pub askers: usize,
    /// Whether requests made to cost memory come with it.
    pub with_attacks: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Milliseconds of each well-behaved upload on a connection that is kept, as exporters do, sorted.
    pub ingest_ms: Vec<f64>,
    /// The same on a connection of its own each, which has to come past all those that are being opened.
    pub fresh_ms: Vec<f64>,
    /// Statuses of uploads on the kept connection that were not 200; 0 where it broke.
    pub ingest_failed: Vec<u16>,
    /// The same of the others.
    pub fresh_failed: Vec<u16>,
    /// Answers of `/-/ready` that were not 200; 0 where the connection broke.
    pub not_ready: Vec<u16>,
    /// Times that it was asked.
    pub ready_asked: usize,
    /// Connections opened, first and anew.
    pub opened: usize,
    /// The most memory of its own that the server was seen to hold, in MB.
    pub own_memory_mb: f64,
    /// Answers to heavy questions by status; 0 where the connection broke.
    pub answers: BTreeMap<u16, usize>,
    /// How long after the last was opened all that had sent nothing whole were closed.
    pub idle_closed_after: Option<Duration>,
}

/// A quantile of sorted times.
pub fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * quantile).ceil() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(f64::INFINITY)
}

const UPLOAD: &str = "/api/ingest?service=calm&version=v1&time=received";
const PROFILE: &[u8] = b"main;leaf 5\n";

/// An upload on a connection that is kept. The status; 0 where the connection broke.
fn upload(kept: &mut Option<TcpStream>, address: SocketAddr) -> u16 {
    let mut exchange = || -> Option<u16> {
        if kept.is_none() {
            *kept = TcpStream::connect(address).ok();
        }
        let stream = kept.as_mut()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let head = format!(
            "POST {UPLOAD} HTTP/1.1\r\nHost: c\r\nContent-Length: {}\r\n\r\n",
            PROFILE.len()
        );
        stream.write_all(&[head.as_bytes(), PROFILE].concat()).ok()?;
        let mut answer = Vec::new();
        // The answer is one object of JSON.
        while answer.last() != Some(&b'}') {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).ok().filter(|&read| read > 0)?;
            answer.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
    };
    let status = exchange().unwrap_or(0);
    if status == 0 {
        *kept = None;
    }
    status
}

/// Floods a server and measures what others see of it.
pub fn run(server: &Server, flood: Flood) -> Seen {
    // Each connection is a descriptor here, too.
    emberline_proxy::machine::raise_descriptors();
    let stop = AtomicBool::new(false);
    let opened = AtomicUsize::new(0);
    let mut seen = Seen::default();
    // The sender was there before the flood, for long enough to be known as one.
    let mut connection = None;
    for _ in 0..8 {
        upload(&mut connection, server.otlp_http);
        std::thread::sleep(Duration::from_millis(250));
    }
    // Asked before questions are told to wait.
    let most_bytes = hostile::max_request_bytes(server);
    std::thread::scope(|scope| {
        let (stop, opened) = (&stop, &opened);
        let holders: Vec<_> = [server.web, server.otlp_grpc, server.otlp_http]
            .into_iter()
            .map(|address| scope.spawn(move || hold(address, flood.per_port, stop, opened)))
            .collect();
        let askers: Vec<_> = (0..flood.askers)
            .map(|number| scope.spawn(move || ask(server.web, number, stop)))
            .collect();
        if flood.with_attacks {
            let attacks = hostile::attacks(most_bytes);
            scope.spawn(move || {
                for attack in attacks.iter().cycle().take_while(|_| !stop.load(Relaxed)) {
                    hostile::send(server.otlp_http, attack, 4);
                }
            });
        }
        let memory = scope.spawn(move || {
            let mut most = 0f64;
            while !stop.load(Relaxed) {
                most = most.max(server.own_memory_mb());
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let ready = scope.spawn(move || {
            let (mut asked, mut failed) = (0, Vec::new());
            while !stop.load(Relaxed) {
                let status = get(server.web, "/-/ready").map_or(0, |answer| answer.status);
                asked += 1;
                if status != 200 {
                    failed.push(status);
                }
                std::thread::sleep(Duration::from_millis(250));
            }
            (asked, failed)
        });
        let fresh = scope.spawn(move || {
            let one =
                || request(server.otlp_http, "POST", UPLOAD, "text/plain", PROFILE).map_or(0, |answer| answer.status);
            measure(stop, one)
        });
        let kept = scope.spawn(move || measure(stop, || upload(&mut connection, server.otlp_http)));
        std::thread::sleep(flood.time);
        stop.store(true, Relaxed);
        (seen.ingest_ms, seen.ingest_failed) = kept.join().expect("sending does not panic");
        (seen.fresh_ms, seen.fresh_failed) = fresh.join().expect("sending does not panic");
        (seen.ready_asked, seen.not_ready) = ready.join().expect("asking does not panic");
        seen.own_memory_mb = memory.join().expect("looking does not panic");
        for statuses in askers {
            for status in statuses.join().expect("asking does not panic") {
                *seen.answers.entry(status).or_default() += 1;
            }
        }
        let held: Vec<_> = holders
            .into_iter()
            .flat_map(|h| h.join().expect("holding does not panic"))
            .collect();
        seen.idle_closed_after = idle_closed(held);
    });
    seen.opened = opened.load(Relaxed);
    seen
}

/// Sorted times of what was answered with 200, in milliseconds, and the other statuses.
fn measure(stop: &AtomicBool, mut one: impl FnMut() -> u16) -> (Vec<f64>, Vec<u16>) {
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    while !stop.load(Relaxed) {
        let began = Instant::now();
        match one() {
            200 => times.push(began.elapsed().as_secs_f64() * 1e3),
            status => failed.push(status),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    times.sort_by(f64::total_cmp);
    (times, failed)
}

/// One that waits.
struct Held {
    kind: Kind,
    stream: TcpStream,
}

/// Holds so many connections of all kinds until it is told to stop.
fn hold(address: SocketAddr, count: usize, stop: &AtomicBool, opened: &AtomicUsize) -> Vec<Held> {
    let mut held: Vec<Option<Held>> = Vec::new();
    held.resize_with(count, || None);
    while !stop.load(Relaxed) {
        let round = Instant::now();
        for (at, place) in held.iter_mut().enumerate() {
            if stop.load(Relaxed) {
                break;
            }
            let goes_on = place.as_mut().is_some_and(Held::goes_on);
            if !goes_on {
                *place = Held::open(address, KINDS[at % KINDS.len()]);
                opened.fetch_add(1, Relaxed);
            }
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(round.elapsed()));
    }
    held.into_iter().flatten().collect()
}

impl Held {
    fn open(address: SocketAddr, kind: Kind) -> Option<Held> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
        stream.set_nonblocking(true).ok()?;
        let mut held = Held { kind, stream };
        let question = "GET /api/v1/merge?from=now-1h&limit=0 HTTP/1.1\r\nHost: c\r\n\r\n";
        let begin = match kind {
            Kind::HalfHead => format!("GET / HTTP/1.1\r\nHost: c\r\nX: {}", "a".repeat(60_000)),
            Kind::Silent => String::new(),
            Kind::SlowBody => "POST /v1/metrics HTTP/1.1\r\nHost: c\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9000\r\n\r\n".to_owned(),
            Kind::NotReading => question.repeat(20),
            // Its settings are the default ones.
            Kind::Framed => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
        };
        // What does not fit into the buffers is as good as sent.
        let _ = held.stream.write(begin.as_bytes());
        Some(held)
    }

    /// False when the server has closed it.
    fn goes_on(&mut self) -> bool {
        if self.kind == Kind::SlowBody
            && self
                .stream
                .write(b"a")
                .is_err_and(|e| e.kind() != ErrorKind::WouldBlock)
        {
            return false;
        }
        if self.kind == Kind::NotReading {
            return !matches!(self.stream.take_error(), Ok(Some(_)) | Err(_)) && self.stream.peer_addr().is_ok();
        }
        self.is_open()
    }

    fn is_open(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// How long it takes until the last is closed that never asked anything whole.
fn idle_closed(held: Vec<Held>) -> Option<Duration> {
    let began = Instant::now();
    let mut idle: Vec<Held> = held
        .into_iter()
        .filter(|held| matches!(held.kind, Kind::HalfHead | Kind::Silent | Kind::Framed))
        .collect();
    while began.elapsed() < Duration::from_secs(60) {
        idle.retain_mut(Held::is_open);
        if idle.is_empty() {
            return Some(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    None
}

/// What costs most to answer: expressions that match everything, and groups of everything.
pub const QUESTIONS: [&str; 4] = [
    "/api/v1/merge?from=now-1h&limit=0&selector=%7Bservice%3D~%22(.*a.*)*%7C(.%2Bb)%2B%7C.*%22%7D",
    "/api/v1/series?from=now-1h&group_by=service,version,instance,route,side,component,namespace",
    "/api/v1/heatmap?from=now-1h",
    "/api/v1/topology?from=now-1h",
];

/// Asks one after the other; the statuses.
fn ask(web: SocketAddr, number: usize, stop: &AtomicBool) -> Vec<u16> {
    // Refused ones come again at once, as from somebody who does not listen.
    let questions = QUESTIONS.iter().cycle().skip(number);
    let asked = questions.take_while(|_| !stop.load(Relaxed));
    asked
        .map(|question| get(web, question).map_or(0, |answer| answer.status))
        .collect()
}

//! A hundred proxies on one server: real `emberline serve` with its defaults, OTLP over gRPC, requests and profiles of
//! every proxy every 10 s, in real time. Then ten times the data: which costs grow, and how.
//!
//! The time of the first part is not compressed; `EMBERLINE_BENCH_SECONDS` (default 600) shortens it. The nine tenths that
//! make ten times the data (`EMBERLINE_BENCH_TIMES`) are windows before it, sent as fast as they are acknowledged.
//!
//! Wrong on purpose: generator and clients run on the same cores as the server, so times of answers include waiting for
//! them. Memory and CPU are the server's own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use emberline_model::{
    BatchId, Signal, WorkloadWindow,
    batch::BATCH_ID_HEADER,
    otlp,
    time::{Clock, SystemClock, WINDOW_SECONDS, window_start},
};
use emberline_tests::{
    Scratch, Server,
    generator::{
        Random,
        mesh::{Build, Shape},
    },
    get, server_pid,
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::metrics_service_client::MetricsServiceClient,
    profiles::v1development::profiles_service_client::ProfilesServiceClient,
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};

use crate::{
    Figure,
    cost::{cpu_ms_of, memory_mb},
    mesh_store::runtime,
    setting,
};

const COMMAND: &str = "make bench NAME=load";
const PROXIES: usize = 100;
const SERVICES: usize = 10;
const WINDOW_S: i64 = WINDOW_SECONDS as i64;
/// A question is asked so often when its CPU is measured: the system counts in hundredths of a second.
const REPEATED: u32 = 10;

fn seconds() -> i64 {
    setting("EMBERLINE_BENCH_SECONDS").unwrap_or(600).max(30)
}

/// How many times the data of the first part there is in the end.
fn times() -> i64 {
    setting("EMBERLINE_BENCH_TIMES").unwrap_or(10).max(2)
}

/// A sender with a connection of its own.
struct Proxy {
    build: Arc<Build>,
    number: usize,
    random: Random,
    metrics: MetricsServiceClient<Channel>,
    profiles: ProfilesServiceClient<Channel>,
    epoch: u64,
    sequence: u64,
    retries: Arc<AtomicU64>,
}

impl Proxy {
    async fn connect(build: Arc<Build>, number: usize, server: SocketAddr, retries: Arc<AtomicU64>) -> Result<Proxy> {
        let channel = Channel::from_shared(format!("http://{server}"))?.connect().await?;
        Ok(Proxy {
            build,
            number,
            random: Random::new(number as u64),
            metrics: MetricsServiceClient::new(channel.clone()),
            profiles: ProfilesServiceClient::new(channel),
            epoch: SystemClock.now_unix_ms().unsigned_abs(),
            sequence: 0,
            retries,
        })
    }

    fn id(&self, signal: Signal, window: &WorkloadWindow) -> String {
        BatchId {
            sender: BatchId::sender_of(&window.workload, window.component),
            epoch: self.epoch,
            sequence: self.sequence,
            signal,
        }
        .to_string()
    }

    /// Sends both signals of a window; answers how long each acknowledgement took, in milliseconds.
    async fn report(&mut self, start_unix_s: i64) -> Result<[f64; 2]> {
        self.sequence += 1;
        let requests = self.build.requests(&mut self.random, self.number, start_unix_s);
        let profiles = self.build.window(&mut self.random, self.number, start_unix_s);
        Ok([
            self.send(Signal::Requests, &requests).await?,
            self.send(Signal::Profiles, &profiles).await?,
        ])
    }

    async fn send(&mut self, signal: Signal, window: &WorkloadWindow) -> Result<f64> {
        let id = self.id(signal, window);
        loop {
            let asked = Instant::now();
            let refused = match signal {
                Signal::Requests => {
                    let request = with_id(otlp::encode_requests(window), &id)?;
                    self.metrics.export(request).await.err()
                }
                Signal::Profiles => {
                    let request = with_id(otlp::encode_profiles(window), &id)?;
                    self.profiles.export(request).await.err()
                }
            };
            match refused {
                None => return Ok(asked.elapsed().as_secs_f64() * 1e3),
                Some(status) if can_retry(&status) => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Some(status) => bail!("a batch was refused: {status}"),
            }
        }
    }
}

fn with_id<T>(message: T, id: &str) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(BATCH_ID_HEADER, MetadataValue::from_str(id)?);
    Ok(request)
}

fn can_retry(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded
    )
}

/// The value that a share of all are not above.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// MiB per hour, by least squares over (seconds, MiB).
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (t, m) = (mean(|p| p.0), mean(|p| p.1));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), p| {
        (above + (p.0 - t) * (p.1 - m), below + (p.0 - t) * (p.0 - t))
    });
    above / below * 3600.0
}

/// Bytes of a folder, in MiB.
fn folder_mb(folder: &Path) -> f64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_mb(&entry.path()),
        Ok(data) => data.len() as f64 / f64::from(1 << 20),
        Err(_) => 0.0,
    });
    sizes.sum()
}

/// Questions as the pages ask them: (name, address).
fn questions(from: &str) -> [(&'static str, String); 4] {
    let of_one = "selector=%7Bservice%3D%22proxied-1%22%7D";
    [
        (
            "flame graph of one service",
            format!("/api/v1/merge?{of_one}&from={from}"),
        ),
        ("flame graph of everything", format!("/api/v1/merge?from={from}")),
        (
            "CPU over time by service",
            format!("/api/v1/series?group_by=service&from={from}"),
        ),
        (
            "page of one service",
            format!("/api/v1/service?service=proxied-1&from={from}"),
        ),
    ]
}

/// What one stage of the run showed.
struct Stage {
    name: String,
    acks: Vec<f64>,
    memory_mb: f64,
    disk_mb: f64,
    /// CPU of the server per window of one proxy, both signals; while windows come in real time it holds the questions too.
    cpu_ms_per_report: f64,
    /// CPU of each question, over the last minutes and over everything.
    recent_ms: [f64; 4],
    all_ms: [f64; 4],
}

/// Sends windows of all proxies; answers how long acknowledgements took, in milliseconds.
async fn send_all(proxies: Vec<Proxy>, windows: Windows) -> Result<(Vec<Proxy>, Vec<f64>)> {
    let mut sending = JoinSet::new();
    for mut proxy in proxies {
        sending.spawn(async move {
            let mut acks = Vec::new();
            match windows {
                Windows::Live { count } => {
                    let own_ms = proxy.number as i64 * WINDOW_S * 1000 / PROXIES as i64;
                    let first = window_start(SystemClock.now_unix_s());
                    for window in 0..count {
                        // A window is sent when it is over, each proxy at its own instant of the next one.
                        let start_s = first + window * WINDOW_S;
                        let due_ms = (start_s + WINDOW_S) * 1000 + own_ms;
                        let wait_ms = (due_ms - SystemClock.now_unix_ms()).max(0).unsigned_abs();
                        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                        acks.extend(proxy.report(start_s).await?);
                    }
                }
                Windows::Before { first_s, count } => {
                    for window in 1..=count {
                        acks.extend(proxy.report(first_s - window * WINDOW_S).await?);
                    }
                }
            }
            anyhow::Ok((proxy, acks))
        });
    }
    let (mut back, mut all) = (Vec::new(), Vec::new());
    while let Some(sent) = sending.join_next().await {
        let (proxy, acks) = sent??;
        back.push(proxy);
        all.extend(acks);
    }
    Ok((back, all))
}

/// Which windows to send.
#[derive(Debug, Clone, Copy)]
enum Windows {
    /// So many from now on, each when it is over.
    Live { count: i64 },
    /// So many before an instant, at full speed.
    Before { first_s: i64, count: i64 },
}

/// Asks one question after the other until told to stop; answers their times in milliseconds.
fn ask_until(web: SocketAddr, done: &AtomicBool) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    // A service that has not reported yet is not found.
    while get(web, &questions("now-15m")[3].1)?.status != 200 && !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
    }
    for (_, path) in questions("now-15m").iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let asked = Instant::now();
        let answer = get(web, path)?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(times)
}

fn cost_of_questions(web: SocketAddr, pid: u32, from: &str) -> Result<[f64; 4]> {
    let mut costs = [0.0; 4];
    for ((_, path), cost) in questions(from).iter().zip(&mut costs) {
        let before = cpu_ms_of(pid)?;
        for _ in 0..REPEATED {
            let answer = get(web, path)?;
            ensure!(answer.status == 200, "{path}: {}", answer.status);
        }
        *cost = (cpu_ms_of(pid)? - before) / f64::from(REPEATED);
    }
    Ok(costs)
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-load");
    let data = scratch.path().join("data");
    let server = Server::start(&data);
    let pid = server_pid(&data);
    let (length_s, web) = (seconds(), server.web);
    let windows = length_s / WINDOW_S;
    println!(
        "{PROXIES} proxies of {SERVICES} services, requests and profiles each 10 s for {length_s} s; {}",
        Shape::SMALL
    );
    println!("{}", server.cap_in_words());
    let runtime = runtime()?;
    let builds: Vec<Arc<Build>> = (0..SERVICES)
        .map(|n| Arc::new(Build::new(&format!("proxied-{n}"), 1, &Shape::SMALL)))
        .collect();
    let retries = Arc::new(AtomicU64::new(0));
    let proxies = runtime.block_on(async {
        let mut proxies = Vec::new();
        for number in 0..PROXIES {
            let build = builds[number % SERVICES].clone();
            proxies.push(Proxy::connect(build, number, server.otlp_grpc, retries.clone()).await?);
        }
        anyhow::Ok(proxies)
    })?;
    let idle_mb = memory_mb(pid, "VmRSS");

    let done = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let done = done.clone();
        move || ask_until(web, &done)
    });
    let watching = std::thread::spawn({
        let (done, started) = (done.clone(), Instant::now());
        move || {
            let mut points = Vec::new();
            while !done.load(Ordering::Relaxed) {
                points.push((started.elapsed().as_secs_f64(), memory_mb(pid, "VmRSS")));
                std::thread::sleep(Duration::from_secs(2));
            }
            points
        }
    });
    let first_s = window_start(SystemClock.now_unix_s());
    let cpu_before = cpu_ms_of(pid)?;
    let live = runtime.block_on(send_all(proxies, Windows::Live { count: windows }));
    done.store(true, Ordering::Relaxed);
    let cpu_live = cpu_ms_of(pid)? - cpu_before;
    let points = watching.join().ok().context("watching memory failed")?;
    let asked = asking.join().ok().context("asking failed")??;
    let (proxies, acks) = live?;
    let live_mb = memory_mb(pid, "VmHWM");
    let settled = &points[points.len() / 2..];
    let growth = slope(settled);
    println!("resident memory, MiB: {idle_mb:.0} idle;{}", sketch(&points));
    println!("slope over the second half: {growth:.1} MiB per hour; peak {live_mb:.0} MiB");
    println!(
        "server: {cpu_live:.0} CPU-ms in {length_s} s with {} questions, {:.1} % of one core; {} retries",
        asked.len(),
        cpu_live / length_s as f64 / 10.0,
        retries.load(Ordering::Relaxed)
    );
    let reports = (PROXIES as i64 * windows) as f64;
    let first = Stage {
        name: format!("{length_s} s"),
        memory_mb: memory_mb(pid, "VmRSS"),
        disk_mb: folder_mb(&data),
        cpu_ms_per_report: cpu_live / reports,
        recent_ms: cost_of_questions(web, pid, "now-10m")?,
        all_ms: cost_of_questions(web, pid, "now-23h")?,
        acks,
    };

    let before = windows * (times() - 1);
    let cpu_before = cpu_ms_of(pid)?;
    let sent = runtime.block_on(send_all(proxies, Windows::Before { first_s, count: before }))?;
    let cpu_behind = (cpu_ms_of(pid)? - cpu_before) / (PROXIES as i64 * before) as f64;
    let live_again = runtime.block_on(send_all(
        sent.0,
        Windows::Live {
            count: (windows / 5).max(3),
        },
    ))?;
    let second = Stage {
        name: format!("{} × that", times()),
        acks: live_again.1,
        memory_mb: memory_mb(pid, "VmRSS"),
        disk_mb: folder_mb(&data),
        cpu_ms_per_report: cpu_behind,
        recent_ms: cost_of_questions(web, pid, "now-10m")?,
        all_ms: cost_of_questions(web, pid, "now-23h")?,
    };
    table(&[&first, &second]);
    let peak_mb = memory_mb(pid, "VmHWM");
    server.stop();
    let n = first.acks.len();
    Ok(vec![
        Figure::plain("peak_rss_mb", peak_mb, "MiB", 1, COMMAND),
        Figure::plain("load_rss_slope_mb_per_hour", growth, "MiB/h", settled.len(), COMMAND),
        Figure::plain("load_ack_p50_ms", quantile(&first.acks, 0.5), "ms", n, COMMAND),
        Figure::plain("load_ack_p99_ms", quantile(&first.acks, 0.99), "ms", n, COMMAND),
        Figure::plain(
            "load_question_p99_ms",
            quantile(&asked, 0.99),
            "ms",
            asked.len(),
            COMMAND,
        ),
        Figure::plain(
            "load_cpu_ms_per_report",
            cpu_behind,
            "CPU-ms",
            before as usize * PROXIES,
            COMMAND,
        ),
        Figure::plain(
            "load_server_cpu_percent",
            cpu_live / length_s as f64 / 10.0,
            "% of a core",
            reports as usize,
            COMMAND,
        ),
    ])
}

/// Memory over time in about a dozen points.
fn sketch(points: &[(f64, f64)]) -> String {
    let step = (points.len() / 12).max(1);
    points
        .iter()
        .step_by(step)
        .map(|(at, mb)| format!(" {at:.0} s {mb:.0};"))
        .collect()
}

fn table(stages: &[&Stage]) {
    let row = |name: &str, value: &dyn Fn(&Stage) -> String| {
        let cells: String = stages.iter().map(|stage| format!("{:>14}", value(stage))).collect();
        println!("  {name:46}{cells}");
    };
    row("data of", &|stage| stage.name.clone());
    row("acknowledgement p50, ms", &|stage| {
        format!("{:.1}", quantile(&stage.acks, 0.5))
    });
    row("acknowledgement p99, ms", &|stage| {
        format!("{:.1}", quantile(&stage.acks, 0.99))
    });
    row("server's CPU-ms per proxy and window", &|stage| {
        format!("{:.2}", stage.cpu_ms_per_report)
    });
    row("resident memory, MiB", &|stage| format!("{:.0}", stage.memory_mb));
    row("on disk, MiB", &|stage| format!("{:.1}", stage.disk_mb));
    for (at, (name, _)) in questions("").iter().enumerate() {
        row(&format!("{name}, 10 min, CPU-ms"), &|stage| {
            format!("{:.1}", stage.recent_ms[at])
        });
        row(&format!("{name}, all, CPU-ms"), &|stage| {
            format!("{:.1}", stage.all_ms[at])
        });
    }
}

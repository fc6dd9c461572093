//! CPU per proxied request beside nginx, HAProxy and Envoy, interleaved: one worker each, 1 KiB over HTTP/1.1 and HTTP/2, empty calls
//! over gRPC, at 1, 32 and 256 at a time; ours with telemetry, labels and profiler on, exporting to a real server. The whole process
//! is counted, not the worker alone. Then what a request adds in time, in system calls, and what connections hold.
//!
//! nginx, wrk and h2load (Debian: nginx-light, wrk, nghttp2-client) have to be there; HAProxy, Envoy and strace are used where they are.
//! `EMBERLINE_BENCH_SECONDS` is the time of one measurement (default 2).

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use emberline_terminator::Authority;
use emberline_tests::{Scratch, Server, binary, free_port};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};

use crate::{
    Figure, median,
    peers::{Proxy, Running, Spoken, envoy, haproxy, has, listens, local, nginx, start_nginx},
    setting,
};

const COMMAND: &str = "make bench NAME=proxy";
const ROUNDS: usize = 5;
const AT_ONCE: [u32; 3] = [1, 32, 256];
/// Streams of one connection that h2load opens at most; what we let a caller open.
const STREAMS: u32 = 64;
const CALL: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// Connections of which what each holds is measured.
const IDLE: usize = 2_000;

/// Answers gRPC calls with nothing.
struct Empty;

#[tonic::async_trait]
impl MetricsService for Empty {
    async fn export(
        &self,
        _: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Where all proxies send their requests, by what they speak.
struct Origins {
    http1: SocketAddr,
    http2: SocketAddr,
    grpc: SocketAddr,
    _nginx: Running,
    _runtime: tokio::runtime::Runtime,
}

impl Origins {
    fn start(folder: &Path) -> Result<Origins> {
        let [http1, http2, grpc] = [(); 3].map(|()| local(free_port()));
        std::fs::write(folder.join("body"), "x".repeat(1024))?;
        let answer = format!("location / {{ root {}; try_files /body =404; }}", folder.display());
        let servers = format!("server {{ listen {http1}; {answer} }} server {{ listen {http2} http2; {answer} }}");
        let process = start_nginx(folder, "origin", &servers)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(MetricsServiceServer::new(Empty))
                .serve(grpc),
        );
        [http1, http2, grpc].into_iter().for_each(listens);
        Ok(Origins {
            http1,
            http2,
            grpc,
            _nginx: process,
            _runtime: runtime,
        })
    }

    fn of(&self, spoken: Spoken) -> SocketAddr {
        match spoken {
            Spoken::Http1 | Spoken::Tls => self.http1,
            Spoken::Http2 => self.http2,
            Spoken::Grpc => self.grpc,
        }
    }
}

/// Ours, with everything on.
fn ours(
    folder: &Path,
    spoken: Spoken,
    origin: SocketAddr,
    server: &Server,
    certificate: (&Path, &Path),
) -> Result<Proxy> {
    let address = local(free_port());
    let config = folder.join(format!("proxy-{}.yaml", address.port()));
    let tls = match spoken {
        Spoken::Tls => format!(
            ", tls: {{cert_file: {}, key_file: {}, require_client_certificate: false}}",
            certificate.0.display(),
            certificate.1.display()
        ),
        _ => String::new(),
    };
    std::fs::write(
        &config,
        format!(
            "workload: {{namespace: bench, service: origin, version: v1, instance: origin-1}}\n\
             admin: \"{}\"\ncollector: {{endpoint: \"http://{}\"}}\nroutes: [\"/\", \"/cart/{{id}}\"]\n\
             limits: {{share_of_caller: 1}}\ninbound:\n  - {{listen: \"{address}\", to: \"{origin}\"{tls}}}\n",
            local(free_port()),
            server.otlp_grpc
        ),
    )?;
    let process = Running::start(Command::new(binary("emberline-proxy")).arg("--config").arg(&config))?;
    listens(address);
    Ok(Proxy {
        name: "emberline-proxy",
        address,
        pid: process.pid(),
        _process: process,
    })
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    for (tool, package) in [("nginx", "nginx-light"), ("wrk", "wrk"), ("h2load", "nghttp2-client")] {
        ensure!(has(tool), "{tool} is missing: install Debian's package {package}");
    }
    let scratch = Scratch::new("bench-proxy");
    let server = Server::start(&scratch.path().join("data"));
    let origins = Origins::start(scratch.path())?;
    let (certificate, key) = Authority::new()
        .certificate(&["127.0.0.1"])
        .write(scratch.path(), "proxy");
    let certificate = (certificate.as_path(), key.as_path());
    let message = scratch.path().join("message");
    std::fs::write(&message, [0; 5])?;
    let mut figures = Vec::new();
    for spoken in [Spoken::Http1, Spoken::Http2, Spoken::Grpc, Spoken::Tls] {
        let origin = origins.of(spoken);
        let mine = ours(scratch.path(), spoken, origin, &server, certificate)?;
        let idle_mib = (spoken == Spoken::Http1).then(|| resident_mib(mine.pid)).transpose()?;
        // nginx speaks HTTP/1.1 to its destinations, whatever its callers speak.
        let of_nginx = if spoken == Spoken::Http2 { origins.http1 } else { origin };
        let mut proxies = vec![nginx(scratch.path(), spoken, of_nginx, certificate)?];
        proxies.extend(haproxy(scratch.path(), spoken, origin)?);
        proxies.extend(envoy(scratch.path(), spoken, origin)?);
        proxies.push(mine);
        let at_once: &[u32] = if spoken == Spoken::Tls { &[32] } else { &AT_ONCE };
        for &at_once in at_once {
            let load = Load {
                spoken,
                at_once,
                message: message.clone(),
            };
            let costs = compare(&load, &proxies)?;
            figures.extend(figures_of(&load, &proxies, &costs));
        }
        let mine = proxies.last().context("ours is among them")?;
        if let Some(idle_mib) = idle_mib {
            figures.push(Figure::plain("proxy_rss_idle_mib", idle_mib, "MiB", 1, COMMAND));
            figures.extend(added_time(origin, &proxies)?);
            figures.push(Figure::plain(
                "proxy_idle_connection_kib",
                idle_connection_kib(mine)?,
                "KiB",
                IDLE,
                COMMAND,
            ));
            system_calls(&proxies)?;
        }
    }
    Ok(figures)
}

/// CPU-µs per request of each proxy, by round.
fn compare(load: &Load, proxies: &[Proxy]) -> Result<Vec<Vec<f64>>> {
    let mut costs = vec![Vec::new(); proxies.len()];
    for proxy in proxies {
        load.put_on(proxy.address, 1).context(proxy.name)?;
    }
    let seconds = u32::try_from(setting("EMBERLINE_BENCH_SECONDS").unwrap_or(2)).unwrap_or(2);
    for _ in 0..ROUNDS {
        for (proxy, costs) in proxies.iter().zip(&mut costs) {
            let before = ticks(proxy.pid)?;
            let answered = load.put_on(proxy.address, seconds)?.requests;
            costs.push((ticks(proxy.pid)? - before) as f64 * 10_000.0 / answered as f64);
        }
    }
    let told = proxies
        .iter()
        .zip(&costs)
        .map(|(proxy, costs)| format!("{} {:.2}", proxy.name, median(costs.clone())));
    let told: Vec<String> = told.collect();
    let (spoken, at_once) = (load.spoken.name(), load.at_once);
    println!("{spoken}, {at_once} at a time, CPU-µs per request: {}", told.join(", "));
    Ok(costs)
}

/// Ratios of ours, which is the last one, to the others.
fn figures_of(load: &Load, proxies: &[Proxy], costs: &[Vec<f64>]) -> Vec<Figure> {
    let Some((ours, others)) = costs.split_last() else {
        return Vec::new();
    };
    let us = median(ours.clone());
    let mut figures = Vec::new();
    for (peer, costs) in proxies.iter().zip(others) {
        let ratio = median(ours.iter().zip(costs).map(|(ours, theirs)| ours / theirs).collect());
        println!("    {ratio:.2} x {}", peer.name);
        let name = match (load.spoken, load.at_once, peer.name) {
            (Spoken::Http1, 32, "nginx") => "proxy_cpu_vs_nginx",
            (Spoken::Http1, 32, "Envoy") => "proxy_cpu_vs_envoy",
            (Spoken::Tls, 32, "nginx") => "proxy_tls_cpu_vs_nginx",
            _ => continue,
        };
        figures.push(Figure {
            name,
            value: us,
            unit: "µs",
            peer: Some(peer.name),
            ratio: Some(ratio),
            n: ROUNDS,
            command: COMMAND,
        });
    }
    if (load.spoken, load.at_once) == (Spoken::Http1, 32) {
        figures.push(Figure::plain("proxy_cpu_us_per_request", us, "µs", ROUNDS, COMMAND));
    }
    figures
}

/// Half of the requests take this much longer than without a proxy, one at a time.
fn added_time(origin: SocketAddr, proxies: &[Proxy]) -> Result<Option<Figure>> {
    let load = Load {
        spoken: Spoken::Http1,
        at_once: 1,
        message: PathBuf::new(),
    };
    let mut medians = vec![Vec::new(); proxies.len() + 1];
    for _ in 0..ROUNDS {
        let addresses = std::iter::once(origin).chain(proxies.iter().map(|proxy| proxy.address));
        for (address, medians) in addresses.zip(&mut medians) {
            medians.push(load.put_on(address, 1)?.median_us.context("wrk printed no median")?);
        }
    }
    let medians: Vec<f64> = medians.into_iter().map(median).collect();
    let added = |at: usize| medians[at + 1] - medians[0];
    for (at, proxy) in proxies.iter().enumerate() {
        println!(
            "median of one at a time: {} adds {:.0} µs to {:.0}",
            proxy.name,
            added(at),
            medians[0]
        );
    }
    let ours = proxies.len().checked_sub(1);
    Ok(ours.map(|at| Figure::plain("proxy_added_p50_us", added(at), "µs", ROUNDS, COMMAND)))
}

/// Resident memory per connection that has had an answer and is open, and what stays once they are gone.
fn idle_connection_kib(proxy: &Proxy) -> Result<f64> {
    let before = resident_mib(proxy.pid)?;
    let mut open = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(proxy.address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let mut answer = [0; 2048];
        let mut read = 0;
        while read < 1024 {
            let length = stream.read(&mut answer)?;
            ensure!(length > 0, "a connection was closed");
            read += length;
        }
        open.push(stream);
    }
    std::thread::sleep(Duration::from_secs(3));
    let during = resident_mib(proxy.pid)?;
    drop(open);
    std::thread::sleep(Duration::from_secs(20));
    let after = resident_mib(proxy.pid)?;
    println!("{IDLE} idle connections: {before:.1} MiB before, {during:.1} during, {after:.1} MiB 20 s after");
    Ok((during - before) * 1024.0 / IDLE as f64)
}

/// Prints the system calls of each proxy per request, which strace counts.
fn system_calls(proxies: &[Proxy]) -> Result<()> {
    if !has("strace") {
        return Ok(());
    }
    let load = Load {
        spoken: Spoken::Http1,
        at_once: 32,
        message: PathBuf::new(),
    };
    for proxy in proxies {
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-p", &proxy.pid.to_string()])
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        let requests = load.put_on(proxy.address, 2)?.requests as f64;
        Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
        let mut table = String::new();
        strace
            .stderr
            .take()
            .context("strace prints nothing")?
            .read_to_string(&mut table)?;
        strace.wait()?;
        let rows = table.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let calls: f64 = words.get(3)?.parse().ok()?;
            let name = *words.last()?;
            (calls / requests >= 0.05 && name != "total").then(|| format!("{:.1} {name}", calls / requests))
        });
        let rows: Vec<String> = rows.collect();
        println!("system calls per request: {}: {}", proxy.name, rows.join(", "));
    }
    Ok(())
}

/// CPU ticks (1/100 s) of a process with all its threads.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("an unreadable /proc/<pid>/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("no VmRSS in /proc/<pid>/status")? / 1024.0)
}

/// What is asked, and how much of it at a time.
struct Load {
    spoken: Spoken,
    at_once: u32,
    /// The body of a gRPC call.
    message: PathBuf,
}

struct Answered {
    requests: u64,
    median_us: Option<f64>,
}

impl Load {
    /// Asks for so many seconds.
    fn put_on(&self, address: SocketAddr, seconds: u32) -> Result<Answered> {
        if self.spoken.is_http2() {
            self.h2load(address, seconds)
        } else {
            self.wrk(address, seconds)
        }
    }

    fn wrk(&self, address: SocketAddr, seconds: u32) -> Result<Answered> {
        let scheme = if self.spoken == Spoken::Tls { "https" } else { "http" };
        let output = Command::new("wrk")
            .args([
                "-t1",
                "--latency",
                &format!("-c{}", self.at_once),
                &format!("-d{seconds}s"),
            ])
            .arg(format!("{scheme}://{address}/"))
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("requests failed:\n{text}");
        }
        let line = |wanted: &str| text.lines().find(|line| line.contains(wanted));
        let count = line("requests in").context("wrk printed no count")?;
        let median_us = line("50%")
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|time| {
                let (number, factor) = match time.strip_suffix("us") {
                    Some(number) => (number, 1.0),
                    None => (time.strip_suffix("ms")?, 1_000.0),
                };
                Some(number.parse::<f64>().ok()? * factor)
            });
        Ok(Answered {
            requests: count.split_whitespace().next().unwrap_or_default().parse()?,
            median_us,
        })
    }

    fn h2load(&self, address: SocketAddr, seconds: u32) -> Result<Answered> {
        let connections = self.at_once.div_ceil(STREAMS);
        let mut command = Command::new("h2load");
        command.args([
            format!("-c{connections}"),
            format!("-m{}", self.at_once / connections),
            format!("-D{seconds}"),
        ]);
        let path = match self.spoken {
            Spoken::Grpc => {
                command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]);
                command.arg(&self.message);
                CALL
            }
            _ => "/",
        };
        let output = command.arg(format!("http://{address}{path}")).output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers = |wanted: &str| -> Option<Vec<u64>> {
            let line = text.lines().find_map(|line| line.strip_prefix(wanted))?;
            Some(
                line.split(|c: char| !c.is_ascii_digit())
                    .filter_map(|word| word.parse().ok())
                    .collect(),
            )
        };
        // "status codes: 2xx, 3xx, 4xx, 5xx" reads as each count behind the digit of its class.
        let codes = numbers("status codes:").context("h2load printed no status codes")?;
        let succeeded = codes.first().copied().unwrap_or(0);
        let others: u64 = codes.iter().skip(2).step_by(2).sum();
        ensure!(succeeded > 0 && others == 0, "requests failed:\n{text}");
        Ok(Answered {
            requests: succeeded,
            median_us: None,
        })
    }
}

//! CPU per proxied request beside nginx: 1 KiB over HTTP/1.1 keep-alive, one worker each, telemetry and profiler on,
//! exporting to a real server. The whole process is counted, not the worker alone.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use emberline_tests::{Scratch, Server, binary, free_port, wait_for};

use crate::{Figure, median};

const ROUNDS: usize = 5;
const SECONDS: u32 = 4;
const CONNECTIONS: u32 = 32;

/// Ends the child with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's master passes the end on to its worker.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    for tool in ["nginx", "wrk"] {
        let found = Command::new(tool)
            .arg("-v")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ensure!(
            found.is_ok(),
            "{tool} is missing: install Debian's packages nginx-light and wrk"
        );
    }
    let scratch = Scratch::new("bench-proxy");
    let server = Server::start(&scratch.path().join("data"));
    let (origin, peer, ours) = (local(free_port()), local(free_port()), local(free_port()));
    std::fs::write(scratch.path().join("body"), "x".repeat(1024))?;
    let root = scratch.path().display();
    let serve = format!("server {{ listen {origin}; location / {{ root {root}; try_files /body =404; }} }}");
    let pass = format!(
        "upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}
         server {{ listen {peer}; location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    let _origin = nginx(scratch.path(), "origin", &serve)?;
    let nginx = nginx(scratch.path(), "peer", &pass)?;
    let config = scratch.path().join("proxy.yaml");
    std::fs::write(
        &config,
        format!(
            "workload: {{namespace: bench, service: origin, version: v1, instance: origin-1}}\n\
             admin: \"{}\"\ncollector: {{endpoint: \"http://{}\"}}\nroutes: [\"/\", \"/cart/{{id}}\"]\n\
             inbound:\n  - {{listen: \"{ours}\", to: \"{origin}\"}}\n",
            local(free_port()),
            server.otlp_grpc
        ),
    )?;
    let proxy = Running(
        Command::new(binary("emberline-proxy"))
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()?,
    );
    for address in [origin, peer, ours] {
        wait_for("listener", Duration::from_secs(30), || TcpStream::connect(address).ok());
    }
    let nginx_worker = worker_of(nginx.0.id())?;
    let ours_pid = proxy.0.id();
    load(ours, 1)?;
    load(peer, 1)?;
    let (mut of_nginx, mut of_ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        of_nginx.push(cpu_per_request(nginx_worker, peer)?);
        of_ours.push(cpu_per_request(ours_pid, ours)?);
        println!(
            "round {round}: nginx {:.2} µs, emberline-proxy {:.2} µs per request",
            of_nginx[round - 1],
            of_ours[round - 1]
        );
    }
    let ratios: Vec<f64> = of_ours.iter().zip(&of_nginx).map(|(o, n)| o / n).collect();
    let command = "make bench NAME=proxy";
    let us = median(of_ours);
    Ok(vec![
        Figure {
            name: "proxy_cpu_us_per_request",
            value: us,
            unit: "µs",
            peer: None,
            ratio: None,
            n: ROUNDS,
            command,
        },
        Figure {
            name: "proxy_cpu_vs_nginx",
            value: us,
            unit: "µs",
            peer: Some("nginx"),
            ratio: Some(median(ratios)),
            n: ROUNDS,
            command,
        },
    ])
}

fn nginx(folder: &Path, name: &str, servers: &str) -> Result<Running> {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let text = format!(
        "worker_processes 1; daemon off; pid {}; error_log {};
         events {{ worker_connections 4096; }}
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {}; proxy_temp_path {};
         fastcgi_temp_path {t}; uwsgi_temp_path {t}; scgi_temp_path {t}; {servers} }}",
        file("pid").display(),
        file("err").display(),
        file("body").display(),
        file("proxy").display(),
        t = file("temp").display(),
    );
    std::fs::write(file("conf"), text)?;
    // Workers of a root nginx run as another user and must reach the body.
    Command::new("chmod").arg("755").arg(folder).status()?;
    let child = Command::new("nginx")
        .arg("-c")
        .arg(file("conf"))
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Running(child))
}

/// The one child of an nginx master.
fn worker_of(master: u32) -> Result<u32> {
    let output = Command::new("pgrep")
        .args(["-P", &master.to_string()])
        .output()
        .context("pgrep is missing: install Debian's package procps")?;
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .context("nginx has no worker")
}

/// CPU ticks (1/100 s) of a process with all its threads.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("an unreadable /proc/<pid>/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// Requests answered in so many seconds.
fn load(address: SocketAddr, seconds: u32) -> Result<u64> {
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{seconds}s"),
            &format!("http://{address}/"),
        ])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("requests failed:\n{text}");
    }
    let line = text
        .lines()
        .find(|line| line.contains("requests in"))
        .context("wrk printed no count")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

fn cpu_per_request(pid: u32, address: SocketAddr) -> Result<f64> {
    let before = ticks(pid)?;
    let requests = load(address, SECONDS)?;
    let used = ticks(pid)? - before;
    Ok(used as f64 * 10_000.0 / requests as f64)
}

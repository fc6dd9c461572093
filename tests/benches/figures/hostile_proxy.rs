//! A proxy with default settings in a container of 64 MiB with 1,024 descriptors under siege: memory, and how long a
//! well-behaved caller waits. `EMBERLINE_SIEGE_SECONDS` makes it longer.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use emberline_tests::{MemoryCgroup, Scratch, binary, free_port, get, wait_for};

use crate::{Figure, setting};

#[path = "../../../proxy/tests/proxy/siege.rs"]
mod siege;

const MEMORY_BYTES: u64 = 64 << 20;
const DESCRIPTORS: u32 = 1024;
/// Attempts of each kind; half heads are among them.
const ATTEMPTS: u64 = 5_000;
const AT_A_TIME: usize = 400;
const SECONDS: i64 = 60;
/// Of the calm before and after.
const CALM: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(10);

/// Ends the child with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// A line of its `/proc/<pid>/status`, in MB.
    fn megabytes(&self, line: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let found = status.lines().find_map(|l| l.strip_prefix(line));
        let kilobytes: f64 = found
            .context("the proxy is gone")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kilobytes / 1024.0)
    }
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(besiege())
}

async fn besiege() -> Result<Vec<Figure>> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let scratch = Scratch::new("bench-hostile-proxy");
    let target = siege::Target {
        answering: local(free_port()),
        stuck: local(free_port()),
        admin: local(free_port()),
        at_a_time: AT_A_TIME,
        in_all: ATTEMPTS,
    };
    let (answering, stuck) = (siege::answering_app().await, siege::stuck_app().await);
    let config = scratch.path().join("proxy.yaml");
    fs::write(
        &config,
        format!(
            "workload: {{namespace: bench, service: cart, version: v1, instance: cart-1}}\nadmin: \"{}\"\n\
             routes: [\"/\", \"/big\"]\ninbound:\n  - {{listen: \"{}\", to: \"{answering}\"}}\n  - {{listen: \"{}\", to: \"{stuck}\"}}\n",
            target.admin, target.answering, target.stuck
        ),
    )?;
    let cgroup = MemoryCgroup::new(MEMORY_BYTES);
    let join = cgroup.as_ref().map_or(String::new(), |cgroup| {
        format!("echo $$ > '{}';", cgroup.joining().display())
    });
    println!(
        "{}",
        if cgroup.is_some() {
            "in a container of 64 MiB"
        } else {
            "no container can be made here"
        }
    );
    let script = format!("{join} ulimit -n {DESCRIPTORS}; exec \"$0\" --config \"$1\"");
    let proxy = Command::new("sh")
        .args(["-c", &script])
        .arg(binary("emberline-proxy"))
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()?;
    let mut proxy = Running(proxy);
    wait_for("the proxy", Duration::from_secs(30), || {
        get(target.admin, "/ready").ok()
    });
    let behave = |how_long| siege::behave(target.answering, "/", EVERY, how_long);
    let before = behave(CALM).await;
    let rss = proxy.megabytes("VmRSS:")?;
    println!(
        "{:22} {:6.1} MB  p99 {:7.2} ms",
        "before",
        rss,
        before.quantile_ms(0.99)
    );
    let how_long = Duration::from_secs(setting("EMBERLINE_SIEGE_SECONDS").unwrap_or(SECONDS).unsigned_abs());
    let done = Arc::<siege::Done>::default();
    let laid = tokio::spawn(siege::lay(target, how_long, Arc::clone(&done)));
    let (during, probe) = tokio::join!(
        behave(how_long),
        siege::behave(target.admin, "/ready", 10 * EVERY, how_long)
    );
    laid.await?;
    ensure!(proxy.0.try_wait()?.is_none(), "the proxy has ended");
    let peak = proxy.megabytes("VmHWM:")?;
    println!(
        "{:22} {:6.1} MB  p99 {:7.2} ms  p50 {:.2} ms, {} answered, {} failed; /ready {} of {}",
        "during (peak)",
        peak,
        during.quantile_ms(0.99),
        during.quantile_ms(0.5),
        during.latencies.len(),
        during.failed,
        probe.latencies.len(),
        probe.latencies.len() as u64 + probe.failed
    );
    for (kind, opened) in siege::KINDS.iter().zip(&done.opened) {
        println!(
            "    {kind:28} {:6} connections",
            opened.load(std::sync::atomic::Ordering::Relaxed).min(ATTEMPTS)
        );
    }
    let metrics = get(target.admin, "/metrics")?.body;
    for line in String::from_utf8_lossy(&metrics).lines() {
        if line.contains("overloads_total") || line.contains("broken_total") || line.contains("folded_total") {
            println!("    {line}");
        }
    }
    tokio::time::sleep(Duration::from_secs(60) - CALM).await;
    let after = behave(CALM).await;
    let rss_after = proxy.megabytes("VmRSS:")?;
    println!(
        "{:22} {rss_after:6.1} MB  p99 {:7.2} ms",
        "a minute after",
        after.quantile_ms(0.99)
    );
    ensure!(probe.failed == 0, "a probe was not answered");
    let ratio = during.quantile_ms(0.99) / before.quantile_ms(0.99);
    let command = "make bench NAME=hostile_proxy";
    Ok(vec![
        Figure::plain("hostile_proxy_peak_rss_mb", peak, "MB", 1, command),
        Figure::plain("hostile_proxy_rss_after_mb", rss_after, "MB", 1, command),
        Figure::plain("hostile_proxy_p99_ratio", ratio, "", 1, command),
    ])
}

//! The memory of a server with default settings under requests made to cost memory, one kind after the other; then all at
//! once, with thousands of connections that begin and do not go on: what others see of it, and what is left a minute later,
//! beside a second server that had only the well-behaved part of the same load.
//!
//! The flood takes `EMBERLINE_BENCH_SECONDS` (default 60).

use std::time::Duration;

use anyhow::{Result, ensure};
use emberline_tests::{
    Scratch, Server,
    flood::{self, Flood},
    get, get_json, hostile, wait_for,
};

use crate::{Figure, setting};

const COMMAND: &str = "make bench NAME=hostile";
/// Requests of each kind at the same time.
const AT_ONCE: usize = 8;
const DESCRIPTORS: u64 = 1_024;
const PER_PORT: usize = 5_000;
/// Threads that ask heavy questions.
const ASKERS: usize = 8;
/// What the server may hold at most, in MB: 385 MiB.
const MOST_MB: f64 = 385.0 * 1.048_576;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-hostile");
    let time = Duration::from_secs(setting("EMBERLINE_BENCH_SECONDS").unwrap_or(60).max(10).unsigned_abs());
    let peace = peace(&scratch, time)?;
    let server = Server::start_with(&scratch.path().join("data"), &[], Some(DESCRIPTORS));
    println!("{}; {DESCRIPTORS} file descriptors", server.cap_in_words());
    println!("{:40} {:8.1} MB", "ready", server.peak_rss_mb());
    let open = hostile::stalled(&server, 500);
    for attack in hostile::attacks(hostile::max_request_bytes(&server)) {
        let statuses = hostile::send(server.otlp_http, &attack, AT_ONCE);
        println!("{:40} {:8.1} MB  {statuses:?}", attack.name, server.peak_rss_mb());
        ensure!(get(server.web, "/-/ready")?.status == 200, "the server is gone");
    }
    drop(open);
    settle(&server)?;
    let (before, own_before) = (server.rss_mb(), server.own_memory_mb());
    let seen = flood::run(
        &server,
        Flood {
            per_port: PER_PORT,
            time,
            askers: ASKERS,
            with_attacks: true,
        },
    );
    let peak = server.peak_rss_mb();
    let p99 = flood::quantile(&seen.ingest_ms, 0.99);
    println!(
        "flood of {PER_PORT} connections a port for {time:?}: {} opened, {peak:.1} MB, {:.1} of them its own and not pages of files",
        seen.opened, seen.own_memory_mb
    );
    println!("answers to heavy questions by status: {:?}", seen.answers);
    println!(
        "ingest p50 {:.0} ms, p99 {p99:.0} ms of {}, not taken {:?}; with a connection each {:.0} and {:.0} ms of {}, not taken {:?}",
        flood::quantile(&seen.ingest_ms, 0.5),
        seen.ingest_ms.len(),
        seen.ingest_failed,
        flood::quantile(&seen.fresh_ms, 0.5),
        flood::quantile(&seen.fresh_ms, 0.99),
        seen.fresh_ms.len(),
        seen.fresh_failed
    );
    println!(
        "/-/ready asked {} times, not 200: {:?}",
        seen.ready_asked, seen.not_ready
    );
    println!(
        "those that asked nothing were closed after {:?}",
        seen.idle_closed_after
    );
    println!("{:#}", get_json(server.web, "/api/v1/status")?["connections"]);
    std::thread::sleep(Duration::from_secs(60));
    let after = server.rss_mb();
    let own_after = server.own_memory_mb();
    println!("memory before {before:.1} MB, a minute after {after:.1} MB; its own {own_before:.1} and {own_after:.1}");
    println!("the same uploads and questions without a flood: {}", peace.words);
    server.stop();
    ensure!(peak <= MOST_MB, "{peak} MB");
    ensure!(p99 <= 1_000.0, "p99 of ingest: {p99} ms");
    ensure!(
        seen.ingest_failed.is_empty(),
        "uploads were not taken: {:?}",
        seen.ingest_failed
    );
    ensure!(seen.not_ready.is_empty(), "/-/ready: {:?}", seen.not_ready);
    ensure!(
        seen.idle_closed_after
            .is_some_and(|after| after <= Duration::from_secs(15)),
        "idle connections stay: {:?}",
        seen.idle_closed_after
    );
    // What was accepted is in memory until its hour is sealed, also without a flood.
    let most = before.max(peace.after);
    ensure!(
        after <= most * 1.2,
        "memory stays: {after} MB; {before} before, {} after the same time without a flood",
        peace.after
    );
    let figure = |name, value, unit, n| Figure {
        name,
        value,
        unit,
        peer: None,
        ratio: None,
        n,
        command: COMMAND,
    };
    Ok(vec![
        figure("hostile_peak_rss_mb", peak, "MB", 1),
        figure("hostile_ingest_p99_ms", p99, "ms", seen.ingest_ms.len()),
    ])
}

/// What answers are made of stays in memory, also without a flood; all that was taken has to be there for it.
fn settle(server: &Server) -> Result<()> {
    wait_for("what was taken in answers", Duration::from_secs(120), || {
        let metrics = String::from_utf8(get(server.web, "/metrics").ok()?.body).ok()?;
        let value = |name: &str| {
            metrics
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
        };
        (value("emberline_store_lsn_applied")? >= value("emberline_store_lsn_durable")?).then_some(())
    });
    for question in flood::QUESTIONS {
        get(server.web, question)?;
    }
    std::thread::sleep(Duration::from_secs(20));
    Ok(())
}

/// What a server without a flood is like.
struct Peace {
    /// Resident memory a minute after, in MB.
    after: f64,
    words: String,
}

/// Memory around the well-behaved part of the load, which leaves what was accepted.
fn peace(scratch: &Scratch, time: Duration) -> Result<Peace> {
    let server = Server::start_with(&scratch.path().join("peace"), &[], Some(DESCRIPTORS));
    settle(&server)?;
    let (before, own_before) = (server.rss_mb(), server.own_memory_mb());
    let seen = flood::run(
        &server,
        Flood {
            per_port: 0,
            time,
            askers: ASKERS,
            with_attacks: false,
        },
    );
    std::thread::sleep(Duration::from_secs(60));
    let (after, own_after) = (server.rss_mb(), server.own_memory_mb());
    server.stop();
    let words = format!(
        "before {before:.1} MB, a minute after {after:.1} MB; its own {own_before:.1} and {own_after:.1}; ingest p99 {:.0} ms",
        flood::quantile(&seen.ingest_ms, 0.99)
    );
    Ok(Peace { after, words })
}

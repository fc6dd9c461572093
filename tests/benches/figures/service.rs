//! What the page of one service costs a server over hours, and how much memory the server has resident then.
//!
//! Guarantees: the real program answers, in a control group of 512 MiB where there may be one; the requests that the
//! page's points add up to are those of its releases.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use emberline_storage::{Options, Store};
use emberline_tests::{
    Scratch, Server,
    bulk::{self, HandClock, Phase, Plan},
    generator::{mesh::Shape, pinned},
    get, get_json, server_pid,
};
use serde_json::Value;

use crate::{
    Figure,
    cost::{cpu_ms_of, memory_mb},
    mesh_store::{SERVICE, runtime},
    setting,
};

const COMMAND: &str = "make bench NAME=service";
const ROUNDS: u32 = 3;
const INSTANCES: usize = 10;
const HOUR_S: i64 = 3600;

/// Two releases for so many hours together; `EMBERLINE_BENCH_HOURS` sets another number.
fn hours() -> i64 {
    setting("EMBERLINE_BENCH_HOURS").unwrap_or(6).max(2)
}

fn sum(rows: &Value, field: &str) -> u64 {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    rows.iter().filter_map(|row| row[field].as_u64()).sum()
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let hours = hours();
    let phase = |version, hours| Phase {
        version,
        hours,
        instances: INSTANCES,
        every_s: 10,
    };
    let plan = Plan {
        service: SERVICE.to_owned(),
        shape: Shape::SMALL,
        phases: vec![phase(1, hours - hours / 2), phase(2, hours / 2)],
        neighbours: 0,
        requests: true,
        start_s: pinned::START - hours * HOUR_S,
    };
    println!("{plan}");
    let scratch = Scratch::new("bench-service");
    let data = scratch.path().join("data");
    let clock = Arc::new(HandClock::at(plan.start_s));
    let store = Store::open(Options::new(&data), clock.clone()).context("the store does not open")?;
    runtime()?.block_on(bulk::load(&store, &clock, &plan, |_| {}))?;
    store.close();
    let server = Server::start(&data);
    let pid = server_pid(&data);
    println!("{}", server.cap_in_words());
    println!("ready: resident {:.0} MiB", memory_mb(pid, "VmHWM"));
    let mut figures = Vec::new();
    for (length_s, cpu, memory) in [
        (HOUR_S, "service_1h_cpu_ms", "service_1h_rss_mb"),
        (hours * HOUR_S, "service_hours_cpu_ms", "service_hours_rss_mb"),
    ] {
        let to_s = plan.start_s + hours * HOUR_S;
        let address = format!("/api/v1/service?service={SERVICE}&from={}&to={to_s}", to_s - length_s);
        // Names come once.
        let page = get_json(server.web, &address)?;
        let (points, requests) = (sum(&page["series"], "requests"), sum(&page["releases"], "requests"));
        ensure!(
            requests > 0 && points == requests,
            "points have {points} requests, releases {requests}"
        );
        let before = cpu_ms_of(pid)?;
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let answer = get(server.web, &address)?;
            ensure!(answer.status == 200, "{address}: {}", answer.status);
            bytes = answer.body.len();
        }
        let cpu_ms = (cpu_ms_of(pid)? - before) / f64::from(ROUNDS);
        let peak_mb = memory_mb(pid, "VmHWM");
        println!(
            "{} min: {cpu_ms:.0} CPU-ms, resident at most {peak_mb:.0} MiB, {} points, {bytes} bytes",
            length_s / 60,
            page["series"].as_array().map_or(0, Vec::len),
        );
        figures.push(Figure::plain(cpu, cpu_ms, "CPU-ms", ROUNDS as usize, COMMAND));
        figures.push(Figure::plain(memory, peak_mb, "MiB resident at most", 1, COMMAND));
    }
    server.stop();
    Ok(figures)
}

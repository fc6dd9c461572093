//! What the Compare and Service pages cost over a day and over a month, and what the sums that make them cheap take on disk.
//!
//! Guarantees: the real program answers; where `EMBERLINE_BENCH_OLD` names an older one, both answer from copies of the same
//! store, turn by turn, and their requests and sums of CPU are equal. `EMBERLINE_BENCH_HOURS` and `EMBERLINE_BENCH_DAYS` make
//! the day and the month shorter.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

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
    median,
    mesh_store::{SERVICE, runtime},
    setting,
};

const COMMAND: &str = "make bench NAME=ranges";
/// Names the older program.
pub(crate) const PEER: &str = "EMBERLINE_BENCH_OLD";
const ROUNDS: usize = 5;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Kept whatever the date is.
pub(crate) const KEPT: [&str; 4] = ["--retention-hours", "87600", "--rollup-retention-days", "3660"];
/// A service that is mostly idle: a month of it loads in minutes.
const QUIET: Shape = Shape {
    stacks: 500,
    functions: 500,
    depth: 20,
    routes: 6,
    samples: 20,
};

fn plan(shape: Shape, instances: usize, hours: i64, releases: u32) -> Plan {
    let phase = |version| Phase {
        version,
        hours,
        instances,
        every_s: 10,
    };
    Plan {
        service: SERVICE.to_owned(),
        shape,
        phases: (1..=releases).map(phase).collect(),
        neighbours: 0,
        requests: true,
        start_s: pinned::START - hours * i64::from(releases) * HOUR_S,
    }
}

fn load(data: &Path, plan: &Plan) -> Result<()> {
    println!("{plan}");
    let clock = Arc::new(HandClock::at(plan.start_s));
    let mut options = Options::new(data);
    options.retention = Duration::from_secs(4_000 * 24 * 3600);
    options.rollup_retention = options.retention;
    let store = Store::open(options, clock.clone()).context("the store does not open")?;
    runtime()?.block_on(async {
        bulk::load(&store, &clock, plan, |_| {}).await?;
        // The last day is over as well: a server that compacted it while it is measured would be measured with that.
        clock.set(pinned::START + 2 * DAY_S);
        store.compact().await?;
        Ok::<_, anyhow::Error>(())
    })?;
    store.close();
    Ok(())
}

/// Bytes of sealed parts, and those of them that only hold sums of requests, CPU and windows.
fn sizes(data: &Path) -> Result<(u64, u64)> {
    let (mut all, mut sums) = (0, 0);
    for entry in fs::read_dir(data.join("parts"))? {
        let entry = entry?;
        let bytes = entry.metadata()?.len();
        let name = entry.file_name().to_string_lossy().into_owned();
        all += bytes;
        if ["sums-", "daysums-", "totals-", "runs-"]
            .iter()
            .any(|kind| name.starts_with(kind))
        {
            sums += bytes;
        }
    }
    Ok((all, sums))
}

/// The same store for another program; parts are never written to.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file without a name")?);
        if path.is_dir() {
            copy(&path, &target)?;
        } else if from.ends_with("parts") {
            fs::hard_link(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// A program at work on a store.
struct Running {
    server: Server,
    pid: u32,
    cpu_ms: Vec<f64>,
    wall_ms: Vec<f64>,
    answer: Value,
}

impl Running {
    fn start(program: &Path, data: &Path) -> Running {
        Running::of(Server::start_program(program, data, &KEPT, None), data)
    }

    fn of(server: Server, data: &Path) -> Running {
        Running {
            pid: server_pid(data),
            server,
            cpu_ms: Vec::new(),
            wall_ms: Vec::new(),
            answer: Value::Null,
        }
    }

    fn ask(&mut self, address: &str) -> Result<()> {
        let (before, started) = (cpu_ms_of(self.pid)?, Instant::now());
        let answer = get(self.server.web, address)?;
        self.wall_ms.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 200, "{address}: {}", answer.status);
        // What the answer leaves to be done is part of it.
        std::thread::sleep(Duration::from_millis(50));
        self.cpu_ms.push(cpu_ms_of(self.pid)? - before);
        Ok(())
    }
}

/// A field under its name, or under the one that it had in earlier versions.
fn named<'a>(of: &'a Value, now: &str, before: &str) -> &'a Value {
    of.get(now).unwrap_or(&of[before])
}

/// What must be equal in both answers: requests, CPU, and what was compared.
fn exact(answer: &Value) -> Vec<String> {
    let fields = [
        "requests",
        "errors",
        "cpu_ns",
        "complete_cpu_ns",
        "complete_requests",
        "windows",
    ];
    let of = |row: &Value| fields.map(|field| row[field].to_string()).join(" ");
    let mut told: Vec<String> = Vec::new();
    for list in ["releases", "routes"] {
        told.extend(answer[list].as_array().into_iter().flatten().map(of));
    }
    for side in ["baseline", "candidate"] {
        let side = &answer[side];
        let total = named(side, "total", "total_ns");
        let others = ["requests", "samples", "windows", "seconds"].map(|field| side[field].to_string());
        told.push(format!("{total} {}", others.join(" ")));
    }
    told.push(answer["latency"].to_string());
    let mut functions: Vec<String> = answer["functions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let values = [
                ("raw_self_a", "self_a_ns"),
                ("raw_self_b", "self_b_ns"),
                ("raw_total_a", "total_a_ns"),
                ("raw_total_b", "total_b_ns"),
            ];
            let values = values.map(|(now, before)| named(row, now, before).to_string());
            format!("{} {}", row["name"], values.join(" "))
        })
        .collect();
    functions.sort();
    told.extend(functions);
    told
}

/// Asks both for a page, turn by turn.
fn measure(data: &Path, scratch: &Path, address: &str) -> Result<(Running, Option<Running>)> {
    let own = emberline_tests::binary("emberline");
    let mut new = Running::start(&own, data);
    let mut old = match std::env::var_os(PEER) {
        Some(program) => {
            let other = scratch.join("old");
            let _ = fs::remove_dir_all(&other);
            copy(data, &other)?;
            // Some of the ranges take it more than the cap.
            Some(Running::of(
                Server::start_without_cap(&PathBuf::from(program), &other, &KEPT),
                &other,
            ))
        }
        None => None,
    };
    for running in std::iter::once(&mut new).chain(&mut old) {
        // Names come once.
        running.answer = get_json(running.server.web, address)?;
        fs::write(format!("/proc/{}/clear_refs", running.pid), "5")?;
    }
    for _ in 0..ROUNDS {
        for running in std::iter::once(&mut new).chain(&mut old) {
            running.ask(address)?;
        }
    }
    if let Some(old) = &old {
        let (told, expected) = (exact(&new.answer), exact(&old.answer));
        let differs = told.iter().zip(&expected).find(|(a, b)| a != b);
        ensure!(
            told.len() == expected.len() && differs.is_none(),
            "{address}: {differs:?}"
        );
    }
    Ok((new, old))
}

fn figures(
    names: (&'static str, Option<&'static str>),
    is_wall: bool,
    (new, old): &(Running, Option<Running>),
) -> Vec<Figure> {
    let value = |of: &Running| median(if is_wall { of.wall_ms.clone() } else { of.cpu_ms.clone() });
    let peer = old.as_ref().map(value);
    println!(
        "{}: {:.0} CPU-ms, {:.0} ms, resident at most {:.0} MiB; the older program {:?} CPU-ms, {:?} ms",
        names.0,
        median(new.cpu_ms.clone()),
        median(new.wall_ms.clone()),
        memory_mb(new.pid, "VmHWM"),
        old.as_ref().map(|old| median(old.cpu_ms.clone()).round()),
        old.as_ref().map(|old| median(old.wall_ms.clone()).round()),
    );
    let mut figures = vec![Figure {
        peer: peer.map(|_| PEER),
        ratio: peer.map(|peer| value(new) / peer),
        ..Figure::plain(
            names.0,
            value(new),
            if is_wall { "ms" } else { "CPU-ms" },
            ROUNDS,
            COMMAND,
        )
    }];
    if let Some(name) = names.1 {
        figures.push(Figure::plain(
            name,
            memory_mb(new.pid, "VmHWM"),
            "MiB resident at most",
            1,
            COMMAND,
        ));
    }
    figures
}

/// No range of a busy service is more than a server in its container can compare.
fn any_range_is_answered(data: &Path, of_release_s: i64) -> Result<()> {
    let server = Running::start(&emberline_tests::binary("emberline"), data).server;
    let candidate_to = pinned::START - 77;
    let baseline_to = candidate_to - of_release_s;
    let lengths = [600, 1_200, 2_700, 3_600, 2 * 3_600, 4 * 3_600, 12 * 3_600];
    for length_s in lengths.into_iter().filter(|length_s| *length_s < of_release_s) {
        let answer = get(
            server.web,
            &format!(
                "/api/v1/diff?service={SERVICE}&baseline=v1&candidate=v2&baseline_from={}&baseline_to={baseline_to}&candidate_from={}&candidate_to={candidate_to}",
                baseline_to - length_s,
                candidate_to - length_s
            ),
        )?;
        ensure!(answer.status == 200, "{length_s} s: {}", answer.status);
        ensure!(
            answer.json()?["baseline"]["windows"].as_u64() > Some(0),
            "{length_s} s: no windows"
        );
    }
    println!("ranges from ten minutes on are answered; {}", server.cap_in_words());
    Ok(())
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let hours = setting("EMBERLINE_BENCH_HOURS").unwrap_or(24).max(1);
    let days = setting("EMBERLINE_BENCH_DAYS").unwrap_or(30).max(1);
    let scratch = Scratch::new("bench-ranges");
    let mut all = Vec::new();
    let end_s = pinned::START;
    let compare = |length_s: i64, off_s: i64| {
        let (to, middle) = (end_s - off_s, end_s - length_s - off_s);
        format!(
            "/api/v1/diff?service={SERVICE}&baseline=v1&candidate=v2&baseline_from={}&baseline_to={middle}&candidate_from={middle}&candidate_to={to}",
            middle - length_s
        )
    };
    let service = |length_s: i64| format!("/api/v1/service?service={SERVICE}&from={}&to={end_s}", end_s - length_s);

    let data = scratch.path().join("compare");
    load(&data, &plan(Shape::BUSY, 2, hours, 2))?;
    let (bytes, sums) = sizes(&data)?;
    println!("{bytes} bytes of parts, {sums} of them sums");
    all.push(Figure::plain(
        "sums_of_busy_share",
        sums as f64 / (bytes - sums) as f64,
        "of the bytes of all other parts",
        1,
        COMMAND,
    ));
    let asked = measure(&data, scratch.path(), &compare(hours * HOUR_S, 0))?;
    all.extend(figures(
        ("compare_24h_cpu_ms", Some("compare_24h_rss_mb")),
        false,
        &asked,
    ));
    drop(asked);
    // Two ends that are no whole hours.
    let asked = measure(&data, scratch.path(), &compare(hours * HOUR_S, 1_234))?;
    all.extend(figures(("compare_24h_ragged_cpu_ms", None), false, &asked));
    drop(asked);
    any_range_is_answered(&data, hours * HOUR_S)?;
    fs::remove_dir_all(&data)?;

    let data = scratch.path().join("service");
    load(&data, &plan(Shape::SMALL, 10, hours / 2, 2))?;
    let (bytes, sums) = sizes(&data)?;
    println!("{bytes} bytes of parts, {sums} of them sums");
    all.push(Figure::plain(
        "sums_of_small_share",
        sums as f64 / (bytes - sums) as f64,
        "of the bytes of all other parts",
        1,
        COMMAND,
    ));
    let asked = measure(&data, scratch.path(), &service(hours * HOUR_S))?;
    all.extend(figures(
        ("service_24h_cpu_ms", Some("service_24h_rss_mb")),
        false,
        &asked,
    ));
    drop(asked);
    fs::remove_dir_all(&data)?;

    let data = scratch.path().join("month");
    load(&data, &plan(QUIET, 1, days * 24, 2))?;
    let (bytes, sums) = sizes(&data)?;
    println!("{bytes} bytes of parts, {sums} of them sums");
    let month_s = days * 24 * HOUR_S;
    all.extend(figures(
        ("compare_30d_ms", None),
        true,
        &measure(&data, scratch.path(), &compare(month_s, 0))?,
    ));
    all.extend(figures(
        ("service_30d_ms", None),
        true,
        &measure(&data, scratch.path(), &service(month_s))?,
    ));
    Ok(all)
}

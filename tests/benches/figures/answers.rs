//! Whether a change of the code changed an answer: some two hundred requests over all addresses of the API, of Pyroscope's and of
//! the probes, good and bad ones, asked of this program and of an older one (`EMBERLINE_BENCH_OLD`) on copies of one store.
//!
//! Guarantees: the real programs answer; status, type and the whole body of each answer are compared; of what tells of the
//! process (`/metrics`, `/api/v1/status`, pages) its shape. Without an older program it only asks, and prints the digest of all
//! answers.
//!
//! One file because the list of requests and how their answers are made comparable change together. Most of it is the list.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use emberline_model::{Batch, BatchId, Exemplar, Histogram, ProfileType, Release, Side, Signal, WorkloadWindow, id};
use emberline_storage::{Options, Store};
use emberline_tests::{
    Answer, Scratch, Server,
    bulk::{self, HandClock, Phase, Plan},
    generator::{
        Random,
        mesh::{Build, NAMESPACE, Shape},
        pinned,
    },
    request,
};
use serde_json::{Value, json};

use crate::{
    Figure,
    mesh_store::{SERVICE, runtime},
    ranges::{KEPT, PEER, copy},
};

const COMMAND: &str = "EMBERLINE_BENCH_OLD=<another emberline> make bench NAME=answers";
const HOUR_S: i64 = 3600;
const HOURS: i64 = 2;
/// What the last minutes have besides: a caller, what is in use, samples of one trace.
const FRONT: &str = "front";
const HEAP: &str = "memory:inuse_space:bytes:space:bytes";
const TRACE: [u8; 16] = [7; 16];
const SMALL: Shape = Shape {
    stacks: 300,
    functions: 300,
    depth: 12,
    routes: 4,
    samples: 120,
};

/// Two releases of a service one after the other, sealed; then both with a caller, not sealed.
fn load(data: &Path) -> Result<()> {
    let phase = |version| Phase {
        version,
        hours: HOURS,
        instances: 2,
        every_s: 10,
    };
    let plan = Plan {
        service: SERVICE.to_owned(),
        shape: SMALL,
        phases: vec![phase(1), phase(2)],
        neighbours: 1,
        requests: true,
        start_s: start_s(),
    };
    println!("{plan}");
    let clock = Arc::new(HandClock::at(plan.start_s));
    let mut options = Options::new(data);
    options.retention = Duration::from_secs(4_000 * 24 * 3600);
    options.rollup_retention = options.retention;
    let store = Store::open(options, clock.clone()).context("the store does not open")?;
    runtime()?.block_on(async {
        bulk::load(&store, &clock, &plan, |_| {}).await?;
        let from_s = sealed_until_s();
        clock.set(from_s + 300);
        store.append(open_hour(from_s)).await?;
        store.flush_applied().await?;
        anyhow::Ok(())
    })?;
    store.close();
    Ok(())
}

fn start_s() -> i64 {
    pinned::START - 2 * HOURS * HOUR_S
}

fn sealed_until_s() -> i64 {
    pinned::START
}

fn open_hour(from_s: i64) -> Batch {
    let mut random = Random::new(3);
    let builds = [1, 2].map(|version| Build::new(SERVICE, version, &SMALL));
    let front = Build::new(FRONT, 1, &SMALL);
    let mut windows = Vec::new();
    for start_s in (from_s..from_s + 300).step_by(10) {
        for build in &builds {
            for instance in 0..2 {
                let mut window = both(build, &mut random, instance, start_s);
                for (at, series) in window.requests.iter_mut().enumerate() {
                    series.peer = Some(front.release.clone());
                    if at == 0 {
                        (series.status, series.error) = (503, true);
                    }
                }
                let profile = &mut window.profiles[0];
                let exemplar = Exemplar {
                    stack: 0,
                    label_set: 0,
                    value: 10_000_000,
                    unix_ns: start_s * 1_000_000_000 + 5,
                    trace_id: TRACE,
                    span_id: start_s.unsigned_abs(),
                };
                profile.exemplars.push(exemplar);
                let mut heap = profile.clone();
                heap.profile_type = ProfileType(HEAP.to_owned());
                heap.exemplars.clear();
                heap.samples.iter_mut().for_each(|sample| sample.value = 4_096);
                window.profiles.push(heap);
                windows.push(window);
            }
        }
        let mut window = both(&front, &mut random, 0, start_s);
        let mut calls = window.requests.clone();
        for (at, series) in calls.iter_mut().enumerate() {
            series.side = Side::Client;
            series.open = at as u64;
            series.duration = Histogram::new();
            series.duration.record_ns(5_000_000);
            match at % 3 {
                0 => series.peer = Some(builds[at % 2].release.clone()),
                1 => series.destination = "postgres".to_owned(),
                _ => series.peer = Some(unheard_of()),
            }
        }
        window.requests.extend(calls);
        windows.push(window);
    }
    Batch {
        id: Some(BatchId {
            sender: "answers".into(),
            epoch: 1,
            sequence: 1,
            signal: Signal::Profiles,
        }),
        received_unix_ms: (from_s + 300) * 1000,
        windows,
    }
}

fn unheard_of() -> Release {
    Release {
        namespace: NAMESPACE.to_owned(),
        service: "payment".to_owned(),
        version: "v1".to_owned(),
    }
}

fn both(build: &Build, random: &mut Random, instance: usize, start_s: i64) -> WorkloadWindow {
    let requests = build.requests(random, instance, start_s);
    WorkloadWindow {
        has_requests: true,
        requests: requests.requests,
        ..build.window(random, instance, start_s)
    }
}

/// A request; a body makes it a `POST`.
struct Asked {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

fn asked() -> Vec<Asked> {
    let (start_s, sealed_s, end_s) = (start_s(), sealed_until_s(), sealed_until_s() + 300);
    let whole = format!("from={start_s}&to={end_s}");
    let sealed = format!("from={start_s}&to={sealed_s}");
    let ragged = format!("from={}&to={}", start_s + 1_234, sealed_s + 77);
    let open = format!("from={sealed_s}&to={end_s}");
    let ranges = [&whole, &sealed, &ragged, &open];
    let sides = format!(
        "baseline_from={start_s}&baseline_to={0}&candidate_from={0}&candidate_to={sealed_s}",
        start_s + HOURS * HOUR_S
    );
    let formats = [
        "json",
        "columns",
        "pprof",
        "folded",
        "speedscope",
        "firefox",
        "svg",
        "html",
    ];
    let mut paths: Vec<String> = Vec::new();
    let mut add = |path: String| paths.push(path);
    for range in ranges {
        for name in ["services", "topology", "cardinality", "labels", "profile_types"] {
            add(format!("/api/v1/{name}?{range}"));
        }
        for service in [SERVICE, FRONT] {
            add(format!("/api/v1/releases?service={service}&{range}"));
            add(format!("/api/v1/service?service={service}&{range}"));
        }
        for label in ["version", "route", "instance"] {
            add(format!("/api/v1/label_values?label={label}&{range}"));
        }
        for version in ["v1", "v2"] {
            add(format!("/api/v1/profile?service={SERVICE}&version={version}&{range}"));
        }
        for per in ["request", "second", "total", "best"] {
            add(format!(
                "/api/v1/diff?service={SERVICE}&baseline=v1&candidate=v2&per={per}&{range}"
            ));
        }
        add(format!("/api/v1/functions?service={SERVICE}&{range}"));
        add(format!("/api/v1/series?group_by=version&{range}"));
        add(format!(
            "/api/v1/heatmap?selector=%7Bservice%3D%22{SERVICE}%22%7D&{range}"
        ));
        add(format!("/api/v1/merge?{range}"));
        add(format!("/api/v1/exemplars?{range}"));
    }
    for format in formats {
        add(format!(
            "/api/v1/profile?service={SERVICE}&version=v2&format={format}&{ragged}"
        ));
        add(format!(
            "/api/v1/diff?service={SERVICE}&baseline=v1&candidate=v2&format={format}&{sides}"
        ));
        add(format!(
            "/api/v1/merge?selector=%7Bversion%3D%22v1%22%7D&format={format}&{open}"
        ));
    }
    for more in [
        "limit=16",
        "limit=0",
        "functions_limit=5",
        "route=/route/1/%7Bid%7D",
        "route=(none)",
        "side=server",
        "side=client",
        "component=proxy",
        "node=0123456789abcdef",
        "instance=none",
    ] {
        add(format!("/api/v1/profile?service={SERVICE}&{more}&{whole}"));
        if !more.starts_with("instance") {
            add(format!(
                "/api/v1/diff?service={SERVICE}&baseline=v1&candidate=v2&{more}&{whole}"
            ));
        }
    }
    for more in ["version=v1", "functions_limit=3", "baseline=v1&candidate=v2&per=best"] {
        add(format!("/api/v1/functions?service={SERVICE}&{more}&{whole}"));
    }
    for more in [
        "group_by=instance,route",
        "step=60",
        "aggregation=average",
        "series_limit=1&group_by=route",
        "selector=%7Bversion%3D~%22v.%22%2Croute!%3D%22%22%7D",
    ] {
        add(format!("/api/v1/series?{more}&{ragged}"));
        add(format!("/api/v1/series?{more}&profile_type={HEAP}&{open}"));
    }
    add(format!(
        "/api/v1/diff?service={SERVICE}&baseline=v1&candidate=v2&profile_type={HEAP}&{open}"
    ));
    add(format!("/api/v1/profile?service={SERVICE}&profile_type={HEAP}&{open}"));
    add(format!("/api/v1/exemplars?trace_id={}&{open}", "07".repeat(16)));
    add(format!(
        "/api/v1/exemplars?span_id={:016x}&exemplars_limit=2&{open}",
        sealed_s
    ));
    add(format!("/api/v1/callers?function=main&{open}"));
    add(format!("/api/v1/callers?function=0123456789abcdef&{open}"));
    for broken in [
        "/api/v1/service?service=chekout",
        "/api/v1/service",
        "/api/v1/service?service=checkout&frm=now",
        "/api/v1/service?service=checkout&service=front",
        "/api/v1/services?from=yesterday",
        "/api/v1/services?from=now&to=now-1h",
        "/api/v1/merge?selector=%7Bversion",
        "/api/v1/merge?selector=%7Bnobody%3D%22x%22%7D",
        "/api/v1/labels?label=version",
        "/api/v1/label_values?label=nobody",
        "/api/v1/exemplars?trace_id=7",
        "/api/v1/servces",
        "/api/v1/alerts?state=firing",
        "/api/v1/alerts",
        "/api/v1/alerts?state=quiet",
        "/api/v1/status",
        "/api/openapi.json",
        "/api/openapi.json?x=1",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/-/unknown",
        "/",
        "/compare",
        "/assets/missing.js",
        "/querier.v1.QuerierService/ProfileTypes",
    ] {
        add(broken.to_owned());
    }
    for more in [
        format!("service={SERVICE}&version=v9&{whole}"),
        format!("service={SERVICE}&route=/route-x&{whole}"),
        format!("service={SERVICE}&profile_type=memory&{whole}"),
        format!("service={SERVICE}&format=svg&node=0123456789abcdef&{whole}"),
    ] {
        add(format!("/api/v1/profile?{more}"));
    }
    let (cpu, query) = (
        "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        "%7Bservice_name%3D%22checkout%22%7D",
    );
    for (name, more) in [
        ("render", format!("query={cpu}{query}&from={start_s}&until={end_s}")),
        (
            "render",
            format!("query={cpu}{query}&from={start_s}&until={end_s}&groupBy=version"),
        ),
        (
            "render",
            format!("query={cpu}&from={start_s}&until={end_s}&max-nodes=16"),
        ),
        (
            "render-diff",
            format!(
                "leftQuery={cpu}{query}&leftFrom={start_s}&leftUntil={sealed_s}&rightQuery={cpu}{query}&rightFrom={sealed_s}&rightUntil={end_s}"
            ),
        ),
        (
            "label-values",
            format!("label=service_name&from={start_s}&until={end_s}"),
        ),
    ] {
        add(format!("/pyroscope/{name}?{more}"));
    }
    let mut asked: Vec<Asked> = paths
        .into_iter()
        .map(|path| Asked {
            method: "GET",
            path,
            body: None,
        })
        .collect();
    let about = json!({
        "start": start_s * 1000, "end": end_s * 1000, "profileTypeID": cpu, "labelSelector": "{service_name=\"checkout\"}",
        "name": "version", "groupBy": ["version"], "step": 600.0,
        "left": { "start": start_s * 1000, "end": sealed_s * 1000, "profileTypeID": cpu, "labelSelector": "{}" },
        "right": { "start": sealed_s * 1000, "end": end_s * 1000, "profileTypeID": cpu, "labelSelector": "{}" },
    });
    for call in [
        "ProfileTypes",
        "LabelNames",
        "LabelValues",
        "Series",
        "SelectMergeStacktraces",
        "SelectMergeSpanProfile",
        "SelectMergeProfile",
        "SelectSeries",
        "Diff",
        "GetProfileStats",
        "Unknown",
    ] {
        asked.push(Asked {
            method: "POST",
            path: format!("/querier.v1.QuerierService/{call}"),
            body: Some(about.clone()),
        });
    }
    for (method, path) in [
        ("DELETE", "/api/v1/services/checkout?confirm=checkout"),
        ("DELETE", "/api/v1/services"),
        ("POST", "/api/v1/service"),
        ("PUT", "/"),
    ] {
        asked.push(Asked {
            method,
            path: path.to_owned(),
            body: None,
        });
    }
    asked
}

/// The types of all that a value holds, without what it says.
fn shape(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(shape),
        Value::Array(items) => {
            items.truncate(1);
            items.iter_mut().for_each(shape);
        }
        Value::String(_) => *value = json!("text"),
        Value::Number(_) => *value = json!(0),
        Value::Bool(_) | Value::Null => *value = json!(false),
    }
}

/// What must be equal of an answer.
fn told(asked: &Asked, answer: &Answer) -> String {
    let header = |name: &str| {
        let lines = answer
            .head
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with(name));
        lines.collect::<Vec<_>>().join(" ")
    };
    let head = format!(
        "{} {} {}",
        answer.status,
        header("content-type:"),
        header("content-disposition:")
    );
    let address = asked.path.split('?').next().unwrap_or_default();
    let body = match (address, serde_json::from_slice::<Value>(&answer.body)) {
        ("/api/v1/status", Ok(mut value)) => {
            shape(&mut value);
            value.to_string()
        }
        // Fields may come in another order: it says nothing.
        (_, Ok(value)) => value.to_string(),
        // Which metrics there are.
        ("/metrics", _) => String::from_utf8_lossy(&answer.body)
            .lines()
            .filter(|line| line.starts_with("# HELP"))
            .collect::<Vec<_>>()
            .join("\n"),
        // Names of their files change with each build of the pages.
        ("/" | "/compare", _) => String::new(),
        _ => answer.body.escape_ascii().to_string(),
    };
    format!("{head}\n{body}")
}

fn ask(server: &Server, asked: &Asked) -> Result<String> {
    let body = asked.body.as_ref().map(Value::to_string).unwrap_or_default();
    let answer = request(
        server.web,
        asked.method,
        &asked.path,
        "application/json",
        body.as_bytes(),
    )
    .with_context(|| format!("{} {}", asked.method, asked.path))?;
    Ok(told(asked, &answer))
}

/// Where two texts differ, with what stands there.
fn difference(new: &str, old: &str) -> String {
    let at = new.bytes().zip(old.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(60).min(text.len())..])
            .chars()
            .take(160)
            .collect::<String>()
    };
    format!("now {:?}\n       before {:?}", around(new), around(old))
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-answers");
    let data = scratch.path().join("new");
    load(&data)?;
    let old = match std::env::var_os(PEER) {
        Some(program) => {
            let other = scratch.path().join("old");
            copy(&data, &other)?;
            Some(Server::start_program(&PathBuf::from(program), &other, &KEPT, None))
        }
        None => None,
    };
    let new = Server::start_with(&data, &KEPT, None);
    let all = asked();
    ensure!(all.len() >= 200, "{} requests are too few", all.len());
    let (mut digest, mut refused, mut equal) = (0, 0, 0);
    for asked in &all {
        let now = ask(&new, asked)?;
        refused += usize::from(!now.starts_with("200"));
        digest = id::key("answer", &[&format!("{digest:016x}"), &now]);
        let Some(old) = &old else { continue };
        let before = ask(old, asked)?;
        if now == before {
            equal += 1;
        } else {
            println!(
                "  differs: {} {}\n       {}",
                asked.method,
                asked.path,
                difference(&now, &before)
            );
        }
    }
    println!(
        "{} requests, {refused} of them refused; digest of all answers {digest:016x}",
        all.len()
    );
    drop(new);
    fs::remove_dir_all(&data)?;
    if old.is_none() {
        println!("{PEER} names no program to compare with: nothing is recorded");
        return Ok(Vec::new());
    }
    println!("{equal} answers are equal");
    Ok(vec![Figure {
        peer: Some(PEER),
        ratio: Some(f64::from(equal) / all.len() as f64),
        ..Figure::plain("answers_equal", f64::from(equal), "answers", all.len(), COMMAND)
    }])
}

//! Signals of other senders, whose windows are of other lengths, begin elsewhere, or are reported under other names: the
//! cost per request is right, or the answer says why there is none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use emberline_model::{Component, Profile, ProfileType, Side, WorkloadWindow};
use serde_json::Value;

use crate::support::{BASE_S, World, find, window};

const ROUTE: &str = "/pay";

/// Requests of a window of an SDK: ten per second.
fn requests(version: &str, at: i64, length_s: u32, instance: &str) -> WorkloadWindow {
    let count = u64::from(length_s) * 10;
    let mut window = window("pay", version, Component::Application, 0)
        .requests(Side::Server, ROUTE, None, count, 0)
        .done();
    window.has_profiles = false;
    placed(window, at, length_s, instance)
}

/// A profile of a sampler: so many milliseconds of CPU per second.
fn cpu(version: &str, at: i64, length_s: u32, instance: &str, ms_per_s: i64, route: Option<&str>) -> WorkloadWindow {
    let ms = i64::from(length_s) * ms_per_s;
    let mut window = window("pay", version, Component::Application, 0)
        .stack(
            route.map(|_| Side::Server),
            route.unwrap_or_default(),
            &["main", "shop::handle", "shop::price"],
            ms * 1_000_000,
            ms.unsigned_abs() / 10,
        )
        .done();
    window.has_requests = false;
    placed(window, at, length_s, instance)
}

/// What is there at a moment.
fn goroutines(version: &str, at: i64) -> WorkloadWindow {
    let mut window = window("pay", version, Component::Application, 0)
        .stack(None, "", &["main", "park"], 5, 5)
        .done();
    window.has_requests = false;
    window.profiles[0].profile_type = ProfileType::from_parts("goroutine", "goroutine", "count", "goroutine", "count");
    placed(window, at, 10, "i1")
}

fn placed(mut window: WorkloadWindow, at: i64, length_s: u32, instance: &str) -> WorkloadWindow {
    window.start_unix_s = at;
    window.length_s = length_s;
    window.workload.instance = instance.to_owned();
    window
}

/// How a release reports: every so many seconds, and from which second on.
#[derive(Clone, Copy)]
struct Every {
    metrics: (u32, i64),
    profiles: (u32, i64),
}

const fn every(metrics_s: u32, profiles_s: u32, profiles_later_s: i64) -> Every {
    Every {
        metrics: (metrics_s, 0),
        profiles: (profiles_s, profiles_later_s),
    }
}

/// Six minutes of a release that takes 10 ms of CPU for 10 requests per second.
fn release(version: &str, from: i64, every: Every, instances: [&str; 2]) -> Vec<WorkloadWindow> {
    let starts = |(length_s, later): (u32, i64)| (from + later..from + later + 360).step_by(length_s as usize);
    let served = starts(every.metrics).map(|at| requests(version, at, every.metrics.0, instances[0]));
    let spent = starts(every.profiles).map(|at| cpu(version, at, every.profiles.0, instances[1], 10, Some(ROUTE)));
    served.chain(spent).collect()
}

const DIFF: &str = "/api/v1/diff?service=pay&baseline=v1&candidate=v2&from=now-1h";
const START_S: i64 = BASE_S - 720;

/// Costs of both sides, milliseconds.
fn costs(diff: &Value) -> [f64; 2] {
    ["baseline", "candidate"].map(|side| diff[side]["value"].as_f64().unwrap() / 1e6)
}

#[track_caller]
fn is_about(value: f64, expected: f64) {
    assert!((value / expected - 1.0).abs() < 0.02, "{value}, not {expected}");
}

#[tokio::test]
async fn a_cost_per_request_does_not_depend_on_how_often_its_signals_are_sent() {
    let cases = [
        (every(10, 10, 0), every(10, 10, 0)),
        (every(60, 10, 0), every(60, 10, 0)),
        (every(10, 15, 0), every(10, 15, 0)),
        (every(10, 60, 0), every(10, 60, 0)),
        (every(60, 60, 20), every(60, 60, 20)),
        (every(10, 10, 0), every(10, 15, 0)),
        (every(10, 10, 0), every(10, 30, 0)),
        (every(10, 10, 0), every(60, 10, 0)),
        (every(60, 15, 3), every(15, 5, 1)),
    ];
    for (at, (v1, v2)) in cases.into_iter().enumerate() {
        for instances in [["i1", "i1"], ["4f1c", "host-1"]] {
            let windows = [
                release("v1", START_S, v1, instances),
                release("v2", START_S + 360, v2, instances),
            ];
            let world = World::new(windows.concat()).await;
            let diff = world.json(DIFF).await;
            for value in costs(&diff) {
                is_about(value, 1.0);
            }
            assert_eq!(diff["judgement"], "no_change", "{at}: {}", diff["summary"]);
            let joined_by = if instances[0] == instances[1] {
                "instance"
            } else {
                "release"
            };
            for side in ["baseline", "candidate"] {
                let coverage = &diff[side]["coverage"];
                assert_eq!(coverage["joined_by"], joined_by);
                assert!(
                    (325..=360).contains(&coverage["covered_s"].as_i64().unwrap()),
                    "{coverage}"
                );
            }
            // The page of the service, its routes and its charts say the same.
            let page = world.json("/api/v1/service?service=pay&from=now-1h").await;
            for version in ["v1", "v2"] {
                let release = find(&page["releases"], &[("version", version)]);
                is_about(release["cpu_ns_per_request"].as_f64().unwrap() / 1e6, 1.0);
                let route = find(&page["routes"], &[("version", version), ("route", ROUTE)]);
                is_about(route["cpu_ns_per_request"].as_f64().unwrap() / 1e6, 1.0);
                let profile = world
                    .json(&format!("/api/v1/profile?service=pay&version={version}&from=now-1h"))
                    .await;
                is_about(profile["cost"]["per_request"].as_f64().unwrap() / 1e6, 1.0);
            }
            for point in page["series"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|p| p["observed_s"] != 0)
            {
                is_about(
                    point["requests"].as_f64().unwrap() / point["observed_s"].as_f64().unwrap(),
                    10.0,
                );
            }
        }
    }
}

#[tokio::test]
async fn another_type_of_profile_does_not_make_a_window_one_of_cpu() {
    // CPU is profiled for ten seconds of every minute. v2 costs twice as much, and sends goroutines all the time.
    let mut windows = Vec::new();
    for (version, from, ms_per_s) in [("v1", START_S, 10), ("v2", START_S + 360, 20)] {
        for at in (from..from + 360).step_by(10) {
            windows.push(requests(version, at, 10, "i1"));
            if (at - from) % 60 == 0 {
                windows.push(cpu(version, at, 10, "i1", ms_per_s, Some(ROUTE)));
            }
            if version == "v2" {
                windows.push(goroutines(version, at));
            }
        }
    }
    let world = World::new(windows).await;
    let diff = world.json(DIFF).await;
    assert_eq!(costs(&diff), [1.0, 2.0]);
    assert_eq!(diff["judgement"], "changed");
    assert_eq!(diff["candidate"]["coverage"]["covered_s"], 60);
    assert_eq!(diff["candidate"]["requests"], 600);
}

#[tokio::test]
async fn an_idle_profile_counts_beside_another_type() {
    // The sampler saw nothing for half of the time; that is a fact, and no gap.
    let mut windows = Vec::new();
    for version in ["v1", "v2"] {
        for (n, at) in (START_S..START_S + 360).step_by(10).enumerate() {
            windows.push(requests(version, at, 10, "i1"));
            windows.push(goroutines(version, at));
            let mut profile = cpu(version, at, 10, "i1", 20, Some(ROUTE));
            if n % 2 == 1 {
                profile.profiles = vec![Profile::empty_cpu(at * 1_000_000_000, 10_000_000_000)];
            }
            windows.push(profile);
        }
    }
    let world = World::new(windows).await;
    let diff = world.json(DIFF).await;
    assert_eq!(costs(&diff), [1.0, 1.0]);
    assert_eq!(diff["baseline"]["coverage"]["covered_s"], 360);
}

#[tokio::test]
async fn releases_of_which_only_profiles_are_known_are_compared_without_requests() {
    let windows = ["v1", "v2"].map(|version| cpu(version, START_S, 10, "i1", 100, Some(ROUTE)));
    let world = World::new(windows.to_vec()).await;
    for (per, expected) in [("total", 1e9), ("second", 1e8)] {
        let diff = world.json(&format!("{DIFF}&per={per}")).await;
        for side in ["baseline", "candidate"] {
            assert_eq!(diff[side]["value"], expected, "{per}");
            assert_eq!(diff[side]["samples"], 100);
        }
        assert_eq!(diff["judgement"], "no_change");
    }
    let diff = world.json(DIFF).await;
    assert_eq!(diff["judgement"], "too_few_samples");
    assert_eq!(diff["candidate"]["coverage"]["missing"], "requests");
    let summary = diff["summary"].as_str().unwrap();
    assert!(
        summary.contains("v2 sent no requests") && summary.contains("per=second"),
        "{summary}"
    );
    let best = world.json(&format!("{DIFF}&per=best")).await;
    assert_eq!(best["per"], "second");

    // No list offers what is then not found.
    let page = world.json("/api/v1/service?service=pay&from=now-1h").await;
    let routes = page["routes"].as_array().unwrap();
    assert!(!routes.is_empty());
    for route in routes {
        let route = route["route"].as_str().unwrap();
        for per in ["request", "second", "total", "best"] {
            world.json(&format!("{DIFF}&route={route}&per={per}")).await;
        }
        world
            .json(&format!(
                "/api/v1/profile?service=pay&version=v1&route={route}&from=now-1h"
            ))
            .await;
    }
}

#[tokio::test]
async fn latency_needs_no_profiles() {
    let windows: Vec<WorkloadWindow> = ["v1", "v2"]
        .into_iter()
        .flat_map(|version| (0..6).map(move |n| requests(version, START_S + 60 * n, 60, "i1")))
        .collect();
    let world = World::new(windows).await;
    let diff = world.json(&format!("{DIFF}&route={ROUTE}")).await;
    assert_eq!(diff["latency"]["baseline_n"], 3600);
    assert_eq!(diff["baseline"]["coverage"]["missing"], "profiles");
    let summary = diff["summary"].as_str().unwrap();
    assert!(summary.contains("v1 sent no profile"), "{summary}");
}

#[tokio::test]
async fn profiles_beside_a_sidecar_are_divided_by_what_it_counted() {
    // The process knows neither its instance nor its routes; the sidecar knows both, and half of the requests are others'.
    let mut windows = Vec::new();
    for (version, ms_per_s) in [("v1", 10), ("v2", 30)] {
        for at in (START_S..START_S + 360).step_by(10) {
            windows.push(cpu(version, at, 10, "unknown", ms_per_s, None));
            let mut counted = window("pay", version, Component::Proxy, 0)
                .requests(Side::Server, ROUTE, None, 50, 0)
                .requests(Side::Server, "/other", None, 50, 0)
                .done();
            counted.has_profiles = false;
            windows.push(placed(counted, at, 10, "pay-1"));
        }
    }
    let world = World::new(windows).await;
    let diff = world.json(&format!("{DIFF}&route={ROUTE}&component=application")).await;
    assert_eq!(costs(&diff), [1.0, 3.0]);
    assert_eq!(diff["judgement"], "changed");
    assert_eq!(diff["note"], "no stacks carry this route: shown for the whole service");
    assert_eq!(diff["baseline"]["requests"], 3600, "of all routes");
    assert_eq!(diff["latency"]["baseline_n"], 1800, "of this route");
    let whole = world.json(&format!("{DIFF}&component=application")).await;
    assert_eq!((costs(&whole), &whole["note"]), ([1.0, 3.0], &Value::Null));
    let page = world.json("/api/v1/service?service=pay&from=now-1h").await;
    let release = find(&page["releases"], &[("version", "v2")]);
    assert_eq!(release["cpu_ns_per_request"], 3e6);
    assert_eq!(release["covered_s"], 360);
}

#[tokio::test]
async fn requests_that_an_sdk_and_its_sidecar_count_are_counted_once() {
    // The SDK reports every minute under a name of its own.
    let mut windows = Vec::new();
    for version in ["v1", "v2"] {
        windows.extend(release(version, START_S, every(60, 10, 0), ["4f1c", "pay-1"]));
        for at in (START_S..START_S + 360).step_by(10) {
            let mut counted = window("pay", version, Component::Proxy, 0)
                .requests(Side::Server, ROUTE, None, 100, 0)
                .done();
            counted.has_profiles = false;
            windows.push(placed(counted, at, 10, "sidecar-1"));
        }
    }
    let world = World::new(windows).await;
    assert_eq!(costs(&world.json(DIFF).await), [1.0, 1.0]);
    let page = world.json("/api/v1/service?service=pay&from=now-1h").await;
    assert_eq!(find(&page["releases"], &[("version", "v1")])["requests"], 3600);
}

#[tokio::test]
async fn a_profile_of_a_minute_is_drawn_over_the_minute() {
    // 10 ms of CPU per second, in windows of a minute that begin seven seconds after the full ones.
    let at = |n: i64| BASE_S - 240 + 7 + 60 * n;
    let windows = (0..3).map(|n| cpu("v1", at(n), 60, "i1", 10, Some(ROUTE)));
    let world = World::new(windows.collect()).await;
    let question = format!("from={}&to={}&selector=%7Bservice=%22pay%22%7D", BASE_S - 240, BASE_S);
    let merged = world.json(&format!("/api/v1/merge?{question}")).await;
    assert_eq!(merged["total"], 1_800_000_000);
    for step in [10, 20, 60] {
        let answer = world.json(&format!("/api/v1/series?{question}&step={step}")).await;
        let series = &answer["series"][0];
        let values: Vec<f64> = series["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect();
        let starts: Vec<i64> = series["at_ms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap() / 1000)
            .collect();
        assert_eq!(starts[0], BASE_S - 240, "{step}");
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == step), "{starts:?}");
        let (first, last) = (values[0], values[values.len() - 1]);
        assert_eq!((first, last), ((step - 7) as f64 * 1e7, 7e7), "{step}");
        assert!(
            values[1..values.len() - 1]
                .iter()
                .all(|&value| value == step as f64 * 1e7),
            "{values:?}"
        );
        assert_eq!(
            (series["total"].as_i64(), values.iter().sum::<f64>()),
            (Some(1_800_000_000), 1.8e9)
        );
        assert_eq!((&series["samples"], &merged["samples"]), (&180.into(), &180.into()));
    }
    // Stacks and labels stay what they are in each step.
    let grouped = world
        .json(&format!("/api/v1/series?{question}&step=10&group_by=route"))
        .await;
    assert_eq!(grouped["series"][0]["labels"][0], ROUTE);
    assert_eq!(grouped["series"][0]["values"].as_array().unwrap().len(), 19);
    // Whoever asks for the mean of windows gets it where they begin.
    let mean = world
        .json(&format!("/api/v1/series?{question}&step=10&aggregation=average"))
        .await;
    assert_eq!(mean["series"][0]["values"], serde_json::json!([6e8, 6e8, 6e8]));
}

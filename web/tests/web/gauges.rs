//! Gauges (what is there at a moment) are averaged over time and added up over instances, in every question that has one
//! number for a range.

use emberline_model::{Component, ProfileType, WorkloadWindow};
use serde_json::{Value, json};

use crate::support::{BASE_S, World, sum, total, window};

const HEAP: &str = "memory:inuse_space:bytes:space:bytes";
const ALLOCATED: &str = "memory:alloc_space:bytes:space:bytes";

/// One window of an instance with so many bytes in two stacks.
fn heap(instance: &str, index: i64, profile_type: &str, kept: i64, cached: i64) -> WorkloadWindow {
    let mut window = window("cache", "v1", Component::Application, index)
        .stack(None, "", &["main", "cache::keep"], kept, 1)
        .stack(None, "", &["main", "cache::fill"], cached, 1)
        .done();
    window.workload.instance = instance.to_owned();
    window.profiles[0].profile_type = ProfileType(profile_type.to_owned());
    window
}

/// Two windows of two instances: on average 150 + 20 bytes are kept and 30 + 5 cached.
fn two_windows_of_two_instances(profile_type: &str) -> Vec<WorkloadWindow> {
    vec![
        heap("a", 0, profile_type, 100, 40),
        heap("a", 1, profile_type, 200, 20),
        heap("b", 0, profile_type, 10, 5),
        heap("b", 1, profile_type, 30, 5),
    ]
}

fn self_of(answer: &Value, function: &str) -> i64 {
    let rows = answer["functions"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == function).unwrap();
    row["self"].as_i64().unwrap()
}

async fn post(world: &World, path: &str, body: Value) -> Value {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body.to_string()))
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_gauge_is_averaged_over_time_and_added_up_over_instances() {
    let world = World::new(two_windows_of_two_instances(HEAP)).await;
    let question = format!("from=now-2m&profile_type={HEAP}");
    for path in ["/api/v1/merge?", "/api/v1/profile?service=cache&"] {
        let answer = world.json(&format!("{path}{question}")).await;
        assert_eq!(answer["total"], 205, "{path}");
        assert_eq!(
            (self_of(&answer, "cache::keep"), self_of(&answer, "cache::fill")),
            (170, 35),
            "{path}"
        );
        assert_eq!(sum(&answer["functions"], "self"), 205);
        assert_eq!(total(&answer["tree"]["self"]), 205);
    }
    let callers = world
        .json(&format!("/api/v1/callers?function=cache::keep&{question}"))
        .await;
    assert_eq!(callers["function"]["total"], 170);
    let folded = world.get(&format!("/api/v1/merge?format=folded&{question}")).await;
    assert!(folded.text().ends_with("\nmain;cache::fill 35\nmain;cache::keep 170\n"));
    assert_eq!(folded.text().lines().count(), 3);
    let one = world
        .json(&format!("/api/v1/merge?selector=%7Binstance=%22a%22%7D&{question}"))
        .await;
    assert_eq!(one["total"], 180);

    // One step for all, and one for each window.
    let series = world.json(&format!("/api/v1/series?step=1000&{question}")).await;
    assert_eq!(
        (&series["aggregation"], &series["series"][0]["values"]),
        (&json!("average"), &json!([205.0]))
    );
    let series = world.json(&format!("/api/v1/series?step=10&{question}")).await;
    assert_eq!(series["series"][0]["values"], json!([155.0, 255.0]));
    assert_eq!(series["series"][0]["total"], 205);
    let by_instance = world
        .json(&format!("/api/v1/series?step=1000&group_by=instance&{question}"))
        .await;
    assert_eq!(by_instance["series"][0]["values"], json!([180.0]));
    assert_eq!(by_instance["series"][1]["values"], json!([25.0]));
    // Who asks for the sum gets it.
    let summed = world
        .json(&format!("/api/v1/series?step=1000&aggregation=sum&{question}"))
        .await;
    assert_eq!(summed["series"][0]["values"], json!([410.0]));

    // Grafana's calls say the same.
    let range =
        json!({ "profileTypeID": HEAP, "labelSelector": "{}", "start": BASE_S * 1000, "end": (BASE_S + 120) * 1000 });
    let merged = post(
        &world,
        "/querier.v1.QuerierService/SelectMergeStacktraces",
        range.clone(),
    )
    .await;
    assert_eq!(merged["flamegraph"]["total"], "205");
    let mut over_time = range.clone();
    over_time["step"] = json!(1000.0);
    let over_time = post(&world, "/querier.v1.QuerierService/SelectSeries", over_time).await;
    assert_eq!(over_time["series"][0]["points"][0]["value"], 205.0);
    let diff = json!({ "left": range, "right": range });
    let diff = post(&world, "/querier.v1.QuerierService/Diff", diff).await;
    assert_eq!(
        (&diff["flamegraph"]["leftTicks"], &diff["flamegraph"]["rightTicks"]),
        (&json!("205"), &json!("205"))
    );
    let rendered = world
        .json(&format!(
            "/pyroscope/render?query={HEAP}%7B%7D&from={BASE_S}&until={}",
            BASE_S + 120
        ))
        .await;
    assert_eq!(rendered["flamebearer"]["numTicks"], 205);
}

#[tokio::test]
async fn what_happened_is_added_up() {
    let world = World::new(two_windows_of_two_instances(ALLOCATED)).await;
    let question = format!("from=now-2m&profile_type={ALLOCATED}");
    let answer = world.json(&format!("/api/v1/merge?{question}")).await;
    assert_eq!((&answer["total"], self_of(&answer, "cache::keep")), (&json!(410), 340));
}

/// A scraper visits each process at a moment of its own, and not in every window.
#[tokio::test]
async fn instances_that_report_seldom_and_at_different_times_count_in_full() {
    let mut windows = Vec::new();
    for index in 0..4 {
        windows.push(heap("a", index * 3, HEAP, 13_000, 1_300));
        windows.push(heap("b", index * 3 + 1, HEAP, 13_000, 1_300));
    }
    let world = World::new(windows).await;
    let answer = world
        .json(&format!("/api/v1/merge?from=now-2m&profile_type={HEAP}"))
        .await;
    let total = answer["total"].as_i64().unwrap();
    // Both were there for 120 of the 130 s that are covered.
    assert_eq!(total, 2 * 14_300 * 120 / 130);
}

/// What a gauge is does not become more by looking longer, nor by being divided.
#[tokio::test]
async fn a_gauge_is_compared_by_its_mean_whatever_it_is_to_be_divided_by() {
    let goroutines = |version: &str, instance: &str, index: i64, count: i64| {
        let mut window = heap(instance, index, HEAP, count, 2);
        window.workload.version = version.to_owned();
        window.profiles[0].profile_type =
            ProfileType::from_parts("goroutine", "goroutine", "count", "goroutine", "count");
        window
    };
    // v1: two instances with five and seven; v2: one with thirty, seen for a third of the time.
    let mut windows = Vec::new();
    for index in 0..9 {
        windows.push(goroutines("v1", "a", index, 5));
        windows.push(goroutines("v1", "b", index, 7));
        if index < 3 {
            windows.push(goroutines("v2", "c", index, 30));
        }
    }
    let world = World::new(windows).await;
    let question =
        "service=cache&baseline=v1&candidate=v2&from=now-2m&profile_type=goroutine:goroutine:count:goroutine:count";
    for per in ["best", "request", "second", "total"] {
        let diff = world.json(&format!("/api/v1/diff?{question}&per={per}")).await;
        assert_eq!(diff["per"], "total");
        for (side, expected) in [("baseline", 12 + 4), ("candidate", 30 + 2)] {
            assert_eq!(diff[side]["value"], f64::from(expected), "{side} {per}");
            assert_eq!(diff[side]["total"], expected, "{side}");
        }
        assert_eq!(
            (&diff["change"]["baseline"], &diff["change"]["candidate"]),
            (&json!(16.0), &json!(32.0))
        );
        let keep = crate::support::find(&diff["functions"], &[("name", "cache::keep")]);
        assert_eq!((&keep["self_a"], &keep["self_b"]), (&json!(12.0), &json!(30.0)));
        assert_eq!(sum(&diff["functions"], "raw_self_b"), 32);
        assert!(
            diff["note"].as_str().unwrap().contains("averaged over time"),
            "{}",
            diff["note"]
        );
        let summary = diff["summary"].as_str().unwrap();
        assert!(summary.contains("goroutine on average: 16 and 32"), "{summary}");
    }
    // One release alone says the same.
    let profile = world
        .json("/api/v1/profile?service=cache&version=v1&from=now-2m&profile_type=goroutine:goroutine:count:goroutine:count")
        .await;
    assert_eq!(profile["total"], 16);
}

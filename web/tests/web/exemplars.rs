//! Samples of requests: one by one from the API, and as flame graphs from the interface that Grafana speaks.

use axum::body::Body;
use emberline_model::{Component, Exemplar, Side, WorkloadWindow};
use http::Request;
use serde_json::{Value, json};

use crate::support::{BASE_S, NOW_S, QUOTE, World, total, window};

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
const TRACE: &str = "000000000000000a000000000000000b";
const OTHER_TRACE: &str = "ffffffffffffffffffffffffffffffff";
const SPAN: &str = "00000000000000c1";
const OTHER_SPAN: &str = "fedcba9876543210";

fn exemplar(stack: u32, value: i64, trace: &str, span: &str, after_ns: i64) -> Exemplar {
    Exemplar {
        stack,
        label_set: 0,
        value,
        unix_ns: BASE_S * 1_000_000_000 + after_ns,
        trace_id: u128::from_str_radix(trace, 16).unwrap().to_be_bytes(),
        span_id: u64::from_str_radix(span, 16).unwrap(),
    }
}

fn with(mut window: WorkloadWindow, exemplars: Vec<Exemplar>, cut: u64) -> WorkloadWindow {
    window.profiles[0].exemplars = exemplars;
    window.profiles[0].exemplars_cut = cut;
    window
}

/// Two releases; a trace that passes through both.
async fn world() -> World {
    let of = |version: &str| {
        window("checkout", version, Component::Application, 0)
            .stack(Some(Side::Server), QUOTE, &["main", "shop::quote"], 1_000_000, 10)
            .stack(
                Some(Side::Server),
                QUOTE,
                &["main", "shop::quote", "shop::tax"],
                500_000,
                5,
            )
            .done()
    };
    let first = vec![
        exemplar(0, 100, TRACE, SPAN, 1_000_001),
        exemplar(1, 40, TRACE, OTHER_SPAN, 2_000_002),
        exemplar(1, 7, OTHER_TRACE, SPAN, 3_000_003),
        // Only one of both is known.
        exemplar(0, 3, &"0".repeat(32), SPAN, 4_000_004),
        exemplar(0, 2, TRACE, &"0".repeat(16), 5_000_005),
    ];
    let second = vec![exemplar(1, 1000, TRACE, SPAN, 6_000_006)];
    World::new(vec![with(of("v1"), first, 30), with(of("v2"), second, 4)]).await
}

fn values(answer: &Value) -> Vec<i64> {
    let rows = answer["exemplars"].as_array().unwrap().iter();
    rows.map(|row| row["value"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn exemplars_are_found_by_trace_by_span_and_by_selector() {
    let world = world().await;
    for (question, expected, cut) in [
        (String::new(), vec![100, 40, 7, 3, 2, 1000], 34),
        (format!("&trace_id={TRACE}"), vec![100, 40, 2, 1000], 34),
        (format!("&span_id={}", SPAN.to_uppercase()), vec![100, 7, 3, 1000], 34),
        (
            format!("&span_id={OTHER_SPAN},{SPAN}&trace_id={OTHER_TRACE}"),
            vec![7],
            34,
        ),
        (
            format!("&trace_id={TRACE},{OTHER_TRACE}&selector=%7Bversion%3D~%22v1%7Cv3%22%7D"),
            vec![100, 40, 7, 2],
            30,
        ),
        ("&selector=%7Bversion%3D%22v9%22%7D".to_owned(), vec![], 0),
        (format!("&trace_id={}", "1".repeat(32)), vec![], 34),
    ] {
        let answer = world.json(&format!("/api/v1/exemplars?from=now-2m{question}")).await;
        assert_eq!(values(&answer), expected, "{question}");
        assert_eq!(answer["found"], expected.len(), "{question}");
        assert_eq!(answer["value"], expected.iter().sum::<i64>(), "{question}");
        assert_eq!(answer["cut"], cut, "{question}");
    }
    let earlier = world.json("/api/v1/exemplars?from=now-1h&to=now-3m").await;
    assert_eq!((values(&earlier), &earlier["cut"]), (vec![], &json!(0)));
}

#[tokio::test]
async fn an_exemplar_says_whose_it_is_and_what_ran() {
    let world = world().await;
    let answer = world.json("/api/v1/exemplars?from=now-2m&exemplars_limit=4").await;
    assert_eq!(values(&answer), [100, 40, 7, 3]);
    assert_eq!(
        (&answer["found"], &answer["value"]),
        (&json!(6), &json!(1152)),
        "not cut by the limit"
    );
    assert_eq!(answer["query"]["unit"], "nanoseconds");
    let row = &answer["exemplars"][1];
    for (field, expected) in [
        ("at_ms", json!(BASE_S * 1000 + 2)),
        ("at_unix_ns", json!((BASE_S * 1_000_000_000 + 2_000_002).to_string())),
        ("namespace", json!("shop")),
        ("service", json!("checkout")),
        ("version", json!("v1")),
        ("instance", json!("checkout-v1-0")),
        ("component", json!("application")),
        ("side", json!("server")),
        ("route", json!(QUOTE)),
        ("trace_id", json!(TRACE)),
        ("span_id", json!(OTHER_SPAN)),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    let stack = &answer["stacks"][row["stack"].as_u64().unwrap() as usize];
    let names: Vec<&Value> = stack
        .as_array()
        .unwrap()
        .iter()
        .map(|at| &answer["functions"][at.as_u64().unwrap() as usize]["name"])
        .collect();
    assert_eq!(names, ["shop::tax", "shop::quote", "main"]);
    assert_eq!(
        answer["stacks"].as_array().unwrap().len(),
        2,
        "each stack is written once"
    );
    assert_eq!(answer["functions"].as_array().unwrap().len(), 3);
    assert_eq!(answer["exemplars"][3]["trace_id"], Value::Null, "zeros are no trace");
}

#[tokio::test]
async fn what_is_no_identifier_is_refused_by_name() {
    let world = world().await;
    for (question, named) in [
        ("trace_id=1".to_owned(), "trace_id"),
        (format!("trace_id={SPAN}"), "trace_id"),
        (format!("trace_id={TRACE},"), "trace_id"),
        (format!("trace_id={}", "0".repeat(32)), "trace_id"),
        (format!("span_id={TRACE}"), "span_id"),
        ("span_id=%2b0000000000000c1".to_owned(), "span_id"),
        ("span_id=ééééééé1".to_owned().replace('é', "%c3%a9"), "span_id"),
        ("exemplars_limit=0".to_owned(), "exemplars_limit"),
        ("exemplars_limit=10001".to_owned(), "exemplars_limit"),
    ] {
        let answer = world.get(&format!("/api/v1/exemplars?from=now-2m&{question}")).await;
        assert_eq!(answer.status.as_u16(), 400, "{question}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "bad_parameter", "{question}");
        assert!(
            error["message"].as_str().unwrap().contains(&format!("`{named}")),
            "{error}"
        );
    }
}

async fn graph(world: &World, call: &str, fields: Value) -> Value {
    let mut question = json!({
        "profileTypeID": CPU, "labelSelector": "{}",
        "start": (BASE_S * 1000).to_string(), "end": (NOW_S * 1000).to_string(),
    });
    question
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let request =
        Request::post(format!("/querier.v1.QuerierService/{call}")).header("content-type", "application/json");
    let answer = world
        .send(request.body(Body::from(question.to_string())).unwrap())
        .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    answer.json()["flamegraph"].clone()
}

/// Names with their self values, from levels of groups of four.
fn own(graph: &Value) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for level in graph["levels"].as_array().unwrap() {
        let values: Vec<i64> = level["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap().parse().unwrap())
            .collect();
        for group in values.chunks_exact(4).filter(|group| group[2] != 0) {
            found.push((graph["names"][group[3] as usize].as_str().unwrap().to_owned(), group[2]));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn span_profiles_are_made_of_the_samples_of_these_spans() {
    let world = world().await;
    let pair = |name: &str, value| (name.to_owned(), value);
    let (quote, tax) = (|value| pair("shop::quote", value), |value| pair("shop::tax", value));
    for (call, fields, expected) in [
        (
            "SelectMergeSpanProfile",
            json!({ "spanSelector": [SPAN] }),
            vec![quote(103), tax(1007)],
        ),
        (
            "SelectMergeSpanProfile",
            json!({ "spanSelector": [OTHER_SPAN] }),
            vec![tax(40)],
        ),
        (
            "SelectMergeSpanProfile",
            json!({ "spanSelector": [SPAN, OTHER_SPAN], "labelSelector": "{version=\"v1\"}" }),
            vec![quote(103), tax(47)],
        ),
        (
            "SelectMergeSpanProfile",
            json!({ "spanSelector": ["1111111111111111"] }),
            vec![],
        ),
        (
            "SelectMergeStacktraces",
            json!({ "traceIdSelector": [TRACE] }),
            vec![quote(102), tax(1040)],
        ),
        (
            "SelectMergeStacktraces",
            json!({ "traceIdSelector": [TRACE], "spanSelector": [SPAN] }),
            vec![quote(100), tax(1000)],
        ),
        // Nothing selected by request is everything, as in the merge.
        (
            "SelectMergeSpanProfile",
            json!({}),
            vec![quote(2_000_000), tax(1_000_000)],
        ),
    ] {
        let graph = graph(&world, call, fields.clone()).await;
        assert_eq!(own(&graph), expected, "{call} {fields}");
        let sum: i64 = expected.iter().map(|row| row.1).sum();
        let told = graph["total"].as_str().map_or(0, |text| text.parse().unwrap());
        assert_eq!(told, sum, "{call} {fields}");
    }
    let found = world
        .json(&format!("/api/v1/exemplars?from=now-2m&span_id={SPAN}"))
        .await;
    let listed = values(&found);
    assert_eq!(
        total(&json!(listed)),
        1110,
        "the list and the graph are of the same samples"
    );
}

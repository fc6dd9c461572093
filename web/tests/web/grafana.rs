//! The interface that Grafana's data source speaks gives the numbers of the API.
//!
//! One file because it is one client's session: the queries that the data source sends, in its protocols. The answers are compared
//! with each other.

use std::io::Write;

use axum::body::Body;
use http::{Request, StatusCode};
use prost::Message;
use serde_json::{Value, json};

use crate::support::{Answer, BASE_S, NOW_S, World, find, shop, sum};

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

async fn post(world: &World, call: &str, content_type: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post(format!("/querier.v1.QuerierService/{call}")).header("content-type", content_type);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::from(body)).unwrap()).await
}

async fn call(world: &World, name: &str, question: &Value) -> Value {
    let answer = post(
        world,
        name,
        "application/json",
        &[("connect-protocol-version", "1")],
        question.to_string().into(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{name} {question}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

/// A question about everything, as the JSON form of protobuf writes 64-bit numbers.
fn about(selector: &str) -> Value {
    json!({
        "profileTypeID": CPU, "labelSelector": selector,
        "start": (BASE_S * 1000).to_string(), "end": (NOW_S * 1000).to_string(),
    })
}

fn with(mut question: Value, fields: &Value) -> Value {
    let fields = fields.as_object().unwrap().clone();
    question.as_object_mut().unwrap().extend(fields);
    question
}

fn number(value: &Value) -> i64 {
    if value.is_null() {
        // The JSON form of protobuf leaves zeros out.
        return 0;
    }
    value.as_str().expect("64-bit numbers are strings").parse().unwrap()
}

/// Self values by path of names, from levels of groups of four.
fn stacks_of(names: &Value, levels: &[Vec<i64>]) -> Vec<(String, i64)> {
    let mut above: Vec<(i64, i64, String)> = vec![(0, i64::MAX, String::new())];
    let mut stacks = Vec::new();
    for level in levels {
        let (mut here, mut end) = (Vec::new(), 0);
        for group in level.chunks_exact(4) {
            let start = end + group[0];
            end = start + group[1];
            let parent = above
                .iter()
                .find(|(from, to, _)| *from <= start && end <= *to)
                .expect("a parent");
            let path = format!("{};{}", parent.2, names[group[3] as usize].as_str().unwrap());
            if group[2] != 0 {
                stacks.push((path.clone(), group[2]));
            }
            here.push((start, end, path));
        }
        above = here;
    }
    stacks.sort();
    stacks
}

fn levels_of(graph: &Value) -> Vec<Vec<i64>> {
    let levels = graph["levels"].as_array().unwrap().iter();
    levels
        .map(|level| level["values"].as_array().unwrap().iter().map(number).collect())
        .collect()
}

#[tokio::test]
async fn profile_types_and_labels_are_listed() {
    let world = World::new(shop()).await;
    let range = json!({ "start": (BASE_S * 1000).to_string(), "end": NOW_S * 1000 });
    for question in [&range, &json!({})] {
        let types = call(&world, "ProfileTypes", question).await;
        assert_eq!(
            types,
            json!({ "profileTypes": [{
                "ID": CPU, "name": "process_cpu", "sampleType": "cpu", "sampleUnit": "nanoseconds",
                "periodType": "cpu", "periodUnit": "nanoseconds",
            }] })
        );
    }
    let names = call(&world, "LabelNames", &range).await;
    assert_eq!(
        names["names"],
        json!([
            "__profile_type__",
            "component",
            "instance",
            "namespace",
            "route",
            "service_name",
            "side",
            "version"
        ])
    );
    let question = with(range.clone(), &json!({ "name": "service_name", "matchers": [] }));
    assert_eq!(
        call(&world, "LabelValues", &question).await["names"],
        json!(["cart", "checkout", "frontend"])
    );
    let question = with(
        range.clone(),
        &json!({ "name": "version", "matchers": [r#"{service_name="checkout"}"#] }),
    );
    assert_eq!(
        call(&world, "LabelValues", &question).await["names"],
        json!(["v1", "v2"])
    );
    let question = with(
        range.clone(),
        &json!({ "labelNames": ["service_name", "__profile_type__"], "matchers": [r#"{component="proxy"}"#] }),
    );
    assert_eq!(
        call(&world, "Series", &question).await,
        json!({ "labelsSet": [{ "labels": [
            { "name": "service_name", "value": "cart" }, { "name": "__profile_type__", "value": CPU },
        ] }] })
    );
    let stats = call(&world, "GetProfileStats", &json!({})).await;
    assert_eq!(stats["dataIngested"], true);
    assert_eq!(number(&stats["oldestProfileTime"]), BASE_S * 1000);
    assert_eq!(number(&stats["newestProfileTime"]), (BASE_S + 80) * 1000);
}

#[tokio::test]
async fn a_flame_graph_holds_the_stacks_of_the_api() {
    let world = World::new(shop()).await;
    let selector = r#"{service_name="checkout",version=~"v.*"}"#;
    let merge = world
        .json("/api/v1/merge?from=now-2m&selector=%7Bservice%3D%22checkout%22%7D")
        .await;
    let total = merge["total"].as_i64().unwrap();
    for nodes in ["1", "3", "8192"] {
        let question = with(about(selector), &json!({ "maxNodes": nodes }));
        let graph = call(&world, "SelectMergeStacktraces", &question).await["flamegraph"].clone();
        assert_eq!(number(&graph["total"]), total);
        assert_eq!(graph["names"][0], "total");
        let stacks = stacks_of(&graph["names"], &levels_of(&graph));
        assert_eq!(stacks.iter().map(|s| s.1).sum::<i64>(), total, "{nodes}");
        assert_eq!(stacks.iter().map(|s| s.1).max().unwrap(), number(&graph["maxSelf"]));
        if nodes != "8192" {
            assert!(graph["names"].as_array().unwrap().contains(&json!("other")));
            continue;
        }
        let folded = world
            .get("/api/v1/merge?from=now-2m&selector=%7Bservice%3D%22checkout%22%7D&format=folded")
            .await;
        let mut expected: Vec<(String, i64)> = folded
            .text()
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(stack, value)| (format!(";total;{stack}"), value.parse().unwrap()))
            .collect();
        expected.sort();
        assert_eq!(stacks, expected);
    }
    let site = json!({ "stackTraceSelector": { "callSite": [{ "name": "main" }, { "name": "shop::health" }] } });
    let part = call(&world, "SelectMergeStacktraces", &with(about(selector), &site)).await;
    let health = find(&merge["functions"], &[("name", "shop::health")]);
    assert_eq!(number(&part["flamegraph"]["total"]), health["total"].as_i64().unwrap());
    let same = call(&world, "SelectMergeSpanProfile", &about(selector)).await;
    assert_eq!(number(&same["flamegraph"]["total"]), total);
    let nothing = call(&world, "SelectMergeStacktraces", &about(r#"{pyroscope_spy="x"}"#)).await;
    assert_eq!(number(&nothing["flamegraph"]["total"]), 0);
}

#[tokio::test]
async fn series_and_pprof_add_up_to_the_api() {
    let world = World::new(shop()).await;
    let merge = world.json("/api/v1/merge?from=now-2m").await;
    let total = merge["total"].as_i64().unwrap();
    let question = with(
        about("{}"),
        &json!({ "groupBy": ["service_name", "version"], "step": 20 }),
    );
    let answer = call(&world, "SelectSeries", &question).await;
    let mut sum_of_points = 0.0;
    for series in answer["series"].as_array().unwrap() {
        assert_eq!(series["labels"][0]["name"], "service_name");
        let mut last = 0;
        for point in series["points"].as_array().unwrap() {
            sum_of_points += point["value"].as_f64().unwrap();
            let at = number(&point["timestamp"]);
            assert!(at > last && at % 20_000 == 0, "milliseconds, rising: {at}");
            last = at;
        }
    }
    assert_eq!(sum_of_points as i64, total);
    let limited = with(question, &json!({ "limit": "1" }));
    assert_eq!(
        call(&world, "SelectSeries", &limited).await["series"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let profile = call(&world, "SelectMergeProfile", &about("{}")).await;
    let values: i64 = profile["sample"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| number(&s["value"][0]))
        .sum();
    assert_eq!(values, total);
    assert!(
        profile["stringTable"]
            .as_array()
            .unwrap()
            .contains(&json!("shop::price_basket"))
    );
}

#[tokio::test]
async fn a_diff_holds_both_sides() {
    let world = World::new(shop()).await;
    let side = |version: &str| about(&format!("{{service_name=\"checkout\",version=\"{version}\"}}"));
    let answer = call(&world, "Diff", &json!({ "left": side("v1"), "right": side("v2") })).await;
    let graph = &answer["flamegraph"];
    let mut own = [0, 0];
    for level in levels_of(graph) {
        for group in level.chunks_exact(7) {
            own[0] += group[2];
            own[1] += group[5];
        }
    }
    assert_eq!(own, [number(&graph["leftTicks"]), number(&graph["rightTicks"])]);
    for (version, ticks) in [("v1", own[0]), ("v2", own[1])] {
        let profile = world
            .json(&format!(
                "/api/v1/profile?service=checkout&version={version}&from=now-2m"
            ))
            .await;
        assert_eq!(profile["total"], ticks);
    }
}

/// The binary forms, with the field numbers written out so that they cannot move unnoticed.
#[derive(Clone, PartialEq, Message)]
struct MergeQuestion {
    #[prost(string, tag = "1")]
    profile_type: String,
    #[prost(string, tag = "2")]
    selector: String,
    #[prost(int64, tag = "3")]
    start: i64,
    #[prost(int64, tag = "4")]
    end: i64,
}

#[derive(Clone, PartialEq, Message)]
struct MergeAnswer {
    #[prost(message, optional, tag = "1")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(string, repeated, tag = "1")]
    names: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    levels: Vec<GraphLevel>,
    #[prost(int64, tag = "3")]
    total: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphLevel {
    #[prost(int64, repeated, tag = "1")]
    values: Vec<i64>,
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], length.as_slice(), message].concat()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn json_protobuf_and_grpc_say_the_same() {
    let world = World::new(shop()).await;
    let question = MergeQuestion {
        profile_type: CPU.to_owned(),
        selector: r#"{service_name="checkout"}"#.to_owned(),
        start: BASE_S * 1000,
        end: NOW_S * 1000,
    };
    let json = call(&world, "SelectMergeStacktraces", &about(&question.selector)).await;
    let bytes = question.encode_to_vec();
    for (content_type, headers, body, prefix) in [
        ("application/proto", vec![], bytes.clone(), 0),
        (
            "application/proto",
            vec![("content-encoding", "gzip")],
            packed(&bytes),
            0,
        ),
        ("application/grpc", vec![("te", "trailers")], framed(0, &bytes), 5),
        (
            "application/grpc+proto",
            vec![("grpc-encoding", "gzip"), ("grpc-timeout", "20S")],
            framed(1, &packed(&bytes)),
            5,
        ),
    ] {
        let answer = post(&world, "SelectMergeStacktraces", content_type, &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{content_type} {headers:?}");
        if prefix > 0 {
            assert_eq!(answer.body[0], 0);
            assert_eq!(
                answer.body.len() - prefix,
                u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize
            );
            assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0");
        }
        let graph = MergeAnswer::decode(&answer.body[prefix..]).unwrap().graph.unwrap();
        assert_eq!(json!(graph.names), json["flamegraph"]["names"]);
        assert_eq!(graph.total, number(&json["flamegraph"]["total"]));
        let levels: Vec<Vec<i64>> = graph.levels.into_iter().map(|level| level.values).collect();
        assert_eq!(levels, levels_of(&json["flamegraph"]));
    }
}

#[tokio::test]
async fn refusals_are_in_the_callers_protocol() {
    let world = World::new(shop()).await;
    for (name, question, status, code, said) in [
        (
            "SelectMergeStacktraces",
            with(about("{a="), &json!({})),
            400,
            "invalid_argument",
            "selector",
        ),
        (
            "SelectMergeStacktraces",
            with(about("{}"), &json!({ "maxNodes": "-1" })),
            400,
            "invalid_argument",
            "maxNodes",
        ),
        (
            "SelectMergeStacktraces",
            with(about("{}"), &json!({ "format": "PROFILE_FORMAT_DOT" })),
            501,
            "unimplemented",
            "PROFILE_FORMAT_DOT",
        ),
        (
            "SelectMergeStacktraces",
            with(about("{}"), &json!({ "traceIdSelector": ["0a"] })),
            400,
            "invalid_argument",
            "traceIdSelector",
        ),
        (
            "SelectMergeSpanProfile",
            with(about("{}"), &json!({ "spanSelector": ["0a"] })),
            400,
            "invalid_argument",
            "spanSelector",
        ),
        (
            "SelectMergeSpanProfile",
            with(
                about("{}"),
                &json!({ "spanSelector": vec!["00000000000000c1"; 10_001] }),
            ),
            429,
            "resource_exhausted",
            "10001",
        ),
        (
            "SelectMergeProfile",
            with(about("{}"), &json!({ "profileIdSelector": ["0a"] })),
            501,
            "unimplemented",
            "profileIdSelector",
        ),
        (
            "SelectMergeStacktraces",
            json!({ "start": "5", "end": "4" }),
            400,
            "invalid_argument",
            "before",
        ),
        (
            "SelectSeries",
            with(about("{}"), &json!({ "start": "1", "end": "1800000000000", "step": 1 })),
            400,
            "invalid_argument",
            "step",
        ),
        (
            "Diff",
            json!({ "left": about("{}") }),
            400,
            "invalid_argument",
            "`right`",
        ),
        ("SelectHeatmap", json!({}), 501, "unimplemented", "SelectHeatmap"),
        ("ProfileTypes", json!([]), 400, "invalid_argument", "JSON"),
    ] {
        let answer = post(&world, name, "application/json", &[], question.to_string().into()).await;
        assert_eq!(answer.status.as_u16(), status, "{name} {question}: {}", answer.text());
        let error = answer.json();
        assert_eq!(error["code"], code, "{name} {question}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    let grpc = post(&world, "ProfileTypes", "application/grpc", &[], b"abc".to_vec()).await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (StatusCode::OK, "3"));
    assert!(grpc.header("grpc-message").contains("gRPC message"));
    let media = post(&world, "ProfileTypes", "text/xml", &[], Vec::new()).await;
    assert_eq!(media.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let method = world.get("/querier.v1.QuerierService/ProfileTypes").await;
    assert_eq!(
        (method.status, method.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "POST")
    );
    let bomb = packed(&vec![b' '; 64 << 20]);
    for (headers, body) in [
        (vec![("content-encoding", "gzip")], bomb),
        (vec![], vec![b' '; 2 << 20]),
    ] {
        let answer = post(&world, "ProfileTypes", "application/json", &headers, body).await;
        assert_eq!(answer.json()["code"], "resource_exhausted");
    }
}

#[tokio::test]
async fn the_older_interface_says_the_same() {
    let world = World::new(shop()).await;
    let query = "query=process_cpu%3Acpu%3Ananoseconds%3Acpu%3Ananoseconds%7Bservice_name%3D%22checkout%22%7D";
    let range = format!("from={BASE_S}&until={}000", NOW_S);
    let merge = world
        .json("/api/v1/merge?from=now-2m&selector=%7Bservice%3D%22checkout%22%7D")
        .await;
    let total = merge["total"].as_i64().unwrap();
    let answer = world
        .json(&format!("/pyroscope/render?{query}&{range}&groupBy=version&unknown=1"))
        .await;
    assert_eq!(answer["version"], 1);
    assert_eq!(answer["flamebearer"]["numTicks"], total);
    assert_eq!(answer["metadata"]["format"], "single");
    let levels: Vec<Vec<i64>> = serde_json::from_value(answer["flamebearer"]["levels"].clone()).unwrap();
    let stacks = stacks_of(&answer["flamebearer"]["names"], &levels);
    assert_eq!(stacks.iter().map(|s| s.1).sum::<i64>(), total);
    let line = |line: &Value| -> i64 {
        line["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap())
            .sum()
    };
    assert_eq!(line(&answer["timeline"]), total);
    assert_eq!(answer["timeline"]["durationDelta"], 10);
    assert_eq!(line(&answer["groups"]["v1"]) + line(&answer["groups"]["v2"]), total);

    let side = |side: &str, version: &str| {
        format!(
            "{side}Query=process_cpu%3Acpu%3Ananoseconds%3Acpu%3Ananoseconds%7Bversion%3D%22{version}%22%2Cservice_name%3D%22checkout%22%7D&{side}From=now-2m&{side}Until=now"
        )
    };
    let diff = world
        .json(&format!(
            "/pyroscope/render-diff?{}&{}",
            side("left", "v1"),
            side("right", "v2")
        ))
        .await;
    assert_eq!(diff["metadata"]["format"], "double");
    assert_eq!(
        diff["leftTicks"].as_i64().unwrap() + diff["rightTicks"].as_i64().unwrap(),
        total
    );
    assert_eq!(diff["flamebearer"]["levels"][0].as_array().unwrap().len(), 7);
    assert_eq!(
        world.json("/pyroscope/label-values?label=version&from=now-2m").await,
        json!(["v1", "v2"])
    );
    for (address, status) in [
        ("/pyroscope/render?query=%7B%7D", 400),
        ("/pyroscope/render?query=cpu%7B%7D&from=20241301", 400),
        ("/pyroscope/render?query=cpu%7B%7D&format=dot", 501),
        ("/pyroscope/render-diff?leftQuery=a%7B%7D&rightQuery=b%7B%7D", 400),
        ("/pyroscope/label-values", 400),
    ] {
        assert_eq!(world.get(address).await.status.as_u16(), status, "{address}");
    }
    assert!(sum(&merge["functions"], "self") == total);
}

//! What a sender is told: accepted means kept, and what was not is said with what, how much, why and a remedy, at every door.

use std::path::Path;

use crate::support::{
    Server, T0,
    asking::pprof_of,
    profile, window,
    wire::{framed, grpc, http2, post, whole},
};
use emberline_model::{
    ProfileType,
    otlp::encode_profiles,
    proto::{parca, push},
};
use emberline_storage::{Range, ServicesQuery, StackQuery, WorkloadFilter};
use prost::Message;
use serde_json::Value;

const PUSH: &str = "/push.v1.PusherService/Push";
const WRITE_RAW: &str = "/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw";
/// `heap-delta.pb.gz` in base64.
const HEAP_DELTA: &str = concat!(
    "H4sIAAAAAAACA+Ni4WAUYOJi4WAWYAGSrGA2mwCLkBwXEyOTkATXgRbbv/+hgHHBjbdQlhAfFxMzkxAH64JDciCsxMbBqMQExGwc",
    "TECaCUgzA2lmLaC4AIcEB5BmEuCU4ATSzAJcElxGDEa8iTk5+cnx+UlZqcklxUasyfmleSVG3BDR4oLE5FQj1qTKktRiI97MvNLi",
    "VLhKbggXqgSmsjQzJ8WIJTcxM8+IJTs1tSCg4cT6BapRLBzsAiwJDQ0KAGdQPWHqAAAA",
);

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/others");
    std::fs::read(path.join(name)).unwrap()
}

async fn stacks(server: &Server, service: &str, profile_type: &str) -> Vec<(Vec<String>, i64)> {
    server.store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::service(service), profile_type, Range::ALL);
    let rows = server.store.ask(query).await.unwrap().rows;
    let ids: Vec<u64> = rows.iter().map(|row| row.stack_id).collect();
    let resolved = server.store.resolve(&ids).await.unwrap();
    let named = rows.iter().map(|row| {
        let names = resolved
            .frames(row.stack_id)
            .map(|at| resolved.functions[at as usize].name.clone());
        (names.collect(), row.value)
    });
    named.collect()
}

async fn total(server: &Server, service: &str, profile_type: &str) -> i64 {
    stacks(server, service, profile_type)
        .await
        .iter()
        .map(|(_, value)| value)
        .sum()
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// A second of CPU of one function, in the window that begins at `T0`.
fn second_of(function: &str) -> Vec<u8> {
    pprof_of(function, ProfileType::CPU, 1_000_000_000)
}

fn pushed(series: impl Iterator<Item = (Vec<(&'static str, String)>, Vec<u8>)>) -> Vec<u8> {
    let series = series.map(|(labels, raw_profile)| push::RawProfileSeries {
        labels: labels
            .into_iter()
            .map(|(name, value)| push::LabelPair {
                name: name.to_owned(),
                value,
            })
            .collect(),
        samples: vec![push::RawSample {
            raw_profile,
            id: "0".to_owned(),
        }],
    });
    push::PushRequest {
        series: series.collect(),
    }
    .encode_to_vec()
}

/// Processes that name no instance are one, and all of what they did is kept.
#[tokio::test(flavor = "multi_thread")]
async fn all_series_of_one_push_are_added_up() {
    let server = Server::start(|_| {}).await;
    let series = (0..40).map(|n| {
        let labels = vec![("service_name", "shop".to_owned()), ("worker", n.to_string())];
        (labels, second_of(&format!("worker{}", n % 20)))
    });
    let (status, answer) = post(
        server.http,
        PUSH,
        &[("content-type", "application/proto")],
        &pushed(series),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.contains("emberline-left-out"), "{answer}");
    assert_eq!(total(&server, "shop", ProfileType::CPU).await, 40_000_000_000);
    assert_eq!(stacks(&server, "shop", ProfileType::CPU).await.len(), 20);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_stacks_keep_their_root_and_their_leaf_and_it_is_said() {
    let server = Server::start(|_| {}).await;
    let path = "/api/ingest?service=shop&time=received";
    let (status, answer) = post(server.http, path, &[], &fixture("deep.pb.gz")).await;
    assert_eq!(status, 200, "{answer}");
    let answer = body(&answer);
    let changed = answer["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 1, "{answer}");
    assert_eq!(
        (changed[0]["reason"].as_str(), changed[0]["count"].as_u64()),
        (Some("max_stack_depth"), Some(4))
    );
    let found = stacks(&server, "shop", ProfileType::CPU).await;
    let of = |wanted: &str| {
        found
            .iter()
            .filter(|(stack, _)| stack.iter().any(|name| name == wanted))
            .map(|(_, value)| value)
            .sum::<i64>()
    };
    assert_eq!((of("main"), of("handle")), (3_000_000_000, 3_000_000_000));
    assert_eq!(of("[frames cut]"), 2_000_000_000);
    assert!(
        found
            .iter()
            .all(|(stack, _)| stack.last().unwrap() == "main" && stack.len() <= 512)
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_another_unit_are_refused_with_what_to_say() {
    let server = Server::start(|_| {}).await;
    let own = "# profile type: process_cpu:cpu:nanoseconds:cpu:nanoseconds\nmain;price 7200000000000\n";
    for (service, more, text, kept) in [
        // What inferno-collapse-perf writes, and what this program exported before it said what its numbers are.
        ("inferno", "", fixture("inferno-0.12.6-perf.folded"), None),
        (
            "inferno",
            "&kind=cpu_nanoseconds",
            fixture("inferno-0.12.6-perf.folded"),
            Some(499_499_499),
        ),
        ("bytes", "", b"main;allocate 20000000\n".to_vec(), None),
        ("own", "", own.as_bytes().to_vec(), Some(7_200_000_000_000)),
        // Three hours of a busy process are more than ten seconds have.
        ("long", "", b"main 1080000\n".to_vec(), None),
    ] {
        let path = format!("/api/ingest?service={service}&time=received{more}");
        let (status, answer) = post(server.http, &path, &[], &text).await;
        match kept {
            Some(kept) => {
                assert_eq!(status, 200, "{service}: {answer}");
                assert_eq!(total(&server, service, ProfileType::CPU).await, kept);
            }
            None => {
                assert_eq!(status, 400, "{service}: {answer}");
                for word in [
                    "more_cpu_than_cores",
                    "1,024 cores",
                    "cpu_nanoseconds",
                    "`from` and `until`",
                ] {
                    assert!(answer.contains(word), "{service}: {word}: {answer}");
                }
            }
        }
    }
    let (from, until) = (T0 - 3 * 3600, T0);
    let path = format!("/api/ingest?service=long&from={from}&until={until}");
    let (status, answer) = post(server.http, &path, &[], b"main 1080000\n").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(total(&server, "long", ProfileType::CPU).await, 10_800_000_000_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_says_what_was_left_out_in_one_shape() {
    let server = Server::start(|_| {}).await;
    let told = |list: &Value| {
        let two = list.as_array().unwrap();
        assert_eq!(two.len(), 2, "{list}");
        for told in two {
            assert_eq!(
                (told["reason"].as_str(), told["count"].as_u64()),
                (Some("negative_value"), Some(2))
            );
            assert!(told["what"].as_str().unwrap().starts_with("memory:inuse_"), "{told}");
            for field in ["unit", "why", "remedy"] {
                assert!(!told[field].as_str().unwrap().is_empty(), "{told}");
            }
        }
    };
    let path = "/api/ingest?service=shop&version=upload&time=received";
    let (status, answer) = post(server.http, path, &[], &fixture("heap-delta.pb.gz")).await;
    assert_eq!(status, 200, "{answer}");
    told(&body(&answer)["left_out"]);
    assert!(
        answer.contains("\r\nemberline-left-out: dropped: 2 for reason `negative_value`"),
        "{answer}"
    );

    let path = "/ingest?name=shop%7Bversion%3Dagent%7D&format=pprof";
    let (status, answer) = post(server.http, path, &[], &fixture("heap-delta.pb.gz")).await;
    assert_eq!(status, 200, "{answer}");
    told(&body(&answer)["left_out"]);

    let json = format!(
        r#"{{"series":[{{"labels":[{{"name":"service_name","value":"shop"}}],"samples":[{{"rawProfile":"{HEAP_DELTA}"}}]}}]}}"#
    );
    let (status, answer) = post(
        server.http,
        PUSH,
        &[("content-type", "application/json")],
        json.as_bytes(),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    told(&body(&answer)["left_out"]);

    // Where the answer is an empty message, the header says it.
    let labels = vec![("service_name", "shop".to_owned())];
    let pushed = pushed([(labels, fixture("heap-delta.pb.gz"))].into_iter());
    let raw = parca::WriteRawRequest {
        series: vec![parca::RawProfileSeries {
            labels: Some(parca::LabelSet {
                labels: vec![parca::Label {
                    name: "job".to_owned(),
                    value: "shop".to_owned(),
                }],
            }),
            samples: vec![parca::RawSample {
                raw_profile: fixture("heap-delta.pb.gz"),
            }],
        }],
        normalized: false,
    };
    for (path, message) in [(PUSH, pushed), (WRITE_RAW, raw.encode_to_vec())] {
        let mut sender = http2(server.grpc).await;
        let answer = sender.send_request(grpc(path, whole(framed(&message)))).await.unwrap();
        let said = answer.headers()["emberline-left-out"].to_str().unwrap().to_owned();
        assert!(
            said.contains("negative_value") && said.contains("memory:inuse_space"),
            "{path}: {said}"
        );
    }

    let mut shop = window("shop", "otlp", T0);
    shop.profiles = vec![profile(T0, &[("/a", &["leaf", "main"], 120)])];
    let mut request = encode_profiles(&shop);
    request.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].values = vec![-3];
    let (status, answer) = post(
        server.http,
        "/v1/profiles",
        &[("content-type", "application/x-protobuf")],
        &request.encode_to_vec(),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("negative_value") && answer.contains("process_cpu:cpu"),
        "{answer}"
    );
    assert_eq!(
        total(&server, "shop", "memory:alloc_space:bytes:space:bytes").await,
        5 * 1_500_000
    );
    server.stop().await;
}

/// A window of which nothing could be kept is none in which nothing happened.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_kept_is_a_refusal_and_leaves_no_window() {
    let server = Server::start(|_| {}).await;
    let stacks: String = (0..20).map(|n| format!("main;f{n} 9000000000000\n")).collect();
    let (status, answer) = post(
        server.http,
        "/api/ingest?service=shop&time=received&kind=alloc_space",
        &[],
        stacks.as_bytes(),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let stacks: String = (0..20).map(|n| format!("main;f{n} 90000000000000\n")).collect();
    let (status, answer) = post(
        server.http,
        "/api/ingest?service=none&time=received&kind=alloc_space",
        &[],
        stacks.as_bytes(),
    )
    .await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer.contains("nothing was stored") && answer.contains("value_out_of_range"),
        "{answer}"
    );
    server.store.flush_applied().await.unwrap();
    let services = server.store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services;
    assert!(!format!("{services:?}").contains("none"), "{services:?}");
    server.stop().await;
}

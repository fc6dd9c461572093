//! Counters that clients push as they stand: what is stored is their growth, one process at a time.

use std::path::Path;

use crate::support::{
    Server, T0,
    asking::{post, sum_of},
};
use emberline_storage::WorkloadFilter;
use http::StatusCode;

const ALLOC_SPACE: &str = "memory:alloc_space:bytes:space:bytes";
const INUSE_SPACE: &str = "memory:inuse_space:bytes:space:bytes";
const MUTEX_DELAY: &str = "mutex:delay:nanoseconds:contentions:count";
const BLOCK_DELAY: &str = "block:delay:nanoseconds:contentions:count";
/// What counted between the two recordings, by `go tool pprof -base`.
const ALLOCATED: i64 = 78_821_831;
const MUTEX_WAITED: i64 = 6_148_760_923 - 4_846_199_875;

fn go_file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/go");
    std::fs::read(folder.join(format!("{name}.pb.gz"))).unwrap()
}

async fn stored(server: &Server, instance: &str, profile_type: &str) -> i64 {
    let who = WorkloadFilter {
        version: Some(instance.to_owned()),
        ..WorkloadFilter::service("shop")
    };
    sum_of(server, who, profile_type).await
}

/// Uploads a file of a process, whose version is named like its instance, at a second after the start.
async fn upload(server: &Server, instance: &str, file: &str, second: i64) -> String {
    let path = format!(
        "/api/ingest?service=shop&version={instance}&instance={instance}&from={}&until={}\
         &cumulative=alloc_space,alloc_objects",
        T0 + second,
        T0 + second + 10
    );
    let (status, answer) = post(server, &path, "", go_file(file)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_counters_store_the_growth_of_each_process() {
    let server = Server::start(|_| {}).await;
    upload(&server, "a", "allocs", 0).await;
    assert_eq!(stored(&server, "a", ALLOC_SPACE).await, 0);
    upload(&server, "b", "allocs-restarted", 0).await;
    upload(&server, "a", "allocs-later", 10).await;
    assert_eq!(stored(&server, "a", ALLOC_SPACE).await, ALLOCATED);
    assert_eq!(
        stored(&server, "b", ALLOC_SPACE).await,
        0,
        "another process has its own base"
    );
    // A retry, and one that was overtaken: nothing counts twice.
    upload(&server, "a", "allocs-later", 10).await;
    let answer = upload(&server, "a", "allocs", 0).await;
    assert!(answer.contains("cumulative_out_of_order"), "{answer}");
    assert_eq!(stored(&server, "a", ALLOC_SPACE).await, ALLOCATED);
    assert!(stored(&server, "a", INUSE_SPACE).await > 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_need_a_process_and_a_type_that_is_there() {
    let server = Server::start(|_| {}).await;
    for (query, said) in [
        ("cumulative=alloc_space", "instance"),
        ("instance=a&cumulative=alloc_spaec", "`alloc_spaec`"),
    ] {
        let (status, answer) = post(
            &server,
            &format!("/api/ingest?service=shop&{query}"),
            "",
            go_file("allocs"),
        )
        .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer.contains(said), "{answer}");
    }
    server.stop().await;
}

const FORM: &str = "multipart/form-data; boundary=here";

fn form(config: &str, profile: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in [("sample_type_config", config.as_bytes()), ("profile", profile)] {
        body.extend_from_slice(
            format!("--here\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--here--\r\n");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_a_pyroscope_client_declares_cumulative_store_their_growth() {
    let server = Server::start(|_| {}).await;
    let config = |shown: &str| {
        format!(
            r#"{{"contentions":{{"display-name":"{shown}_count","cumulative":true}},
            "delay":{{"display-name":"{shown}_duration","cumulative":true}}}}"#
        )
    };
    let push = async |labels: &str, shown: &str, file: &str, second: i64| {
        let path = format!(
            "/ingest?name=shop%7Bversion%3Dp{labels}%7D&from={}&until={}&format=pprof",
            T0 + second,
            T0 + second + 10
        );
        let (status, answer) = post(&server, &path, FORM, form(&config(shown), &go_file(file))).await;
        (status, answer)
    };
    // The two kinds come one by one and have types of the same names.
    for (shown, file, second) in [
        ("mutex", "mutex", 0),
        ("block", "block", 0),
        ("mutex", "mutex-later", 10),
    ] {
        let (status, answer) = push("%2Cinstance%3Done", shown, file, second).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    assert_eq!(stored(&server, "p", MUTEX_DELAY).await, MUTEX_WAITED);
    assert_eq!(stored(&server, "p", BLOCK_DELAY).await, 0);
    let (status, answer) = push("", "mutex", "mutex", 0).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.contains("cumulative_without_instance"), "{answer}");
    server.stop().await;
}

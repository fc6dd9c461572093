//! Files of other profilers and what Java agents of Pyroscope send, through real requests into a real store. What each file
//! must become is in `model/tests/model/files_of_profilers.rs`; here it must arrive.

use std::{collections::BTreeMap, io::Read, path::Path};

use crate::support::{
    Server, T0,
    asking::{post, sum_of},
};
use emberline_model::formats::{Reading, read};
use emberline_storage::WorkloadFilter;
use http::StatusCode;

fn file(name: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    std::fs::read(fixtures.join(name)).unwrap()
}

/// What is stored of each of some types.
async fn stored(server: &Server, version: &str, types: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for profile_type in types.keys() {
        let who = WorkloadFilter {
            version: Some(version.to_owned()),
            ..WorkloadFilter::service("shop")
        };
        sums.insert(profile_type.clone(), sum_of(server, who, profile_type).await);
    }
    sums
}

fn totals(file: &[u8]) -> BTreeMap<String, i64> {
    let how = Reading {
        limit: 1 << 22,
        ..Reading::default()
    };
    let profiles = read(file, &how).unwrap().profiles;
    profiles
        .iter()
        .map(|profile| (profile.profile_type.0.clone(), profile.total()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_profilers_arrive_whole() {
    let server = Server::start(|_| {}).await;
    for (at, name) in [
        "jfr/busy.jfr.gz",
        "formats/node-20.20.2.cpuprofile",
        "formats/node-20.20.2.heapprofile",
        "formats/austin-3.7.0-full.txt",
        "formats/austin-4.0.0-wall.mojo",
        "formats/gperftools-2.10.cpu",
        "formats/gperftools-2.10.heap",
        "formats/jemalloc-5.3.0.heap",
        "formats/bpftrace-0.17.0.txt",
        "formats/callgrind-3.19.0.out",
        "formats/cprofile-3.11.pstats",
        "formats/chromium-153-trace.json",
    ]
    .into_iter()
    .enumerate()
    {
        let version = format!("v{at}");
        let path = format!("/api/ingest?service=shop&version={version}&time=received");
        let (status, answer) = post(&server, &path, "application/octet-stream", file(name)).await;
        assert_eq!(status, StatusCode::OK, "{name}: {answer}");
        let expected = totals(&file(name));
        assert_eq!(stored(&server, &version, &expected).await, expected, "{name}");
    }
    let path = "/api/ingest?service=shop&version=x";
    let (status, answer) = post(&server, path, "", file("formats/stackprof-0.2.21.json")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer.contains("stackprof") && answer.contains("--stackcollapse"),
        "{answer}"
    );
    server.stop().await;
}

/// As `io.pyroscope:agent` sends: the recording in the field `jfr`, packed by itself, labels beside it; or plain.
#[tokio::test(flavor = "multi_thread")]
async fn java_agents_of_pyroscope_are_served_on_ingest() {
    let server = Server::start(|_| {}).await;
    let packed = file("jfr/busy.jfr.gz");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut plain)
        .unwrap();
    let form = |fields: &[(&str, &[u8])]| {
        let mut body = Vec::new();
        for (name, content) in fields {
            let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        body
    };
    let expected = totals(&packed);
    for (version, content_type, body, labels) in [
        (
            "form",
            "multipart/form-data; boundary=XX",
            form(&[("jfr", &packed), ("labels", b"\x0a\0")]),
            true,
        ),
        (
            "bare",
            "multipart/form-data; boundary=XX",
            form(&[("jfr", &plain)]),
            false,
        ),
        ("body", "application/octet-stream", plain.clone(), false),
    ] {
        let path = format!(
            "/ingest?name=shop%7Bversion%3D{version}%7D&units=samples&aggregationType=sum&sampleRate=100&from={T0}\
             &until={}&spyName=javaspy&format=jfr",
            T0 + 10
        );
        let (status, answer) = post(&server, &path, content_type, body).await;
        assert_eq!(status, StatusCode::OK, "{version}: {answer}");
        assert_eq!(answer.contains("dynamic_labels"), labels, "{answer}");
        assert_eq!(stored(&server, version, &expected).await, expected, "{version}");
    }
    server.stop().await;
}

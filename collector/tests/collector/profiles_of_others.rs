//! Profiles of other profilers, through real requests into a real store.

use std::io::Write;

use crate::support::{
    Server, T0,
    asking::{gzip, post, pprof_of, sum_of},
    profile, window,
};
use emberline_model::{
    ProfileType, RawCodec,
    otlp::encode_profiles,
    proto::{parca, push},
};
use emberline_storage::{Range, ServicesQuery, WorkloadFilter};
use http::StatusCode;
use prost::Message;

const GOROUTINES: &str = "goroutine:goroutine:count:goroutine:count";

/// What is stored of a type, read back by service and version.
async fn stored(server: &Server, service: &str, version: &str, profile_type: &str) -> i64 {
    let who = WorkloadFilter {
        version: Some(version.to_owned()),
        ..WorkloadFilter::service(service)
    };
    sum_of(server, who, profile_type).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_format_are_taken_and_read_back() {
    let server = Server::start(|_| {}).await;
    let script = "shop 1/2 [000] 5000.0:   250000 cpu-clock: \n\tff price+0x1 (/bin/shop)\n\n";
    let speedscope = r#"{"shared":{"frames":[{"name":"main"}]},"profiles":[{"type":"sampled","name":"p",
        "unit":"milliseconds","startValue":0,"endValue":1,"samples":[[0]],"weights":[3]}]}"#;
    for (version, query, body, total) in [
        ("pprof", "", pprof_of("main", ProfileType::CPU, 42), 42),
        ("folded", "", b"main;leaf 2\nmain 1\n".to_vec(), 30_000_000),
        (
            "rated",
            "&sample_rate=1000",
            b"main;leaf 2\nmain 1\n".to_vec(),
            3_000_000,
        ),
        ("lines", "&format=lines", b"main;leaf\nmain\n".to_vec(), 20_000_000),
        ("perf", "", script.as_bytes().to_vec(), 250_000),
        ("speedscope", "", speedscope.as_bytes().to_vec(), 3_000_000),
    ] {
        for (version, body) in [
            (version.to_owned(), body.clone()),
            (format!("{version}-gz"), gzip(&body)),
        ] {
            let path = format!("/api/ingest?service=shop&version={version}{query}");
            let (status, answer) = post(&server, &path, "application/octet-stream", body).await;
            assert_eq!(status, StatusCode::OK, "{version}: {answer}");
            assert!(answer.contains("\"profiles\":1"), "{answer}");
            assert_eq!(
                stored(&server, "shop", &version, ProfileType::CPU).await,
                total,
                "{version}"
            );
        }
    }
    let path = "/api/ingest?service=shop&version=go&route=/a";
    let (status, answer) = post(&server, path, "", pprof_of("main", GOROUTINES, 7)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(stored(&server, "shop", "go", GOROUTINES).await, 7);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_files_name_what_was_wrong_and_store_nothing() {
    let server = Server::start(|config| config.max_request_bytes = 1 << 20).await;
    let old = T0 - 30 * 24 * 3600;
    let aged = format!("/api/ingest?service=shop&from={old}&until={}", old + 10);
    for (path, body, status, word) in [
        ("/api/ingest", b"a 1".to_vec(), 400, "`service`"),
        ("/api/ingest?service=shop&verison=2", b"a 1".to_vec(), 400, "`verison`"),
        ("/api/ingest?service=shop&format=etl", b"a 1".to_vec(), 415, "`etl`"),
        (
            "/api/ingest?service=shop&sample_rate=0",
            b"a 1".to_vec(),
            400,
            "`sample_rate`",
        ),
        (
            "/api/ingest?service=shop&from=2&until=1",
            b"a 1".to_vec(),
            400,
            "`until`",
        ),
        ("/api/ingest?service=shop&kind=joules", b"a 1".to_vec(), 400, "`joules`"),
        ("/api/ingest?service=shop", b"a 1\nb\n".to_vec(), 400, "line 2"),
        (
            "/api/ingest?service=shop&format=pprof",
            b"nonsense".to_vec(),
            400,
            "pprof",
        ),
        (
            "/api/ingest?service=shop",
            gzip(&vec![b'a'; 8 << 20]),
            413,
            "`max_request_mb`",
        ),
        (aged.as_str(), b"a 1".to_vec(), 400, "older_than_retention"),
    ] {
        let (code, answer) = post(&server, path, "", body).await;
        assert_eq!(code.as_u16(), status, "{path}: {answer}");
        assert!(answer.contains(word), "{path}: {answer}");
    }
    server.store.flush_applied().await.unwrap();
    assert!(
        server
            .store
            .ask(ServicesQuery::new(Range::ALL))
            .await
            .unwrap()
            .services
            .is_empty()
    );
    server.stop().await;
}

/// A file is read first in the room that its length suggests, and once more where that was too little.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_unpacks_to_far_more_than_its_length_is_stored_once() {
    let server = Server::start(|_| {}).await;
    let line = "main;checkout;price 1\n";
    let packed = gzip(line.repeat(100_000).as_bytes());
    assert!(packed.len() < 20_000, "{} bytes", packed.len());
    let path = "/api/ingest?service=shop&version=v1&sample_rate=1000";
    let (status, answer) = post(&server, path, "application/octet-stream", packed).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(stored(&server, "shop", "v1", ProfileType::CPU).await, 100_000_000_000);
    server.stop().await;
}

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        write!(
            body,
            "--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .unwrap();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

const FORM: &str = "multipart/form-data; boundary=XX";

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_pyroscope_are_served_on_ingest() {
    let server = Server::start(|_| {}).await;
    let (from, until) = (T0, T0 + 10);
    let config = br#"{"delay":{"units":"nanoseconds","display-name":"block_duration","aggregation":"sum"}}"#;
    let samples = r#"{"samples":{"units":"samples","sampled":true}}"#;
    let delay = "mutex:delay:nanoseconds:contentions:count";
    let count = "samples:samples:count::";
    for (version, path, content_type, body, profile_type, total) in [
        ("f", "/ingest", "", b"main;a 3\n".to_vec(), ProfileType::CPU, 30_000_000),
        (
            "w",
            "/pyroscope/ingest",
            "",
            b"main;a 3\n".to_vec(),
            ProfileType::CPU,
            30_000_000,
        ),
        (
            "p",
            "/ingest",
            "",
            pprof_of("main", ProfileType::CPU, 9),
            ProfileType::CPU,
            9,
        ),
        (
            "m",
            "/ingest",
            FORM,
            form(&[("profile", &pprof_of("main", GOROUTINES, 4))]),
            GOROUTINES,
            4,
        ),
        (
            "c",
            "/ingest",
            FORM,
            form(&[("sample_type_config", config), ("profile", &pprof_of("main", delay, 8))]),
            "block:delay:nanoseconds:contentions:count",
            8,
        ),
        (
            "s",
            "/ingest",
            FORM,
            form(&[
                ("profile", &pprof_of("main", count, 6)),
                ("sample_type_config", samples.as_bytes()),
            ]),
            ProfileType::CPU,
            60_000_000,
        ),
    ] {
        let format = if version == "p" { "&format=pprof" } else { "" };
        let path = format!(
            "{path}?name=shop.cpu%7Bversion%3D{version}%7D&from={from}&until={until}&sampleRate=100&units=samples\
             &aggregationType=sum&spyName=x{format}"
        );
        let (status, answer) = post(&server, &path, content_type, body).await;
        assert_eq!(status, StatusCode::OK, "{version}: {answer}");
        assert_eq!(stored(&server, "shop", version, profile_type).await, total, "{version}");
    }
    for (path, content_type, body, status, word) in [
        ("/ingest?name=shop&format=jfr", "", b"x".to_vec(), 400, "JFR"),
        ("/ingest?name=shop&format=trie", "", b"x".to_vec(), 415, "`trie`"),
        (
            "/ingest?name=shop",
            "binary/octet-stream+tree",
            b"x".to_vec(),
            415,
            "`tree`",
        ),
        ("/ingest?name=shop", FORM, form(&[("jfr", b"x")]), 400, "JFR"),
        (
            "/ingest?name=shop",
            FORM,
            form(&[("prev_profile", b"x")]),
            400,
            "`prev_profile`",
        ),
        ("/ingest?name=shop", FORM, form(&[("other", b"x")]), 400, "`profile`"),
        ("/ingest?name=shop", FORM, b"nonsense".to_vec(), 400, "form"),
        ("/ingest", "", b"a 1".to_vec(), 400, "`name`"),
        ("/ingest?name=%7Ba%7D", "", b"a 1".to_vec(), 400, "is not of the form"),
    ] {
        let (code, answer) = post(&server, path, content_type, body).await;
        assert_eq!(code.as_u16(), status, "{path}: {answer}");
        assert!(answer.contains(word), "{path}: {answer}");
    }
    server.stop().await;
}

fn push_request(version: &str, value: i64) -> push::PushRequest {
    let label = |name: &str, value: &str| push::LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    push::PushRequest {
        series: vec![push::RawProfileSeries {
            labels: vec![label("service_name", "shop"), label("version", version)],
            samples: vec![push::RawSample {
                raw_profile: pprof_of("main", ProfileType::CPU, value),
                id: "0".to_owned(),
            }],
        }],
    }
}

const PUSH: &str = "/push.v1.PusherService/Push";

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_taken_over_connect_and_over_grpc_on_both_ports() {
    let server = Server::start(|_| {}).await;
    let (status, answer) = post(&server, PUSH, "application/proto", push_request("1", 5).encode_to_vec()).await;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, ""));
    let json = r#"{"series":[{"labels":[{"name":"service_name","value":"shop"}],"samples":[{"rawProfile":"AAAA"}]}]}"#;
    let (status, answer) = post(&server, PUSH, "application/json", json.as_bytes().to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer.contains("\"code\":\"invalid_argument\"") && answer.contains("series 0, profile 0"),
        "{answer}"
    );
    let (status, answer) = post(&server, PUSH, "text/plain", Vec::new()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(answer.contains("`application/proto`"), "{answer}");
    let nobody = r#"{"series":[{"labels":[],"samples":[{"rawProfile":""}]}]}"#;
    let (status, answer) = post(&server, PUSH, "application/json", nobody.as_bytes().to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.contains("no_service_name"), "{answer}");

    for (version, address) in [("2", server.grpc), ("3", server.http)] {
        call(address, PUSH, push_request(version, 6).encode_to_vec())
            .await
            .unwrap();
        assert_eq!(stored(&server, "shop", version, ProfileType::CPU).await, 6);
    }
    let refused = call(server.grpc, PUSH, b"\xff\xff".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert_eq!(stored(&server, "shop", "1", ProfileType::CPU).await, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_parca_write_over_grpc() {
    let server = Server::start(|_| {}).await;
    let label = |name: &str, value: &str| parca::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let request = parca::WriteRawRequest {
        series: vec![parca::RawProfileSeries {
            labels: Some(parca::LabelSet {
                labels: vec![label("job", "shop"), label("version", "1")],
            }),
            samples: vec![parca::RawSample {
                raw_profile: pprof_of("main", ProfileType::CPU, 8),
            }],
        }],
        normalized: true,
    };
    let path = "/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw";
    call(server.grpc, path, request.encode_to_vec()).await.unwrap();
    assert_eq!(stored(&server, "shop", "1", ProfileType::CPU).await, 8);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_layout_of_otlp_is_taken_over_grpc() {
    let server = Server::start(|_| {}).await;
    let mut shop = window("shop", "1", T0);
    shop.profiles = vec![profile(T0, &[("/a", &["leaf", "main"], 120)])];
    // A sample of 1.9 has its values where 1.10 has attribute indices; all fields are one byte long.
    let mut bytes = encode_profiles(&shop).encode_to_vec();
    let new = encode_profiles(&shop);
    let sample = new.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].encode_to_vec();
    let at = bytes.windows(sample.len()).position(|window| window == sample).unwrap();
    let mut field = at;
    while field < at + sample.len() {
        let (number, wire) = (bytes[field] >> 3, bytes[field] & 7);
        let renumbered = match number {
            2 => 3,
            3 => 4,
            4 => 2,
            other => other,
        };
        bytes[field] = renumbered << 3 | wire;
        field += 1;
        if wire == 2 {
            field += 1 + bytes[field] as usize;
        } else {
            while bytes[field] >= 0x80 {
                field += 1;
            }
            field += 1;
        }
    }
    let path = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
    call(server.grpc, path, bytes).await.unwrap();
    assert_eq!(stored(&server, "shop", "1", ProfileType::CPU).await, 120_000_000);
    server.stop().await;
}

/// One gRPC call whose messages are bytes.
async fn call(address: std::net::SocketAddr, path: &'static str, message: Vec<u8>) -> Result<(), tonic::Status> {
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    client
        .unary(tonic::Request::new(message.into()), path, RawCodec)
        .await
        .map(|_| ())
}

//! Bad input of the catalogue (C1 to C7), through real requests: each is refused by reason or taken with what was left
//! out named, and what was stored before stays. `README.md` beside this file says which test holds which row.
//!
//! One file because it is one catalogue: its tests are named by the rows and share the server that they are sent to. Rows that need a
//! machinery of their own (files of debug information, addresses) are elsewhere.

use crate::support::{
    Server, T0,
    asking::{gzip, sum_of},
    profile, series, window,
    wire::{post, raw},
};
use emberline_model::{
    BatchId, ProfileType, Side, Signal, WorkloadWindow,
    batch::BATCH_ID_HEADER,
    otlp::{encode_profiles, encode_requests},
    proto::pprof as pb,
};
use emberline_storage::{Range, RequestQuery, StackQuery, WorkloadFilter};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    metrics::v1::ResourceMetrics,
    resource::v1::Resource,
};
use prost::Message;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

fn shop() -> WorkloadWindow {
    let mut shop = window("shop", "1", T0);
    shop.requests = vec![series(Side::Server, "/a", None, &[1_000_000])];
    shop.profiles = vec![profile(T0, &[("/a", &["leaf", "main"], 120)])];
    shop
}

/// CPU of a service that is stored.
async fn cpu(server: &Server, service: &str) -> i64 {
    total(server, service, ProfileType::CPU).await
}

/// All that is stored of a type.
async fn total(server: &Server, service: &str, profile_type: &str) -> i64 {
    sum_of(server, WorkloadFilter::service(service), profile_type).await
}

/// Names of the functions in the stacks of an answer.
async fn functions(server: &Server, query: StackQuery) -> Vec<String> {
    let rows = server.store.ask(query).await.unwrap().rows;
    let stacks: Vec<u64> = rows.iter().map(|row| row.stack_id).collect();
    let resolved = server.store.resolve(&stacks).await.unwrap();
    resolved
        .functions
        .iter()
        .map(|function| function.name.clone())
        .collect()
}

/// Reasons and counts of a list in the answer to an upload.
fn reasons(answer: &str, list: &str) -> Vec<(String, u64)> {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let answer: serde_json::Value = serde_json::from_str(body).unwrap();
    let entries = answer[list].as_array().unwrap().iter();
    let reason = |entry: &serde_json::Value| {
        (
            entry["reason"].as_str().unwrap().to_owned(),
            entry["count"].as_u64().unwrap(),
        )
    };
    entries.map(reason).collect()
}

/// Uploads a file that is filed as if it had just been recorded.
async fn upload(server: &Server, service: &str, more: &str, body: &[u8]) -> (u16, String) {
    let path = format!("/api/ingest?service={service}&time=received{more}");
    post(server.http, &path, &[], body).await
}

/// A pprof file of a sample of 30 ns with two frames.
fn file() -> pb::Profile {
    let strings = ["", "cpu", "nanoseconds", "main", "main.rs", "/bin/shop", "route", "/a"];
    let location = |id| pb::Location {
        id,
        mapping_id: 1,
        line: vec![pb::Line {
            function_id: 1,
            line: 7,
            column: 0,
        }],
        ..pb::Location::default()
    };
    pb::Profile {
        sample_type: vec![pb::ValueType { r#type: 1, unit: 2 }],
        sample: vec![pb::Sample {
            location_id: vec![1, 2],
            value: vec![30],
            label: vec![pb::Label {
                key: 6,
                str: 7,
                ..pb::Label::default()
            }],
        }],
        mapping: vec![pb::Mapping {
            id: 1,
            filename: 5,
            ..pb::Mapping::default()
        }],
        location: vec![location(1), location(2)],
        function: vec![pb::Function {
            id: 1,
            name: 3,
            filename: 4,
            ..pb::Function::default()
        }],
        string_table: strings.map(str::to_owned).to_vec(),
        period_type: Some(pb::ValueType { r#type: 1, unit: 2 }),
        period: 10,
        ..pb::Profile::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_bombs_nested_and_of_many_members_stop_at_the_limit() {
    let server = Server::start(|config| config.max_request_bytes = 1 << 20).await;
    let member = gzip(&vec![0; 256 << 10]);
    let members = member.repeat(64);
    let nested = gzip(&gzip(&vec![b'a'; 32 << 20]));
    let frames = zstd::encode_all(&vec![0; 256 << 10][..], 3).unwrap().repeat(64);
    for (encoding, body) in [("gzip", &members), ("gzip", &nested), ("zstd", &frames)] {
        let (status, text) = post(
            server.http,
            "/api/ingest?service=shop",
            &[("content-encoding", encoding)],
            body,
        )
        .await;
        assert_eq!(status, 413, "{text}");
        assert!(text.contains("max_request_mb"), "{text}");
    }
    // Nested where only one level may be: what is inside is no message.
    let twice = gzip(&gzip(&encode_profiles(&shop()).encode_to_vec()));
    let (status, text) = post(
        server.http,
        "/v1/profiles",
        &[PROTOBUF, ("content-encoding", "gzip")],
        &twice,
    )
    .await;
    assert_eq!(status, 400, "{text}");
    let (status, text) = post(
        server.http,
        "/v1/profiles",
        &[PROTOBUF, ("content-encoding", "gzip")],
        b"not gzip",
    )
    .await;
    assert_eq!(status, 400, "{text}");
    assert_eq!(cpu(&server, "shop").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_length_that_lies_is_refused_or_stores_nothing() {
    let server = Server::start(|_| {}).await;
    let head = |length: &str| {
        format!(
            "POST /v1/profiles HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let (status, text) = raw(server.http, head("99999999999").as_bytes()).await;
    assert_eq!(status, 413, "{text}");
    for lie in ["-1", "1e9", "18446744073709551616"] {
        let (status, text) = raw(server.http, head(lie).as_bytes()).await;
        assert_eq!(status, 400, "{lie}: {text}");
    }
    // Shorter than the body: what follows is no request of its own that could be stored.
    let body = encode_profiles(&shop()).encode_to_vec();
    let (status, text) = raw(server.http, &[head("10").as_bytes(), &body].concat()).await;
    assert_eq!(status, 400, "{text}");
    assert_eq!(cpu(&server, "shop").await, 0);
    let (status, text) = post(server.http, "/v1/profiles", &[PROTOBUF], &body).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(cpu(&server, "shop").await, 120_000_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_empty_elements_are_refused_by_their_weight_wherever_they_are_sent() {
    let server = Server::start(|config| config.max_request_bytes = 1 << 20).await;
    let nest = |fields: &[u8], bytes: Vec<u8>| {
        fields.iter().rev().fold(bytes, |inner, field| {
            let mut message = vec![field << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut message);
            [message, inner].concat()
        })
    };
    let empties = |field: u8| [field << 3 | 2, 0].repeat(500_000);
    let types = [&[0x0a, 2, 8, 1][..], &[0x32, 0, 0x32, 3], b"cpu"].concat();
    let pprof = |field: u8| [types.clone(), empties(field)].concat();
    let json = format!("{{\"resourceMetrics\":[{}{{}}]}}", "{},".repeat(330_000));
    // Equal lines are one stack, however many there are.
    let different: String = (0..100_000).map(|n| format!("f{n} 1\n")).collect();
    for (path, content_type, body) in [
        ("/v1/metrics", "application/x-protobuf", empties(1)),
        (
            "/v1/metrics",
            "application/x-protobuf",
            nest(&[1, 2, 2, 10], empties(1)),
        ),
        ("/v1/metrics", "application/json", json.into_bytes()),
        ("/v1/profiles", "application/x-protobuf", empties(1)),
        ("/v1/profiles", "application/x-protobuf", nest(&[2], empties(2))),
        ("/v1/profiles", "application/x-protobuf", nest(&[1, 2, 2], empties(2))),
        ("/api/ingest?service=shop", "", pprof(2)),
        ("/api/ingest?service=shop", "", pprof(4)),
        ("/api/ingest?service=shop", "", pprof(6)),
        ("/push.v1.PusherService/Push", "application/proto", empties(1)),
        ("/api/ingest?service=shop&format=folded", "", different.into_bytes()),
        (
            "/api/ingest?service=shop&format=speedscope",
            "",
            b"{\"shared\":{\"frames\":[{},".repeat(40_000),
        ),
    ] {
        let (status, text) = post(server.http, path, &[("content-type", content_type)], &body).await;
        assert_eq!(status, 413, "{path} {content_type}: {text}");
        assert!(text.contains("bytes of memory"), "{path}: {text}");
    }
    let protobuf = [PROTOBUF];
    let (status, text) = post(
        server.http,
        "/v1/profiles",
        &protobuf,
        &encode_profiles(&shop()).encode_to_vec(),
    )
    .await;
    assert_eq!(status, 200, "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_every_index_of_pprof_anywhere_is_refused_or_taken_whole() {
    let server = Server::start(|_| {}).await;
    type Change = fn(&mut pb::Profile, i64);
    let changes: [Change; 13] = [
        |f, n| f.sample[0].location_id[0] = n as u64,
        |f, n| f.location[0].mapping_id = n as u64,
        |f, n| f.location[0].id = n as u64,
        |f, n| f.location[1].line[0].function_id = n as u64,
        |f, n| f.function[0].id = n as u64,
        |f, n| f.function[0].name = n,
        |f, n| f.function[0].filename = n,
        |f, n| f.mapping[0].filename = n,
        |f, n| f.sample[0].label[0].key = n,
        |f, n| f.sample[0].label[0].str = n,
        |f, n| f.sample_type[0].r#type = n,
        |f, n| f.period_type.as_mut().unwrap().unit = n,
        |f, n| f.sample[0].value[0] = n,
    ];
    for (at, change) in changes.iter().enumerate() {
        for number in [-1, 0, 2, 8, 9, i64::MAX, i64::MIN] {
            let mut source = file();
            change(&mut source, number);
            let (status, text) = upload(&server, &format!("s{at}"), "", &source.encode_to_vec()).await;
            assert!(
                status == 200 || status == 400,
                "change {at} to {number}: {status} {text}"
            );
            if status == 400 {
                assert!(
                    text.contains("\"message\"") && text.contains("the profile") || text.contains("nothing was stored"),
                    "{text}"
                );
            }
        }
    }
    let mut odd = file();
    odd.sample[0].value.push(1);
    assert_eq!(upload(&server, "odd", "", &odd.encode_to_vec()).await.0, 400);
    let mut unknown = file().encode_to_vec();
    unknown.extend([0xfa, 0x3f, 2, 1, 2]);
    assert_eq!(upload(&server, "unknown", "", &unknown).await.0, 200);
    assert_eq!(cpu(&server, "unknown").await, 30);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_every_index_of_otlp_anywhere_is_refused_by_name_or_taken_whole() {
    let server = Server::start(|_| {}).await;
    type Request = opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
    type Change = fn(&mut Request, i32);
    let changes: [Change; 7] = [
        |r, n| r.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].stack_index = n,
        |r, n| r.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].attribute_indices[0] = n,
        |r, n| {
            r.resource_profiles[0].scope_profiles[0].profiles[0]
                .sample_type
                .as_mut()
                .unwrap()
                .type_strindex = n;
        },
        |r, n| r.dictionary.as_mut().unwrap().stack_table[1].location_indices[0] = n,
        |r, n| r.dictionary.as_mut().unwrap().location_table[1].lines[0].function_index = n,
        |r, n| r.dictionary.as_mut().unwrap().function_table[1].name_strindex = n,
        |r, n| r.dictionary.as_mut().unwrap().attribute_table[1].key_strindex = n,
    ];
    for (at, change) in changes.iter().enumerate() {
        for number in [-1, 0, 1, 64, i32::MAX, i32::MIN] {
            let mut request = encode_profiles(&shop());
            change(&mut request, number);
            let (status, text) = post(server.http, "/v1/profiles", &[PROTOBUF], &request.encode_to_vec()).await;
            let named = status == 400 && text.contains("index");
            assert!(status == 200 || named, "change {at} to {number}: {status} {text}");
            assert!(
                status == 400 || (0..64).contains(&number),
                "change {at} to {number} was taken"
            );
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_deep_stacks_are_cut_and_deep_nesting_is_refused() {
    let server = Server::start(|_| {}).await;
    let mut deep = file();
    deep.sample[0].location_id = vec![1; 1_000_000];
    let (status, text) = upload(&server, "deep", "", &deep.encode_to_vec()).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(cpu(&server, "deep").await, 30);
    let mut value = AnyValue {
        value: Some(Value::IntValue(1)),
    };
    for _ in 0..10_000 {
        let inner = std::mem::take(&mut value);
        value.value = Some(Value::ArrayValue(ArrayValue { values: vec![inner] }));
    }
    let attribute = KeyValue {
        key: "deep".to_owned(),
        value: Some(value),
        ..KeyValue::default()
    };
    // Encoding and dropping recurse as well: on a thread with a stack for it.
    let encode = move || {
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: vec![attribute],
                    ..Resource::default()
                }),
                ..ResourceMetrics::default()
            }],
        };
        request.encode_to_vec()
    };
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(encode).unwrap();
    let (status, text) = post(server.http, "/v1/metrics", &[PROTOBUF], &thread.join().unwrap()).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("recursion"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_values_out_of_range_are_refused_or_left_out_and_sums_never_wrap() {
    let server = Server::start(|_| {}).await;
    for body in ["a NaN", "a -1", "a inf", "a 1e9", "a 18446744073709551616"] {
        assert_eq!(upload(&server, "text", "", body.as_bytes()).await.0, 400, "{body}");
    }
    for weight in ["-1", "1e400", "1e19", "null"] {
        let json = format!(
            r#"{{"shared":{{"frames":[{{"name":"a"}}]}},"profiles":[{{"type":"sampled","name":"p","unit":"nanoseconds",
            "startValue":0,"endValue":1,"samples":[[0]],"weights":[{weight}]}}]}}"#
        );
        assert_eq!(upload(&server, "json", "", json.as_bytes()).await.0, 400, "{weight}");
    }
    let mut negative = file();
    negative.sample[0].value[0] = -5;
    assert_eq!(upload(&server, "negative", "", &negative.encode_to_vec()).await.0, 400);
    let mut huge = file();
    let mut other = huge.sample[0].clone();
    other.location_id.reverse();
    other.value = vec![7];
    huge.sample[0].value[0] = i64::MAX;
    huge.sample.push(other);
    huge.period = 0;
    huge.duration_nanos = -5;
    // More CPU time than there is: the whole profile is of another unit.
    let (status, text) = upload(&server, "huge", "", &huge.encode_to_vec()).await;
    assert_eq!(status, 400, "{text}");
    assert!(
        text.contains("more_cpu_than_cores") && text.contains("sample_rate"),
        "{text}"
    );
    huge.string_table[1] = "off_cpu".to_owned();
    let (status, text) = upload(&server, "huge", "", &huge.encode_to_vec()).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        reasons(&text, "left_out"),
        [("value_out_of_range".to_owned(), 1)],
        "{text}"
    );
    assert_eq!(
        total(&server, "huge", "off_cpu:off_cpu:nanoseconds:off_cpu:nanoseconds").await,
        7
    );
    let mut request = encode_profiles(&shop());
    request.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].values = vec![-3];
    let (status, text) = post(server.http, "/v1/profiles", &[PROTOBUF], &request.encode_to_vec()).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("negative_value"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_names_are_stored_without_what_misleads_and_cut() {
    let server = Server::start(|_| {}).await;
    let long = "x".repeat(1 << 20);
    let names = [
        "<script>alert(1)</script>",
        "'); DROP TABLE samples; --",
        "\u{1b}[31mred\u{1b}[0m",
        "=cmd|' /C calc'!A0",
        "nul\u{0}byte",
        "abc\u{202e}fdp.exe",
        "../../../etc/passwd",
        long.as_str(),
    ];
    for (at, name) in names.iter().enumerate() {
        let mut source = file();
        source.string_table[3] = (*name).to_owned();
        source.string_table[5] = (*name).to_owned();
        source.string_table.push("../../../../tmp/x".to_owned());
        source.mapping[0].build_id = 8;
        let (status, text) = upload(&server, &format!("s{at}"), "&version=1", &source.encode_to_vec()).await;
        assert_eq!(status, 200, "{text}");
        let query = StackQuery::new(WorkloadFilter::service(&format!("s{at}")), ProfileType::CPU, Range::ALL);
        server.store.flush_applied().await.unwrap();
        let functions = functions(&server, query).await;
        assert!(!functions.is_empty());
        for function in functions {
            assert!(function.chars().count() <= 4096, "{}", function.len());
            let misleads = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!function.contains(misleads), "{function:?}");
        }
    }
    // Bytes that are no UTF-8 are refused by name in text, and replaced and said in a table of symbols.
    let (status, text) = upload(&server, "utf8", "&format=folded", b"a\xff\xfe 1").await;
    assert_eq!(status, 400);
    assert!(text.contains("UTF-8"), "{text}");
    let mut bytes = file().encode_to_vec();
    let at = bytes.windows(4).position(|w| w == b"main").unwrap();
    bytes[at] = 0xff;
    let (status, text) = upload(&server, "utf8", "", &bytes).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(reasons(&text, "changed"), [("invalid_utf8".to_owned(), 1)], "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_windows_outside_time_are_refused_with_their_reason() {
    let server = Server::start(|_| {}).await;
    let now = T0 + 60;
    for (from, reason) in [
        (0, "older_than_retention"),
        (now - 73 * 3600, "older_than_retention"),
        (now + 11 * 60, "in_the_future"),
        (now + 86_400 * 365 * 200, "in_the_future"),
    ] {
        let path = format!("/api/ingest?service=shop&from={from}&until={}", from + 10);
        let (status, text) = post(server.http, &path, &[], b"a 1").await;
        assert_eq!(status, 400, "{from}: {text}");
        assert!(text.contains(reason), "{from}: {text}");
    }
    for (from, until) in [("-5", "5"), ("9223372036854775807", "9223372036854775808"), ("1", "x")] {
        let path = format!("/api/ingest?service=shop&from={from}&until={until}");
        assert_eq!(post(server.http, &path, &[], b"a 1").await.0, 400, "{from}");
    }
    // Within the hour on either side all is well; the collector's clock may go back.
    for (at, from) in [(now, now - 3600), (now, now + 300), (now - 3600, now - 3700)] {
        server.clock.set(at);
        let path = format!("/api/ingest?service=shop&from={from}&until={}", from + 10);
        let (status, text) = post(server.http, &path, &[], b"a 1").await;
        assert_eq!(status, 200, "{from}: {text}");
    }
    assert_eq!(cpu(&server, "shop").await, 30_000_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_new_names_over_the_limits_fold_and_known_ones_go_on() {
    let server = Server::start(|config| {
        config.limits.max_workloads = 3;
        config.limits.max_samples_per_profile = 10;
        config.limits.max_routes_per_service = 2;
    })
    .await;
    for n in 0..20 {
        let (status, text) = upload(&server, &format!("s{n}"), "", b"a 1").await;
        assert_eq!(status, if n < 3 { 200 } else { 503 }, "{n}: {text}");
        assert!(n < 3 || text.contains("too_many_workloads"), "{text}");
    }
    let many: String = (0..1000).map(|n| format!("main;f{n} 1\n")).collect();
    let (status, text) = upload(&server, "s0", "", many.as_bytes()).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        reasons(&text, "changed"),
        [("max_samples_per_profile".to_owned(), 990)],
        "{text}"
    );
    assert_eq!(cpu(&server, "s0").await, 10_010_000_000);
    let query = StackQuery::new(WorkloadFilter::service("s0"), ProfileType::CPU, Range::ALL);
    let functions = functions(&server, query).await;
    assert!(functions.iter().any(|name| name == "[over the limit]"));
    assert!(functions.len() <= 14, "what was folded is not stored");
    for n in 0..5 {
        let (status, text) = upload(&server, "s1", &format!("&route=/r{n}"), b"a 1").await;
        assert_eq!(status, 200, "{text}");
        assert_eq!(text.contains("max_routes_per_service"), n >= 2, "{text}");
    }
    assert_eq!(cpu(&server, "s1").await, 60_000_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_a_batch_counts_once_however_often_and_in_whatever_order_it_comes() {
    let server = Server::start(|_| {}).await;
    let send = async |sender: &str, sequence: u64, requests: usize| {
        let mut shop = shop();
        shop.workload.instance = sender.to_owned();
        shop.requests = vec![series(Side::Server, "/a", None, &vec![1_000_000; requests])];
        let id = BatchId {
            sender: format!("demo/shop/1/{sender}/application"),
            epoch: 1,
            sequence,
            signal: Signal::Requests,
        }
        .to_string();
        let headers = [PROTOBUF, (BATCH_ID_HEADER, id.as_str())];
        let body = encode_requests(&shop).encode_to_vec();
        let (status, text) = post(server.http, "/v1/metrics", &headers, &body).await;
        assert_eq!(status, 200, "{text}");
    };
    // In order, again, with gaps, backwards, another content under a known id, and a replay of everything.
    for _ in 0..2 {
        for sequence in [1, 2, 2, 9, 7, 8, 1] {
            send("a", sequence, 1).await;
        }
    }
    send("a", 9, 100).await;
    // Two senders under one name: the second is taken for the first.
    send("b", 1, 10).await;
    send("b", 1, 10).await;
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery::new(WorkloadFilter::service("shop"), Range::ALL);
    let rows = server.store.ask(query).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.duration.count()).sum::<u64>(), 5 + 10);
    server.stop().await;
}

//! The commands against a real server on a real socket.

use std::{path::Path, sync::Arc};

use clap::Parser;
use emberline_model::{
    Batch, Component, Frame, LabelSet, Location, Profile, Sample, Side, Workload, WorkloadWindow,
    alert::AlertsBoard,
    time::{Clock, SystemClock, WINDOW_SECONDS},
};
use emberline_storage::{Options, Store};
use emberline_web::{
    WebState,
    types::{DiffFunctions, Merge, SeriesAnswer},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{export, query, read};
use crate::cli::{Cli, Command};

/// One window of `checkout` with 30 ms in `shop::price`, called by `main`, and 10 ms in `main` itself.
fn batch() -> Batch {
    let now_s = SystemClock.now_unix_s();
    let start_unix_s = now_s - now_s % i64::from(WINDOW_SECONDS) - 60;
    let named = |function: &str| Location::Named {
        frames: vec![Frame {
            function: function.to_owned(),
            ..Frame::default()
        }],
    };
    let sample = |stack, value| Sample {
        stack,
        label_set: 0,
        value,
        count: 1,
    };
    let profile = Profile {
        locations: vec![named("shop::price"), named("main")],
        stacks: vec![vec![0, 1], vec![1]],
        label_sets: vec![LabelSet {
            side: Some(Side::Server),
            route: "/quote".to_owned(),
            peer: None,
        }],
        samples: vec![sample(0, 30_000_000), sample(1, 10_000_000)],
        ..Profile::empty_cpu(start_unix_s * 1_000_000_000, 10_000_000_000)
    };
    Batch {
        id: None,
        received_unix_ms: now_s * 1000,
        windows: vec![WorkloadWindow {
            workload: Workload {
                service: "checkout".to_owned(),
                version: "v1".to_owned(),
                ..Workload::default()
            },
            component: Component::Application,
            start_unix_s,
            length_s: WINDOW_SECONDS,
            has_requests: false,
            has_profiles: true,
            requests: Vec::new(),
            profiles: vec![profile],
        }],
    }
}

/// Runs a command line against a server; returns the output or the error.
async fn answer(server: &str, arguments: &[&str]) -> Result<String, String> {
    let all = [&["emberline"], arguments, &["--server", server]].concat();
    let command = Cli::try_parse_from(all).unwrap().command;
    // The command has a runtime of its own.
    let run = move || match command {
        Command::Query(args) => query::answer(&args),
        Command::Export(args) => export::answer(&args).map(|file| String::from_utf8(file).unwrap()),
        _ => panic!("another command"),
    };
    let result = tokio::task::spawn_blocking(run).await.unwrap();
    result.map_err(|error| format!("{error:#}"))
}

/// A gRPC client's call over HTTP/2 without TLS: an empty query in its frame, the status in the trailers.
async fn grpc_is_spoken_on_the_same_port(server: &str) {
    use http_body_util::{BodyExt, Full};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};

    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = http::Request::post(format!("{server}/querier.v1.QuerierService/ProfileTypes"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("accept-encoding", "gzip")
        .body(Full::new(bytes::Bytes::from_static(&[0; 5])))
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, http::Version::HTTP_2)
    );
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
    let bytes = body.to_bytes();
    let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
    assert_eq!(
        (bytes[0], bytes.len()),
        (0, length + 5),
        "a packed body would not be a gRPC message"
    );
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("process_cpu:cpu:nanoseconds:cpu:nanoseconds"), "{text}");
}

/// A server of [`batch`]: its address and its task.
async fn serve(folder: &Path) -> (String, JoinHandle<std::io::Result<()>>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::open(Options::new(folder), clock.clone()).unwrap();
    store.append(batch()).await.unwrap();
    store.flush_applied().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let web = emberline_web::router(WebState::new(store, AlertsBoard::default(), clock));
    (server, tokio::spawn(async move { axum::serve(listener, web).await }))
}

/// Parses a response without each of its fields, and without each field of a row (`functions/0/self`).
fn refuses_what_lacks_a_field<T: DeserializeOwned>(whole: &str, of_a_row: &str) {
    read::<T>(whole.as_bytes()).map(|_| ()).unwrap();
    let whole: Value = serde_json::from_str(whole).unwrap();
    let fields = whole.as_object().unwrap().keys().map(|name| format!("/{name}"));
    for field in fields.chain([format!("/{of_a_row}")]) {
        let (of, name) = field.rsplit_once('/').unwrap();
        let mut part = whole.clone();
        let removed = part.pointer_mut(of).unwrap().as_object_mut().unwrap().remove(name);
        assert!(removed.is_some(), "{field}");
        let error = read::<T>(part.to_string().as_bytes()).err();
        let error = error.unwrap_or_else(|| panic!("read without {field}")).to_string();
        assert!(error.contains(&format!("missing field `{name}`")), "{field}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_lacks_a_field_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (server, serving) = serve(folder.path()).await;
    let told = async |line: &str| {
        let arguments: Vec<&str> = line.split(' ').chain(["--output", "json"]).collect();
        answer(&server, &arguments).await.unwrap()
    };
    refuses_what_lacks_a_field::<Merge>(&told("query top").await, "functions/0/self");
    refuses_what_lacks_a_field::<SeriesAnswer>(&told("query series").await, "series/0/total");
    // Without requests, costs are divided by seconds; one changed function is inserted among equal ones.
    let compared = told("query diff --service checkout --baseline v1 --candidate v1").await;
    let mut compared: Value = serde_json::from_str(&compared).unwrap();
    assert_eq!(compared["per"], "second");
    let names: Vec<&Value> = compared["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["name"])
        .collect();
    assert!(
        names.contains(&&json!("shop::price")),
        "a comparison without requests has no functions: {names:?}"
    );
    compared["functions"] = json!([{
        "id": "00000000000000aa", "name": "shop::price", "module": "", "library": false,
        "raw_self_a": 1, "raw_self_b": 2, "raw_total_a": 3, "raw_total_b": 4,
        "self_a": 1e6, "self_b": 2e6, "total_a": 3e6, "total_b": 4e6, "delta_self": 1e6, "delta_total": 1e6,
        "ratio": 1.3, "contribution": 1.0, "low": 0.0, "high": 2e6, "q_value": 0.01,
        "confidence": "strong", "state": "up",
    }]);
    compared["guilty"] = "00000000000000aa".into();
    let compared = compared.to_string();
    refuses_what_lacks_a_field::<DiffFunctions>(&compared, "functions/0/delta_self");
    let table = query::diff_table(&read(compared.as_bytes()).unwrap());
    assert!(
        table.starts_with("v1 → v1: ") && table.contains(" per second, because "),
        "{table}"
    );
    let row: Vec<&str> = table
        .lines()
        .nth(2)
        .unwrap()
        .split("  ")
        .filter(|cell| !cell.is_empty())
        .map(str::trim)
        .collect();
    assert_eq!(
        row,
        [
            "1.00 ms",
            "2.00 ms",
            "+1.00 ms",
            "+1.00 ms",
            "0.010",
            "up",
            "shop::price",
            "← look here first"
        ]
    );
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_say_what_the_server_says() {
    let folder = tempfile::tempdir().unwrap();
    let (server, serving) = serve(folder.path()).await;

    let top = answer(&server, &["query", "top", "--selector", "{route=\"/quote\"}"])
        .await
        .unwrap();
    assert!(top.starts_with("40.00 ms in 2 samples\n"), "{top}");
    let rows: Vec<&str> = top.lines().skip(2).collect();
    assert!(
        rows[0].contains("30.00 ms") && rows[0].contains("75.0 %") && rows[0].ends_with("shop::price"),
        "{top}"
    );
    assert!(rows[1].contains("100.0 %") && rows[1].ends_with("main"), "{top}");
    let cut = answer(&server, &["query", "top", "--rows", "1"]).await.unwrap();
    assert!(cut.contains("(1 more functions; --rows shows more)"), "{cut}");

    let json = answer(&server, &["query", "top", "--output", "json"]).await.unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["total"], 40_000_000);
    let series = answer(&server, &["query", "series", "--group-by", "service,version"])
        .await
        .unwrap();
    assert!(
        series.contains("service=checkout version=v1") && series.contains("40.00 ms"),
        "{series}"
    );

    let folded = answer(&server, &["export", "--format", "folded"]).await.unwrap();
    assert_eq!(
        folded,
        "# profile type: process_cpu:cpu:nanoseconds:cpu:nanoseconds\nmain 10000000\nmain;shop::price 30000000\n"
    );
    let file = folder.path().join("out.json");
    let arguments = ["export", "--format", "speedscope", "--file", file.to_str().unwrap()];
    assert_eq!(answer(&server, &arguments).await.unwrap(), "");
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["profiles"][0]["endValue"], 40_000_000);

    grpc_is_spoken_on_the_same_port(&server).await;

    let refused = answer(&server, &["query", "diff", "--service", "chekout"])
        .await
        .unwrap_err();
    assert!(refused.contains("`checkout`"), "{refused}");
    let refused = answer(&server, &["query", "top", "--selector", "{"]).await.unwrap_err();
    assert!(refused.contains("invalid selector"), "{refused}");
    let refused = answer("ftp://localhost", &["query", "top"]).await.unwrap_err();
    assert!(refused.contains("http"), "{refused}");
    serving.abort();
    let gone = serving.await;
    assert!(gone.is_err());
    let unreachable = answer(&server, &["query", "top"]).await.unwrap_err();
    assert!(unreachable.contains("--server"), "{unreachable}");
}

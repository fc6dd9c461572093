//! Samples that say which request they worked for, from a pushed file to the answer of the store.

use crate::support::{Server, T0};
use bytes::Bytes;
use emberline_model::proto::pprof as pb;
use emberline_storage::{ExemplarQuery, Range, StackQuery, WorkloadFilter};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use prost::Message;

/// A pprof file with a span for each sample, each worth 1.
fn spans(count: u64) -> Vec<u8> {
    let mut strings: Vec<String> = ["", "cpu", "nanoseconds", "main", "trace_id", "span_id"]
        .map(str::to_owned)
        .into();
    strings.push("0102030405060708090a0b0c0d0e0f10".to_owned());
    let label = |key, str| pb::Label {
        key,
        str,
        ..pb::Label::default()
    };
    let mut sample = Vec::new();
    for span in 1..=count {
        strings.push(format!("{span:016x}"));
        sample.push(pb::Sample {
            location_id: vec![1],
            value: vec![1],
            label: vec![label(4, 6), label(5, strings.len() as i64 - 1)],
        });
    }
    pb::Profile {
        sample_type: vec![pb::ValueType { r#type: 1, unit: 2 }],
        sample,
        location: vec![pb::Location {
            id: 1,
            line: vec![pb::Line {
                function_id: 1,
                ..pb::Line::default()
            }],
            ..pb::Location::default()
        }],
        function: vec![pb::Function {
            id: 1,
            name: 3,
            ..pb::Function::default()
        }],
        string_table: strings,
        ..pb::Profile::default()
    }
    .encode_to_vec()
}

async fn upload(server: &Server, body: Vec<u8>) -> String {
    let stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let path = format!("/api/ingest?service=shop&from={T0}&until={}", T0 + 10);
    let request = Request::post(path)
        .header("host", "c")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    assert_eq!(parts.status, StatusCode::OK);
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_pushed_file_are_found_and_those_over_the_cap_are_told() {
    let server = Server::start(|config| config.limits.max_exemplars_per_profile = 10).await;
    let answer = upload(&server, spans(25)).await;
    let told: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let changed = &told["changed"][0];
    assert_eq!(
        (&changed["reason"], &changed["count"]),
        (&"max_exemplars_per_profile".into(), &15.into()),
        "{answer}"
    );
    server.store.flush_applied().await.unwrap();
    let found = server.store.ask(ExemplarQuery::new(Range::ALL, 100)).await.unwrap();
    assert_eq!((found.rows.len(), found.found, found.cut), (10, 10, 15));
    let one = &found.rows[3];
    let of_span = ExemplarQuery {
        span_ids: vec![one.span_id],
        ..ExemplarQuery::new(Range::ALL, 100)
    };
    let of_span = server.store.ask(of_span).await.unwrap();
    assert_eq!(of_span.rows, std::slice::from_ref(one));
    assert_eq!(one.unix_ns, T0 * 1_000_000_000);
    // What is cut from the exemplars stays in the sums.
    let all = StackQuery::new(WorkloadFilter::service("shop"), &one.profile_type, Range::ALL);
    assert_eq!(server.store.ask(all).await.unwrap().value, 25);
    server.stop().await;
}

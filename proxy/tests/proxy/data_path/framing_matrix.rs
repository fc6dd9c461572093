//! Requests with one byte more or less at every place, and with each form that parsers are known to disagree on, over every pair of
//! protocols: the origin sees exactly the requests that the access log says were sent on, and over HTTP/1.1 nothing but heads
//! and bodies in the one form that no parser reads differently.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use emberline_proxy::Proxy;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{frames::*, recorder::*, support::*};

/// Mutations of each pair of protocols, at least.
const LEAST: usize = 640;
/// Connections at the same time.
const AT_ONCE: usize = 64;
/// What separates, ends, or escapes somewhere in HTTP.
const SPECIAL: [u8; 12] = *b"\r\n\0\t :,;0x+\x7f";

/// Requests over HTTP/1.1 that are nearly right.
fn http1_mutations() -> Vec<Vec<u8>> {
    let with_length = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc".to_vec();
    let chunked =
        b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: u\r\n\r\n".to_vec();
    let mut all = Vec::new();
    for whole in [with_length, chunked] {
        for at in 0..whole.len() {
            let mut shorter = whole.clone();
            shorter.remove(at);
            all.push(shorter);
            for special in SPECIAL {
                let mut longer = whole.clone();
                longer.insert(at, special);
                all.push(longer);
            }
        }
        all.push(whole);
    }
    let lengths = [
        "3",
        "03",
        "+3",
        "-3",
        " 3",
        "3 ",
        "3,3",
        "3, 3",
        "3;a",
        "0x3",
        "3.0",
        "",
        "18446744073709551617",
        "4",
        "2",
        "\t3",
        "3\t",
    ];
    let codings = [
        "chunked",
        "Chunked",
        "chunked ",
        "chunked;a",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunkedx",
        "chunked, chunked",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "identity, chunked",
        "\"chunked\"",
        "",
        "\u{b}chunked",
        "chunked\u{c}",
    ];
    for length in lengths {
        for coding in codings {
            let [length, coding] = [
                format!("Content-Length: {length}"),
                format!("Transfer-Encoding: {coding}"),
            ];
            for fields in [format!("{length}\r\n{coding}"), format!("{coding}\r\n{length}")] {
                all.push(format!("POST /c HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n").into_bytes());
            }
        }
        all.push(
            format!("POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nContent-Length: 3\r\n\r\nabc")
                .into_bytes(),
        );
        all.push(format!("POST /d HTTP/1.0\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc").into_bytes());
    }
    for coding in codings {
        for version in ["1.0", "1.1", "2.0"] {
            all.push(
                format!(
                    "POST /e HTTP/{version}\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                )
                .into_bytes(),
            );
        }
    }
    all
}

/// A request over HTTP/1.1, and one more on the same connection, which is nothing but itself.
async fn ask_http1(proxy: SocketAddr, mutation: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(proxy).await else {
        return;
    };
    let after = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n";
    let _ = stream.write_all(&[mutation, after].concat()).await;
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection stays open: {mutation:?}");
}

/// A request over HTTP/2.
#[derive(Debug, Clone)]
struct Streamed {
    fields: Vec<Field>,
    body: Vec<&'static [u8]>,
    trailers: Vec<Field>,
}

/// Requests over HTTP/2 that are nearly right.
fn http2_mutations() -> Vec<Streamed> {
    let whole = Streamed {
        fields: vec![
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":authority", "a"),
            field(":path", "/a"),
            field("content-length", "3"),
            field("x-a", "b"),
        ],
        body: vec![b"abc"],
        trailers: vec![field("x-t", "u")],
    };
    let mut all = vec![whole.clone()];
    let mut push = |change: &dyn Fn(&mut Streamed)| {
        let mut changed = whole.clone();
        change(&mut changed);
        all.push(changed);
    };
    for at in 0..whole.fields.len() {
        let (name, value) = whole.fields[at].clone();
        for special in SPECIAL.into_iter().chain(*b"A/") {
            for place in 0..=name.len() {
                push(&|changed| changed.fields[at].0.insert(place, special));
            }
            for place in 0..=value.len() {
                push(&|changed| changed.fields[at].1.insert(place, special));
            }
        }
        push(&|changed| drop(changed.fields.remove(at)));
        push(&|changed| changed.fields[at].1.clear());
        for place in 0..=whole.fields.len() {
            push(&|changed| changed.fields.insert(place, (name.clone(), value.clone())));
            push(&|changed| changed.fields.insert(place, (name.clone(), b"4".to_vec())));
        }
    }
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-a"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("te", "trailers"),
        ("host", "b"),
        ("host", "a"),
        ("host", ""),
        ("trailer", "content-length"),
        (":status", "200"),
        (":protocol", "websocket"),
        ("expect", "100-continue"),
        ("cookie", "a=b\r\nx: y"),
        ("x-b", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        for place in [0, 4, 6] {
            push(&|changed| changed.fields.insert(place, field(name, value)));
        }
        push(&|changed| changed.trailers.push(field(name, value)));
    }
    for value in [
        "",
        "*",
        "a",
        "//",
        "/ a",
        "http://b/",
        "/a HTTP/1.1\r\nHost: b",
        "/a#b",
        "/%00",
        "/..",
        "/a\\b",
        "\u{e9}",
    ] {
        push(&|changed| changed.fields[3].1 = value.as_bytes().to_vec());
        push(&|changed| changed.fields[2].1 = value.as_bytes().to_vec());
        push(&|changed| changed.fields[1].1 = value.as_bytes().to_vec());
        push(&|changed| changed.fields[0].1 = value.as_bytes().to_vec());
    }
    for body in [
        vec![],
        vec![&b"ab"[..]],
        vec![&b"abcd"[..]],
        vec![&b"a"[..], b"", b"bc"],
        vec![&b"abc"[..], b"d"],
    ] {
        push(&|changed| changed.body.clone_from(&body));
        push(&|changed| {
            changed.body.clone_from(&body);
            changed.trailers.clear();
        });
    }
    all
}

fn streamed(request: &Streamed, stream: u32) -> Vec<u8> {
    let ends = |is_last: bool| if is_last { END_STREAM } else { 0 };
    let has_trailers = !request.trailers.is_empty();
    let is_head_only = request.body.is_empty() && !has_trailers;
    let mut bytes = frame(
        HEADERS,
        END_HEADERS | ends(is_head_only),
        stream,
        &block(&request.fields),
    );
    for (at, data) in request.body.iter().enumerate() {
        let is_last = at + 1 == request.body.len() && !has_trailers;
        bytes.extend(frame(DATA, ends(is_last), stream, data));
    }
    if has_trailers {
        bytes.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &block(&request.trailers),
        ));
    }
    bytes
}

/// A request over HTTP/2, and one more on the same connection.
async fn ask_http2(proxy: SocketAddr, mutation: &Streamed) {
    let Ok(mut stream) = TcpStream::connect(proxy).await else {
        return;
    };
    let bytes = [PREFACE, &streamed(mutation, 1), &get_frame(3, "/after")].concat();
    let _ = stream.write_all(&bytes).await;
    let ended = tokio::time::timeout(PATIENCE, async { while read_frame(&mut stream).await.is_some() {} }).await;
    assert!(ended.is_ok(), "the connection stays open: {mutation:?}");
}

/// Requests that the access log says were answered by the origin, and those that it says were not.
fn logged(path: &Path) -> (Vec<Seen>, Vec<(String, String)>) {
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        if entry["response_code"] == 200 {
            answered.push(Seen {
                method: text("method"),
                target: text("path"),
                body: entry["bytes_received"].as_u64(),
            });
        } else {
            refused.push((text("method"), text("path")));
        }
    }
    (answered, refused)
}

/// What the origin saw and the log does not have, and the other way round.
fn difference<T: Ord + Clone>(seen: &[T], logged: &[T]) -> Vec<(T, isize)> {
    let mut counts = BTreeMap::new();
    seen.iter().for_each(|one| *counts.entry(one.clone()).or_insert(0) += 1);
    logged
        .iter()
        .for_each(|one| *counts.entry(one.clone()).or_insert(0) -= 1);
    counts.into_iter().filter(|(_, count)| *count != 0).collect()
}

async fn check(is_http2_caller: bool, upstream_protocol: &str) {
    let book = Recorder::default();
    let origin = match upstream_protocol {
        "http1" => http1_origin(Arc::clone(&book)).await,
        _ => http2_origin(Arc::clone(&book)).await,
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let caller = if is_http2_caller { "http2" } else { "http1" };
    let proxy: Proxy = proxy(&yaml(
        "cart",
        &format!(
            "access_log: {{path: {}}}\nlimits: {{header_ms: 1000, body_idle_ms: 1000, keep_alive_ms: 1000}}\n\
             inbound: [{{listen: 127.0.0.1:0, to: {origin}, protocol: {caller}, upstream_protocol: {upstream_protocol}}}]",
            log.display()
        ),
    ));
    let address = proxy.addresses().inbound[0];
    let count = if is_http2_caller {
        let mutations = http2_mutations();
        let asking = stream::iter(&mutations).for_each_concurrent(AT_ONCE, |mutation| ask_http2(address, mutation));
        asking.await;
        mutations.len()
    } else {
        let mutations = http1_mutations();
        let asking = stream::iter(&mutations).for_each_concurrent(AT_ONCE, |mutation| ask_http1(address, mutation));
        asking.await;
        mutations.len()
    };
    assert!(count >= LEAST, "{count} mutations");
    stop(proxy).await;
    let book = std::mem::take(&mut *book.lock());
    assert_eq!(book.ambiguous, Vec::<String>::new());
    let (answered, refused) = logged(&log);
    let (whole, broken): (Vec<Seen>, Vec<Seen>) = book.seen.into_iter().partition(|seen| seen.body.is_some());
    let (mut unanswered, mut unseen) = (Vec::new(), Vec::new());
    for (request, count) in difference(&whole, &answered) {
        let list = if count > 0 { &mut unanswered } else { &mut unseen };
        list.extend(std::iter::repeat_n(request, count.unsigned_abs()));
    }
    assert_eq!(unseen, []);
    // What broke off, before the origin had all of it or after, is in the log as what failed; much was refused before anybody saw it.
    let failed: Vec<_> = broken
        .iter()
        .chain(&unanswered)
        .map(|seen| (seen.method.clone(), seen.target.clone()))
        .collect();
    let unlogged = difference(&failed, &refused)
        .into_iter()
        .filter(|(_, count)| *count > 0);
    assert_eq!(unlogged.collect::<Vec<_>>(), []);
    println!(
        "{count} mutations: {} answered, {} refused, {} broke off",
        answered.len(),
        refused.len(),
        failed.len()
    );
    // Of HTTP/2, the library resets most streams before they are requests.
    let least_refused = if is_http2_caller { 20 } else { count / 4 };
    assert!(whole.len() > count / 20 && refused.len() > least_refused);
}

#[test]
fn http1_to_http1() {
    block_on(check(false, "http1"));
}

#[test]
fn http1_to_http2() {
    block_on(check(false, "http2"));
}

#[test]
fn http2_to_http1() {
    block_on(check(true, "http1"));
}

#[test]
fn http2_to_http2() {
    block_on(check(true, "http2"));
}

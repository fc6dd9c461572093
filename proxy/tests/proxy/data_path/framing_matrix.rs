//! Requests with one byte more or less at every place, and with each form that parsers are known to disagree on, over every pair of
//! protocols: the origin sees exactly the requests that the access log says were sent on, and over HTTP/1.1 nothing but heads
//! and bodies in the one form that no parser reads differently.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use emberline_proxy::Proxy;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{frames::*, support::*};

/// Mutations of each pair of protocols, at least.
const LEAST: usize = 640;
/// Connections at the same time.
const AT_ONCE: usize = 64;
/// What separates, ends, or escapes somewhere in HTTP.
const SPECIAL: [u8; 12] = *b"\r\n\0\t :,;0x+\x7f";

/// One request as an origin read it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    method: String,
    target: String,
    /// Bytes of the body; `None` where it broke off.
    body: Option<u64>,
}

/// What an origin saw.
#[derive(Debug, Default)]
struct Book {
    seen: Vec<Seen>,
    /// Forms that some parser could read differently.
    ambiguous: Vec<String>,
}

type Recorder = Arc<Mutex<Book>>;

/// Reads one line of a connection, which has to end in CR LF and hold neither of them, nor NUL.
async fn line(stream: &mut TcpStream) -> Option<Result<String, String>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    let inner = text.strip_suffix("\r\n");
    let is_plain = inner.is_some_and(|inner| !inner.contains(['\r', '\n', '\0']));
    Some(if is_plain {
        Ok(inner.unwrap_or_default().to_owned())
    } else {
        Err(text)
    })
}

/// A body of chunks in their plainest form; `None` where it breaks off.
async fn chunks(stream: &mut TcpStream) -> Option<Result<u64, String>> {
    let mut all = 0;
    loop {
        let size = match line(stream).await? {
            Ok(size) => size,
            Err(text) => return Some(Err(text)),
        };
        let digits = !size.is_empty() && size.len() < 16 && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(length) = digits.then(|| u64::from_str_radix(&size, 16).ok()).flatten() else {
            return Some(Err(size));
        };
        if length == 0 {
            break;
        }
        all += length;
        let mut data = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut data).await.ok()?;
        match line(stream).await? {
            Ok(end) if end.is_empty() => {}
            Ok(text) | Err(text) => return Some(Err(text)),
        }
    }
    loop {
        match line(stream).await? {
            Ok(end) if end.is_empty() => return Some(Ok(all)),
            Ok(trailer) if trailer.split_once(':').is_some() => {}
            Ok(text) | Err(text) => return Some(Err(text)),
        }
    }
}

/// Reads the requests of one connection; what can be read in two ways ends it.
async fn record_http1(stream: &mut TcpStream, book: &Recorder) -> Option<()> {
    loop {
        let ambiguous = |text: String| {
            book.lock().ambiguous.push(text);
        };
        let (mut first, mut fields) = (None, Vec::new());
        loop {
            match line(stream).await? {
                Ok(end) if end.is_empty() => break,
                Ok(text) if first.is_none() => first = Some(text),
                Ok(text) => fields.push(text),
                Err(text) => return Some(ambiguous(text)),
            }
        }
        let first = first?;
        let parts: Vec<&str> = first.split(' ').collect();
        let &[method, target, "HTTP/1.1"] = parts.as_slice() else {
            return Some(ambiguous(first));
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b))
        };
        let named: Option<Vec<(String, &str)>> = fields
            .iter()
            .map(|field| field.split_once(':'))
            .map(|field| field.filter(|(name, _)| is_name(name)))
            .map(|field| field.map(|(name, value)| (name.to_ascii_lowercase(), value.trim())))
            .collect();
        let Some(named) = named else {
            return Some(ambiguous(fields.join("\n")));
        };
        let values = |wanted: &str| -> Vec<&str> {
            let named = named.iter().filter(|(name, _)| name == wanted);
            named.map(|(_, value)| *value).collect()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        let is_plain = values("host").len() == 1
            && match (lengths.as_slice(), codings.as_slice()) {
                ([], [] | ["chunked"]) => true,
                ([length], []) => length.bytes().all(|byte| byte.is_ascii_digit()),
                _ => false,
            };
        if !is_plain {
            return Some(ambiguous(fields.join("\n")));
        }
        let mut seen = Seen {
            method: method.to_owned(),
            target: target.to_owned(),
            body: None,
        };
        let body = match lengths.first() {
            Some(length) => {
                let length: u64 = length.parse().ok()?;
                let mut data = vec![0; usize::try_from(length).ok()?];
                stream.read_exact(&mut data).await.ok().map(|_| Ok(length))
            }
            None if codings.is_empty() => Some(Ok(0)),
            None => chunks(stream).await,
        };
        let (is_whole, body) = match body {
            Some(Ok(length)) => (true, Some(length)),
            Some(Err(text)) => return Some(ambiguous(text)),
            None => (false, None),
        };
        seen.body = body;
        book.lock().seen.push(seen);
        if !is_whole {
            return None;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .ok()?;
    }
}

async fn http1_origin(book: Recorder) -> SocketAddr {
    raw_app(move |mut stream: TcpStream| {
        let book = Arc::clone(&book);
        async move {
            record_http1(&mut stream, &book).await;
        }
    })
    .await
}

async fn http2_origin(book: Recorder) -> SocketAddr {
    raw_app(move |stream: TcpStream| {
        let book = Arc::clone(&book);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let book = Arc::clone(&book);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.ok().map(|body| body.to_bytes().len() as u64);
                    let is_whole = body.is_some();
                    book.lock().seen.push(Seen {
                        method: head.method.to_string(),
                        target: head.uri.path_and_query().unwrap().to_string(),
                        body,
                    });
                    let answer = Response::new(Full::<Bytes>::from("ok"));
                    is_whole.then_some(answer).ok_or("the body broke off")
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

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

//! Origins that keep what they were sent, and over HTTP/1.1 take nothing but the one form that no parser reads differently.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;

/// One request as an origin read it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Bytes of the body; `None` where it broke off.
    pub(crate) body: Option<u64>,
}

/// What an origin saw.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) seen: Vec<Seen>,
    /// Forms that some parser could read differently.
    pub(crate) ambiguous: Vec<String>,
}

pub(crate) type Recorder = Arc<Mutex<Book>>;

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
            None
        };
        let (mut first, mut fields) = (None, Vec::new());
        loop {
            match line(stream).await? {
                Ok(end) if end.is_empty() => break,
                Ok(text) if first.is_none() => first = Some(text),
                Ok(text) => fields.push(text),
                Err(text) => return ambiguous(text),
            }
        }
        let first = first?;
        let parts: Vec<&str> = first.split(' ').collect();
        let &[method, target, "HTTP/1.1"] = parts.as_slice() else {
            return ambiguous(first);
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
            return ambiguous(fields.join("\n"));
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
            return ambiguous(fields.join("\n"));
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
            Some(Err(text)) => return ambiguous(text),
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

pub(crate) async fn http1_origin(book: Recorder) -> SocketAddr {
    raw_app(move |mut stream: TcpStream| {
        let book = Arc::clone(&book);
        async move {
            record_http1(&mut stream, &book).await;
        }
    })
    .await
}

pub(crate) async fn http2_origin(book: Recorder) -> SocketAddr {
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

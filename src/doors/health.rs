//! What connections are told for which there is no place: that the server lives, if they ask, and else to come again.
//!
//! Guarantees: one short head is read, within a second; nothing else is, and no other question is answered.

use std::{fmt::Write as _, time::Duration};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

/// What is asked by those who watch over the server.
const ASKED: [&str; 2] = ["/-/ready", "/-/healthy"];
const HEAD_BYTES: usize = 4 << 10;
const LIMIT: Duration = Duration::from_secs(1);

/// The word for everybody else.
pub(super) const FULL_IN_WORDS: &str =
    "this server has as many connections and requests as it can hold; try again in a moment\n";
/// Seconds after which to come again.
pub(super) const RETRY_AFTER: &str = "2";

/// Answers one request and closes.
pub(super) async fn answer_shortly(mut stream: TcpStream, router: &Router) {
    let exchange = async {
        let Some(path) = read_path(&mut stream).await else {
            return;
        };
        let answer = match ASKED.into_iter().find(|asked| path == *asked) {
            Some(path) => ask(path, router).await,
            None => (StatusCode::SERVICE_UNAVAILABLE, FULL_IN_WORDS.into()),
        };
        let text = in_http(answer.0, &answer.1);
        if stream.write_all(&text).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    };
    let _ = tokio::time::timeout(LIMIT, exchange).await;
}

/// The path of a whole, short GET; empty for any other request, none for what is no HTTP/1.
async fn read_path(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut buffer = [0; 512];
        let read = stream.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
        head.extend_from_slice(&buffer[..read]);
        if head.starts_with(b"PRI ") {
            return None;
        }
        if head.len() > HEAD_BYTES {
            return Some(String::new());
        }
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let path = match (words.next(), words.next()) {
        (Some("GET"), Some(path)) => path.split('?').next().unwrap_or_default(),
        _ => "",
    };
    Some(path.to_owned())
}

async fn ask(path: &'static str, router: &Router) -> (StatusCode, Vec<u8>) {
    let request = Request::get(path).body(Body::empty()).expect("the paths are addresses");
    let Ok(response) = router.clone().oneshot(request).await;
    let status = response.status();
    let body = response.into_body().collect().await;
    (status, body.map(|body| body.to_bytes().to_vec()).unwrap_or_default())
}

fn in_http(status: StatusCode, body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let _ = write!(head, "Retry-After: {RETRY_AFTER}\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

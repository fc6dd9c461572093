//! What connections without a slot are told: the server's health if they ask for it, otherwise to retry.
//!
//! Guarantees: one short head is read, within a second, and nothing else; no other request is answered.

use std::{fmt::Write as _, time::Duration};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

/// Requests of health checks.
const ASKED: [&str; 2] = ["/-/ready", "/-/healthy"];
const HEAD_BYTES: usize = 4 << 10;
const LIMIT: Duration = Duration::from_secs(1);

/// The response to everything else.
pub(super) const FULL_IN_WORDS: &str = "the server is at its limit of connections or requests; retry in a moment\n";
/// Seconds after which to retry.
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

/// The path of a complete, short GET; empty for any other request, `None` for anything but HTTP/1.
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    async fn told(sent: &[u8]) -> String {
        let router = Router::new().route("/-/ready", get(async || "all is well"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        answer_shortly(stream, &router).await;
        let mut answer = String::new();
        // A reset ends it, too: what was sent is not read completely.
        let _ = client.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn without_a_place_the_server_says_that_it_lives_and_nothing_else() {
        let ready = told(b"GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(
            ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.ends_with("all is well"),
            "{ready}"
        );
        for other in ["GET /api/v1/status", "POST /-/ready", "GET /-/ready/x"] {
            let refused = told(format!("{other} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
            assert!(refused.starts_with("HTTP/1.1 503 "), "{other}: {refused}");
            assert!(refused.contains("\r\nRetry-After: 2\r\n"), "{other}: {refused}");
        }
        assert_eq!(told(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
        assert_eq!(told(b"GET /-/ready HTTP/1.1\r\n").await, "", "half a head has a second");
    }
}

//! Requests as clients send them, and what is stored then.

use std::io::Write;

use bytes::Bytes;
use emberline_model::{
    ProfileType,
    pprof::{PprofMeta, write},
    resolve::{FunctionInfo, ResolvedStacks},
};
use emberline_storage::{Range, RequestQuery, StackQuery, WorkloadFilter};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::{Server, T0};

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a body to the port for HTTP.
pub async fn send(server: &Server, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::post(path).header("host", "collector");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

/// The same for a body of a type; status and text of the answer.
pub async fn post(server: &Server, path: &str, content_type: &str, body: Vec<u8>) -> (StatusCode, String) {
    let answer = send(server, path, &[("content-type", content_type)], body).await;
    (answer.status, answer.text())
}

/// The sum of all that is stored of a type.
pub async fn sum_of(server: &Server, who: WorkloadFilter, profile_type: &str) -> i64 {
    server.store.flush_applied().await.unwrap();
    let query = StackQuery::new(who, profile_type, Range::ALL);
    let rows = server.store.ask(query).await.unwrap().rows;
    rows.iter().map(|row| row.value).sum()
}

/// How many requests are stored of a service.
pub async fn requests_of(server: &Server, service: &str) -> u64 {
    server.store.flush_applied().await.unwrap();
    let query = RequestQuery::new(WorkloadFilter::service(service), Range::ALL);
    let rows = server.store.ask(query).await.unwrap();
    rows.iter().map(|row| row.duration.count()).sum()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A pprof file of one value of one function, recorded in the window that begins at `T0`.
pub fn pprof_of(function: &str, profile_type: &str, value: i64) -> Vec<u8> {
    let info = FunctionInfo {
        id: 0,
        name: function.to_owned(),
        module: String::new(),
        file: String::new(),
        unresolved: false,
    };
    let resolved = ResolvedStacks {
        functions: vec![info.into()],
        stacks: [(7, vec![0u32].into_boxed_slice())].into_iter().collect(),
    };
    let meta = PprofMeta {
        profile_type: ProfileType(profile_type.to_owned()),
        time_ns: T0 * 1_000_000_000,
        duration_ns: 10_000_000_000,
        period: 10_000_000,
    };
    write(&meta, &resolved, &[(7, [value, 0])], false)
}

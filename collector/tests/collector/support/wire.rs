//! Requests byte by byte, as a client that follows no rules sends them.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Far more than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends bytes and answers the status and everything that came back until the server closed.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    raw_on(TcpStream::connect(address).await.unwrap(), bytes).await
}

async fn raw_on(mut stream: TcpStream, bytes: &[u8]) -> (u16, String) {
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), text)
}

/// One POST without keep-alive.
pub async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    post_on(TcpStream::connect(address).await.unwrap(), path, headers, body).await
}

/// The same on a connection that is there.
pub async fn post_on(stream: TcpStream, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: collector\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    raw_on(stream, &[request.as_bytes(), body].concat()).await
}

/// The path of a metrics request over gRPC.
pub const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// The path of a profiles request over gRPC.
pub const EXPORT_PROFILES: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";

pub type Chunks = futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>;
pub type Sender = hyper::client::conn::http2::SendRequest<StreamBody<Chunks>>;

/// An HTTP/2 connection.
pub async fn http2(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A body of some bytes that ends.
pub fn whole(bytes: Vec<u8>) -> StreamBody<Chunks> {
    StreamBody::new(futures_util::stream::iter([Ok(Frame::data(Bytes::from(bytes)))]).boxed())
}

/// A body of some bytes that never ends.
pub fn stalled(bytes: Vec<u8>) -> StreamBody<Chunks> {
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from(bytes)))]);
    StreamBody::new(first.chain(futures_util::stream::pending()).boxed())
}

/// A body of some bytes after which the stream is reset.
pub fn torn(bytes: Vec<u8>) -> StreamBody<Chunks> {
    let broken = Err(std::io::Error::other("reset"));
    StreamBody::new(futures_util::stream::iter([Ok(Frame::data(Bytes::from(bytes))), broken]).boxed())
}

/// The request of a call.
pub fn grpc<B>(path: &str, body: B) -> Request<B> {
    let request = Request::post(format!("http://collector{path}")).header("content-type", "application/grpc");
    request.header("te", "trailers").body(body).unwrap()
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// `grpc-status` and `grpc-message` of an answer, wherever they stand.
pub async fn status(answer: Response<Incoming>) -> (String, String) {
    let (parts, body) = answer.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let find = |name: &str| {
        let found = trailers.get(name).or_else(|| parts.headers.get(name));
        found.map_or_else(String::new, |value| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        })
    };
    (find("grpc-status"), find("grpc-message"))
}

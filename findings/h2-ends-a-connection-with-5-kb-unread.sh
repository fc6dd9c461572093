#!/usr/bin/env bash
# Whether a server of hyper lets a client send 5 kB of a body that its handler has not begun to read.
#
# A good guess: yes, flow control says how much may be unread, and its windows are 64 KiB and more. Seen: since h2 0.4.16 a
# connection has a budget for DATA frames below 256 bytes, too. Each that is not the last of its stream takes what it lacks to 256
# until it is read; the budget is half of the connection's window (hyper: 512 KiB), and hyper has no setting for it. 5,000 messages
# of one byte that wait together end the connection with ENHANCE_YOUR_CALM, and with it every other request on it; the same
# 5,000 bytes in frames of 256 do not. A connection's task reads all that its socket has before a handler has a turn, so handlers
# that read at once can lose it, too: Emberline's proxy reads such frames in turns (`proxy/src/wire/pace.rs`).
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"
[dependencies]
bytes = "1"
futures-util = "0.3"
h2 = "=0.4.20"
http = "1"
http-body = "1"
http-body-util = "0.1"
hyper = { version = "=1.12.0", features = ["client", "http2", "server"] }
hyper-util = { version = "0.1", features = ["tokio"] }
tokio = { version = "1", features = ["full"] }
TOML
cat > src/main.rs <<'RUST'
use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::from(body.len().to_string())))
}

/// Sends 5,000 bytes in frames of a size, and an empty request beside them; answers whether both had a response.
async fn both_answered(frame: usize) -> bool {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        println!("server: {:?}", server.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
    });
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let frames = (0..5_000 / frame).map(move |_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; frame]))));
    let long = Request::post("http://a/").body(StreamBody::new(futures_util::stream::iter(frames)).boxed()).unwrap();
    let short = Request::get("http://a/").body(Full::default().boxed()).unwrap();
    let (long, short) = tokio::join!(sender.clone().send_request(long), sender.send_request(short));
    println!("frames of {frame}: {:?}, beside it: {:?}", long.as_ref().map(|r| r.status()), short.as_ref().map(|r| r.status()));
    long.is_ok() && short.is_ok()
}

#[tokio::main]
async fn main() {
    assert!(!both_answered(1).await);
    assert!(both_answered(256).await);
}
RUST
echo "hyper 1.12.0, h2 0.4.20"
cargo run --quiet

//! What the tests stand on: applications to carry requests to, callers that write bytes, a collector that keeps what it
//! gets.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use emberline_model::RequestSeries;
use emberline_proxy::{Proxy, config, telemetry::Telemetry};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test with more threads than one, as applications do.
pub(crate) fn block_on<F: Future>(test: F) -> F::Output {
    block_on_within(2 * PATIENCE, test)
}

/// The same for a test that does much.
pub(crate) fn block_on_within<F: Future>(limit: Duration, test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let output = runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test hangs") });
    runtime.shutdown_timeout(Duration::from_millis(10));
    output
}

/// Polls until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A listener on any free port.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens yet.
pub(crate) async fn nobody() -> SocketAddr {
    listen().await.1
}

/// An address that refuses connections: it is taken for as long as the tests run, so that no listener of theirs gets it.
pub(crate) fn refusing() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// An application of HTTP/1 that answers with a function.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl App {
    pub(crate) async fn start<F, R>(answer: F) -> App
    where
        F: Fn(http::Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = http::Response<Full<Bytes>>> + Send + 'static,
    {
        let (listener, address) = listen().await;
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, served) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (answer, served) = (answer.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        served.fetch_add(1, Ordering::SeqCst);
                        let answering = answer(request);
                        async move { Ok::<_, Infallible>(answering.await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        App {
            address,
            connections,
            requests,
        }
    }

    /// Says its name.
    pub(crate) async fn named(name: &'static str) -> App {
        App::start(move |_| async move { http::Response::new(Full::from(name)) }).await
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A body of HTTP/2.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// All of a body.
pub(crate) fn whole(bytes: &'static str) -> AnyBody {
    Full::from(bytes).boxed_unsync()
}

/// A caller of HTTP/2 with prior knowledge.
pub(crate) async fn connect_http2<B>(address: SocketAddr) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// An application that answers every connection with a function of the bare socket.
pub(crate) async fn raw_app<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads up to the end of a head.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads an answer with a `content-length`: head and body.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let head = tokio::time::timeout(PATIENCE, read_head(stream))
        .await
        .expect("no answer");
    let length = header(&head, "content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut body))
        .await
        .expect("no body");
    read.unwrap();
    (head, String::from_utf8_lossy(&body).into_owned())
}

/// The value of a header in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of an answer's head.
pub(crate) fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

/// Sends bytes and reads everything until the other end closes.
pub(crate) async fn send_raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A `GET` on a connection of its own; head and body of the answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    get_with(address, path, "").await
}

/// A `GET` with more header lines, each ended by CR LF.
pub(crate) async fn get_with(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(&mut stream).await
}

/// A configuration around its listeners. The profiler is off: there can be one per process, and these are many.
pub(crate) fn yaml(service: &str, rest: &str) -> String {
    format!(
        "workload: {{namespace: shop, service: {service}, version: v1, instance: {service}-1}}\n\
         admin: 127.0.0.1:0\nprofiler: {{enabled: false}}\n{rest}\n"
    )
}

/// A proxy from the text of its configuration.
pub(crate) fn proxy(yaml: &str) -> Proxy {
    let config = config::parse("test.yaml".as_ref(), yaml).unwrap();
    Proxy::start(config, None).unwrap()
}

/// An inbound proxy of a service in front of an application.
pub(crate) fn inbound(service: &str, routes: &str, to: SocketAddr, more: &str) -> Proxy {
    proxy(&yaml(
        service,
        &format!("routes: [{routes}]\ninbound: [{{listen: 127.0.0.1:0, to: {to}{more}}}]"),
    ))
}

/// Stops a proxy from asynchronous code.
pub(crate) async fn stop(proxy: Proxy) -> emberline_proxy::StopReport {
    tokio::task::spawn_blocking(move || proxy.stop()).await.unwrap()
}

/// Everything recorded so far.
pub(crate) fn totals(telemetry: &Telemetry) -> Vec<RequestSeries> {
    telemetry.totals()
}

/// How many requests were recorded.
pub(crate) fn count(telemetry: &Telemetry) -> u64 {
    totals(telemetry).iter().map(|series| series.duration.count()).sum()
}

/// Waits for exactly so many records.
pub(crate) async fn recorded(telemetry: &Telemetry, n: u64) -> Vec<RequestSeries> {
    eventually(&format!("{n} records"), || count(telemetry) >= n).await;
    assert_eq!(count(telemetry), n, "{:#?}", totals(telemetry));
    totals(telemetry)
}

/// Value of a response flag's count in a metrics page.
pub(crate) fn flag(metrics: &str, flag: &str) -> u64 {
    metric(
        metrics,
        &format!("emberline_proxy_response_flags_total{{flag=\"{flag}\"}}"),
    )
}

/// Value of a metric with its labels as printed.
pub(crate) fn metric(metrics: &str, name: &str) -> u64 {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
}

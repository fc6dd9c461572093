//! HTTP/2 to a destination: one connection that all requests share, opened anew when it has ended.
//!
//! Guarantees: one connection at a time is being opened, however many requests wait for it; dead connections are found
//! by PING within 50 s. Its own task carries no label, because its work belongs to all streams.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response, Uri, Version};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::{Destination, Upload, UpstreamError, retry::next_try};
use crate::{body::RequestBody, config::Timeouts, grpc, telemetry::Label, wire::io::IdleTimer};

/// How often a silent connection is asked whether it lives, and how long it may take to say so.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What a response that nobody takes may hold. A small part of the connection's window (the library's 5 MiB), so that
/// callers who do not read leave it to the others.
const STREAM_WINDOW: u32 = 256 << 10;

/// The connection of a destination.
#[derive(Debug)]
pub(crate) struct Http2Slot {
    sender: Mutex<Option<SendRequest<RequestBody>>>,
    /// Held while a connection is being opened.
    opening: tokio::sync::Mutex<()>,
    max_header_bytes: usize,
}

impl Http2Slot {
    pub(crate) fn new(max_header_bytes: usize) -> Http2Slot {
        Http2Slot {
            sender: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            max_header_bytes,
        }
    }

    fn current(&self) -> Option<SendRequest<RequestBody>> {
        self.sender
            .lock()
            .as_ref()
            .filter(|sender| !sender.is_closed())
            .cloned()
    }
}

impl Destination {
    async fn http2_sender(&self, timeouts: &Timeouts) -> Result<SendRequest<RequestBody>, UpstreamError> {
        if let Some(sender) = self.http2.current() {
            return Ok(sender);
        }
        let _opening = self.http2.opening.lock().await;
        if let Some(sender) = self.http2.current() {
            return Ok(sender);
        }
        let stream = self.connect(timeouts).await?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_header_list_size(u32::try_from(self.http2.max_header_bytes).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| UpstreamError::from_hyper(&self.address, error))?;
        tokio::spawn(emberline_profiler::Labeled::new(Label::NONE, async move {
            // Requests in flight learn of the end by themselves.
            let _ = driver.await;
        }));
        *self.http2.sender.lock() = Some(sender.clone());
        Ok(sender)
    }

    /// Sends a request over HTTP/2 with prior knowledge.
    pub(crate) async fn send_http2(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        timeouts: &Timeouts,
    ) -> Result<Response<Incoming>, UpstreamError> {
        *request.version_mut() = Version::HTTP_2;
        self.make_absolute(&mut request);
        let (upload, mut timer) = (Upload::of(&request), IdleTimer::default());
        // A call of gRPC has the time that its caller gives it, and a stream has nothing to say until something happens.
        let is_limited = !grpc::is_grpc(request.headers());
        let timed_out = || UpstreamError::Timeout {
            address: self.address.clone(),
            limit: timeouts.request(),
        };
        let exchange = async {
            let mut sender = self.http2_sender(timeouts).await?;
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let unsent = failed.take_message();
            let error = failed.into_error();
            let Some(request) = next_try(unsent, None, &error) else {
                return Err(UpstreamError::from_hyper(&self.address, error));
            };
            self.count_retry();
            let mut sender = self.http2_sender(timeouts).await?;
            sender
                .send_request(request)
                .await
                .map_err(|error| UpstreamError::from_hyper(&self.address, error))
        };
        let mut exchange = pin!(exchange);
        poll_fn(|cx| {
            if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if !is_limited {
                return Poll::Pending;
            }
            upload
                .poll_stalled(&mut timer, cx, timeouts.request())
                .map(|()| Err(timed_out()))
        })
        .await
    }

    /// HTTP/2 wants scheme and authority of every request.
    fn make_absolute(&self, request: &mut Request<RequestBody>) {
        let uri = request.uri();
        if uri.authority().is_some() && uri.scheme().is_some() {
            return;
        }
        let host = request
            .headers()
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        let authority = host.map_or_else(|| self.address.to_string(), str::to_owned);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let absolute = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path)
            .build();
        if let Ok(absolute) = absolute {
            *request.uri_mut() = absolute;
        }
    }
}

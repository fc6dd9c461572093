//! Whether a request is sent again.
//!
//! Guarantees: once, and only if a pooled connection had ended, on a new connection, or if HTTP/2 says that the request
//! was not processed (RFC 9113, 8.7: REFUSED_STREAM, or a stream above the last one named by a GOAWAY), whatever the
//! request is. A request that was never sent is sent again whatever it is. One that was sent is sent again if doing so
//! twice does no harm: it is idempotent (RFC 9110, 9.2.2), has no body, and no byte of a response arrived. A POST that
//! was sent, and may have been processed, is never sent twice. A body that was sent is sent again if it is available:
//! up to [`KEPT_BYTES`].

use std::{io, sync::Arc};

use http::{Method, Request, Uri, Version};
use http_body::Body;

use super::outgoing::Outgoing;
use crate::body::{KeptBody, RequestBody};

/// How much of a request's body over HTTP/2 is kept until the response: most gRPC calls are shorter.
pub(super) const KEPT_BYTES: usize = 16 << 10;

/// Whether sending a request twice has no more effect than sending it once.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

/// What is needed to send a request again.
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    headers: http::HeaderMap,
}

impl Replay {
    /// `None` if sending the request twice could do harm or is impossible.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Replay> {
        (is_idempotent(request.method()) && request.body().is_end_stream()).then(|| Replay {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Restores a request that was sent, if it may be sent again after `error`; otherwise the caller gets the error.
pub(super) fn bring_back(request: &mut Outgoing, replay: Option<Replay>, error: &hyper::Error) {
    if request.is_none() {
        *request = replay.filter(|_| has_ended(error)).map(Replay::into_request);
    }
}

/// True when the other end closed the connection during a request.
pub(super) fn has_ended(error: &hyper::Error) -> bool {
    error.is_closed() || error.is_canceled() || error.is_incomplete_message() || is_reset(error)
}

/// What is needed to send a request on another stream.
pub(super) struct NextStream {
    method: Method,
    uri: Uri,
    headers: http::HeaderMap,
    body: Option<Arc<KeptBody>>,
}

impl NextStream {
    pub(super) fn of(request: &mut Request<RequestBody>) -> NextStream {
        NextStream {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: (!request.body().is_end_stream()).then(|| request.body_mut().keep(KEPT_BYTES)),
        }
    }

    /// Restores a request that was sent, if it may be sent again after `error`.
    pub(super) fn bring_back(self, request: &mut Outgoing, error: &hyper::Error) {
        if request.is_none() && is_unprocessed(error) {
            *request = self.into_request();
        }
    }

    fn into_request(self) -> Option<Request<RequestBody>> {
        let body = match self.body {
            Some(kept) => kept.again()?,
            None => RequestBody::empty(),
        };
        let mut request = Request::new(body);
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

/// True when the endpoint has said that it did not process the request. A GOAWAY with an error ends all streams alike,
/// so it says nothing about this one.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(http2) = error.downcast_ref::<h2::Error>() {
            let reason = http2.reason();
            return http2.is_remote()
                && ((http2.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
                    || (http2.is_go_away() && reason == Some(h2::Reason::NO_ERROR)));
        }
        source = error.source();
    }
    false
}

/// True when the connection was reset during use.
fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
            return matches!(
                io.kind(),
                // The last one is TLS without a proper close.
                ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected | UnexpectedEof
            );
        }
        source = error.source();
    }
    false
}

//! Whether a request is sent once more.
//!
//! Guarantees: once, and only where a connection from the pool had ended, on a new connection, or where HTTP/2 says that the
//! request was not processed (RFC 9113, 8.7: REFUSED_STREAM, or a stream above the last one that a GOAWAY names), whatever it is.
//! A request that never left is sent again whatever it is. One that left is sent again if sending it twice does no harm: it is
//! idempotent (RFC 9110, 9.2.2), has no body, and no byte of a response came. A POST that left, and may have been processed,
//! is never sent twice. A body that passed is sent again if it is at hand: up to [`KEPT_BYTES`].

use std::{io, sync::Arc};

use http::{Method, Request, Uri, Version};
use http_body::Body;

use super::outgoing::Outgoing;
use crate::body::{KeptBody, RequestBody};

/// Of a request's body over HTTP/2 so much is kept until it is answered: most calls of gRPC are shorter.
pub(super) const KEPT_BYTES: usize = 16 << 10;

/// Whether sending a request twice does no more than sending it once.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

/// What it takes to send a request once more.
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    headers: http::HeaderMap,
}

impl Replay {
    /// `None` when sending the request twice could do harm or is not possible.
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

/// Has the request back that is to be sent once more after `error`, if it left; without one the caller has to be told.
pub(super) fn bring_back(request: &mut Outgoing, replay: Option<Replay>, error: &hyper::Error) {
    if request.is_none() {
        *request = replay.filter(|_| has_ended(error)).map(Replay::into_request);
    }
}

/// True when the other end closed the connection under a request.
pub(super) fn has_ended(error: &hyper::Error) -> bool {
    error.is_closed() || error.is_canceled() || error.is_incomplete_message() || is_reset(error)
}

/// What it takes to send a request over another stream.
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

    /// Has the request back that is to be sent once more after `error`, if it left.
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

/// True when the destination has said that it did nothing with the request. A GOAWAY with an error ends all streams alike, so it
/// says nothing about this one.
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

/// True when the connection was reset under us.
fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
            return matches!(
                io.kind(),
                // The last one is TLS without its end.
                ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected | UnexpectedEof
            );
        }
        source = error.source();
    }
    false
}

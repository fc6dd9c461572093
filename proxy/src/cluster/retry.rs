//! Whether a request is sent once more.
//!
//! Guarantees: only where a connection from the pool had ended, on a new connection, and once. A request that never left is
//! sent again whatever it is. One that left is sent again if sending it twice does no harm: it is idempotent (RFC 9110,
//! 9.2.2), has no body, and no byte of a response came. A POST that left is never sent twice.

use std::io;

use http::{Method, Request, Uri};
use http_body::Body;

use crate::body::RequestBody;

/// What it takes to send a request once more.
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    headers: http::HeaderMap,
}

impl Replay {
    /// `None` when sending the request twice could do harm or is not possible.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Replay> {
        let is_idempotent = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        (is_idempotent && request.body().is_end_stream()).then(|| Replay {
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

/// The request to send once more after `error`; `None` when the caller has to be told. `unsent` is the request if it never
/// left.
pub(super) fn next_try(
    unsent: Option<Request<RequestBody>>,
    replay: Option<Replay>,
    error: &hyper::Error,
) -> Option<Request<RequestBody>> {
    if unsent.is_some() {
        return unsent;
    }
    let ended = error.is_closed() || error.is_canceled() || error.is_incomplete_message() || is_reset(error);
    replay.filter(|_| ended).map(Replay::into_request)
}

/// True when the connection was reset under us.
fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
            return matches!(
                io.kind(),
                ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected
            );
        }
        source = error.source();
    }
    false
}

//! A channel to the collector that reads only what an honest collector sends.
//!
//! Guarantees: at most [`MAX_ANSWER_BYTES`] of one response are read, and at most as many again are buffered from the
//! network before they are read; a redirect is not followed but reported with its status; a response that does not come
//! from a gRPC server says nothing about the batch, so it counts as the collector being away.
//!
//! Wrong on purpose: a server may send any number of interim responses (1xx) and pings. They are discarded as they
//! arrive, and end with the call's timeout or with the connection.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tonic::{Status, body::Body, codegen::StdError, transport::Channel};
use tower::Service;

/// The most bytes read of a response, and buffered from the network.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Length of gRPC's message prefix.
const MESSAGE_PREFIX_BYTES: usize = 5;

/// The connection to the collector; clones share it.
#[derive(Debug, Clone)]
pub(super) struct GuardedChannel(pub(super) Channel);

impl Service<http::Request<Body>> for GuardedChannel {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Service::poll_ready(&mut self.0, context).map_err(StdError::from)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = Service::call(&mut self.0, request);
        Box::pin(async move { Ok(judge_head(answer.await?)?.map(bounded)) })
    }
}

/// Refuses responses that cannot come from a collector.
fn judge_head(answer: http::Response<Body>) -> Result<http::Response<Body>, Status> {
    let status = answer.status();
    if status.is_redirection() {
        return Err(Status::unavailable(format!(
            "the address redirects (HTTP {status}), and redirects are not followed; set collector.endpoint to the collector's own address"
        )));
    }
    let speaks_grpc = answer
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    // Errors without gRPC come from a gateway; tonic maps them by status.
    if status.is_success() && !speaks_grpc {
        return Err(Status::unavailable(
            "the server at collector.endpoint does not speak gRPC (it succeeded without gRPC's content type)",
        ));
    }
    Ok(answer)
}

fn bounded(body: Body) -> Body {
    let limited = Limited::new(body, MAX_ANSWER_BYTES + MESSAGE_PREFIX_BYTES);
    Body::new(limited.map_err(|error| {
        if !error.is::<LengthLimitError>() {
            return error;
        }
        let too_long = format!("the response exceeds {MAX_ANSWER_BYTES} bytes; the rest was not read");
        Status::out_of_range(too_long).into()
    }))
}

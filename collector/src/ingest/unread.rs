//! What a client continues to send after its request was refused.
//!
//! Guarantee: the reason for a refusal reaches even clients that read the response only after sending everything. A
//! connection closed with unread bytes is reset, and such a client reports a broken pipe instead (RFC 9112, section
//! 9.6). So the rest of a refused body is read and discarded before the response is sent, within limits.
//!
//! Wrong on purpose: a client that sends more than the limits, or stalls, may still see the connection break.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::header;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::Ingest;

/// The longest time for the rest of a body, and the longest wait for a part of it.
const LONGEST: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The most that is read of it, in requests of the largest size allowed.
const MOST_REQUESTS: usize = 4;

/// A body that survives being dropped by its reader.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl hyper::body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// Reads what is left of a refused request.
pub(super) async fn read_the_rest(State(ingest): State<Arc<Ingest>>, request: Request, next: Next) -> Response {
    // A client that first asks whether to send a body has sent nothing, unless it was read.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(shared.clone()))).await;
    let is_refusal = response.status().is_client_error() || response.status().is_server_error();
    let most = ingest.config.max_request_bytes.saturating_mul(MOST_REQUESTS);
    let may_end = !shared.is_end_stream() && shared.size_hint().lower() <= most as u64;
    if is_refusal && !asks_first && may_end {
        let rest = tokio::time::timeout(LONGEST, drop_all(shared, most)).await;
        if !matches!(rest, Ok(true)) {
            tracing::debug!("closed the connection: the rest of a refused body exceeded {most} bytes or {LONGEST:?}");
        }
    }
    response
}

/// True if the body ended within this many bytes.
async fn drop_all(mut body: Shared, most: usize) -> bool {
    let mut read = 0;
    loop {
        let frame = match tokio::time::timeout(LONGEST_PAUSE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > most {
            return false;
        }
    }
}

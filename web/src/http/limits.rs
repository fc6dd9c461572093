//! How many queries run at a time, by whom and for how long, so that a crowd costs a bounded amount of memory and one
//! client cannot lock out the others.
//!
//! Guarantees: at most [`Bounds::max_questions`] requests are in progress, including waiting ones, and at most half as
//! many from one address; more are refused at once (503, 429) and can be retried. [`HEAVY_AT_ONCE`] heavy ones are
//! answered at a time, the addresses taking turns, and none waits longer than [`LONGEST_WAIT`]; light ones never wait
//! for their turn, so that lists and the status work while somebody queries everything. Heavy ones count the memory
//! they hold ([`Bounds::answer_memory_bytes`]), and keep their turn until all work for them has ended, even if nobody
//! waits for the response any more. A request that takes longer than [`Bounds::max_request_seconds`], including all
//! waiting, is dropped together with its queries in the store. A request whose connection is closed is dropped, too,
//! and counted. Large responses that have not been read yet take at most [`Bounds::max_answer_bytes`] together; a
//! larger one is refused. Health, metrics and pages are never refused.
//!
//! Wrong on purpose: clients behind one proxy are one address; an IPv6 network (/64) is one, too.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use emberline_model::host::host_of;
use emberline_storage::{AnswerMemory, Pressure};
use futures_util::StreamExt;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::{ApiError, Refusal},
    metrics::HttpMetrics,
    places::{Asker, Full, HEAVY_AT_ONCE, Places},
};

/// The largest body of a query, before and after decompression.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a heavy query waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long the body of a query may take to arrive.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(10);
/// Responses up to this size are not counted: connections are bounded, and each sends one at a time.
const SMALL_ANSWER: u64 = 16 << 10;

/// How much may be queried at a time.
pub(crate) struct Bounds {
    /// The most API requests in progress, including those waiting for the store.
    pub(crate) max_questions: usize,
    /// The longest time of a request in seconds, including all waiting.
    pub(crate) max_request_seconds: u64,
    /// Bytes of large responses not read yet, all requests together.
    pub(crate) max_answer_bytes: u64,
    /// Bytes that responses to heavy queries may take together while they are built.
    pub(crate) answer_memory_bytes: u64,
    /// Routes answered from lists and counters in memory.
    pub(crate) light: BTreeSet<String>,
}

/// The limits, and what is in use.
pub(crate) struct Limits {
    bounds: Bounds,
    places: Arc<Places>,
    answer_memory: AnswerMemory,
    metrics: Arc<HttpMetrics>,
}

impl Limits {
    /// Counts refusals in `metrics`.
    pub(crate) fn new(bounds: Bounds, metrics: Arc<HttpMetrics>, pressure: Pressure) -> Limits {
        Limits {
            places: Arc::new(Places::new(bounds.max_questions, bounds.max_answer_bytes)),
            answer_memory: AnswerMemory::new(bounds.answer_memory_bytes, HEAVY_AT_ONCE, pressure),
            bounds,
            metrics,
        }
    }
}

fn asker(request: &Request) -> Asker {
    let ConnectInfo(address) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(host_of(address.ip()))
}

/// A body that keeps its room until it is sent or its reader is gone.
struct Held {
    body: Body,
    _room: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Lets a request through if there is room, for as long as it may take.
pub(crate) async fn hold(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    let asker = asker(&request);
    let _place = match limits.places.take(asker) {
        Ok(place) => place,
        Err(full) => {
            let (status, reason, message) = match full {
                Full::All => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "all",
                    format!(
                        "{} queries are in progress, the limit of `max_questions`: retry in a moment",
                        limits.bounds.max_questions
                    ),
                ),
                Full::OfOne => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "asker",
                    format!(
                        "{} queries from this address are in progress, half of `max_questions`: wait for some of them, or retry in a moment",
                        limits.places.max_of_one
                    ),
                ),
            };
            limits.metrics.refuse(reason);
            return refuse(status, "too_many_questions", message, true);
        }
    };
    let request = match arrived(request).await {
        Ok(request) => request,
        Err(refused) => return refused.into_response(),
    };
    let is_heavy = !request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|path| limits.bounds.light.contains(path.as_str()));
    let limit = Duration::from_secs(limits.bounds.max_request_seconds);
    let running = limits.metrics.begin();
    let answer = async { in_room(&limits, next.run(request).await).await };
    let asked = async {
        if !is_heavy {
            return answer.await;
        }
        let Ok(turn) = tokio::time::timeout(LONGEST_WAIT, limits.places.turn(asker)).await else {
            limits.metrics.refuse("turn");
            let message = format!(
                "this query waited {} s for other queries to finish: retry in a moment",
                LONGEST_WAIT.as_secs()
            );
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too_many_questions", message, true);
        };
        limits.answer_memory.count(turn, answer).await
    };
    let answer = tokio::time::timeout(limit, asked).await;
    running.answered();
    match answer {
        Ok(response) => response,
        Err(_) => {
            let message = format!(
                "no response within `max_request_seconds` = {}: use a shorter range",
                limits.bounds.max_request_seconds
            );
            refuse(StatusCode::GATEWAY_TIMEOUT, "request_timeout", message, false)
        }
    }
}

/// The request with its body, as far as its handler needs it, already read: slow senders take nobody's turn.
async fn arrived(request: Request) -> Result<Request, ApiError> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, mut body) = request.into_parts();
    let mut read = BytesMut::new();
    let reading = async {
        while read.len() <= MAX_BODY_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => read.extend(frame.into_data().ok()),
                Some(Err(error)) => {
                    return Err(ApiError::bad_request(
                        "body_broken",
                        format!("the request body was cut off: {error}"),
                    ));
                }
                None => return Ok(true),
            }
        }
        Ok(false)
    };
    let is_whole = tokio::time::timeout(LONGEST_ARRIVAL, reading)
        .await
        .map_err(|_| ApiError {
            status: StatusCode::REQUEST_TIMEOUT,
            code: "body_too_slow",
            message: format!(
                "the request did not arrive within {} s: send it without pauses",
                LONGEST_ARRIVAL.as_secs()
            ),
            retry: true,
        })??;
    let read = Body::from(read.freeze());
    let body = match is_whole {
        true => read,
        false => Body::from_stream(read.into_data_stream().chain(body.into_data_stream())),
    };
    Ok(Request::from_parts(parts, body))
}

/// The response with its room, if it is large.
async fn in_room(limits: &Limits, response: Response) -> Response {
    if let Some(Refusal(reason)) = response.extensions().get() {
        limits.metrics.refuse(reason);
    }
    let bytes = response.body().size_hint().lower();
    if bytes <= SMALL_ANSWER {
        return response;
    }
    if bytes > limits.bounds.max_answer_bytes {
        limits.metrics.refuse("size");
        let message = format!(
            "the response is {} MB, but `max_answer_bytes` allows {}: use a shorter range, a lower `limit` or `functions_limit`",
            bytes / 1_000_000,
            limits.bounds.max_answer_bytes / 1_000_000
        );
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "answer_too_large", message, false);
    }
    match limits.places.room(bytes).await {
        Some(room) => response.map(|body| Body::new(Held { body, _room: room })),
        None => {
            limits.metrics.refuse("readers");
            let message = format!(
                "{} MB of responses are waiting for slow clients, the limit of `max_answer_bytes`: retry in a moment",
                limits.bounds.max_answer_bytes / 1_000_000
            );
            refuse(StatusCode::SERVICE_UNAVAILABLE, "too_many_answers", message, true)
        }
    }
}

fn refuse(status: StatusCode, code: &'static str, message: String, retry: bool) -> Response {
    ApiError {
        status,
        code,
        message,
        retry,
    }
    .into_response()
}

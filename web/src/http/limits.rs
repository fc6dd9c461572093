//! How many questions are asked at a time, by whom and for how long, so that a crowd costs a bounded amount of memory and
//! one asker cannot keep the others from asking.
//!
//! Guarantees: at most [`Bounds::max_questions`] requests are under way, waiting
//! included, and of one address at most half as many; more are refused at once (503, 429) and can be asked again. Of heavy
//! ones [`HEAVY_AT_ONCE`] are answered at a time, the addresses taking turns, and none waits longer than [`LONGEST_WAIT`];
//! light ones never wait for their turn, so that lists and the status are there while somebody asks for everything. Heavy ones
//! count what they hold ([`Bounds::answer_memory_bytes`]), and keep their turn until
//! all work for them has ended, also when nobody waits for the answer any more. A request that
//! takes longer than [`Bounds::max_request_seconds`] with everything it waits for
//! is dropped, and its questions in the store with it. A request whose connection is closed is dropped, too, and counted.
//! Large answers that nobody has taken yet hold at most [`Bounds::max_answer_bytes`]
//! together; a larger one is refused. Health, metrics and pages are never refused.
//!
//! Wrong on purpose: askers behind one proxy are one address; a network of IPv6 (/64) is one, too.

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

/// The largest body of a question, packed or not.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a heavy question waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a question with a body may take to arrive.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(10);
/// Answers up to this size are not counted: connections are bounded, and each sends one at a time.
const SMALL_ANSWER: u64 = 16 << 10;

/// How much may be asked at a time.
pub(crate) struct Bounds {
    /// Requests of the API under way at most, those that wait for the store included.
    pub(crate) max_questions: usize,
    /// Seconds a request may take with everything it waits for.
    pub(crate) max_request_seconds: u64,
    /// Bytes of large answers that were not taken yet, of all requests together.
    pub(crate) max_answer_bytes: u64,
    /// Bytes that answers to heavy questions may hold together while they are put together.
    pub(crate) answer_memory_bytes: u64,
    /// Routes of questions that are answered from lists and counters that are kept.
    pub(crate) light: BTreeSet<String>,
}

/// The bounds, and what is taken of them.
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

/// A body that holds its room until it is sent or its reader is gone.
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

/// Lets a request through when there is room, for as long as it may take.
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

/// The request with what its handler reads of a body already there: whoever sends slowly takes nobody's turn.
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

/// The answer with its room, if it is large.
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

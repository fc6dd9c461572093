//! How many questions are asked at a time, by whom and for how long, so that a crowd costs a bounded amount of memory and
//! one asker cannot keep the others from asking.
//!
//! Guarantees: at most [`WebState::max_questions`](crate::WebState::max_questions) requests are under way, waiting
//! included, and of one address at most half as many; more are refused at once (503, 429) and can be asked again. Of heavy
//! ones [`HEAVY_AT_ONCE`] are answered at a time, the addresses taking turns, and none waits longer than [`LONGEST_WAIT`];
//! light ones never wait for their turn, so that lists and the status are there while somebody asks for everything. Heavy ones
//! count what they hold ([`WebState::answer_memory_bytes`](crate::WebState::answer_memory_bytes)), and keep their turn until
//! all work for them has ended, also when nobody waits for the answer any more. A request that
//! takes longer than [`WebState::max_request_seconds`](crate::WebState::max_request_seconds) with everything it waits for
//! is dropped, and its questions in the store with it. A request whose connection is closed is dropped, too, and counted.
//! Large answers that nobody has taken yet hold at most [`WebState::max_answer_bytes`](crate::WebState::max_answer_bytes)
//! together; a larger one is refused. Health, metrics and pages are never refused.
//!
//! Wrong on purpose: askers behind one proxy are one address; a network of IPv6 (/64) is one, too.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
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
use futures_util::StreamExt;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    Web,
    error::{ApiError, Refusal},
    pyroscope::MAX_BODY_BYTES,
};

/// Heavy questions that are answered at a time, as many as the store answers: the trees of a third only take memory.
pub(crate) const HEAVY_AT_ONCE: usize = 2;
/// How long a heavy question waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a question with a body may take to arrive.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(10);
/// How long a large answer waits for others to be taken.
const LONGEST_WAIT_FOR_READERS: Duration = Duration::from_secs(5);
/// Answers up to this size are not counted: connections are bounded, and each sends one at a time.
const SMALL_ANSWER: u64 = 16 << 10;
/// What is counted in one piece.
const PIECE: u64 = 1 << 10;

/// Questions answered from lists and counters that are kept, by route.
const LIGHT: [&str; 8] = [
    "/api/v1/status",
    "/api/v1/alerts",
    "/api/v1/services",
    "/api/v1/services/{service}",
    "/api/v1/releases",
    "/api/v1/labels",
    "/api/v1/label_values",
    "/api/v1/profile_types",
];

/// Who asks; requests that came over no connection are one asker.
type Asker = Option<IpAddr>;

fn asker(request: &Request) -> Asker {
    let ConnectInfo(address) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(host_of(address.ip()))
}

/// The places for questions.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Mutex<Taken>,
    max: usize,
    max_of_one: usize,
    answers: Arc<Semaphore>,
    answer_pieces: usize,
}

#[derive(Debug, Default)]
struct Taken {
    /// Under way, by asker.
    of: HashMap<Asker, usize>,
    all: usize,
    heavy: usize,
    /// Askers with heavy questions that wait, in the order of their turns.
    waiting: VecDeque<(Asker, VecDeque<oneshot::Sender<()>>)>,
}

/// A question under way.
struct Place<'p> {
    places: &'p Places,
    asker: Asker,
}

/// A heavy one whose turn it is.
struct Turn(Arc<Places>);

/// Why a question is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    All,
    OfOne,
}

impl Places {
    pub(crate) fn new(max: usize, max_answer_bytes: u64) -> Places {
        let pieces = usize::try_from(max_answer_bytes / PIECE).unwrap_or(usize::MAX);
        let pieces = pieces.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Places {
            taken: Mutex::default(),
            max,
            max_of_one: max.div_ceil(2),
            answers: Arc::new(Semaphore::new(pieces)),
            answer_pieces: pieces,
        }
    }

    fn take(&self, asker: Asker) -> Result<Place<'_>, Full> {
        let mut taken = self.taken.lock();
        if taken.all >= self.max {
            return Err(Full::All);
        }
        let of_one = taken.of.entry(asker).or_default();
        if *of_one >= self.max_of_one {
            return Err(Full::OfOne);
        }
        *of_one += 1;
        taken.all += 1;
        Ok(Place { places: self, asker })
    }

    /// Waits for the turn of a heavy question.
    async fn turn(self: &Arc<Self>, asker: Asker) -> Turn {
        let told = {
            let mut taken = self.taken.lock();
            if taken.heavy < HEAVY_AT_ONCE {
                taken.heavy += 1;
                return Turn(Arc::clone(self));
            }
            let (tell, told) = oneshot::channel();
            match taken.waiting.iter_mut().find(|(of, _)| *of == asker) {
                Some((_, queue)) => queue.push_back(tell),
                None => taken.waiting.push_back((asker, VecDeque::from([tell]))),
            }
            told
        };
        let mut told = Told { places: self, told };
        // The other end is kept until it is told.
        let _ = (&mut told.told).await;
        Turn(Arc::clone(self))
    }

    fn pass_on(&self) {
        let mut taken = self.taken.lock();
        while let Some((asker, mut queue)) = taken.waiting.pop_front() {
            let next = queue.pop_front();
            if !queue.is_empty() {
                taken.waiting.push_back((asker, queue));
            }
            // Whoever has left is passed over.
            if next.is_some_and(|next| next.send(()).is_ok()) {
                return;
            }
        }
        taken.heavy -= 1;
    }

    /// Room for an answer until it is taken.
    async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let pieces = usize::try_from(bytes / PIECE)
            .unwrap_or(usize::MAX)
            .min(self.answer_pieces);
        let waiting = Arc::clone(&self.answers).acquire_many_owned(pieces as u32);
        tokio::time::timeout(LONGEST_WAIT_FOR_READERS, waiting).await.ok()?.ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        if let Some(of_one) = taken.of.get_mut(&self.asker) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.of.remove(&self.asker);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

/// One who waits; if it leaves in the moment in which it is told, the turn is passed on.
struct Told<'p> {
    places: &'p Places,
    told: oneshot::Receiver<()>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        // Told and taken is over: nothing more comes then.
        self.told.close();
        if self.told.try_recv().is_ok() {
            return self.places.pass_on();
        }
        let mut taken = self.places.taken.lock();
        taken.waiting.retain_mut(|(_, queue)| {
            queue.retain(|waiting| !waiting.is_closed());
            !queue.is_empty()
        });
    }
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
pub(crate) async fn hold(State(web): State<Web>, request: Request, next: Next) -> Response {
    let asker = asker(&request);
    let _place = match web.places.take(asker) {
        Ok(place) => place,
        Err(full) => {
            let (status, reason, message) = match full {
                Full::All => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "all",
                    format!(
                        "{} queries are in progress, the limit of `max_questions`: retry in a moment",
                        web.max_questions
                    ),
                ),
                Full::OfOne => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "asker",
                    format!(
                        "{} queries from this address are in progress, half of `max_questions`: wait for some of them, or retry in a moment",
                        web.places.max_of_one
                    ),
                ),
            };
            web.http.refuse(reason);
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
        .is_some_and(|path| LIGHT.contains(&path.as_str()));
    let limit = Duration::from_secs(web.max_request_seconds);
    let running = web.http.begin();
    let answer = async { in_room(&web, next.run(request).await).await };
    let asked = async {
        if !is_heavy {
            return answer.await;
        }
        let Ok(turn) = tokio::time::timeout(LONGEST_WAIT, web.places.turn(asker)).await else {
            web.http.refuse("turn");
            let message = format!(
                "this query waited {} s for other queries to finish: retry in a moment",
                LONGEST_WAIT.as_secs()
            );
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too_many_questions", message, true);
        };
        web.answer_memory.count(turn, answer).await
    };
    let answer = tokio::time::timeout(limit, asked).await;
    running.answered();
    match answer {
        Ok(response) => response,
        Err(_) => {
            let message = format!(
                "no response within `max_request_seconds` = {}: use a shorter range",
                web.max_request_seconds
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
async fn in_room(web: &Web, response: Response) -> Response {
    if let Some(Refusal(reason)) = response.extensions().get() {
        web.http.refuse(reason);
    }
    let bytes = response.body().size_hint().lower();
    if bytes <= SMALL_ANSWER {
        return response;
    }
    if bytes > web.max_answer_bytes {
        web.http.refuse("size");
        let message = format!(
            "the response is {} MB, but `max_answer_bytes` allows {}: use a shorter range, a lower `limit` or `functions_limit`",
            bytes / 1_000_000,
            web.max_answer_bytes / 1_000_000
        );
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "answer_too_large", message, false);
    }
    match web.places.room(bytes).await {
        Some(room) => response.map(|body| Body::new(Held { body, _room: room })),
        None => {
            web.http.refuse("readers");
            let message = format!(
                "{} MB of responses are waiting for slow clients, the limit of `max_answer_bytes`: retry in a moment",
                web.max_answer_bytes / 1_000_000
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

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::Future, task::Waker};

    use super::*;

    fn address(last: u8) -> Asker {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn one_address_has_half_of_the_places_and_gives_them_back() {
        let places = Places::new(6, 1 << 20);
        let mine: Vec<_> = (0..3)
            .map(|_| places.take(address(1)).map_err(|_| ()).unwrap())
            .collect();
        assert_eq!(places.take(address(1)).err(), Some(Full::OfOne));
        let other: Vec<_> = (2..5)
            .map(|n| places.take(address(n)).map_err(|_| ()).unwrap())
            .collect();
        assert_eq!(places.take(address(9)).err(), Some(Full::All));
        drop((mine, other));
        let again = places.take(address(1)).map_err(|_| ()).unwrap();
        assert_eq!(places.taken.lock().of.len(), 1);
        drop(again);
        assert!(places.taken.lock().of.is_empty(), "who has nothing is forgotten");
    }

    #[test]
    fn addresses_take_turns_and_who_leaves_is_passed_over() {
        let places = Arc::new(Places::new(64, 1 << 20));
        let order = RefCell::new(Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        let (places, order) = (&places, &order);
        let wait = |asker: u8, name: &'static str| {
            let mut waiting = Box::pin(async move {
                let turn = places.turn(address(asker)).await;
                order.borrow_mut().push(name);
                turn
            });
            let now = match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            };
            (waiting, now)
        };
        let mut turns: Vec<_> = (0..HEAVY_AT_ONCE).map(|_| wait(1, "first").1.unwrap()).collect();
        let mut queue = [wait(1, "a1"), wait(1, "a2"), wait(1, "a3"), wait(2, "b1")].map(|(waiting, now)| {
            assert!(now.is_none());
            Some(waiting)
        });
        // The second of the first address leaves.
        queue[1] = None;
        while let Some(turn) = turns.pop() {
            drop(turn);
            for waiting in &mut queue {
                if let Some(future) = waiting
                    && let Poll::Ready(turn) = future.as_mut().poll(&mut context)
                {
                    turns.push(turn);
                    *waiting = None;
                }
            }
        }
        assert_eq!(order.borrow()[HEAVY_AT_ONCE..], ["a1", "b1", "a3"]);
        assert_eq!(places.taken.lock().heavy, 0);
        // One that is told and leaves before it looks passes its turn on.
        let held: Vec<_> = (0..HEAVY_AT_ONCE).map(|_| wait(1, "x").1.unwrap()).collect();
        let (leaving, _) = wait(1, "leaving");
        drop(held);
        drop(leaving);
        assert_eq!(places.taken.lock().heavy, 0);
    }
}

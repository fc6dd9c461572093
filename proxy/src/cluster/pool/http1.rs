//! HTTP/1.1 to an endpoint: a stack of idle connections, and requests that drive their own connection.
//!
//! A connection has no task of its own; its user polls it: first the request until the response's head is there, then
//! the response's body. That saves two wake-ups per request, lets head and body leave in one write, and attributes the
//! work on the connection to the request's label for free.
//!
//! Guarantees: a connection returns to the pool only when the library says that it is ready for another request, so
//! never while bytes are outstanding in either direction or after it has switched protocols; one that the other end has
//! closed is noticed before it is used, and one that is about to be closed, as announced ([`keep_alive`]), is not used.
//!
//! Wrong on purpose: idle connections are not watched; [`Http1Pool::sweep`] finds those that were closed meanwhile.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use emberline_client::Speaks;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header::HOST};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::task::coop::unconstrained;

use super::{
    super::{
        BodyFailure, UpstreamError,
        dial::{Dial, Times},
        outgoing::Outgoing,
        replay::{Replay, bring_back, has_ended},
        upload::Upload,
    },
    keep_alive,
    socket::{Socket, Switched},
};
use crate::{
    age::{is_over, retires},
    body::{BoxError, RequestBody},
    record::is_stream,
    wire::{headers::join_cookies, io::IdleTimer},
};

/// Limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Http1Options {
    /// Idle connections kept.
    pub(crate) max_idle: usize,
    /// How long an idle connection is kept.
    pub(crate) idle: Duration,
    /// How long any connection is used.
    pub(crate) age: Option<Duration>,
    /// Bytes of a response's head.
    pub(crate) max_header_bytes: usize,
}

impl Default for Http1Options {
    fn default() -> Self {
        Http1Options {
            max_idle: 256,
            idle: Duration::from_secs(60),
            age: None,
            max_header_bytes: 16_384,
        }
    }
}

/// The most bytes of a response read at once.
const MOST_READ_BYTES: usize = 128 << 10;

/// An open connection.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    driver: Pin<Box<http1::Connection<TokioIo<Socket>, RequestBody>>>,
    /// The driver has finished and must not be polled again.
    has_ended: bool,
    timer: IdleTimer,
    idle_since: Instant,
    /// When it reaches its maximum age.
    retires: Option<Instant>,
    /// How long it may be idle and still be used, as last announced by the endpoint.
    usable_for: Option<Duration>,
}

/// The library's result; the request comes back if none of it was sent.
type Answer = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

impl Connection {
    /// Whether it has been idle, or open, for too long.
    fn is_stale(&self, options: Http1Options) -> bool {
        let limit = self.usable_for.unwrap_or(options.idle).min(options.idle);
        self.idle_since.elapsed() >= limit || is_over(self.retires)
    }

    /// Lets the connection make progress.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.has_ended && self.driver.as_mut().poll(cx).is_ready() {
            self.has_ended = true;
        }
    }

    fn is_reusable(&self) -> bool {
        !self.has_ended && self.sender.is_ready()
    }

    /// Drives the connection until there is a result; `None` when time is up. The result can only come from driving it,
    /// so no waker is needed.
    fn poll_answer(
        &mut self,
        answer: Pin<&mut impl Future<Output = Answer>>,
        upload: &Upload,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Option<Answer>> {
        self.drive(cx);
        if let Poll::Ready(answer) = answer.poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(Some(answer));
        }
        ready!(upload.poll_stalled(&mut self.timer, cx, limit));
        Poll::Ready(None)
    }
}

/// The idle connections to an endpoint; the most recently used one is used next.
#[derive(Debug)]
pub(crate) struct Http1Pool {
    dial: Arc<Dial>,
    idle: Mutex<Vec<Connection>>,
    options: Http1Options,
    /// Less than the options say if several pools share the limit.
    most_kept: AtomicUsize,
}

impl Http1Pool {
    pub(crate) fn new(dial: Arc<Dial>, options: Http1Options) -> Http1Pool {
        Http1Pool {
            dial,
            idle: Mutex::default(),
            most_kept: AtomicUsize::new(options.max_idle),
            options,
        }
    }

    /// Keeps no more idle connections than this from now on.
    pub(crate) fn keep_at_most(&self, connections: usize) {
        self.most_kept.store(connections, Ordering::Relaxed);
    }

    fn most_kept(&self) -> usize {
        self.most_kept.load(Ordering::Relaxed)
    }

    pub(crate) fn options(&self) -> Http1Options {
        self.options
    }

    /// An idle connection that the other end has not closed, as far as is known here.
    fn check_out(&self, cx: &mut Context<'_>) -> Option<Connection> {
        loop {
            let mut connection = self.idle.lock().pop()?;
            if connection.is_stale(self.options) {
                continue;
            }
            connection.drive(cx);
            if connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    fn check_in(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        if connection.is_stale(self.options) {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < self.most_kept() {
            idle.push(connection);
        }
    }

    /// Drops connections that have been idle for too long or were closed by the other end.
    pub(crate) fn sweep(&self) {
        let all = std::mem::take(&mut *self.idle.lock());
        let mut cx = Context::from_waker(Waker::noop());
        let kept: Vec<Connection> = all
            .into_iter()
            .filter_map(|mut connection| {
                connection.drive(&mut cx);
                (connection.is_reusable() && !connection.is_stale(self.options)).then_some(connection)
            })
            .collect();
        // Those that came back meanwhile were used most recently.
        let mut idle = self.idle.lock();
        let newer = std::mem::replace(&mut *idle, kept);
        idle.extend(newer);
        idle.truncate(self.most_kept());
    }
}

impl Http1Pool {
    /// Sends a request. The response's body drives the connection and returns it to the pool at its end.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: &mut Outgoing,
        times: &Times,
    ) -> Result<Response<Http1Body>, UpstreamError> {
        if let Some(request) = request {
            self.make_origin_form(request);
        }
        let mut pooled = poll_fn(|cx| Poll::Ready(self.check_out(cx))).await;
        loop {
            let is_pooled = pooled.is_some();
            let mut connection = match pooled.take() {
                Some(connection) => connection,
                // Boxed: most requests do not pay for its size.
                None => Box::pin(self.open(times)).await?,
            };
            let Some(leaving) = request.take() else {
                return Err(UpstreamError::NoDestination);
            };
            let replay = if is_pooled { Replay::of(&leaving) } else { None };
            let upload = Upload::of(&leaving);
            connection.timer.disarm();
            // The task's budget must not hold the result back.
            let mut answer = pin!(unconstrained(connection.sender.try_send_request(leaving)));
            let answer = poll_fn(|cx| connection.poll_answer(answer.as_mut(), &upload, cx, times.response)).await;
            let error = match answer {
                None => return Err(times.late(self.dial.address())),
                Some(Ok(response)) => return Ok(self.body_of(response, connection, times)),
                Some(Err(mut failed)) => {
                    *request = failed.take_message();
                    failed.into_error()
                }
            };
            if is_pooled {
                bring_back(request, replay, &error);
            }
            if !is_pooled || request.is_none() {
                if is_pooled && has_ended(&error) {
                    self.dial.counters().pooled_failures.add();
                }
                return Err(self.dial.failure(error));
            }
            // The pooled connection had ended: others in the pool may have, too, so a new one is opened.
            self.dial.counters().retries.add();
        }
    }

    async fn open(&self, times: &Times) -> Result<Connection, UpstreamError> {
        let stream = self.dial.connect(times, Speaks::Http1).await?;
        let (sender, driver) = http1::Builder::new()
            .max_header_size(self.options.max_header_bytes)
            .max_buf_size(self.options.max_header_bytes.max(MOST_READ_BYTES))
            .handshake(TokioIo::new(Socket::new(stream, Arc::clone(self.dial.budget()))))
            .await
            .map_err(|error| self.dial.failure(error))?;
        Ok(Connection {
            sender,
            driver: Box::pin(driver),
            has_ended: false,
            timer: IdleTimer::default(),
            idle_since: Instant::now(),
            retires: self.options.age.map(retires),
            usable_for: None,
        })
    }

    /// Path and query in the request line, the authority in `Host`, cookies in one field.
    fn make_origin_form(&self, request: &mut Request<RequestBody>) {
        if request.version() == Version::HTTP_2 {
            join_cookies(request.headers_mut());
        }
        *request.version_mut() = Version::HTTP_11;
        if let Some(authority) = request.uri().authority() {
            if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
                request.headers_mut().insert(HOST, host);
            }
            let path = request.uri().path_and_query().cloned();
            let mut parts = http::uri::Parts::default();
            parts.path_and_query = path;
            // A path of a valid URI is a valid URI.
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        } else if !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(&self.dial.address().to_string())
        {
            request.headers_mut().insert(HOST, host);
        }
    }

    fn body_of(
        self: &Arc<Self>,
        response: Response<Incoming>,
        mut connection: Connection,
        times: &Times,
    ) -> Response<Http1Body> {
        connection.timer.disarm();
        connection.usable_for = keep_alive::usable_for(response.headers()).or(connection.usable_for);
        let has_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        // A stream of events is silent while nothing happens.
        let idle = (!is_stream(response.headers())).then(|| times.timeouts.idle());
        response.map(|body| {
            let mut body = Http1Body {
                body,
                lease: Some(Lease {
                    connection,
                    pool: Arc::clone(self),
                }),
                idle,
                failure: None,
            };
            if body.body.is_end_stream() && !has_switched {
                body.give_back(None);
            }
            body
        })
    }
}

/// A connection in use, and the pool it returns to. Dropping it closes the connection.
#[derive(Debug)]
struct Lease {
    connection: Connection,
    pool: Arc<Http1Pool>,
}

/// The body of a response over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Http1Body {
    body: Incoming,
    lease: Option<Lease>,
    /// How long it may be silent; streams have no limit.
    idle: Option<Duration>,
    /// Already encountered; reported at the next poll.
    failure: Option<BodyFailure>,
}

impl Http1Body {
    /// The connection of a response that switched protocols.
    pub(crate) fn into_switched(mut self) -> Option<Switched> {
        let mut connection = self.lease.take()?.connection;
        connection.drive(&mut Context::from_waker(Waker::noop()));
        // The library has finished with it, and has not closed it.
        if !connection.has_ended {
            return None;
        }
        let parts = Pin::into_inner(connection.driver).into_parts();
        Some(Switched {
            stream: parts.io.into_inner().into_stream(),
            early: parts.read_buf,
        })
    }

    /// The body has ended: the connection may serve another request, unless something is outstanding.
    fn give_back(&mut self, cx: Option<&mut Context<'_>>) {
        let Some(mut lease) = self.lease.take() else { return };
        if !lease.connection.is_reusable() {
            lease
                .connection
                .drive(cx.unwrap_or(&mut Context::from_waker(Waker::noop())));
        }
        if lease.connection.is_reusable() {
            lease.pool.check_in(lease.connection);
        }
    }

    /// Polls the body and, if it has nothing, the connection. Only the connection fills the body's channel, and it is
    /// polled with the task's waker, so the channel itself need not wake anyone.
    fn poll_driven(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        for attempt in 0..2 {
            match Pin::new(&mut self.body).poll_frame(&mut quiet) {
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(BodyFailure::Broken(error)))),
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let Some(lease) = &mut self.lease else {
                return Poll::Ready(Some(Err(BodyFailure::Ended)));
            };
            if attempt == 0 {
                lease.connection.drive(cx);
            }
        }
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(Some(Err(BodyFailure::Ended)));
        };
        if lease.connection.has_ended {
            return Poll::Ready(Some(Err(BodyFailure::Ended)));
        }
        let Some(idle) = self.idle else {
            return Poll::Pending;
        };
        ready!(lease.connection.timer.poll(cx, idle));
        Poll::Ready(Some(Err(BodyFailure::Idle(idle))))
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure.into())));
        }
        let polled = ready!(self.poll_driven(cx));
        match polled {
            None => {
                self.give_back(Some(cx));
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let Some(lease) = &mut self.lease {
                    lease.connection.timer.disarm();
                }
                if self.body.is_end_stream() {
                    self.give_back(Some(cx));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(failure)) => {
                // An error ends the caller's connection as it stands. One poll later, what came before the failure has
                // been sent: the caller sees a head and a truncated body, not nothing.
                self.lease = None;
                self.failure = Some(failure);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! HTTP/2 to an endpoint: connections shared by requests, opened as needed.
//!
//! Guarantees: no stream that an endpoint allows on a connection waits behind another; when all are taken, another
//! connection is opened. A connection carries at most [`STREAMS`] streams, whose windows add up to its own, so that
//! callers who do not read leave the others' windows alone; a request does not join a slow upload while another
//! connection is available. However many requests wait for the same connection attempt, they all learn of its result at
//! the same time. Dead connections are found by PING within 50 s.
//!
//! Wrong on purpose: the windows of all connections together are bounded ([`Budget::reserve_windows`]); beyond that,
//! streams share what there is, as many as the endpoint allows, and the rest wait for at most `timeouts.queue_ms`.
//!
//! One file because the choice of a connection, the slots of its streams and their return are the state under one lock.
//! The rest is opening a connection and sending on it, which read and write all of that state.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use emberline_client::{Speaks, cause};
use http::{Request, Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use super::{
    super::{
        BodyFailure, UpstreamError,
        dial::{Dial, Times},
        outgoing::Outgoing,
        replay::NextStream,
        upload::Upload,
    },
    Http1Options,
    socket::Socket,
};
use crate::{
    age::{is_over, retires},
    body::{BoxError, RequestBody},
    budget::{Budget, Windows},
    counters::InUse,
    grpc,
    telemetry::Label,
    wire::{io::IdleTimer, pace::Paced},
};

/// How often a silent connection is pinged, and how long it may take to answer.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams per connection, if the endpoint allows as many.
const STREAMS: usize = 64;
/// What an unread response may hold.
const STREAM_WINDOW: u32 = 64 << 10;
/// What all streams of a connection may hold together: each its whole window.
const CONNECTION_WINDOW: u32 = STREAMS as u32 * STREAM_WINDOW;
/// Until the endpoint has said how many streams it allows; nothing is sent meanwhile.
const UNTOLD: usize = usize::MAX - 1;
/// An endpoint that has not said so by then is assumed to allow [`STREAMS`].
const TOLD_WITHIN: Duration = Duration::from_millis(250);
/// A body still being sent after this long may be holding up the connection's other bodies.
const SLOW_UPLOAD: Duration = Duration::from_millis(100);
/// Connections up to which one is opened just to avoid slow uploads.
const MOST_FOR_UPLOADS: usize = 8;

/// The connections to an endpoint.
#[derive(Debug)]
pub(crate) struct Http2Pool {
    dial: Arc<Dial>,
    state: Mutex<State>,
    max_header_bytes: usize,
    idle: Duration,
    age: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Connection>,
    opening: usize,
    waiting: VecDeque<Waiting>,
    /// Last number given to a connection or an upload.
    next: u64,
}

/// A request waiting for a stream.
#[derive(Debug)]
struct Waiting {
    stream: oneshot::Sender<Result<Stream, UpstreamError>>,
    times: Times,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    sender: SendRequest<RequestBody>,
    /// Streams that the endpoint allows.
    most: usize,
    streams: usize,
    /// Bodies being sent, oldest first.
    uploads: VecDeque<(u64, Instant)>,
    idle_since: Instant,
    /// When it reaches its maximum age.
    retires: Option<Instant>,
    _windows: Windows,
    _open: InUse,
}

impl Connection {
    fn slow_uploads(&self, now: Instant) -> usize {
        let slow = |(_, since): &&(u64, Instant)| now.duration_since(*since) >= SLOW_UPLOAD;
        self.uploads.iter().take_while(slow).count()
    }
}

/// Where a request goes.
enum Choice {
    /// The connection at this index.
    Take(usize),
    /// A connection that has yet to be opened.
    Open,
    /// The first connection with a free stream.
    Wait,
}

impl State {
    fn choose(&mut self, budget: &Arc<Budget>, now: Instant) -> Choice {
        // Open streams keep their connection alive; it closes with the last of them.
        self.connections
            .retain(|connection| !connection.sender.is_closed() && !is_over(connection.retires));
        let own = |c: &Connection| c.streams < c.most.min(STREAMS);
        let found = self.connections.iter().enumerate().filter(|(_, c)| own(c));
        let best = found.min_by_key(|(_, c)| (c.slow_uploads(now), c.streams));
        let may_open = || self.connections.is_empty() || budget.has_windows(CONNECTION_WINDOW);
        match best {
            Some((at, connection)) => {
                let alone = connection.slow_uploads(now) == 0;
                if alone || self.connections.len() >= MOST_FOR_UPLOADS || !may_open() {
                    Choice::Take(at)
                } else {
                    Choice::Open
                }
            }
            None if self.opening > 0 || may_open() => Choice::Open,
            None => {
                let allowed = self.connections.iter().enumerate().filter(|(_, c)| c.streams < c.most);
                let best = allowed.min_by_key(|(_, c)| (c.slow_uploads(now), c.streams));
                best.map_or(Choice::Wait, |(at, _)| Choice::Take(at))
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn find(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.number == number)
    }

    fn take(&mut self, at: usize, of: &Arc<Http2Pool>) -> Stream {
        let connection = &mut self.connections[at];
        connection.streams += 1;
        Stream {
            sender: connection.sender.clone(),
            held: Arc::new(Held {
                pool: Arc::clone(of),
                connection: connection.number,
                is_given_back: AtomicBool::new(false),
                _in_use: of.dial.counters().http2_streams.one(),
            }),
        }
    }

    /// Opens a connection for waiting requests, unless those being opened will suffice.
    fn open(&mut self, of: &Arc<Http2Pool>) {
        let most = self.connections.iter().map(|connection| connection.most).min();
        let most = most.unwrap_or(STREAMS).clamp(1, STREAMS);
        let Some(first) = self
            .waiting
            .front()
            .filter(|_| self.opening * most < self.waiting.len())
        else {
            return;
        };
        // Streams are also given back after a runtime has ended.
        if let Ok(runtime) = Handle::try_current() {
            let (pool, times) = (Arc::clone(of), first.times);
            runtime.spawn(async move { pool.open(&times).await });
            self.opening += 1;
        }
    }

    /// Gives streams to waiting requests, first come first served, and opens connections for the rest if it may.
    fn serve(&mut self, of: &Arc<Http2Pool>, may_open: bool) {
        while !self.waiting.is_empty() {
            let now = Instant::now();
            let at = match (self.choose(of.dial.budget(), now), may_open) {
                (Choice::Take(at), _) => at,
                (Choice::Open, true) => return self.open(of),
                _ => return,
            };
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            if waiting.stream.is_closed() {
                continue;
            }
            let number = self.connections[at].number;
            let stream = self.take(at, of);
            if let Err(Ok(unwanted)) = waiting.stream.send(Ok(stream)) {
                // Dropping it would take the lock that is held here.
                unwanted.held.is_given_back.store(true, Ordering::Relaxed);
                if let Some(connection) = self.find(number) {
                    connection.streams -= 1;
                }
            }
        }
    }
}

impl Http2Pool {
    pub(crate) fn new(dial: Arc<Dial>, options: Http1Options) -> Http2Pool {
        Http2Pool {
            dial,
            state: Mutex::default(),
            max_header_bytes: options.max_header_bytes,
            idle: options.idle,
            age: options.age,
        }
    }

    /// Closes connections that have not been used for long, except one.
    pub(crate) fn sweep(&self) {
        let mut state = self.state.lock();
        let mut spare = state.connections.len().saturating_sub(1);
        state.connections.retain(|connection| {
            let is_idle = connection.streams == 0 && connection.idle_since.elapsed() > self.idle;
            let is_over = connection.streams == 0 && is_over(connection.retires);
            let goes = connection.sender.is_closed() || is_over || (is_idle && spare > 0);
            spare -= usize::from(goes && spare > 0);
            !goes
        });
    }
}

/// A stream of a connection.
#[derive(Debug)]
struct Stream {
    sender: SendRequest<RequestBody>,
    held: Arc<Held>,
}

/// The slot of a stream; given back when the last of its two bodies is dropped.
#[derive(Debug)]
struct Held {
    pool: Arc<Http2Pool>,
    connection: u64,
    is_given_back: AtomicBool,
    _in_use: InUse,
}

impl Drop for Held {
    fn drop(&mut self) {
        if *self.is_given_back.get_mut() {
            return;
        }
        let mut state = self.pool.state.lock();
        if let Some(connection) = state.find(self.connection) {
            connection.streams -= 1;
            connection.idle_since = Instant::now();
        }
        state.serve(&self.pool, true);
    }
}

/// A body being sent to the endpoint.
struct UploadOf {
    held: Arc<Held>,
    number: u64,
}

impl UploadOf {
    fn begin(held: &Arc<Held>) -> UploadOf {
        let mut state = held.pool.state.lock();
        let number = state.number();
        if let Some(connection) = state.find(held.connection) {
            connection.uploads.push_back((number, Instant::now()));
        }
        UploadOf {
            held: Arc::clone(held),
            number,
        }
    }
}

impl Drop for UploadOf {
    fn drop(&mut self) {
        let mut state = self.held.pool.state.lock();
        if let Some(connection) = state.find(self.held.connection) {
            connection.uploads.retain(|(number, _)| *number != self.number);
        }
    }
}

/// The body of a response over HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2Body {
    body: Incoming,
    held: Option<Arc<Held>>,
}

impl Http2Body {
    fn of(response: Response<Incoming>, held: Arc<Held>) -> Response<Http2Body> {
        response.map(|body| Http2Body {
            held: (!body.is_end_stream()).then_some(held),
            body,
        })
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.held = None;
        }
        polled.map_err(|error| BodyFailure::Broken(error).into())
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Spawns the library's tasks, and signals when one was polled: the endpoint's settings may be known then.
#[derive(Clone)]
struct Watched {
    polled: Arc<Notify>,
    is_told: Arc<AtomicBool>,
}

impl<F> Executor<F> for Watched
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let watched = self.clone();
        tokio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                if !watched.is_told.load(Ordering::Relaxed) {
                    watched.polled.notify_one();
                }
                polled
            })
            .await;
        });
    }
}

impl Http2Pool {
    /// Returns a stream of one of the connections.
    async fn stream(self: &Arc<Self>, times: &Times) -> Result<Stream, UpstreamError> {
        let (waiting, is_opening) = {
            let mut state = self.state.lock();
            let choice = state.choose(self.dial.budget(), Instant::now());
            if let Choice::Take(at) = choice {
                return Ok(state.take(at, self));
            }
            let (stream, waiting) = oneshot::channel();
            state.waiting.retain(|waiting| !waiting.stream.is_closed());
            state.waiting.push_back(Waiting { stream, times: *times });
            if matches!(choice, Choice::Open) {
                state.open(self);
            }
            (waiting, state.opening > 0)
        };
        let _waits = self.dial.counters().http2_waiting.one();
        let limit = times.timeouts.queue() + if is_opening { times.connect } else { Duration::ZERO };
        match tokio::time::timeout(limit, waiting).await {
            Ok(Ok(stream)) => stream,
            _ => {
                self.dial.counters().http2_queue_timeouts.add();
                Err(UpstreamError::NoStream {
                    address: self.dial.address().clone(),
                    limit: times.timeouts.queue(),
                })
            }
        }
    }

    /// Opens a connection for waiting requests.
    async fn open(self: Arc<Self>, times: &Times) {
        let opened = self.connect(times).await;
        let mut state = self.state.lock();
        state.opening -= 1;
        match opened {
            Ok((sender, most, windows)) => {
                let number = state.number();
                state.connections.push(Connection {
                    number,
                    sender,
                    most,
                    streams: 0,
                    uploads: VecDeque::new(),
                    idle_since: Instant::now(),
                    retires: self.age.map(retires),
                    _windows: windows,
                    _open: self.dial.counters().http2_connections.one(),
                });
                state.serve(&self, true);
            }
            // If there are other connections, waiting requests keep waiting for their streams.
            Err(error) if state.connections.is_empty() && state.opening == 0 => {
                for waiting in state.waiting.drain(..) {
                    let _ = waiting.stream.send(Err(error.again(self.dial.address())));
                }
            }
            Err(_) => state.serve(&self, false),
        }
    }

    async fn connect(
        self: &Arc<Self>,
        times: &Times,
    ) -> Result<(SendRequest<RequestBody>, usize, Windows), UpstreamError> {
        let windows = self.dial.budget().reserve_windows(CONNECTION_WINDOW);
        let stream = self.dial.connect(times, Speaks::Http2).await?;
        let socket = Socket::new(stream, Arc::clone(self.dial.budget()));
        let watched = Watched {
            polled: Arc::default(),
            is_told: Arc::default(),
        };
        let (sender, mut driver) = http2::Builder::new(watched.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(UNTOLD)
            .max_header_list_size(u32::try_from(self.max_header_bytes).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(Paced::of_endpoint(socket)))
            .await
            .map_err(|error| self.dial.failure(error))?;
        let told = async {
            while driver.current_max_send_streams() == UNTOLD {
                tokio::select! {
                    ended = &mut driver => return Some(ended),
                    () = watched.polled.notified() => {}
                }
            }
            None
        };
        let ended = tokio::time::timeout(TOLD_WITHIN, told).await.unwrap_or(None);
        watched.is_told.store(true, Ordering::Relaxed);
        if let Some(ended) = ended {
            // For example, the refusal of a client certificate, which comes after the handshake.
            let why = ended.map_or_else(|error| format!(": {}", cause(&error)), |()| String::new());
            return Err(UpstreamError::Connect {
                address: self.dial.address().clone(),
                source: io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    format!("the connection ended before the HTTP/2 settings arrived{why}"),
                ),
            });
        }
        let most = match driver.current_max_send_streams() {
            UNTOLD => STREAMS,
            most => most,
        };
        // The library ends a connection without streams once nobody can send on it any more: after a sweep, or when its
        // endpoint is no longer in the configuration or among a name's addresses.
        let pool = Arc::downgrade(self);
        tokio::spawn(emberline_profiler::Labeled::new(Label::NONE, async move {
            // Requests in flight notice the end by themselves.
            let _ = driver.await;
            let Some(pool) = pool.upgrade() else {
                return;
            };
            let mut state = pool.state.lock();
            state.connections.retain(|connection| !connection.sender.is_closed());
            state.serve(&pool, true);
        }));
        Ok((sender, most, windows))
    }

    /// Sends a request with prior knowledge.
    pub(crate) async fn send(
        self: &Arc<Self>,
        outgoing: &mut Outgoing,
        times: &Times,
    ) -> Result<Response<Http2Body>, UpstreamError> {
        let Some(request) = outgoing else {
            return Err(UpstreamError::NoDestination);
        };
        self.make_absolute(request);
        *request.version_mut() = Version::HTTP_2;
        let (upload, mut timer) = (Upload::of(request), IdleTimer::default());
        // A gRPC call has the time that its caller gives it, and a stream is silent until something happens.
        let is_limited = !grpc::is_grpc(request.headers());
        let exchange = async {
            let mut is_first = true;
            loop {
                let next = outgoing.as_mut().map(NextStream::of);
                let error = match self.try_stream(outgoing, times).await? {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                if let Some(next) = next {
                    next.bring_back(outgoing, &error);
                }
                if outgoing.is_none() || !is_first {
                    return Err(self.dial.failure(error));
                }
                is_first = false;
                self.dial.counters().retries.add();
            }
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
                .poll_stalled(&mut timer, cx, times.response)
                .map(|()| Err(times.late(self.dial.address())))
        })
        .await
    }

    /// Sends a request on a stream.
    async fn try_stream(
        self: &Arc<Self>,
        outgoing: &mut Outgoing,
        times: &Times,
    ) -> Result<Result<Response<Http2Body>, hyper::Error>, UpstreamError> {
        let Stream { mut sender, held } = self.stream(times).await?;
        let Some(mut request) = outgoing.take() else {
            return Err(UpstreamError::NoDestination);
        };
        if !request.body().is_end_stream() {
            request.body_mut().hold(UploadOf::begin(&held));
        }
        Ok(match sender.try_send_request(request).await {
            Ok(response) => Ok(Http2Body::of(response, held)),
            Err(mut failed) => {
                *outgoing = failed.take_message();
                Err(failed.into_error())
            }
        })
    }

    /// HTTP/2 requires scheme and authority in every request, and then no `Host` (RFC 9113, 8.3.1).
    fn make_absolute(&self, request: &mut Request<RequestBody>) {
        let uri = request.uri();
        if uri.authority().is_some() && uri.scheme().is_some() {
            return;
        }
        let host = request
            .headers()
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        let authority = host.map_or_else(|| self.dial.address().to_string(), str::to_owned);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let absolute = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path)
            .build();
        if let Ok(absolute) = absolute {
            *request.uri_mut() = absolute;
            request.headers_mut().remove(http::header::HOST);
        }
    }
}

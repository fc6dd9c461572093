//! From a request's life to exactly one [`RequestRecord`].
//!
//! Policy: a request is recorded once, when its response's last frame was handed to the connection, or when it was
//! given up, whichever comes first; a [`Tracker`] dropped early (the caller left, a connection failed) records `DC`.
//! Errors that this process produces itself are also counted here and nowhere else.
//!
//! Errors are: a 5xx status, no response, a response cut off on the upstream's side; for gRPC the statuses that
//! OpenTelemetry counts as server errors (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS).
//! A caller that leaves is not an error: its request gets the status 499, or CANCELLED over gRPC, unless its own
//! `grpc-timeout` had passed, which is DEADLINE_EXCEEDED. gRPC statuses are those that the caller reads: from headers
//! or trailers, otherwise from `:status`, otherwise from the code of a reset ("HTTP to gRPC status code mapping" and
//! "Errors" of gRPC's protocol over HTTP/2).
//!
//! Latency is the time spent on the destination's side: from the request's head to the response's last byte, less the
//! time that the caller took to read it. For a response that is a stream by its media type it ends with the head, for
//! gRPC with the first message (unary or not). Time beyond that is kept separately, and what streams is counted while
//! it is open.
//!
//! Wrong on purpose: "handed to the connection" is not "received by the caller"; what is in the socket's buffer is not
//! seen. A long poll cannot be distinguished from a slow response, and a slow upload adds to the latency.
//!
//! One file because a request's record is assembled from what each of its steps notes, and an omission would be hard to
//! find across several files. What becomes of the record is in `telemetry`.

use std::{
    any::Any,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use emberline_model::{
    Side,
    protocol::{CALLER_LEFT, StatusKind},
};
use http::{HeaderMap, Method, StatusCode, Version, header::CONTENT_TYPE, request, response};
use http_body::{Body, Frame, SizeHint};

use crate::{
    access_log::Head,
    body::BoxError,
    budget::{Account, Guard},
    cluster::{BodyFailure, UpstreamError},
    config::Address,
    grpc,
    server::stall::Stall,
    telemetry::{
        DestinationId, InFlight, Label, Meters, OpenId, PeerId, Protocol, RequestRecord, ResponseFlags, RouteId,
        SeriesId, Telemetry,
    },
    wire::headers::strip_forbidden_trailers,
};

/// Anything that lasts less beyond its latency is not a stream: the last frames of a response.
const SHORTEST_STREAM: Duration = Duration::from_millis(1);

/// Prefixes of media types whose responses continue as long as there is something to say.
const STREAM_TYPES: [&[u8]; 7] = [
    b"text/event-stream",
    b"multipart/x-mixed-replace",
    b"application/x-ndjson",
    b"application/jsonl",
    b"application/stream+json",
    b"application/json;stream=watch",
    b"application/connect+",
];

/// True when a response's head says that its body is a stream of events.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        STREAM_TYPES.iter().any(|of| {
            value
                .get(..of.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(of))
        })
    })
}

/// What a request speaks.
pub(crate) fn protocol_of(head: &request::Parts) -> Protocol {
    if head.version == Version::HTTP_2 {
        if grpc::is_grpc(&head.headers) {
            Protocol::Grpc
        } else {
            Protocol::Http2
        }
    } else {
        Protocol::Http1
    }
}

/// What lives as long as a request and its response. Boxed: the future of each request has room for it, and few hold anything.
#[allow(clippy::box_collection, reason = "a third of the size where nothing is held")]
pub(crate) type Held = Box<Vec<Box<dyn Any + Send + Sync>>>;

/// Follows one request to its record.
#[derive(Debug)]
pub(crate) struct Tracker {
    telemetry: Telemetry,
    in_flight: Option<InFlight>,
    /// The caller's connection, which also counts its requests.
    guard: Option<Arc<Guard>>,
    /// Bytes of the budget that it holds.
    charged: usize,
    stall: Option<Arc<Stall>>,
    /// What filters hold until it is over.
    held: Option<Held>,
    started: Instant,
    sent_upstream: Option<Instant>,
    side: Side,
    route: RouteId,
    label: Label,
    method: Method,
    protocol: Protocol,
    status: u16,
    grpc_status: Option<u16>,
    broke_off: bool,
    flags: ResponseFlags,
    request_bytes: Option<Arc<AtomicU64>>,
    response_bytes: u64,
    upstream_ns: Option<u64>,
    destination: DestinationId,
    /// The caller's own limit, from `grpc-timeout`.
    deadline: Option<Duration>,
    /// The latency, if the request continues after it.
    answered: Option<Duration>,
    is_stream: bool,
    /// Since when the caller has been reading what it was given, and how long it took to read everything before.
    handed_over: Option<Instant>,
    reading: Duration,
    open: Option<Open>,
    /// For the access log, if there is one.
    logged: Option<Box<Head>>,
}

/// A request that is counted as open in each window.
#[derive(Debug)]
struct Open {
    id: OpenId,
    response_bytes: Option<Arc<AtomicU64>>,
}

impl Tracker {
    /// Starts with the head of a request that was read at `started`.
    pub(crate) fn start(
        telemetry: &Telemetry,
        head: &request::Parts,
        side: Side,
        route: RouteId,
        peer: Option<PeerId>,
        destination: DestinationId,
        started: Instant,
    ) -> Tracker {
        let mut tracker = Tracker {
            in_flight: Some(telemetry.start_request(side)),
            telemetry: telemetry.clone(),
            guard: None,
            charged: 0,
            stall: None,
            held: None,
            started,
            sent_upstream: None,
            side,
            route,
            label: telemetry.label(side, route, peer),
            method: head.method.clone(),
            protocol: protocol_of(head),
            status: 0,
            grpc_status: None,
            broke_off: false,
            flags: ResponseFlags::NONE,
            request_bytes: None,
            response_bytes: 0,
            upstream_ns: None,
            destination,
            deadline: None,
            answered: None,
            is_stream: false,
            handed_over: None,
            reading: Duration::ZERO,
            open: None,
            logged: None,
        };
        if tracker.protocol == Protocol::Grpc {
            tracker.deadline = grpc::deadline(&head.headers);
            // Many streams send nothing, not even a head, until something happens.
            tracker.keep_open(None);
        }
        tracker
    }

    fn series(&self) -> SeriesId {
        self.telemetry
            .series_to(self.label, self.method.as_str(), self.protocol, self.destination)
    }

    /// Counts the request as open from now on.
    fn keep_open(&mut self, response_bytes: Option<Arc<AtomicU64>>) {
        let meters = Meters {
            request: self.request_bytes.clone(),
            response: response_bytes.clone(),
        };
        let (series, status) = (self.series(), self.open_status());
        let id = match self.open.take() {
            Some(open) => {
                self.telemetry.update_open(&open.id, series, status, meters);
                open.id
            }
            None => self.telemetry.open(series, status, meters),
        };
        self.open = Some(Open { id, response_bytes });
    }

    /// The status under which an open request counts until it has ended.
    fn open_status(&self) -> u16 {
        if self.protocol == Protocol::Grpc {
            0
        } else {
            self.status
        }
    }

    /// The gRPC status if the destination reset the stream.
    pub(crate) fn status_of_reset(&self, reason: h2::Reason) -> u16 {
        match grpc::status_of_reset(reason) {
            grpc::CANCELLED if self.is_past_deadline() => grpc::DEADLINE_EXCEEDED,
            status => status,
        }
    }

    fn is_past_deadline(&self) -> bool {
        // The caller's clock started slightly earlier than this one.
        self.deadline
            .is_some_and(|limit| self.started.elapsed() + (limit / 10).max(Duration::from_millis(5)) >= limit)
    }

    /// Reports the end of the request to the caller's connection.
    pub(crate) fn of_connection(mut self, guard: Arc<Guard>) -> Tracker {
        self.guard = Some(guard);
        self
    }

    /// The account charged for its caller's memory.
    pub(crate) fn account(&self) -> Option<&Arc<Account>> {
        self.guard.as_ref().map(|guard| guard.account())
    }

    /// Whether its connection is about to end, which its caller is to be told.
    pub(crate) fn is_connection_retiring(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_retiring())
    }

    /// Records what the caller asked for, for the access log.
    pub(crate) fn asked_by(mut self, caller: IpAddr, head: &request::Parts) -> Tracker {
        if self.telemetry.access_log().is_some() {
            self.logged = Some(Box::new(Head::of(caller, head)));
        }
        self
    }

    /// Records the endpoint that responds, or is expected to.
    pub(crate) fn endpoint(&mut self, address: &Address) {
        if let Some(head) = &mut self.logged {
            head.endpoint = address.to_string();
        }
    }

    /// Records why this process responds itself.
    pub(crate) fn reason(&mut self, reason: &'static str) {
        if let Some(head) = &mut self.logged {
            head.reason = reason;
        }
    }

    /// The label that the work on this request is attributed to.
    pub(crate) fn label(&self) -> Label {
        self.label
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The other end has introduced itself, or is already known.
    pub(crate) fn set_peer(&mut self, peer: Option<PeerId>) {
        self.label = self.telemetry.label(self.side, self.route, peer);
        self.refresh_open();
    }

    /// An open request has a new series or a new meter.
    fn refresh_open(&mut self) {
        if let Some(open) = &self.open {
            let response_bytes = open.response_bytes.clone();
            self.keep_open(response_bytes);
        }
    }

    /// The counter of the request's body bytes.
    pub(crate) fn request_bytes(&mut self) -> Arc<AtomicU64> {
        let bytes = Arc::clone(self.request_bytes.get_or_insert_with(Arc::default));
        self.refresh_open();
        bytes
    }

    /// True if this process found nothing wrong with the caller's connection.
    pub(crate) fn is_connection_sound(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.cause().is_none())
    }

    /// `charged` bytes return to the budget when it ends; `stall` shows when the stream waits for its caller.
    pub(crate) fn holds(&mut self, charged: usize, stall: Option<Arc<Stall>>) {
        self.charged = charged;
        self.stall = stall;
    }

    /// Holds something until it is over.
    pub(crate) fn hold(&mut self, what: Option<Held>) {
        self.held = what;
    }

    pub(crate) fn flag(&mut self, flags: ResponseFlags) {
        self.flags.insert(flags);
    }

    /// The request is being sent to the endpoint.
    pub(crate) fn sent_upstream(&mut self) {
        self.sent_upstream = Some(Instant::now());
    }

    /// The head of the endpoint's response arrived.
    pub(crate) fn upstream_answered(&mut self) {
        self.upstream_ns = self.sent_upstream.map(|sent| nanoseconds(sent.elapsed()));
    }

    /// Records the response's head, and follows its body to the end.
    pub(crate) fn follow<B: Body>(mut self, head: &response::Parts, body: B) -> Recorded<B> {
        self.status = head.status.as_u16();
        if self.protocol == Protocol::Grpc {
            self.note_grpc_status(&head.headers);
            if self.grpc_status.is_none() && (head.status != StatusCode::OK || !grpc::is_grpc(&head.headers)) {
                self.grpc_status = Some(grpc::status_of_http(self.status));
            }
        }
        // The connection does not poll a body that is not sent.
        let has_no_body = body.is_end_stream()
            || self.method == Method::HEAD
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED;
        let tracker = if has_no_body {
            self.record();
            None
        } else {
            if self.protocol != Protocol::Grpc && is_stream(&head.headers) {
                self.is_stream = true;
                self.answered = Some(self.started.elapsed());
                self.keep_open(Some(Arc::default()));
            }
            Some(self)
        };
        Recorded { body, tracker }
    }

    /// The protocol is switched: from now on there are only bytes in both directions, which the
    /// [meters](Tracker::meters) count.
    pub(crate) fn switch(&mut self, head: &response::Parts) {
        self.status = head.status.as_u16();
        self.is_stream = true;
        self.answered = Some(self.started.elapsed());
        self.request_bytes();
        self.keep_open(Some(Arc::default()));
    }

    /// Byte counters after a protocol switch: what the caller sends, and what it receives.
    pub(crate) fn meters(&mut self) -> (Arc<AtomicU64>, Arc<AtomicU64>) {
        let received = self.open.as_ref().and_then(|open| open.response_bytes.clone());
        (self.request_bytes(), received.unwrap_or_default())
    }

    /// A switched connection has ended.
    pub(crate) fn end_switched(mut self, flags: ResponseFlags, is_error: bool) {
        self.flags.insert(flags);
        self.broke_off = is_error;
        self.record();
    }

    /// The response was cut off: a gRPC caller gets the code of the reset.
    fn note_reset(&mut self, error: &(dyn std::error::Error + 'static)) {
        let reason = grpc::reset_of(error).unwrap_or(h2::Reason::INTERNAL_ERROR);
        self.grpc_status = self.grpc_status.or_else(|| Some(self.status_of_reset(reason)));
    }

    /// There is no response and will be none.
    pub(crate) fn give_up(mut self, error: &UpstreamError) {
        let (status, _, flags) = error.answer();
        self.grpc_status = Some(match error {
            UpstreamError::Reset { reason, .. } => self.status_of_reset(*reason),
            _ => grpc::status_of_http(status),
        });
        self.flags.insert(flags);
        self.broke_off = true;
        self.record();
    }

    fn note_grpc_status(&mut self, headers: &HeaderMap) {
        self.grpc_status = grpc::status(headers).or(self.grpc_status);
    }

    /// Counts bytes sent to the caller; `more` may follow.
    fn pass(&mut self, length: u64, more: bool) {
        self.response_bytes += length;
        if let Some(stall) = &self.stall {
            stall.begin();
        }
        if self.protocol == Protocol::Grpc {
            if self.answered.is_none() {
                self.answered = Some(self.started.elapsed());
            } else if self.open.as_ref().is_some_and(|open| open.response_bytes.is_none()) {
                // More than one frame: bytes before this one count together with those that follow.
                self.keep_open(Some(Arc::default()));
            }
        } else if more && !self.is_stream {
            self.handed_over = Some(Instant::now());
        }
        if let Some(meter) = self.open.as_ref().and_then(|open| open.response_bytes.as_ref()) {
            meter.store(self.response_bytes, Ordering::Relaxed);
        }
    }

    /// The caller asks for more: it has read what it was given.
    fn asked(&mut self) {
        if let Some(stall) = &self.stall {
            stall.end();
        }
        if let Some(since) = self.handed_over.take() {
            self.reading += since.elapsed();
        }
    }

    fn outcome(&self) -> (u16, bool) {
        let left = self.flags.contains(ResponseFlags::DC);
        if self.protocol == Protocol::Grpc {
            let status = self.grpc_status.unwrap_or_else(|| match left {
                true if self.is_past_deadline() => grpc::DEADLINE_EXCEEDED,
                true => grpc::CANCELLED,
                false if self.flags.contains(ResponseFlags::LR) => grpc::UNAVAILABLE,
                false => grpc::UNKNOWN,
            });
            return (status, StatusKind::Grpc.is_server_error(status));
        }
        // An application that drops the response to its own call has seen as much of it as it wanted.
        let has_answer = self.status != 0 && (self.is_stream || self.guard.is_none());
        if left && !has_answer {
            return (CALLER_LEFT, false);
        }
        (self.status, self.status == 0 || self.status >= 500 || self.broke_off)
    }

    /// Latency, and the time beyond it.
    fn times(&self) -> (Duration, Duration) {
        let all = self.started.elapsed();
        let latency = self.answered.unwrap_or_else(|| all.saturating_sub(self.reading));
        let beyond = all.saturating_sub(latency);
        let beyond = if beyond < SHORTEST_STREAM {
            Duration::ZERO
        } else {
            beyond
        };
        (latency, beyond)
    }

    /// The one place where a request becomes a record.
    fn record(&mut self) {
        if self.in_flight.take().is_none() {
            return;
        }
        if let Some(guard) = &self.guard {
            guard.end();
            guard.account().give(self.charged);
        }
        let mut response_bytes = self.response_bytes;
        let counted = self
            .open
            .take()
            .map(|open| {
                // Only these meters know about a switched connection.
                let metered = open.response_bytes.as_ref().map(|bytes| bytes.load(Ordering::Relaxed));
                response_bytes = response_bytes.max(metered.unwrap_or_default());
                self.telemetry.close(&open.id)
            })
            .unwrap_or_default();
        let request_bytes = self
            .request_bytes
            .as_ref()
            .map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let (status, error) = self.outcome();
        let (latency, beyond) = self.times();
        let record = RequestRecord {
            series: self.series(),
            status,
            error,
            duration_ns: nanoseconds(latency),
            streaming_ns: nanoseconds(beyond),
            request_bytes: request_bytes.saturating_sub(counted.request),
            response_bytes: response_bytes.saturating_sub(counted.response),
            flags: self.flags,
            upstream_ns: self.upstream_ns,
        };
        self.telemetry.record(&record);
        if let Some(head) = self.logged.take() {
            let (labels, lasted) = ((self.label, self.protocol), self.started.elapsed());
            self.telemetry
                .log(*head, labels, record, (request_bytes, response_bytes), lasted);
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            self.asked();
            let is_cut_off = self.telemetry.is_cut_off() || self.guard.as_ref().is_some_and(|guard| guard.is_cut_off());
            self.flags.insert(if is_cut_off {
                ResponseFlags::LR
            } else {
                ResponseFlags::DC
            });
            self.record();
        }
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A response body whose end is the end of its request.
#[derive(Debug)]
pub(crate) struct Recorded<B> {
    body: B,
    tracker: Option<Tracker>,
}

impl<B> Recorded<B> {
    /// A body whose end is not the end of its request.
    pub(crate) fn apart(body: B) -> Recorded<B> {
        Recorded { body, tracker: None }
    }
}

impl<B> Body for Recorded<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(tracker) = &mut this.tracker {
            tracker.asked();
        }
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        let Some(tracker) = &mut this.tracker else {
            return polled;
        };
        match &mut polled {
            Poll::Pending => return polled,
            Poll::Ready(None) => {}
            Poll::Ready(Some(Ok(frame))) => {
                let has_ended = this.body.is_end_stream();
                if let Some(data) = frame.data_ref() {
                    tracker.pass(data.len() as u64, !has_ended);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    strip_forbidden_trailers(trailers);
                    tracker.note_grpc_status(trailers);
                } else if !has_ended {
                    return polled;
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracker.broke_off = true;
                tracker.note_reset(&**error);
                tracker.flag(
                    error
                        .downcast_ref::<BodyFailure>()
                        .map_or(ResponseFlags::LR, BodyFailure::flags),
                );
            }
        }
        tracker.record();
        this.tracker = None;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

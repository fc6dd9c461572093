//! From a request's life to exactly one [`RequestRecord`].
//!
//! Policy: a request is recorded once, when its response's last frame was handed to the connection, or when it was
//! given up, whichever comes first; whoever drops a [`Tracker`] early (a caller that left, a connection that broke) has
//! recorded `DC`. Errors that this process makes itself are counted here too and nowhere else.
//!
//! What is an error: a status of 5xx, no response, a response that broke off on the upstream's side; for gRPC the
//! statuses that OpenTelemetry counts as a server's errors (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
//! UNAVAILABLE, DATA_LOSS). A caller that leaves after the response's head is none.
//!
//! Wrong on purpose: "handed to the connection" is not "received by the caller"; what is in the socket's buffer is
//! not seen.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use emberline_model::Side;
use http::{HeaderMap, Method, StatusCode, Version, header::CONTENT_TYPE, request, response};
use http_body::{Body, Frame, SizeHint};

use crate::{
    body::BoxError,
    cluster::BodyFailure,
    telemetry::{InFlight, Label, PeerId, Protocol, RequestRecord, ResponseFlags, RouteId, Telemetry},
    wire::{headers::strip_forbidden_trailers, io::Guard},
};

/// gRPC statuses of which the server is at fault (OpenTelemetry, "Semantic conventions for gRPC").
const GRPC_SERVER_ERRORS: [u16; 6] = [2, 4, 12, 13, 14, 15];
const GRPC_CANCELLED: u16 = 1;
const GRPC_UNKNOWN: u16 = 2;

/// True when a head speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What a request speaks.
pub(crate) fn protocol_of(head: &request::Parts) -> Protocol {
    if head.version == Version::HTTP_2 {
        if is_grpc(&head.headers) {
            Protocol::Grpc
        } else {
            Protocol::Http2
        }
    } else {
        Protocol::Http1
    }
}

/// Follows one request to its record.
#[derive(Debug)]
pub(crate) struct Tracker {
    telemetry: Telemetry,
    in_flight: Option<InFlight>,
    /// The caller's connection, which counts its requests too.
    guard: Option<Arc<Guard>>,
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
}

impl Tracker {
    /// Begins with the head of a request that was read at `started`.
    pub(crate) fn start(
        telemetry: &Telemetry,
        head: &request::Parts,
        side: Side,
        route: RouteId,
        peer: Option<PeerId>,
        started: Instant,
    ) -> Tracker {
        Tracker {
            in_flight: Some(telemetry.start_request(side)),
            telemetry: telemetry.clone(),
            guard: None,
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
        }
    }

    /// Tells the caller's connection when the request has ended.
    pub(crate) fn of_connection(mut self, guard: Arc<Guard>) -> Tracker {
        self.guard = Some(guard);
        self
    }

    /// What the work of this request counts to.
    pub(crate) fn label(&self) -> Label {
        self.label
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The other end has introduced itself, or is known from before.
    pub(crate) fn set_peer(&mut self, peer: Option<PeerId>) {
        self.label = self.telemetry.label(self.side, self.route, peer);
    }

    /// Where the request's body bytes are counted.
    pub(crate) fn request_bytes(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.request_bytes.get_or_insert_with(Arc::default))
    }

    pub(crate) fn flag(&mut self, flags: ResponseFlags) {
        self.flags.insert(flags);
    }

    /// The request goes to the destination now.
    pub(crate) fn sent_upstream(&mut self) {
        self.sent_upstream = Some(Instant::now());
    }

    /// The head of the destination's response came.
    pub(crate) fn upstream_answered(&mut self) {
        self.upstream_ns = self.sent_upstream.map(|sent| nanoseconds(sent.elapsed()));
    }

    /// Takes note of the response's head, and follows its body to the end.
    pub(crate) fn follow<B: Body>(mut self, head: &response::Parts, body: B) -> Recorded<B> {
        self.status = head.status.as_u16();
        if self.protocol == Protocol::Grpc {
            self.note_grpc_status(&head.headers);
        }
        // The connection does not ask for a body that is not sent.
        let has_no_body = body.is_end_stream()
            || self.method == Method::HEAD
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED;
        let tracker = if has_no_body {
            self.record();
            None
        } else {
            Some(self)
        };
        Recorded { body, tracker }
    }

    /// There is no response and will be none.
    pub(crate) fn give_up(mut self, flags: ResponseFlags) {
        self.flags.insert(flags);
        self.broke_off = true;
        self.record();
    }

    fn note_grpc_status(&mut self, headers: &HeaderMap) {
        let status = headers
            .get("grpc-status")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        self.grpc_status = status.or(self.grpc_status);
    }

    fn outcome(&self) -> (u16, bool) {
        if self.protocol == Protocol::Grpc {
            let gave_up = self.flags.contains(ResponseFlags::DC);
            let missing = if gave_up { GRPC_CANCELLED } else { GRPC_UNKNOWN };
            let status = self.grpc_status.unwrap_or(missing);
            return (status, self.broke_off || GRPC_SERVER_ERRORS.contains(&status));
        }
        (self.status, self.status == 0 || self.status >= 500 || self.broke_off)
    }

    /// The one place where a request becomes a record.
    fn record(&mut self) {
        if self.in_flight.take().is_none() {
            return;
        }
        if let Some(guard) = &self.guard {
            guard.end();
        }
        let (status, error) = self.outcome();
        self.telemetry.record(&RequestRecord {
            series: self.telemetry.series(self.label, self.method.as_str(), self.protocol),
            status,
            error,
            duration_ns: nanoseconds(self.started.elapsed()),
            request_bytes: self
                .request_bytes
                .as_ref()
                .map_or(0, |bytes| bytes.load(Ordering::Relaxed)),
            response_bytes: self.response_bytes,
            flags: self.flags,
            upstream_ns: self.upstream_ns,
        });
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            self.flags.insert(ResponseFlags::DC);
            self.record();
        }
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A response body whose end is the end of its request.
#[derive(Debug)]
pub(crate) struct Recorded<B> {
    body: B,
    tracker: Option<Tracker>,
}

impl<B> Body for Recorded<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        let Some(tracker) = &mut this.tracker else {
            return polled;
        };
        match &mut polled {
            Poll::Pending => return polled,
            Poll::Ready(None) => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    tracker.response_bytes += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_mut() {
                    strip_forbidden_trailers(trailers);
                    tracker.note_grpc_status(trailers);
                } else if !this.body.is_end_stream() {
                    return polled;
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracker.broke_off = true;
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

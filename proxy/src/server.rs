//! From an accepted connection to served requests: what every connection goes through, whether it is carried to a
//! destination ([`forward`], [`tcp`]) or served by the application itself ([`crate::embed`]).
//!
//! Guarantees: HTTP/1 heads are judged by [`crate::wire::framing`] before anything acts on them; the connection's work
//! counts to the label of its current request (HTTP/1), a stream's work to its own (HTTP/2); a drain lets requests in
//! flight end and closes idle connections at once; a connection that retires tells its caller with its next response
//! (HTTP/1) or at a moment without requests (HTTP/2).

pub(crate) mod forward;
pub(crate) mod plan;
pub(crate) mod probes;
mod relay;
pub(crate) mod reply;
pub(crate) mod stall;
pub(crate) mod tcp;
pub(crate) mod tunnel;

use std::{
    convert::Infallible,
    future::{Future, poll_fn, ready},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use emberline_model::Side;
use emberline_profiler::{Labeled, LabeledBy, TaskLabel};
use futures_util::FutureExt;
use http::{Request, Response, request};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use stall::{Stall, Watched};
use tokio::time::Sleep;
use tunnel::Tunnel;

use crate::{
    access_log::Head,
    age::retires,
    body::BoxError,
    budget::{self, Guard, guard::KEEP_ALIVE_TIMEOUT},
    cluster,
    config::Limits,
    counters::{Counters, Full},
    drain::{Draining, Retires},
    listener::Admission,
    telemetry::{DestinationId, Label, Protocol, RequestRecord, ResponseFlags, RouteId, Telemetry},
    tls::Certificate,
    wire::{
        detect::{Detected, Expected, detect},
        io::{CallerTimes, GuardedIo},
        pace::Paced,
        transport::Transport,
    },
};

/// What the library may read at once and queue for a caller, at least.
const LEAST_BUFFER_BYTES: usize = 32_768;
/// Windows of bodies over HTTP/2: of a stream and of all of a connection, which is what [`budget::HTTP2`] pays for.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 128 << 10;

/// How long a connection over HTTP/2 that retires waits for a moment without requests.
const QUIET_WHEN_RETIRING: Duration = Duration::from_secs(30);

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) guard: Arc<Guard>,
    pub(crate) address: IpAddr,
    /// Verified, where it has one.
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) is_tls: bool,
    labels: Labels,
    /// What the connection goes on as once it has ended as one of HTTP.
    tunnel: Mutex<Option<Box<Tunnel>>>,
}

#[derive(Debug)]
enum Labels {
    /// HTTP/1: one request at a time, the connection's task works for it.
    OfConnection(TaskLabel),
    /// HTTP/2: every stream has a task; the label of the one that is about to be spawned.
    OfNextStream(Mutex<Option<(TaskLabel, Arc<Stall>)>>),
}

impl Caller {
    /// Makes everything from now on that works for this request count to `label`, and a stream hold what it is `charged`:
    /// what is left of that for the request itself to hold, the label, and who waits for the stream's caller. Must be
    /// called while the request is handed over, before anything is awaited.
    pub(crate) fn hand_over(&self, label: Label, charged: usize) -> (usize, TaskLabel, Option<Arc<Stall>>) {
        match &self.labels {
            Labels::OfConnection(task_label) => {
                task_label.set(label);
                (charged, task_label.clone(), None)
            }
            Labels::OfNextStream(next) => {
                let (task_label, stall) = (TaskLabel::new(label), Arc::new(Stall::charged(charged)));
                *next.lock() = Some((task_label.clone(), Arc::clone(&stall)));
                (0, task_label, Some(stall))
            }
        }
    }

    /// Has the connection go on as `tunnel` after the response that is being handed back.
    pub(crate) fn switch_to(&self, tunnel: Tunnel) {
        *self.tunnel.lock() = Some(Box::new(tunnel));
    }

    fn take_stream(&self) -> (TaskLabel, Arc<Stall>) {
        match &self.labels {
            Labels::OfConnection(task_label) => (task_label.clone(), Arc::default()),
            Labels::OfNextStream(next) => next.lock().take().unwrap_or_default(),
        }
    }

    /// Charges a request, `base` bytes and its head; what was charged is to be given back.
    pub(crate) fn charge(&self, head: &request::Parts, base: usize) -> Result<usize, Full> {
        let cost = match self.labels {
            // The head came byte by byte, so it is as long as it is.
            Labels::OfConnection(_) => base,
            Labels::OfNextStream(_) => base + budget::cost_of(&head.headers),
        };
        self.guard.account().take_for_request(cost).map(|()| cost)
    }
}

/// Finds out what a new connection speaks; `None` when it ended, or the drain was asked for, before it said anything.
pub(crate) async fn first_bytes(
    stream: &mut Transport,
    expected: Expected,
    wait: Duration,
    draining: &Draining,
    counters: &Counters,
) -> Option<(Detected, Bytes)> {
    let mut draining = draining.clone();
    let found = tokio::select! {
        biased;
        found = detect(stream, expected, wait) => found,
        () = draining.asked() => return None,
    };
    if found.is_err() {
        counters.connection_broke("closed_by_caller");
    }
    found.ok()
}

/// Someone who answers requests.
pub(crate) trait Handle: Send + 'static {
    /// Body of the responses.
    type Body: Body<Data = Bytes, Error = BoxError> + Send + 'static;

    /// Where requests count that never become one, because they cannot be read, and whom they were for.
    fn reports_to(&self) -> (Telemetry, Side, DestinationId);

    /// Takes a request over. What happens before the returned future is polled happens while the connection's task
    /// hands the request over: the label is set there.
    fn handle(
        &self,
        caller: &Arc<Caller>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static + use<Self>;
}

/// Ready-made settings of the HTTP library for one listener.
#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    http1: hyper::server::conn::http1::Builder,
    limits: Limits,
}

impl HttpSettings {
    pub(crate) fn new(limits: Limits) -> HttpSettings {
        let mut http1 = hyper::server::conn::http1::Builder::new();
        http1
            // Kept by `GuardedIo`, which needs no new timer per request.
            .header_read_timeout(None)
            .max_header_size(limits.max_header_bytes)
            .max_buf_size(limits.max_header_bytes.max(LEAST_BUFFER_BYTES));
        HttpSettings { http1, limits }
    }

    pub(crate) fn caller_times(&self) -> CallerTimes {
        CallerTimes {
            header: Duration::from_millis(self.limits.header_ms),
            body_idle: Duration::from_millis(self.limits.body_idle_ms),
            keep_alive: Duration::from_millis(self.limits.keep_alive_ms),
        }
    }

    /// Ready when a connection that is opened now has reached its greatest age. Most have none, and need no timer.
    fn aged(&self) -> Option<Pin<Box<Sleep>>> {
        let age = self.limits.connection_age_ms.map(Duration::from_millis)?;
        Some(Box::pin(tokio::time::sleep_until(retires(age).into())))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Serves one connection that speaks HTTP/1 until it ends.
    pub(crate) async fn serve_http1<H: Handle>(
        &self,
        stream: Transport,
        prefix: Bytes,
        admission: &Admission,
        handler: H,
        mut draining: Draining,
        counters: &Counters,
    ) {
        let guard = Arc::clone(&admission.guard);
        let task_label = TaskLabel::new(Label::NONE);
        let caller = Arc::new(Caller {
            guard: Arc::clone(&guard),
            address: admission.caller,
            certificate: stream.certificate().cloned(),
            is_tls: matches!(stream, Transport::Tls(_)),
            labels: Labels::OfConnection(task_label.clone()),
            tunnel: Mutex::default(),
        });
        let io = GuardedIo::http1(
            stream,
            prefix,
            self.caller_times(),
            // The library answers a head that is too long with 431, so it has to see one.
            self.limits.max_header_bytes.max(LEAST_BUFFER_BYTES) + 1,
            Arc::clone(&guard),
        );
        let (telemetry, side, destination) = handler.reports_to();
        let switched = Arc::clone(&caller);
        let service = service_fn(move |request| {
            // Not an `async` block, which would hold the future twice.
            handler.handle(&caller, request).map(Ok::<_, Infallible>)
        });
        let connection = self.http1.serve_connection(TokioIo::new(io), service).with_upgrades();
        let serving = draining.run(
            connection,
            Retires::Tells(&guard),
            self.aged(),
            |_| ready(()),
            |c| c.graceful_shutdown(),
        );
        let served = LabeledBy::new(task_label.clone(), serving).await;
        if let Err(error) = &served
            && guard.cause().is_none()
        {
            note_unreadable(error, &telemetry, (side, destination), admission.caller, counters);
        }
        let tunnel = switched.tunnel.lock().take();
        if let Some(tunnel) = tunnel {
            LabeledBy::new(task_label, Box::pin(tunnel.carry())).await;
        }
        note_end(served, &guard, counters);
    }

    /// Serves one connection that speaks HTTP/2 until it ends.
    pub(crate) async fn serve_http2<H: Handle>(
        &self,
        stream: Transport,
        prefix: Bytes,
        admission: &Admission,
        handler: H,
        mut draining: Draining,
        counters: &Counters,
    ) {
        let guard = Arc::clone(&admission.guard);
        if let Err(full) = guard.account().take(budget::HTTP2) {
            counters.refuse_connection(full);
            return;
        }
        let _charge = Charge(&guard, budget::HTTP2);
        let labels = Labels::OfNextStream(Mutex::default());
        let caller = Arc::new(Caller {
            guard: Arc::clone(&guard),
            address: admission.caller,
            certificate: stream.certificate().cloned(),
            is_tls: matches!(stream, Transport::Tls(_)),
            labels,
            tunnel: Mutex::default(),
        });
        let io = GuardedIo::http2(stream, prefix, self.caller_times(), Arc::clone(&guard));
        let executor = StreamExecutor {
            caller: Arc::clone(&caller),
            limit: self.caller_times().body_idle,
        };
        let service = service_fn(move |request| {
            // Not an `async` block, which would hold the future twice.
            handler.handle(&caller, request).map(Ok::<_, Infallible>)
        });
        let connection = hyper::server::conn::http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(cluster::PING_EVERY)
            .keep_alive_timeout(cluster::PING_TIMEOUT)
            .max_concurrent_streams(self.limits.max_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(LEAST_BUFFER_BYTES)
            .max_header_list_size(u32::try_from(self.limits.max_header_bytes).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(Paced::of_caller(io)), service);
        let (aged, idle) = (self.aged(), without_requests(&guard, self.caller_times().keep_alive));
        let retiring = async {
            match aged {
                Some(aged) => tokio::select! { () = aged => {}, () = idle => {} },
                None => idle.await,
            }
        };
        let age = self
            .limits
            .connection_age_ms
            .map_or(Duration::ZERO, Duration::from_millis);
        // Some clients give up what they have in flight at a GOAWAY, whatever it says (`findings/httpx-and-undici-…`).
        let leaving = draining.clone();
        let quiet = |limit: Option<Duration>| {
            let most = match limit {
                Some(limit) => limit / 2,
                None if leaving.is_retiring() => QUIET_WHEN_RETIRING,
                None => age / 10,
            };
            no_requests(&guard, most)
        };
        // The connection's own work belongs to all its streams and so carries no label.
        let served = Labeled::new(
            Label::NONE,
            draining.run(connection, Retires::Stops, Some(Box::pin(retiring)), quiet, |c| {
                c.graceful_shutdown();
            }),
        )
        .await;
        note_end(served, &guard, counters);
    }
}

/// Ready when a connection over HTTP/2 has had no request for `limit`, or up to a quarter longer; it notes that as the reason for its end.
async fn without_requests(guard: &Guard, limit: Duration) {
    const STEPS: u32 = 4;
    let (mut seen, mut quiet) = (guard.counts(), 0);
    while quiet < STEPS {
        tokio::time::sleep(limit / STEPS).await;
        let now = guard.counts();
        quiet = if now == seen && !guard.is_busy() { quiet + 1 } else { 0 };
        seen = now;
    }
    let _ = guard.end_connection(KEEP_ALIVE_TIMEOUT);
}

/// Ready when a connection has no request in flight, or after `most`.
async fn no_requests(guard: &Guard, most: Duration) {
    // The connection's task wakes for most ends of requests, too.
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let idle = poll_fn(|cx| {
        while guard.is_busy() {
            ready!(tick.poll_tick(cx));
        }
        Poll::Ready(())
    });
    let _ = tokio::time::timeout(most, idle).await;
}

/// Bytes that go back to the budget.
pub(crate) struct Charge<'a>(pub(crate) &'a Guard, pub(crate) usize);

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.0.account().give(self.1);
    }
}

/// Spawns the tasks of HTTP/2 streams with the label that their request was given a moment before.
#[derive(Debug, Clone)]
struct StreamExecutor {
    caller: Arc<Caller>,
    limit: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let (label, stall) = self.caller.take_stream();
        let watched = Watched::new(stream, stall, self.limit, Arc::clone(&self.caller.guard));
        tokio::spawn(LabeledBy::new(label, watched));
    }
}

/// Counts a request that the library answered itself, because it could not be read.
fn note_unreadable(
    error: &hyper::Error,
    telemetry: &Telemetry,
    (side, destination): (Side, DestinationId),
    caller: IpAddr,
    counters: &Counters,
) {
    let (status, reason) = match error {
        error if error.is_parse_too_large() => (431, "head_too_long"),
        error if error.is_parse() => (400, "bad_request"),
        _ => return,
    };
    counters.refuse(reason);
    let label = telemetry.label(side, RouteId::OTHER, None);
    let record = RequestRecord {
        series: telemetry.series_to(label, "", Protocol::Http1, destination),
        status,
        error: false,
        duration_ns: 0,
        streaming_ns: 0,
        request_bytes: 0,
        response_bytes: 0,
        flags: ResponseFlags::DPE,
        upstream_ns: None,
    };
    telemetry.record(&record);
    let mut head = Head::of_connection(caller);
    head.reason = reason;
    telemetry.log(head, (label, Protocol::Http1), record, (0, 0), Duration::ZERO);
}

/// Counts how a connection ended, if it ended badly.
fn note_end(served: Result<(), hyper::Error>, guard: &Guard, counters: &Counters) {
    let reason = match (guard.cause(), served) {
        (Some(cause), _) => cause,
        (None, Ok(())) => return,
        (None, Err(error)) if error.is_parse() => "bad_request",
        (None, Err(error)) if error.is_timeout() => "ping_timeout",
        (None, Err(error)) if error.is_user() => "response_broke_off",
        (None, Err(_)) => "closed_by_caller",
    };
    counters.connection_broke(reason);
}

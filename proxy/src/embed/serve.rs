//! Serving the application's own requests.

use std::{
    any::Any,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use emberline_model::Side;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use pin_project_lite::pin_project;
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::{CURRENT, Inner, RequestContext};
use crate::{
    body::{BoxError, EitherBody, RequestBody},
    budget,
    config::Trust,
    filter::{Exchange, Refused, run_on_request, run_on_response},
    listener,
    record::{Recorded, Tracker},
    server::{Caller, Handle, HttpSettings, first_bytes, reply::Reply},
    telemetry::{DestinationId, ResponseFlags, Source, Telemetry},
    trace::{TRACEPARENT, TRACESTATE},
    wire::{
        detect::{Detected, Expected},
        transport::Transport,
    },
};

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener does not work: it is not bound, or belongs to another runtime. Retrying with it cannot help.
    #[error("cannot use the listener: {0}")]
    Listener(#[from] io::Error),
}

/// Accepts and serves until the drain begins.
pub(super) async fn serve<S, B>(inner: Arc<Inner>, listener: TcpListener, service: S) -> Result<(), ServeError>
where
    S: tower::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let address = listener.local_addr()?;
    tracing::info!(%address, service = inner.workload.service, version = inner.workload.version, "serving");
    let http = HttpSettings::new(inner.limits);
    let counters = Arc::clone(&inner.reporting.counters);
    let draining = inner.drain.join();
    let mut closing = draining.clone();
    let trust = Arc::new(Trust::of(address.ip(), inner.identity, &inner.trusted_callers));
    listener::accept(
        listener,
        Arc::clone(&inner.budget),
        true,
        async move { closing.asked().await },
        move |stream, admission| {
            let mut stream = Transport::Plain(stream);
            let handler = Application {
                inner: Arc::clone(&inner),
                trust: Arc::clone(&trust),
                service: service.clone(),
            };
            let (http, counters, draining) = (http.clone(), Arc::clone(&counters), draining.clone());
            tokio::spawn(async move {
                let admission = &admission;
                let serving = async {
                    let wait = Duration::from_millis(http.limits().header_ms);
                    match first_bytes(&mut stream, Expected::Http, wait, &draining, &counters).await {
                        Some((Detected::Http2, prefix)) => {
                            http.serve_http2(stream, prefix, admission, handler, draining, &counters)
                                .await;
                        }
                        // Anything else is answered as HTTP/1, with a 400. A caller that has been silent for so long is
                        // holding its connection for later use, which only HTTP/1 callers do.
                        Some((Detected::Http1 | Detected::Tcp | Detected::Silent, prefix)) => {
                            http.serve_http1(stream, prefix, admission, handler, draining, &counters)
                                .await;
                        }
                        Some((Detected::Nothing, _)) | None => {}
                    }
                };
                admission.guard.until_asked_to_leave(serving).await;
            });
        },
    )
    .await;
    Ok(())
}

/// The application as seen by one connection.
struct Application<S> {
    inner: Arc<Inner>,
    trust: Arc<Trust>,
    service: S,
}

type ResponseBody<B> = Recorded<EitherBody<Pin<Box<B>>>>;

impl<S, B> Handle for Application<S>
where
    S: tower::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Body = ResponseBody<B>;

    fn reports_to(&self) -> (Telemetry, Side, DestinationId) {
        let telemetry = self.inner.reporting.telemetry.clone();
        (telemetry, Side::Server, DestinationId::NONE)
    }

    fn handle(
        &self,
        caller: &Arc<Caller>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody<B>>> + Send + 'static + use<S, B> {
        let started = Instant::now();
        let inner = Arc::clone(&self.inner);
        let (mut head, body) = request.into_parts();
        // Bytes of another protocol would be read as requests.
        head.extensions.remove::<OnUpgrade>();
        let number = caller.guard.begin();
        let mut exchange = Exchange::new(Side::Server);
        exchange.is_trusted = self.trust.trusts(caller.address, false);
        exchange.source = Source::of_caller(caller.address);
        let charged = caller.charge(&head, budget::SERVED);
        let passed = match caller.guard.refusal_of(number) {
            None if let Err(full) = charged => {
                inner.reporting.counters.refuse_connection(full);
                Err(Refused::OVERLOADED)
            }
            Some(refusal) => Err(Refused {
                status: refusal.status(),
                reason: refusal.reason(),
                flags: ResponseFlags::DPE,
            }),
            None => run_on_request(&inner.server.filters, &mut exchange, &mut head),
        };
        let route = inner.server.route_of(head.uri.path());
        let telemetry = &inner.reporting.telemetry;
        let (peer, destination) = (exchange.peer, DestinationId::NONE);
        let mut tracker = Tracker::start(telemetry, &head, Side::Server, route, peer, destination, started)
            .of_connection(Arc::clone(&caller.guard));
        let (charged, _, stall) = caller.hand_over(tracker.label(), charged.unwrap_or(0));
        tracker.holds(charged, stall);
        let mut body = RequestBody::incoming(body);
        if !body.is_end_stream() {
            body.count_into(tracker.request_bytes());
        }
        let request = Request::from_parts(head, body);
        let service = self.service.clone();
        let mut served = Served {
            inner,
            exchange,
            tracker,
        };
        async move {
            if let Err(refused) = passed {
                served.inner.reporting.counters.refuse(refused.reason);
                return served.answer(refused.status, refused.reason, refused.flags, refused.message(), true);
            }
            let context = RequestContext {
                traceparent: request.headers().get(&TRACEPARENT).cloned(),
                tracestate: request.headers().get(&TRACESTATE).cloned(),
            };
            let serving = CURRENT.scope(context, service.oneshot(request));
            match (CatchPanic { future: serving }).await {
                Ok(Ok(response)) => {
                    let (mut head, body) = response.into_parts();
                    run_on_response(&served.inner.server.filters, &mut served.exchange, &mut head);
                    let body = served.tracker.follow(&head, EitherBody::Theirs(Box::pin(body)));
                    Response::from_parts(head, body)
                }
                Ok(Err(error)) => {
                    let error: BoxError = error.into();
                    tracing::error!(%error, "the service failed");
                    let message = "the service failed without a response; a retry may help".to_owned();
                    served.answer(500, "service_error", ResponseFlags::NONE, message, false)
                }
                Err(panic) => {
                    served.inner.reporting.counters.panics.add();
                    tracing::error!(panic = panic_text(&*panic), "the service panicked");
                    let message = "the service panicked; a retry may help".to_owned();
                    served.answer(500, "service_panic", ResponseFlags::PANIC, message, false)
                }
            }
        }
    }
}

/// A request being served.
struct Served {
    inner: Arc<Inner>,
    exchange: Exchange,
    tracker: Tracker,
}

impl Served {
    fn answer<B>(
        mut self,
        status: u16,
        reason: &'static str,
        flags: ResponseFlags,
        message: String,
        close: bool,
    ) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.tracker.flag(flags);
        let response = Reply {
            status,
            reason,
            message,
            grpc_status: None,
            close,
        }
        .into_response(self.tracker.protocol());
        let (mut head, body) = response.into_parts();
        run_on_response(&self.inner.server.filters, &mut self.exchange, &mut head);
        let body = self.tracker.follow(&head, EitherBody::Ours(body));
        Response::from_parts(head, body)
    }
}

pin_project! {
    /// A future that turns a panic into a result. Keeping the service's state consistent is up to the service, as in
    /// any server that outlives a panicking task.
    struct CatchPanic<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text")
}

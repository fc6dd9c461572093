//! The request path of a proxy's listener: judge the head, find whom it is for, name the route, introduce ourselves, pick an
//! endpoint, stream both ways, record once.
//!
//! Guarantees: the plan (routes, destinations, times) is read once per request, so a reload never splits one; a body is
//! never buffered, but for its beginning over HTTP/2 until an endpoint can take it; a request that is refused reaches nobody.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use arc_swap::ArcSwap;
use emberline_model::Side;
use emberline_profiler::TaskLabel;
use http::{HeaderValue, Request, Response, StatusCode, Version, response};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    Caller, Handle, HttpSettings,
    plan::{Chosen, Plan},
    probes::Probes,
    reply::Reply,
    tunnel::Tunnel,
};
use crate::{
    body::{Early, EitherBody, LocalBody, RequestBody},
    budget::{self, Budget},
    cluster::{Call, Endpoint, UpstreamBody, UpstreamError},
    counters::Counters,
    filter::{
        Denied, Exchange, Refused,
        chain::{self, Answered, Asking, Filter, Flow, WayBack},
        run_on_request, run_on_response,
    },
    forwarded, grpc,
    record::{Recorded, Tracker},
    telemetry::{DestinationId, PEER_HEADER, Protocol, ResponseFlags, RouteId, Source, Telemetry},
    wire::headers::names_websocket,
};

/// Bytes of a refusal that a caller of gRPC is told: some read no more than 8 KiB of headers.
const MOST_GRPC_MESSAGE: usize = 1024;

/// A listener's request path in one worker.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(crate) plan: ArcSwap<Plan>,
    pub(crate) telemetry: Telemetry,
    pub(crate) counters: Arc<Counters>,
    pub(crate) http: HttpSettings,
    pub(crate) budget: Arc<Budget>,
    pub(crate) probes: Probes,
}

type ResponseBody = Recorded<EitherBody<UpstreamBody>>;

impl Handle for Arc<Forwarder> {
    type Body = ResponseBody;

    fn reports_to(&self) -> (Telemetry, Side, DestinationId) {
        let plan = self.plan.load();
        let service = plan.default_service();
        let destination = service.map_or(DestinationId::NONE, |service| service.destination);
        (self.telemetry.clone(), plan.side, destination)
    }

    fn handle(
        &self,
        caller: &Arc<Caller>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + 'static + use<> {
        let started = Instant::now();
        let plan = self.plan.load_full();
        let (mut head, body) = request.into_parts();
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let number = caller.guard.begin();
        let mut exchange = Exchange::new(plan.side);
        if plan.side == Side::Server {
            let certificate = caller.certificate.as_deref();
            exchange.is_trusted = plan.trust.trusts(caller.address, certificate.is_some());
            if let Some(certificate) = certificate
                && !certificate.fits(head.headers.get(PEER_HEADER))
            {
                exchange.is_trusted = false;
                self.counters.identities_refused.add();
            }
            exchange.source = Source::of_caller(caller.address);
        }
        let charged = caller.charge(&head, budget::REQUEST);
        let passed = match caller.guard.refusal_of(number) {
            None if let Err(full) = charged => {
                self.counters.refuse_connection(full);
                Err(Refused::OVERLOADED)
            }
            Some(refusal) => Err(Refused {
                status: refusal.status(),
                reason: refusal.reason(),
                flags: ResponseFlags::DPE,
            }),
            None => run_on_request(&plan.head_filters, &mut exchange, &mut head),
        };
        forwarded::tell(plan.forwarded, &mut head, caller.address, caller.is_tls);
        let chosen = plan.choose(&head, caller.address);
        let (route, destination) = match chosen.map(|chosen| plan.service(chosen)) {
            Ok(service) => (service.route_of(head.uri.path()), service.destination),
            Err(_) => (RouteId::OTHER, DestinationId::NONE),
        };
        let chosen = chosen.and_then(|chosen| {
            let is_http2 = plan.service(chosen).is_http2(&head, exchange.asks_for_websocket)?;
            Ok((chosen, is_http2))
        });
        let (side, peer) = (plan.side, exchange.peer);
        let mut tracker = Tracker::start(&self.telemetry, &head, side, route, peer, destination, started)
            .of_connection(Arc::clone(&caller.guard))
            .asked_by(caller.address, &head);
        let (charged, task_label, stall) = caller.hand_over(tracker.label(), charged.unwrap_or(0));
        tracker.holds(charged, stall);
        // What is refused goes at once, and not when its task has its turn.
        let mut early = None;
        let (way, mut request) = match passed.and(chosen) {
            Ok((chosen, is_http2)) => {
                let key = plan.cluster(chosen).key_of(Some(&head.headers), caller.address);
                let mut body = RequestBody::incoming(body);
                if !body.is_end_stream() {
                    body.count_into(tracker.request_bytes());
                    if head.version == Version::HTTP_2 {
                        early = body.read_early();
                    }
                }
                let way = Way { chosen, is_http2, key };
                (Ok(way), Some(Request::from_parts(head, body)))
            }
            Err(refused) => (Err(refused), None),
        };
        let has_filters = way.as_ref().is_ok_and(|way| !plan.filters(way.chosen).is_empty());
        let mut carried = Carried {
            caller: has_filters.then(|| Arc::clone(caller)),
            task_label,
            forwarder: Arc::clone(self),
            plan,
            exchange,
            tracker,
            grpc_status: None,
            back: WayBack::default(),
            switch: upgrade
                .filter(|_| exchange.asks_for_websocket)
                .map(|upgrade| (upgrade, Arc::clone(caller))),
        };
        async move {
            let way = match way {
                Ok(way) => way,
                Err(refused) => {
                    let answered = carried.refuse(refused);
                    return carried.finish(answered);
                }
            };
            let plan = Arc::clone(&carried.plan);
            let filters = plan.filters(way.chosen);
            // Few requests have filters: what their future keeps is apart, and no answer of theirs lies here while something is awaited.
            if let Some(request) = request.as_mut().filter(|_| !filters.is_empty())
                && let Some(answered) = Box::pin(carried.pass_filters(filters, request, &early)).await
            {
                return carried.finish(answered);
            }
            let sent = {
                let call = way.call(&plan);
                let to = |endpoint: &Endpoint| carried.expect_answer_of(endpoint);
                let mut sending = pin!(plan.cluster(way.chosen).send(&mut request, call, to));
                poll_fn(|cx| reading(&early, sending.as_mut(), cx)).await
            };
            let answered = match sent {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return carried.switch_protocols(way, response);
                }
                Ok(response) => carried.receive(response),
                Err(error) => carried.fail(&error),
            };
            carried.finish(answered)
        }
    }
}

/// While something has to be waited for, what comes of a body is read.
fn reading<F: Future>(early: &Option<Early>, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    let polled = future.poll(cx);
    if polled.is_pending()
        && let Some(early) = early
    {
        early.read(cx);
    }
    polled
}

/// Where a request goes.
#[derive(Clone, Copy)]
struct Way {
    chosen: Chosen,
    is_http2: bool,
    /// What its endpoint is chosen by.
    key: Option<u64>,
}

impl Way {
    fn call(self, plan: &Plan) -> Call<'_> {
        Call {
            timeouts: plan.timeouts(self.chosen),
            is_http2: self.is_http2,
            key: self.key,
            retries: plan.retries(self.chosen),
        }
    }
}

/// A request on its way.
struct Carried {
    forwarder: Arc<Forwarder>,
    plan: Arc<Plan>,
    exchange: Exchange,
    tracker: Tracker,
    task_label: TaskLabel,
    /// Of an answer of our own to a caller that speaks gRPC.
    grpc_status: Option<u16>,
    back: WayBack,
    /// The connection that asks to switch to WebSocket.
    switch: Option<(OnUpgrade, Arc<Caller>)>,
    /// For filters, where there are any.
    caller: Option<Arc<Caller>>,
}

impl Carried {
    fn follow_peer(&mut self) {
        self.tracker.set_peer(self.exchange.peer);
        self.task_label.set(self.tracker.label());
    }

    /// Until the endpoint says who it is, it is who it was.
    fn expect_answer_of(&mut self, endpoint: &Endpoint) {
        self.tracker.endpoint(endpoint.address());
        if self.plan.side == Side::Client {
            self.exchange.source = endpoint.source();
            if let Some(peer) = endpoint.last_peer() {
                self.exchange.peer = Some(peer);
                self.follow_peer();
            }
        }
        self.tracker.sent_upstream();
    }

    /// Runs the filters of a request; what one of them answers, and the request does not go on.
    async fn pass_filters(
        &mut self,
        filters: &[Arc<dyn Filter>],
        request: &mut Request<RequestBody>,
        early: &Option<Early>,
    ) -> Option<Answered> {
        let flow = {
            let asking = Asking {
                exchange: &self.exchange,
                account: self.tracker.account(),
                caller: self.caller.as_deref(),
            };
            let mut running = pin!(chain::run(filters, asking, request, &mut self.back));
            poll_fn(|cx| reading(early, running.as_mut(), cx)).await
        };
        self.tracker.flag(self.back.flags);
        self.tracker.hold(self.back.take_held());
        match flow {
            Flow::Continue => None,
            Flow::Answer(refused) => Some(self.refuse(refused)),
            Flow::Deny(denied) => Some(self.deny(*denied)),
            Flow::Respond(head) => Some(Response::from_parts(*head, EitherBody::Ours(LocalBody::default()))),
        }
    }

    fn receive(&mut self, response: Response<UpstreamBody>) -> Answered {
        self.forwarder.probes.answered_http();
        self.tracker.upstream_answered();
        response.map(EitherBody::Theirs)
    }

    /// A 101, which passes no filters: it is passed on to a caller that asked for WebSocket and gets it, and nobody else.
    fn switch_protocols(mut self, way: Way, response: Response<UpstreamBody>) -> Response<ResponseBody> {
        self.forwarder.probes.answered_http();
        self.tracker.upstream_answered();
        let (mut head, body) = response.into_parts();
        let switch = self.switch.take().filter(|_| names_websocket(&head.headers));
        let endpoint = Arc::clone(body.endpoint());
        let (Some((upgrade, caller)), Some((body, in_flight))) = (switch, body.into_http1()) else {
            let message = format!(
                "{} switched to a protocol that the request did not ask for",
                endpoint.address()
            );
            let answered = self.answer(502, "upstream_protocol_error", ResponseFlags::UPE, message, false);
            return self.finish(answered);
        };
        let Some(switched) = body.into_switched() else {
            let message = format!(
                "{} closed the connection that it switched to WebSocket",
                endpoint.address()
            );
            let answered = self.answer(502, "upstream_connection_closed", ResponseFlags::UC, message, false);
            return self.finish(answered);
        };
        self.change_response(&endpoint, &mut head);
        self.tracker.switch(&head);
        caller.switch_to(Tunnel {
            caller: upgrade,
            destination: switched,
            _in_flight: in_flight,
            tracker: self.tracker,
            idle: self.plan.timeouts(way.chosen).tcp_idle(),
        });
        Response::from_parts(head, Recorded::apart(EitherBody::Ours(LocalBody::default())))
    }

    fn change_response(&mut self, endpoint: &Endpoint, head: &mut response::Parts) {
        let expected = self.exchange.peer;
        run_on_response(&self.plan.head_filters, &mut self.exchange, head);
        if self.plan.side == Side::Client && self.exchange.peer != expected {
            if let Some(peer) = self.exchange.peer {
                endpoint.set_last_peer(peer);
            }
            self.follow_peer();
        }
    }

    fn fail(&mut self, error: &UpstreamError) -> Answered {
        let (status, reason, flags) = error.answer();
        match error {
            UpstreamError::Reset { reason, .. } => self.grpc_status = Some(self.tracker.status_of_reset(*reason)),
            // A body that ends too early, and not for what it was, ends with its caller.
            UpstreamError::RequestBody(_) if self.tracker.is_connection_sound() => {
                self.tracker.flag(ResponseFlags::DC);
                self.grpc_status = Some(self.tracker.status_of_reset(h2::Reason::CANCEL));
            }
            _ => {}
        }
        let retry = if error.retry_can_help() {
            "a retry may help"
        } else {
            "a retry cannot help"
        };
        self.answer(status, reason, flags, format!("{error}; {retry}"), false)
    }

    fn refuse(&mut self, refused: Refused) -> Answered {
        self.forwarder.counters.refuse(refused.reason);
        if refused == Refused::GRPC_OVER_HTTP1 {
            self.grpc_status = Some(grpc::UNIMPLEMENTED);
        }
        let message = refused.message();
        self.answer(refused.status, refused.reason, refused.flags, message, refused.closes())
    }

    /// A refusal in the words of the service that decided it; a caller that speaks gRPC gets them as the message.
    fn deny(&mut self, denied: Denied) -> Answered {
        let Denied { refused, headers, body } = denied;
        self.forwarder.counters.refuse(refused.reason);
        let is_grpc = self.tracker.protocol() == Protocol::Grpc;
        let message = if is_grpc && !body.is_empty() {
            String::from_utf8_lossy(&body[..body.len().min(MOST_GRPC_MESSAGE)]).into_owned()
        } else {
            refused.message()
        };
        let close = refused.closes();
        let mut response = self.answer(refused.status, refused.reason, refused.flags, message, close);
        if !is_grpc {
            if !body.is_empty() {
                *response.body_mut() = EitherBody::Ours(LocalBody::bytes(body));
            }
            response.headers_mut().extend(headers);
        }
        response
    }

    /// An answer of our own.
    fn answer(
        &mut self,
        status: u16,
        reason: &'static str,
        flags: ResponseFlags,
        message: String,
        close: bool,
    ) -> Answered {
        self.tracker.flag(flags);
        self.tracker.reason(reason);
        let reply = Reply {
            status,
            reason,
            message,
            grpc_status: self.grpc_status,
            close,
        };
        reply.into_response(self.tracker.protocol()).map(EitherBody::Ours)
    }

    /// Hands the answer over to the caller's connection, through the filters that the request passed.
    fn finish(mut self, mut response: Answered) -> Response<ResponseBody> {
        self.back.pass(&mut response);
        let (mut head, body) = response.into_parts();
        match &body {
            EitherBody::Theirs(theirs) => {
                let endpoint = Arc::clone(theirs.endpoint());
                self.change_response(&endpoint, &mut head);
            }
            EitherBody::Ours(_) if self.plan.side == Side::Server => {
                // Whoever introduced itself learns who refused it. `connection: close` is ours and comes last.
                let close = head.headers.remove(http::header::CONNECTION);
                run_on_response(&self.plan.head_filters, &mut self.exchange, &mut head);
                if let Some(close) = close {
                    head.headers.insert(http::header::CONNECTION, close);
                }
            }
            EitherBody::Ours(_) => {}
        }
        if self.tracker.is_connection_retiring() {
            head.headers
                .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        let body = self.tracker.follow(&head, body);
        Response::from_parts(head, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The HTTP library moves it as a whole for every request, and each connection over HTTP/1 keeps room for it.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<'a, F>(_: impl FnOnce(&'a Arc<Forwarder>, &'a Arc<Caller>, Request<Incoming>) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(<Arc<Forwarder> as Handle>::handle);
        assert!(bytes <= 2_688, "{bytes} bytes");
    }
}

//! What a service or a rule asks for besides carrying its requests: filters, which may wait, change heads, wrap bodies and
//! answer themselves.
//!
//! Guarantees: a request passes the filters in the order of the list; the first that answers ends it. The response, also one of our own
//! making, passes in reverse what was put on its [`WayBack`] by the filters that the request reached. A body is a stream: a filter
//! that wants to see it wraps it, so no chunk passes a filter twice, whoever waits or holds chunks after it; one that does not
//! read on holds the sender back. Nothing is buffered but by a filter that says how much.
//!
//! How Envoy's filter statuses (`envoy/http/filter.h`) map to this shape:
//!
//! | Envoy | here |
//! |---|---|
//! | `Continue` | [`Flow::Continue`] |
//! | `StopIteration` and a local reply | [`Flow::Answer`], [`Flow::Respond`] |
//! | `StopIteration`, and `continueDecoding` later | [`Step::Later`] |
//! | `StopAllIterationAndBuffer`, `StopIterationAndBuffer` | read the body within a bound, put a new one in its place ([`super::buffer`]) |
//! | `StopAllIterationAndWatermark`, `StopIterationAndWatermark` | do not poll the body |
//! | `StopIterationNoBuffer`, `ContinueAndDontEndStream` | wrap the body, and leave out or add frames |
//! | 413 on the request's path | [`Refused::BODY_TOO_LARGE`] |
//!
//! Wrong on purpose: no filter waits on the way back or holds whole responses, so 500 on the response's path has no counterpart.

use std::{any::Any, fmt, pin::Pin, sync::Arc};

use http::{Request, Response, response};

use super::{Denied, Exchange, Refused};
use crate::{
    body::{EitherBody, RequestBody},
    budget::Account,
    cluster::UpstreamBody,
    record::Held,
    server::Caller,
    telemetry::ResponseFlags,
};

/// A response on its way back.
pub(crate) type Answered = Response<EitherBody<UpstreamBody>>;

/// Done at once, which costs no allocation, or later.
pub(crate) enum Step<'a, T> {
    Done(T),
    Later(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<'a, T> Step<'a, T> {
    pub(crate) fn later(future: impl Future<Output = T> + Send + 'a) -> Step<'a, T> {
        Step::Later(Box::pin(future))
    }

    async fn finish(self) -> T {
        match self {
            Step::Done(done) => done,
            Step::Later(future) => future.await,
        }
    }
}

/// What happens next.
#[derive(Debug)]
pub(crate) enum Flow {
    /// The next filter.
    Continue,
    /// This refusal, and the request goes nowhere.
    Answer(Refused),
    /// This refusal, as another service words it, and the request goes nowhere.
    Deny(Box<Denied>),
    /// This answer, which is none.
    Respond(Box<response::Parts>),
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) exchange: &'a Exchange,
    /// What is held for the request is taken from here.
    pub(crate) account: Option<&'a Arc<Account>>,
    pub(crate) caller: Option<&'a Caller>,
}

/// One filter of a service or a rule. It is shared by all requests, so what it remembers of one goes into a step of the way back.
pub(crate) trait Filter: fmt::Debug + Send + Sync {
    /// Before the request goes on.
    fn on_request<'a>(
        &'a self,
        asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow>;

    /// Closes what has been idle for too long.
    fn sweep(&self) {}
}

type Back = Box<dyn FnOnce(&mut Answered) + Send>;

/// What the response passes, the last step first; and what is to be said of the request.
#[derive(Default)]
pub(crate) struct WayBack {
    steps: Vec<Back>,
    held: Option<Held>,
    /// For the record of the request.
    pub(crate) flags: ResponseFlags,
}

impl WayBack {
    /// Changes the response.
    pub(crate) fn then(&mut self, change: impl FnOnce(&mut Answered) + Send + 'static) {
        self.steps.push(Box::new(change));
    }

    /// Holds something until the response has ended.
    pub(crate) fn hold(&mut self, what: impl Any + Send + Sync) {
        self.held.get_or_insert_default().push(Box::new(what));
    }

    /// What is to be held from now on by somebody else.
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        self.held.take()
    }

    /// Takes the response back.
    pub(crate) fn pass(&mut self, response: &mut Answered) {
        while let Some(step) = self.steps.pop() {
            step(response);
        }
    }
}

/// Runs a list over a request.
pub(crate) async fn run(
    filters: &[Arc<dyn Filter>],
    asking: Asking<'_>,
    request: &mut Request<RequestBody>,
    back: &mut WayBack,
) -> Flow {
    for filter in filters {
        let flow = filter.on_request(asking, request, back).finish().await;
        if !matches!(flow, Flow::Continue) {
            return flow;
        }
    }
    Flow::Continue
}

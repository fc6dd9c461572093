//! A service that a filter asks before a request goes on.
//!
//! Guarantees: an answer takes at most the filter's time and [`MOST_BYTES`]; connections are pooled like those to any
//! endpoint and belong to the filter, in one worker, so a plan that is replaced takes its own along.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use emberline_model::RawCodec;
use http::{Request, Response, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use prost::Message;
use tonic::{body::Body, client::Grpc};
use tower::Service;

use super::{Refused, chain::Flow};
use crate::{
    body::RequestBody,
    budget::Budget,
    cluster::{Call, Cluster, Group, Http1Options, Sharing, Upstream, UpstreamBody, UpstreamError, Watch},
    config::{Address, Timeouts},
    counters::Counters,
    resolve::Resolver,
};

/// The most that is read of an answer.
const MOST_BYTES: usize = 1 << 20;

/// How services are reached.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) resolver: &'a Resolver,
    /// Of pooled connections.
    pub(crate) options: Http1Options,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Failed(String),
}

/// The service.
#[derive(Debug)]
pub(crate) struct Remote {
    /// Which filter asks, in metrics and the log.
    filter: &'static str,
    cluster: Cluster,
    timeouts: Timeouts,
    limit: Duration,
    authority: String,
    /// What requests are answered when it does not respond; `None` lets them pass.
    on_failure: Option<Refused>,
    counters: Arc<Counters>,
}

impl Remote {
    pub(crate) fn new(
        filter: &'static str,
        (address, timeout_ms): (&Address, u64),
        on_failure: Option<Refused>,
        reach: &Reach<'_>,
    ) -> Remote {
        let counters = Arc::clone(reach.budget.counters());
        let group = Group::new("", None, Watch::default(), &counters);
        let upstream = Upstream::new(address, reach.options, &group, (reach.budget, reach.resolver));
        Remote {
            filter,
            cluster: Cluster::new([(upstream, 1)], Sharing::default()),
            timeouts: Timeouts {
                connect_ms: timeout_ms,
                queue_ms: timeout_ms,
                ..Timeouts::default()
            },
            limit: Duration::from_millis(timeout_ms),
            authority: address.to_string(),
            on_failure,
            counters,
        }
    }

    /// What becomes of a request when there is no answer.
    pub(crate) fn without_answer(&self, why: &Unanswered) -> Flow {
        self.counters.filter_failed(self.filter, &self.authority, why);
        self.on_failure.map_or(Flow::Continue, Flow::Answer)
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.cluster.sweep();
    }

    /// One exchange over HTTP/1.1. The status decides: a body that is too long or breaks off is left out.
    pub(crate) async fn exchange(&self, request: Request<RequestBody>) -> Result<Response<Bytes>, Unanswered> {
        let exchange = async {
            let response = self.send(request, false).await;
            let (head, body) = response
                .map_err(|error| Unanswered::Failed(error.to_string()))?
                .into_parts();
            let body = Limited::new(body, MOST_BYTES).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            Ok(Response::from_parts(head, body))
        };
        self.in_time(exchange).await
    }

    /// A unary call of gRPC, `path` being `/package.Service/Method`.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        path: &'static str,
        question: &impl Message,
    ) -> Result<A, Unanswered> {
        let origin = format!("http://{}", self.authority).parse();
        let origin = origin.map_err(|error: http::uri::InvalidUri| Unanswered::Failed(error.to_string()))?;
        let mut grpc = Grpc::with_origin(self, origin).max_decoding_message_size(MOST_BYTES);
        let mut request = tonic::Request::new(Bytes::from(question.encode_to_vec()));
        request.set_timeout(self.limit);
        let call = async {
            let answered = grpc.unary(request, PathAndQuery::from_static(path), RawCodec).await;
            let failed = |status: tonic::Status| {
                Unanswered::Failed(format!("gRPC status {:?}: {}", status.code(), status.message()))
            };
            A::decode(answered.map_err(failed)?.into_inner()).map_err(|error| Unanswered::Failed(error.to_string()))
        };
        self.in_time(call).await
    }

    async fn send(
        &self,
        request: Request<RequestBody>,
        is_http2: bool,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let call = Call {
            timeouts: &self.timeouts,
            is_http2,
            key: None,
            retries: None,
        };
        self.cluster.send(&mut Some(request), call, |_| {}).await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
        let answered = tokio::time::timeout(self.limit, answer).await;
        answered.unwrap_or(Err(Unanswered::Late(self.limit)))
    }
}

/// What the gRPC client sends its requests through.
impl<'a> Service<Request<Body>> for &'a Remote {
    type Response = Response<UpstreamBody>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, UpstreamError>> + Send + 'a>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send(request.map(RequestBody::stream), true))
    }
}

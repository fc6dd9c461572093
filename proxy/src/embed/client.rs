//! Calls of the application to other services.
//!
//! Guarantees: one record per call on the client's side, at the end of the response's body; the call carries this
//! workload's identity and continues the trace of the request that is being served; its work is attributed to that
//! request's label, because it is part of what that request costs.
//!
//! Wrong on purpose: a response whose body is dropped unread counts with the flag `DC`; a call that is dropped before
//! its response counts as abandoned (499).

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use emberline_model::Side;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header::HOST, uri::PathAndQuery};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{Api, CURRENT};
use crate::{
    body::{BoxError, EitherBody, RequestBody},
    budget::Budget,
    cluster::{Call, Cluster, Endpoint, Http1Options, UpstreamBody, UpstreamError},
    config::Timeouts,
    filter::{Exchange, run_on_request, run_on_response},
    record::{Recorded, Tracker},
    telemetry::{DestinationId, Telemetry},
    trace::{TRACEPARENT, TRACESTATE},
};

/// Why a call has no response.
#[derive(Debug, thiserror::Error)]
#[error("{service}: {message}")]
pub struct ClientError {
    service: String,
    message: String,
    reason: &'static str,
    retry_can_help: bool,
}

impl ClientError {
    /// A short name, such as `upstream_request_timeout`.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Whether the same call may succeed later.
    pub fn retry_can_help(&self) -> bool {
        self.retry_can_help
    }
}

/// A client of one service; a cheap handle to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeouts: Timeouts,
    http2: bool,
}

#[derive(Debug)]
struct Inner {
    service: String,
    host: Option<HeaderValue>,
    api: Api,
    cluster: Cluster,
    destination: DestinationId,
    telemetry: Telemetry,
}

impl Client {
    pub(super) fn new(
        service: &str,
        api: Api,
        addresses: &[SocketAddr],
        telemetry: Telemetry,
        budget: &Arc<Budget>,
    ) -> Client {
        let inner = Inner {
            service: service.to_owned(),
            host: HeaderValue::from_str(service).ok().filter(|host| !host.is_empty()),
            api,
            cluster: Cluster::of_addresses(addresses, Http1Options::default(), budget),
            destination: telemetry.destination(service),
            telemetry,
        };
        Client {
            inner: Arc::new(inner),
            timeouts: Timeouts::default(),
            http2: false,
        }
    }

    /// The same client with other timeouts.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Client {
        self.timeouts = timeouts;
        self
    }

    /// The same client over HTTP/2 with prior knowledge.
    #[must_use]
    pub fn with_http2(mut self) -> Client {
        self.http2 = true;
        self
    }

    /// A `GET` of a path, including its query.
    ///
    /// # Errors
    /// When there is no response; a response of any status is not an error.
    pub async fn get(&self, path: &str) -> Result<Response<ClientBody>, ClientError> {
        self.send(Method::GET, path, RequestBody::empty()).await
    }

    /// A `POST` of a body to a path.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, path: &str, body: impl Into<RequestBody>) -> Result<Response<ClientBody>, ClientError> {
        self.send(Method::POST, path, body.into()).await
    }

    async fn send(&self, method: Method, path: &str, body: RequestBody) -> Result<Response<ClientBody>, ClientError> {
        let path: PathAndQuery = path.parse().map_err(|error| ClientError {
            service: self.inner.service.clone(),
            message: format!("`{path}` is not a valid path: {error}; fix the caller"),
            reason: "path",
            retry_can_help: false,
        })?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(path);
        self.request(request).await
    }

    /// Any request. `Host` is the service's name unless the request has one; `traceparent` is that of the request
    /// being served unless it has one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn request<B: Into<RequestBody>>(
        &self,
        request: Request<B>,
    ) -> Result<Response<ClientBody>, ClientError> {
        let started = Instant::now();
        let inner = &*self.inner;
        let (mut head, body) = request.into_parts();
        let mut body: RequestBody = body.into();
        head.version = if self.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        if head.uri.authority().is_none()
            && let Some(host) = &inner.host
        {
            head.headers.entry(HOST).or_insert_with(|| host.clone());
        }
        if !head.headers.contains_key(&TRACEPARENT) {
            let context = CURRENT.try_with(Clone::clone).unwrap_or_default();
            if let Some(traceparent) = context.traceparent {
                head.headers.insert(&TRACEPARENT, traceparent);
                if let Some(tracestate) = context.tracestate {
                    head.headers.insert(&TRACESTATE, tracestate);
                }
            }
        }
        let mut exchange = Exchange::new(Side::Client);
        // The filters of a client only add headers; none of them refuses.
        let _ = run_on_request(&inner.api.filters, &mut exchange, &mut head);
        // Even if the application set the header itself, it does not want to see the response's.
        exchange.introduced = false;
        let route = inner.api.route_of(head.uri.path());
        let mut tracker = Tracker::start(
            &inner.telemetry,
            &head,
            Side::Client,
            route,
            None,
            inner.destination,
            started,
        );
        if !body.is_end_stream() {
            body.count_into(tracker.request_bytes());
        }
        let mut request = Some(Request::from_parts(head, body));
        let call = Call {
            timeouts: &self.timeouts,
            is_http2: self.http2,
            key: None,
            retries: None,
        };
        let mut expected = None;
        let to = |endpoint: &Endpoint| {
            exchange.source = endpoint.source();
            expected = endpoint.last_peer();
            if expected.is_some() {
                tracker.set_peer(expected);
            }
            tracker.sent_upstream();
        };
        match inner.cluster.send(&mut request, call, to).await {
            Ok(response) => {
                tracker.upstream_answered();
                let (mut head, body) = response.into_parts();
                run_on_response(&inner.api.filters, &mut exchange, &mut head);
                if let Some(peer) = exchange.peer
                    && exchange.peer != expected
                {
                    body.endpoint().set_last_peer(peer);
                    tracker.set_peer(exchange.peer);
                }
                let body = tracker.follow(&head, EitherBody::Theirs(body));
                Ok(Response::from_parts(head, ClientBody(body)))
            }
            Err(error) => {
                tracker.give_up(&error);
                Err(self.failed(&error))
            }
        }
    }

    fn failed(&self, error: &UpstreamError) -> ClientError {
        ClientError {
            service: self.inner.service.clone(),
            message: match error {
                UpstreamError::NoDestination => "the client has no address: pass at least one".to_owned(),
                error => error.to_string(),
            },
            reason: error.answer().1,
            retry_can_help: error.retry_can_help(),
        }
    }
}

/// The body of a response.
#[derive(Debug)]
pub struct ClientBody(Recorded<EitherBody<UpstreamBody>>);

impl ClientBody {
    /// The whole body.
    ///
    /// # Errors
    /// When it was cut off.
    pub async fn bytes(self) -> Result<Bytes, BoxError> {
        Ok(self.collect().await?.to_bytes())
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

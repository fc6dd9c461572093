//! A service that a filter asks before a request goes on.
//!
//! Guarantees: an answer takes at most the filter's time and [`MOST_BYTES`]; connections are pooled like those to any
//! endpoint and belong to the filter, in one worker, so a plan that is replaced takes its own along.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Collected, Limited};
use prost::Message;

use crate::{
    body::RequestBody,
    budget::Budget,
    cluster::{Call, Cluster, Group, Http1Options, Sharing, Upstream, Watch},
    config::{Address, Timeouts},
    grpc,
    resolve::Resolver,
};

/// The most that is read of an answer.
const MOST_BYTES: usize = 1 << 20;
/// A message's frame in gRPC: whether it is compressed, and its length ("gRPC over HTTP2").
const FRAME_HEAD_BYTES: usize = 5;

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
    cluster: Cluster,
    timeouts: Timeouts,
    limit: Duration,
    authority: String,
}

impl Remote {
    pub(crate) fn new(address: &Address, timeout_ms: u64, reach: &Reach<'_>) -> Remote {
        let group = Group::new("", None, Watch::default(), reach.budget.counters());
        let upstream = Upstream::new(address, reach.options, &group, (reach.budget, reach.resolver));
        Remote {
            cluster: Cluster::new([(upstream, 1)], Sharing::default()),
            timeouts: Timeouts {
                connect_ms: timeout_ms,
                queue_ms: timeout_ms,
                ..Timeouts::default()
            },
            limit: Duration::from_millis(timeout_ms),
            authority: address.to_string(),
        }
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.cluster.sweep();
    }

    /// One exchange over HTTP/1.1.
    pub(crate) async fn exchange(&self, request: Request<RequestBody>) -> Result<Response<Bytes>, Unanswered> {
        let (head, body) = self.send(request, false).await?;
        // The status alone decides; a body that is too long is left out.
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        Ok(Response::from_parts(head, body))
    }

    /// A unary call of gRPC, `path` being `/package.Service/Method`.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        path: &'static str,
        question: &impl Message,
    ) -> Result<A, Unanswered> {
        let length = question.encoded_len();
        let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + length);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        question.encode_raw(&mut frame);
        let mut request = Request::new(RequestBody::from(frame.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(path)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let timeout = format!("{}m", self.limit.as_millis());
        headers.insert("grpc-timeout", value(&timeout)?);
        let (head, body) = self.send(request, true).await?;
        let body = body?;
        if head.status != StatusCode::OK {
            return Err(Unanswered::Failed(format!("HTTP status {}", head.status.as_u16())));
        }
        let end = body.trailers().unwrap_or(&head.headers);
        match grpc::status(end) {
            Some(0) => {}
            Some(status) => return Err(failed(status, end)),
            None => return Err(Unanswered::Failed("not an answer of gRPC".to_owned())),
        }
        let mut body = body.to_bytes();
        let is_whole = body.len() >= FRAME_HEAD_BYTES && body.get_u8() == 0 && body.get_u32() as usize == body.len();
        if !is_whole {
            return Err(Unanswered::Failed("a compressed or broken message".to_owned()));
        }
        A::decode(body).map_err(|error| Unanswered::Failed(error.to_string()))
    }

    fn uri(&self, path: &str) -> Result<Uri, Unanswered> {
        let uri = format!("http://{}{path}", self.authority).parse();
        uri.map_err(|error| Unanswered::Failed(format!("{path}: {error}")))
    }

    async fn send(
        &self,
        request: Request<RequestBody>,
        is_http2: bool,
    ) -> Result<(http::response::Parts, Result<Collected<Bytes>, Unanswered>), Unanswered> {
        let call = Call {
            timeouts: &self.timeouts,
            is_http2,
            key: None,
            retries: None,
        };
        let mut request = Some(request);
        let exchange = async {
            let response = self.cluster.send(&mut request, call, |_| {}).await;
            let response = response.map_err(|error| Unanswered::Failed(error.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST_BYTES).collect().await;
            let body = body.map_err(|error| Unanswered::Failed(error.to_string()));
            Ok((head, body))
        };
        let answered = tokio::time::timeout(self.limit, exchange).await;
        answered.unwrap_or(Err(Unanswered::Late(self.limit)))
    }
}

fn value(text: &str) -> Result<HeaderValue, Unanswered> {
    HeaderValue::from_str(text).map_err(|error| Unanswered::Failed(error.to_string()))
}

fn failed(status: u16, headers: &HeaderMap) -> Unanswered {
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
    Unanswered::Failed(format!("gRPC status {status}: {}", message.unwrap_or("no message")))
}

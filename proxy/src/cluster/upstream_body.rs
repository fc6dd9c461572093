//! The body of an endpoint's response.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::{
    endpoint::{Answer, Endpoint},
    in_flight::InFlight,
    pool::{Http1Body, Http2Body},
};
use crate::body::BoxError;

/// The body of a response, and the endpoint that sent it.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    in_flight: InFlight,
    body: ByProtocol,
}

#[derive(Debug)]
enum ByProtocol {
    Http1(Http1Body),
    Http2(Http2Body),
}

impl UpstreamBody {
    pub(super) fn of(answer: Answer, in_flight: InFlight) -> Response<UpstreamBody> {
        match answer {
            Answer::Http1(response) => response.map(|body| UpstreamBody {
                in_flight,
                body: ByProtocol::Http1(body),
            }),
            Answer::Http2(response) => response.map(|body| UpstreamBody {
                in_flight,
                body: ByProtocol::Http2(body),
            }),
        }
    }

    /// The endpoint that responded.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }

    /// The body if it came over HTTP/1.1, and what keeps it in flight.
    pub(crate) fn into_http1(self) -> Option<(Http1Body, InFlight)> {
        match self.body {
            ByProtocol::Http1(body) => Some((body, self.in_flight)),
            ByProtocol::Http2(_) => None,
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.body {
            ByProtocol::Http1(body) => Pin::new(body).poll_frame(cx),
            ByProtocol::Http2(body) => Pin::new(body).poll_frame(cx),
        };
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.is_end_stream() {
            self.in_flight.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ByProtocol::Http1(body) => body.is_end_stream(),
            ByProtocol::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            ByProtocol::Http1(body) => body.size_hint(),
            ByProtocol::Http2(body) => body.size_hint(),
        }
    }
}

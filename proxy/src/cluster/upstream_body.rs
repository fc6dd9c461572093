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
    pool::{Http1Body, Http2Body},
};
use crate::body::BoxError;

/// The body of a response, and whose it is.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    endpoint: Arc<Endpoint>,
    body: ByProtocol,
}

#[derive(Debug)]
enum ByProtocol {
    Http1(Http1Body),
    Http2(Http2Body),
}

impl UpstreamBody {
    pub(super) fn of(answer: Answer, endpoint: Arc<Endpoint>) -> Response<UpstreamBody> {
        match answer {
            Answer::Http1(response) => response.map(|body| UpstreamBody {
                endpoint,
                body: ByProtocol::Http1(body),
            }),
            Answer::Http2(response) => response.map(|body| UpstreamBody {
                endpoint,
                body: ByProtocol::Http2(body),
            }),
        }
    }

    /// Who responded.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The body where it came over HTTP/1.1.
    pub(crate) fn into_http1(self) -> Option<Http1Body> {
        match self.body {
            ByProtocol::Http1(body) => Some(body),
            ByProtocol::Http2(_) => None,
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.body {
            ByProtocol::Http1(body) => Pin::new(body).poll_frame(cx),
            ByProtocol::Http2(body) => Pin::new(body).poll_frame(cx),
        }
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

//! One address of a service: how it is reached, its pooled connections, and what is known about it.
//!
//! Guarantee: its connections survive a configuration change that keeps its address.

use std::sync::Arc;

use http::{Response, StatusCode};
use parking_lot::Mutex;

use super::{
    dial::{Dial, Times},
    error::UpstreamError,
    group::Group,
    health::Health,
    load::Load,
    outgoing::Outgoing,
    pool::{Http1Body, Http1Options, Http1Pool, Http2Body, Http2Pool},
};
use crate::{
    config::Address,
    grpc,
    telemetry::{PeerId, Source},
};

/// An address to which requests are sent, in one worker.
#[derive(Debug)]
pub(crate) struct Endpoint {
    dial: Arc<Dial>,
    http1: Arc<Http1Pool>,
    http2: Arc<Http2Pool>,
    /// The release that responded last: the likely target of the next request until that is answered.
    last_peer: Mutex<Option<PeerId>>,
    /// The source to which the names it reports are charged.
    source: Source,
    /// Shared with the other workers.
    health: Arc<Health>,
    group: Arc<Group>,
    load: Load,
}

/// A response from an endpoint, by protocol.
#[derive(Debug)]
pub(super) enum Answer {
    Http1(Response<Http1Body>),
    Http2(Response<Http2Body>),
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Answer::Http1(response) => response.status(),
            Answer::Http2(response) => response.status(),
        }
    }

    /// Whether it says that the endpoint failed: status 500 or above, or an equivalent gRPC status.
    pub(super) fn is_failure(&self) -> bool {
        let headers = match self {
            Answer::Http1(response) => response.headers(),
            Answer::Http2(response) => response.headers(),
        };
        self.status().is_server_error() || matches!(grpc::status(headers), Some(grpc::INTERNAL | grpc::UNAVAILABLE))
    }
}

impl Endpoint {
    pub(super) fn new(dial: Dial, options: Http1Options, group: &Arc<Group>) -> Arc<Endpoint> {
        let dial = Arc::new(dial);
        Arc::new(Endpoint {
            http1: Arc::new(Http1Pool::new(Arc::clone(&dial), options)),
            http2: Arc::new(Http2Pool::new(Arc::clone(&dial), options)),
            last_peer: Mutex::new(None),
            source: Source::of_destination(dial.address()),
            health: group.health(dial.at()),
            group: Arc::clone(group),
            load: Load::default(),
            dial,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        self.dial.address()
    }

    /// How it is reached.
    pub(super) fn dial(&self) -> &Dial {
        &self.dial
    }

    /// The source to which the names it reports are charged.
    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// The pool settings of its connections.
    pub(super) fn options(&self) -> Http1Options {
        self.http1.options()
    }

    /// Keeps no more idle connections of HTTP/1.1 than this from now on.
    pub(super) fn keep_at_most(&self, connections: usize) {
        self.http1.keep_at_most(connections);
    }

    /// The release that responded last.
    pub(crate) fn last_peer(&self) -> Option<PeerId> {
        *self.last_peer.lock()
    }

    pub(crate) fn set_last_peer(&self, peer: PeerId) {
        *self.last_peer.lock() = Some(peer);
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// How it and its neighbours are monitored.
    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// It accepted a connection, or responded.
    pub(super) fn succeeded(&self) {
        self.group.succeeded(self.dial.at(), &self.health);
    }

    /// It responded with an error.
    pub(super) fn failed(&self) {
        self.group.failed(self.dial.at(), &self.health);
    }

    /// It did not respond. `moves_on`: others are preferred while it refuses connections.
    pub(super) fn gave_no_answer(&self, error: &UpstreamError, moves_on: bool) {
        if moves_on && error.is_connect() {
            self.health.refused();
        }
        if error.is_of_endpoint() {
            self.failed();
        }
    }

    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// Sends a request over HTTP/2 with prior knowledge or over HTTP/1.1.
    pub(super) async fn send(
        &self,
        request: &mut Outgoing,
        is_http2: bool,
        times: &Times,
    ) -> Result<Answer, UpstreamError> {
        if is_http2 {
            // Boxed: requests over HTTP/1.1 do not pay for its size.
            Box::pin(self.http2.send(request, times)).await.map(Answer::Http2)
        } else {
            self.http1.send(request, times).await.map(Answer::Http1)
        }
    }

    /// Closes connections that have been idle for too long or were closed by the other end.
    pub(super) fn sweep(&self) {
        self.http1.sweep();
        self.http2.sweep();
    }
}

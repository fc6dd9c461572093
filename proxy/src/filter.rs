//! What happens to the head of every request and response besides being carried: an ordered list of small steps.
//!
//! How Envoy's filter statuses map to this shape: *Continue* is [`Flow::Continue`]; *StopIteration* with a local reply is
//! [`Flow::Answer`]; *StopIteration* to wait has no counterpart, because no filter here does input or output; the
//! *Buffer* and *Watermark* statuses have none either, because bodies are streams with back-pressure.
//!
//! Guarantee: filters run in the order of the list for requests and in the same order for responses (also for answers
//! that the proxy makes itself); the first [`Flow::Answer`] ends the list.

use emberline_model::Side;
use http::{StatusCode, request, response};

use crate::{
    telemetry::{PeerId, ResponseFlags, Source},
    wire::headers::{asks_for_websocket, check_request, insert_websocket, strip_connection_headers},
};

/// What filters know of an exchange and tell the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    /// The end that this process is on.
    pub(crate) side: Side,
    /// The caller introduced itself, so it wants to know who answers.
    pub(crate) introduced: bool,
    /// What the other end says of itself counts.
    pub(crate) is_trusted: bool,
    /// Where the other end is, for the share of names that it may bring.
    pub(crate) source: Source,
    /// Who is at the other end.
    pub(crate) peer: Option<PeerId>,
    /// The caller asks to switch to WebSocket, and the request that goes on does.
    pub(crate) asks_for_websocket: bool,
}

impl Exchange {
    pub(crate) fn new(side: Side) -> Exchange {
        Exchange {
            side,
            introduced: false,
            is_trusted: true,
            source: Source::OWN,
            peer: None,
            asks_for_websocket: false,
        }
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next filter.
    Continue,
    /// This answer, and the request goes nowhere.
    Answer(Refused),
}

/// An answer that the proxy makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) flags: ResponseFlags,
}

impl Refused {
    /// There is no memory for this request.
    pub(crate) const OVERLOADED: Refused = Refused {
        status: 503,
        reason: "overloaded",
        flags: ResponseFlags::OM,
    };

    /// No service has the request's host.
    pub(crate) const NO_ROUTE: Refused = Refused {
        status: 404,
        reason: "no_route",
        flags: ResponseFlags::NR,
    };

    /// A rule leads the request to a cluster that is not configured.
    pub(crate) const NO_CLUSTER: Refused = Refused {
        status: 503,
        reason: "no_cluster",
        flags: ResponseFlags::NC,
    };

    /// The service is spoken to over HTTP/1.1.
    pub(crate) const GRPC_OVER_HTTP1: Refused = Refused {
        status: 501,
        reason: "grpc_over_http1",
        flags: ResponseFlags::NC,
    };

    /// The service is spoken to over HTTP/2.
    pub(crate) const UPGRADE_OVER_HTTP2: Refused = Refused {
        status: 501,
        reason: "upgrade_over_http2",
        flags: ResponseFlags::NC,
    };

    /// What the caller is told.
    pub(crate) fn message(&self) -> String {
        match *self {
            Refused::OVERLOADED => "too many requests in flight for limits.memory_bytes; a retry may help".to_owned(),
            Refused::NO_ROUTE => {
                "no service on this listener takes this host; add it to `hosts` of an `outbound` entry, or fix the caller"
                    .to_owned()
            }
            Refused::NO_CLUSTER => {
                "the request was led to a cluster that is not configured; add it to `clusters`, or fix the header or code that names it"
                    .to_owned()
            }
            Refused::GRPC_OVER_HTTP1 => {
                "gRPC needs HTTP/2, and this service is configured with `upstream_protocol: http1`: remove that, or call a service that speaks HTTP/2"
                    .to_owned()
            }
            Refused::UPGRADE_OVER_HTTP2 => {
                "WebSocket needs HTTP/1.1, and this service is configured with `upstream_protocol: http2`: use `same` or `http1` there"
                    .to_owned()
            }
            _ => format!("request refused: {}; fix the caller", self.reason),
        }
    }

    /// The caller's connection cannot be trusted to be in step any more.
    pub(crate) fn closes(&self) -> bool {
        ![
            Refused::NO_ROUTE,
            Refused::NO_CLUSTER,
            Refused::GRPC_OVER_HTTP1,
            Refused::UPGRADE_OVER_HTTP2,
        ]
        .contains(self)
    }
}

/// One step.
pub(crate) trait Filter: Send + Sync + std::fmt::Debug {
    /// Before the request goes on.
    fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Flow;

    /// Before the response goes back.
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts);
}

/// Runs the list over a request.
pub(crate) fn run_on_request(filters: &[Box<dyn Filter>], exchange: &mut Exchange, head: &mut request::Parts) -> Flow {
    for filter in filters {
        if let answer @ Flow::Answer(_) = filter.on_request(exchange, head) {
            return answer;
        }
    }
    Flow::Continue
}

/// Runs the list over a response.
pub(crate) fn run_on_response(filters: &[Box<dyn Filter>], exchange: &mut Exchange, head: &mut response::Parts) {
    for filter in filters {
        filter.on_response(exchange, head);
    }
}

/// Refuses what [`check_request`] finds; a proxy also keeps headers of one connection from going further.
#[derive(Debug)]
pub(crate) struct Hygiene {
    /// False at the end of the way, where the application needs to see them.
    pub(crate) strip: bool,
}

impl Filter for Hygiene {
    fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Flow {
        if let Err(bad) = check_request(head) {
            let flags = ResponseFlags::DPE;
            return Flow::Answer(Refused {
                status: bad.status,
                reason: bad.reason,
                flags,
            });
        }
        if self.strip {
            exchange.asks_for_websocket = asks_for_websocket(head);
            strip_connection_headers(&mut head.headers);
            if exchange.asks_for_websocket {
                insert_websocket(&mut head.headers);
            }
            // The proxy itself asks the caller for the body when it forwards it.
            head.headers.remove(http::header::EXPECT);
        }
        Flow::Continue
    }

    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        if self.strip {
            strip_connection_headers(&mut head.headers);
            if exchange.asks_for_websocket && head.status == StatusCode::SWITCHING_PROTOCOLS {
                insert_websocket(&mut head.headers);
            }
        }
    }
}

//! What happens to requests and responses besides being carried.
//!
//! There are two lists. Every head passes [`HeadFilter`]s: what any proxy owes the wire, done at once and before it is known where
//! the request goes. What a service or a rule asks for are the filters of [`chain`], which may wait and see bodies.
//!
//! Guarantee: both run in the order of the list for requests and in reverse for responses (also for answers that the proxy
//! makes itself); the first refusal ends the list.

mod buffer;
pub(crate) mod chain;
mod concurrency_limit;
mod cors;
mod envoy_api;
mod ext_authz;
mod fault;
mod header_edits;
mod lasting;
pub(crate) mod list;
mod rate_limit;
mod rate_limit_service;
pub(crate) mod remote;

use bytes::Bytes;
use emberline_model::Side;
use http::{HeaderMap, StatusCode, request, response};

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

/// An answer that the proxy makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) flags: ResponseFlags,
}

/// A refusal whose response another service decides.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) refused: Refused,
    /// Added to the response.
    pub(crate) headers: HeaderMap,
    /// In place of the proxy's own sentence, unless empty.
    pub(crate) body: Bytes,
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

    /// A filter of the service lets fewer requests through.
    pub(crate) const RATE_LIMITED: Refused = Refused {
        status: 429,
        reason: "rate_limited",
        flags: ResponseFlags::RL,
    };

    /// The reason of [`Refused::EXT_AUTHZ_DENIED`], whatever its status.
    const DENIED: &'static str = "ext_authz_denied";

    /// The authorization service does not allow the request; it may say another status.
    pub(crate) const EXT_AUTHZ_DENIED: Refused = Refused {
        status: 403,
        reason: Refused::DENIED,
        flags: ResponseFlags::UAEX,
    };

    /// The destination has all the requests that it may have.
    pub(crate) const OVER_CONCURRENCY: Refused = Refused {
        status: 503,
        reason: "concurrency_limit",
        flags: ResponseFlags::UO,
    };

    /// The authorization service does not respond.
    pub(crate) const EXT_AUTHZ_UNAVAILABLE: Refused = Refused {
        status: 503,
        reason: "ext_authz_unavailable",
        flags: ResponseFlags::UAEX,
    };

    /// The rate limit service does not respond.
    pub(crate) const RATE_LIMIT_UNAVAILABLE: Refused = Refused {
        status: 503,
        reason: "rate_limit_unavailable",
        flags: ResponseFlags::RLSE,
    };

    /// The reason of a failure that a filter was asked to make.
    pub(crate) const FAULT_INJECTED: &'static str = "fault_injected";

    /// A filter that reads whole requests takes none that long.
    pub(crate) const BODY_TOO_LARGE: Refused = Refused {
        status: 413,
        reason: "body_too_large",
        flags: ResponseFlags::NONE,
    };

    /// The caller broke off while a filter read its request.
    pub(crate) const BODY_BROKE_OFF: Refused = Refused {
        status: 400,
        reason: "request_body",
        flags: ResponseFlags::DPE,
    };

    /// What the caller is told.
    pub(crate) fn message(&self) -> String {
        match *self {
            Refused::OVERLOADED => "too many requests in flight for limits.memory_bytes; a retry may help".to_owned(),
            Refused::NO_ROUTE => {
                "no service on this listener matches this host; add it to `hosts` of an `outbound` entry, or fix the caller"
                    .to_owned()
            }
            Refused::NO_CLUSTER => {
                "the request was routed to a cluster that is not configured; add it to `clusters`, or fix the header or code that names it"
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
            Refused::RATE_LIMITED => {
                "more requests than `rate_limit` in the proxy's configuration allows; retry after the time in `retry-after`".to_owned()
            }
            Refused::OVER_CONCURRENCY => {
                "more requests in flight than `concurrency_limit` in the proxy's configuration allows; a retry may help".to_owned()
            }
            Refused::EXT_AUTHZ_UNAVAILABLE => {
                "the service of `ext_authz` in the proxy's configuration does not respond; a retry may help".to_owned()
            }
            Refused::RATE_LIMIT_UNAVAILABLE => {
                "the service of `rate_limit_service` in the proxy's configuration does not respond; a retry may help".to_owned()
            }
            Refused {
                reason: Refused::DENIED,
                ..
            } => "the authorization service denies this request".to_owned(),
            Refused::BODY_TOO_LARGE => {
                "the request's body is longer than `buffer` of the proxy's configuration allows; send less, or raise `request_bytes`".to_owned()
            }
            Refused {
                reason: Refused::FAULT_INJECTED,
                ..
            } => "failed on purpose by `fault` in the proxy's configuration".to_owned(),
            _ => format!("request refused: {}; fix the caller", self.reason),
        }
    }

    /// The caller's connection cannot be trusted to be in step any more.
    pub(crate) fn closes(&self) -> bool {
        ![
            Refused::NO_ROUTE.reason,
            Refused::NO_CLUSTER.reason,
            Refused::GRPC_OVER_HTTP1.reason,
            Refused::UPGRADE_OVER_HTTP2.reason,
            Refused::RATE_LIMITED.reason,
            Refused::OVER_CONCURRENCY.reason,
            Refused::RATE_LIMIT_UNAVAILABLE.reason,
            Refused::EXT_AUTHZ_DENIED.reason,
            Refused::EXT_AUTHZ_UNAVAILABLE.reason,
            Refused::FAULT_INJECTED,
        ]
        .contains(&self.reason)
    }
}

/// One step.
pub(crate) trait HeadFilter: Send + Sync + std::fmt::Debug {
    /// Before the request goes on.
    fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Result<(), Refused>;

    /// Before the response goes back.
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts);
}

/// Runs the list over a request.
pub(crate) fn run_on_request(
    filters: &[Box<dyn HeadFilter>],
    exchange: &mut Exchange,
    head: &mut request::Parts,
) -> Result<(), Refused> {
    filters.iter().try_for_each(|filter| filter.on_request(exchange, head))
}

/// Runs the list over a response.
pub(crate) fn run_on_response(filters: &[Box<dyn HeadFilter>], exchange: &mut Exchange, head: &mut response::Parts) {
    for filter in filters.iter().rev() {
        filter.on_response(exchange, head);
    }
}

/// Refuses what [`check_request`] finds; a proxy also keeps headers of one connection from going further.
#[derive(Debug)]
pub(crate) struct Hygiene {
    /// False at the end of the way, where the application needs to see them.
    pub(crate) strip: bool,
}

impl HeadFilter for Hygiene {
    fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Result<(), Refused> {
        check_request(head).map_err(|bad| Refused {
            status: bad.status,
            reason: bad.reason,
            flags: ResponseFlags::DPE,
        })?;
        if self.strip {
            exchange.asks_for_websocket = asks_for_websocket(head);
            strip_connection_headers(&mut head.headers);
            if exchange.asks_for_websocket {
                insert_websocket(&mut head.headers);
            }
            // The proxy itself asks the caller for the body when it forwards it.
            head.headers.remove(http::header::EXPECT);
        }
        Ok(())
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

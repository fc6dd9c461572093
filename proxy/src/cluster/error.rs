//! Why a request has no response, or only part of one: what the caller is told, and what is recorded.

use std::{io, time::Duration};

use emberline_client::{TlsFailure, tls_failure};

use crate::{config::Address, grpc, resolve::LookupError, telemetry::ResponseFlags};

/// Why there is no response to pass on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No endpoint to send to.
    #[error("no endpoint has a weight above 0")]
    NoDestination,
    /// The name has no address.
    #[error(
        "cannot resolve the name of {address}: {source}; is it spelled right, and do the name servers of this machine know it?"
    )]
    Unresolved {
        /// The address.
        address: Address,
        /// Why.
        source: LookupError,
    },
    /// No connection.
    #[error("cannot connect to {address}: {source}; is it running there?")]
    Connect {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// No connection in time.
    #[error("no connection to {address} within timeouts.connect_ms ({limit:?})")]
    ConnectTimeout {
        /// The address.
        address: Address,
        /// The time.
        limit: Duration,
    },
    /// TLS failed.
    #[error("no TLS with {address}: {failure}")]
    Tls {
        /// The address.
        address: Address,
        /// Why.
        failure: TlsFailure,
        /// Nothing of the request was sent yet.
        in_handshake: bool,
    },
    /// All streams of all connections were taken for too long.
    #[error("no free HTTP/2 stream to {address} within timeouts.queue_ms ({limit:?}): all that it allows are in use")]
    NoStream {
        /// The address.
        address: Address,
        /// The time.
        limit: Duration,
    },
    /// The connection was closed first.
    #[error("{address} closed the connection before responding: {source}")]
    Closed {
        /// The address.
        address: Address,
        /// Why.
        source: BoxedHyper,
    },
    /// The stream was reset.
    #[error("{address} reset the stream: {reason}")]
    Reset {
        /// The address.
        address: Address,
        /// With this code.
        reason: h2::Reason,
    },
    /// The response is invalid.
    #[error("{address} sent an invalid HTTP response: {source}")]
    Protocol {
        /// The address.
        address: Address,
        /// Why.
        source: BoxedHyper,
    },
    /// No response in time.
    #[error("no response from {address} within {setting} ({limit:?})")]
    Timeout {
        /// The address.
        address: Address,
        /// The setting of the limit.
        setting: &'static str,
        /// The time.
        limit: Duration,
    },
    /// The request body was cut off.
    #[error("the caller's request body was cut off: {0}")]
    RequestBody(BoxedHyper),
}

/// An error of the HTTP library, boxed to keep results small.
type BoxedHyper = Box<hyper::Error>;

impl UpstreamError {
    /// Classifies an error of the HTTP library.
    pub(super) fn from_hyper(address: &Address, error: hyper::Error) -> UpstreamError {
        let source = Box::new(error);
        let address = address.clone();
        // A server may judge a client's certificate only after the client has started sending.
        if let Some(failure) = tls_failure(&*source) {
            let failure = failure.clone();
            UpstreamError::Tls {
                address,
                failure,
                in_handshake: false,
            }
        } else if source.is_parse() {
            UpstreamError::Protocol { address, source }
        } else if source.is_user() {
            UpstreamError::RequestBody(source)
        } else if let Some(reason) = grpc::reset_of(&*source) {
            UpstreamError::Reset { address, reason }
        } else {
            UpstreamError::Closed { address, source }
        }
    }

    /// The same error for another request that waited for the same connection to `address`.
    pub(super) fn again(&self, address: &Address) -> UpstreamError {
        let address = address.clone();
        let source = match self {
            UpstreamError::ConnectTimeout { limit, .. } => {
                return UpstreamError::ConnectTimeout { address, limit: *limit };
            }
            UpstreamError::Tls { failure, .. } => {
                return UpstreamError::Tls {
                    address,
                    failure: failure.clone(),
                    in_handshake: true,
                };
            }
            UpstreamError::Connect { source, .. } => io::Error::new(source.kind(), source.to_string()),
            other => io::Error::other(other.to_string()),
        };
        UpstreamError::Connect { address, source }
    }

    /// Status, reason and response flag of the answer to the caller.
    pub(crate) fn answer(&self) -> (u16, &'static str, ResponseFlags) {
        match self {
            UpstreamError::NoDestination => (503, "no_destination", ResponseFlags::UH),
            UpstreamError::Unresolved { .. } => (503, "upstream_name_unresolved", ResponseFlags::UF),
            UpstreamError::Connect { .. } => (503, "upstream_connection_failure", ResponseFlags::UF),
            UpstreamError::ConnectTimeout { .. } => (503, "upstream_connection_timeout", ResponseFlags::UF),
            UpstreamError::Tls { .. } => (503, "upstream_tls_failure", ResponseFlags::UF),
            UpstreamError::NoStream { .. } => (503, "upstream_overflow", ResponseFlags::UO),
            UpstreamError::Closed { .. } => (502, "upstream_connection_closed", ResponseFlags::UC),
            UpstreamError::Reset { .. } => (502, "upstream_reset", ResponseFlags::UR),
            UpstreamError::Protocol { .. } => (502, "upstream_protocol_error", ResponseFlags::UPE),
            UpstreamError::Timeout { .. } => (504, "upstream_request_timeout", ResponseFlags::UT),
            UpstreamError::RequestBody(_) => (400, "request_body", ResponseFlags::DPE),
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn retry_can_help(&self) -> bool {
        !matches!(self, UpstreamError::RequestBody(_) | UpstreamError::NoDestination)
    }

    /// Whether there was no connection to send the request on.
    pub(super) fn is_connect(&self) -> bool {
        matches!(
            self,
            UpstreamError::Connect { .. }
                | UpstreamError::ConnectTimeout { .. }
                | UpstreamError::Tls { in_handshake: true, .. }
        )
    }

    /// Whether an endpoint is to blame.
    pub(super) fn is_of_endpoint(&self) -> bool {
        use UpstreamError::{Closed, Connect, ConnectTimeout, Protocol, Reset, Timeout, Tls};
        matches!(
            self,
            Connect { .. }
                | ConnectTimeout { .. }
                | Tls { .. }
                | Closed { .. }
                | Reset { .. }
                | Protocol { .. }
                | Timeout { .. }
        )
    }
}

/// Why a response body was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFailure {
    /// The connection to the endpoint failed.
    #[error("the endpoint's response was cut off: {0}")]
    Broken(#[source] hyper::Error),
    /// The endpoint closed the connection without an error.
    #[error("the endpoint closed the connection in the middle of its response")]
    Ended,
    /// No progress for too long.
    #[error("the endpoint sent nothing for timeouts.idle_ms ({0:?}) in the middle of its response")]
    Idle(Duration),
}

impl BodyFailure {
    pub(crate) fn flags(&self) -> ResponseFlags {
        match self {
            BodyFailure::Broken(_) | BodyFailure::Ended => ResponseFlags::UC,
            BodyFailure::Idle(_) => ResponseFlags::SI,
        }
    }
}

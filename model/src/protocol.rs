//! Protocols of requests, and the meaning of their statuses.
//!
//! Guarantee: a single place decides which status is the server's fault and which means that the caller left, for what
//! our proxies see and for what others report.

/// HTTP status of requests whose caller left before the response was complete; nginx uses the same number.
pub const CALLER_LEFT: u16 = 499;

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1 and 1.0.
    Http1 = 0,
    /// HTTP/2 other than gRPC.
    Http2 = 1,
    /// HTTP/3, reported only by others.
    Http3 = 2,
    /// gRPC over HTTP/2.
    Grpc = 3,
    /// An opaque connection.
    Tcp = 4,
}

/// The kind of a request's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusKind {
    /// An HTTP status (RFC 9110, 15).
    Http,
    /// `grpc-status` (gRPC, "Status codes and their use in gRPC").
    Grpc,
    /// Always 0.
    None,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 5] = [
        Protocol::Http1,
        Protocol::Http2,
        Protocol::Http3,
        Protocol::Grpc,
        Protocol::Tcp,
    ];

    /// Its name in telemetry.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "http/2",
            Protocol::Http3 => "http/3",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        }
    }

    /// The protocol with this name.
    pub fn of_name(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The kind of its statuses.
    pub fn status_kind(self) -> StatusKind {
        match self {
            Protocol::Http1 | Protocol::Http2 | Protocol::Http3 => StatusKind::Http,
            Protocol::Grpc => StatusKind::Grpc,
            Protocol::Tcp => StatusKind::None,
        }
    }
}

impl StatusKind {
    /// The kind for a protocol's name; HTTP for unknown names.
    pub fn of_name(protocol: &str) -> StatusKind {
        match protocol {
            // Connect has gRPC's codes; SDKs report it under these names.
            "connectrpc" | "connect_rpc" => StatusKind::Grpc,
            _ => Protocol::of_name(protocol).map_or(StatusKind::Http, Protocol::status_kind),
        }
    }

    /// True if the server is at fault (for gRPC: OpenTelemetry, "Semantic conventions for gRPC").
    pub fn is_server_error(self, status: u16) -> bool {
        match self {
            StatusKind::Http => status >= 500,
            // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
            StatusKind::Grpc => matches!(status, 2 | 4 | 12 | 13 | 14 | 15),
            StatusKind::None => false,
        }
    }

    /// True for a request that its caller gave up. It counts as a request but not as an error, and has no latency,
    /// which would only measure the caller's patience.
    pub fn is_given_up(self, status: u16) -> bool {
        match self {
            StatusKind::Http => status == CALLER_LEFT,
            // CANCELLED.
            StatusKind::Grpc => status == 1,
            StatusKind::None => false,
        }
    }

    /// The class of a status, of which there are few, however many statuses a peer makes up.
    pub fn class(self, status: u16) -> u16 {
        match self {
            StatusKind::Http => status / 100 * 100,
            // UNKNOWN; numbers above 16 are not defined.
            StatusKind::Grpc if status > 16 => 2,
            StatusKind::Grpc | StatusKind::None => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_by_its_name_and_by_no_other() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::of_name(protocol.name()), Some(protocol));
        }
        assert_eq!(Protocol::of_name("HTTP/2"), None);
    }

    #[test]
    fn what_is_given_up_is_told_by_protocol_and_status() {
        let is_given_up = |protocol: &str, status| StatusKind::of_name(protocol).is_given_up(status);
        assert!(is_given_up("http/1.1", 499) && is_given_up("http/3", 499) && is_given_up("grpc", 1));
        assert!(!is_given_up("http/1.1", 1) && !is_given_up("grpc", 499) && !is_given_up("tcp", 0));
        assert!(
            is_given_up("dubbo", 499),
            "as it always was for names that nobody knows"
        );
    }

    #[test]
    fn the_fault_is_the_servers_where_the_protocol_says_so() {
        let faults = |kind: StatusKind| {
            (0..700)
                .filter(|&status| kind.is_server_error(status))
                .collect::<Vec<u16>>()
        };
        assert_eq!(faults(StatusKind::Grpc), [2, 4, 12, 13, 14, 15]);
        assert_eq!(faults(StatusKind::Http), (500..700).collect::<Vec<u16>>());
        assert!(faults(StatusKind::None).is_empty());
    }
}

//! One finished request, as the data path reports it.
//!
//! The fields are those of Envoy's access log that are aggregated, with its short names for response flags; what no
//! window keeps (addresses, user agents, trace ids) is not included.

use super::SeriesId;

/// One finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its labels, from [`Telemetry::series`](super::Telemetry::series).
    pub series: SeriesId,
    /// HTTP status, 499 when the caller left; for gRPC the `grpc-status`; 0 when no response came.
    pub status: u16,
    /// The request failed: status 5xx, a gRPC server error, or no response.
    pub error: bool,
    /// Its latency in nanoseconds: from the request's head to the end of the response, less the time that the caller
    /// took to read; for a stream to its head, for gRPC to the first message, for TCP to the connection with the
    /// destination.
    pub duration_ns: u64,
    /// How long it continued beyond its latency, in nanoseconds.
    pub streaming_ns: u64,
    /// Body bytes received from the caller, less those counted while it was open.
    pub request_bytes: u64,
    /// Body bytes sent to the caller; see `request_bytes`.
    pub response_bytes: u64,
    /// What went wrong, if anything.
    pub flags: ResponseFlags,
    /// Request sent upstream to response head received (Envoy: `time_to_first_upstream_rx_byte` minus
    /// `time_to_last_upstream_tx_byte`), in nanoseconds.
    pub upstream_ns: Option<u64>,
}

/// Set of reasons why a response differs from the upstream's; named like Envoy's response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseFlags(u32);

macro_rules! response_flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: ResponseFlags = ResponseFlags(1 << $bit);)*
            /// Every flag with its short name.
            pub const ALL: [(&'static str, ResponseFlags); [$(stringify!($name)),*].len()] =
                [$((stringify!($name), ResponseFlags::$name)),*];
        }
    };
}

response_flags! {
    /// Upstream connection failure.
    UF = 0;
    /// Upstream connection ended before the response did.
    UC = 1;
    /// Upstream request timeout.
    UT = 2;
    /// No route configured for the request.
    NR = 3;
    /// Downstream gave up.
    DC = 4;
    /// No healthy upstream.
    UH = 5;
    /// Upstream overflow: a connection or request limit.
    UO = 6;
    /// No upstream cluster of that name.
    NC = 7;
    /// The proxy reset the request.
    LR = 8;
    /// The upstream reset the request.
    UR = 9;
    /// The downstream broke its protocol.
    DPE = 10;
    /// The upstream broke its protocol.
    UPE = 11;
    /// The stream was idle too long.
    SI = 12;
    /// The request or connection lasted longer than allowed.
    DT = 13;
    /// Retries were used up.
    URX = 14;
    /// The proxy was overloaded.
    OM = 15;
    /// The application behind the library panicked (no counterpart in Envoy).
    PANIC = 16;
    /// A rate limit.
    RL = 17;
    /// Failed on purpose.
    FI = 18;
    /// Delayed on purpose.
    DI = 19;
    /// The authorization service denied the request, or did not respond.
    UAEX = 20;
    /// The rate limit service did not respond.
    RLSE = 21;
}

impl ResponseFlags {
    /// Nothing went wrong.
    pub const NONE: ResponseFlags = ResponseFlags(0);

    /// True when no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when every flag of `other` is set.
    pub fn contains(self, other: ResponseFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the flags of `other`.
    pub fn insert(&mut self, other: ResponseFlags) {
        self.0 |= other.0;
    }

    /// Short names of the flags set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        ResponseFlags::ALL
            .into_iter()
            .filter(move |(_, flag)| self.contains(*flag))
            .map(|(name, _)| name)
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = ResponseFlags;

    fn bitor(self, other: ResponseFlags) -> ResponseFlags {
        ResponseFlags(self.0 | other.0)
    }
}

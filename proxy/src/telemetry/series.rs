//! The number of a series, and the protocol that its low bits hold.

use emberline_model::Side;

/// What a request spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `http/1.1` (and 1.0).
    Http1 = 0,
    /// `http/2`.
    Http2 = 1,
    /// `grpc`: the status is the `grpc-status`.
    Grpc = 2,
    /// `tcp`: an opaque connection.
    Tcp = 3,
}

impl Protocol {
    /// Name in telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "http/2",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        }
    }

    fn from_bits(bits: u32) -> Protocol {
        match bits & 3 {
            0 => Protocol::Http1,
            1 => Protocol::Http2,
            2 => Protocol::Grpc,
            _ => Protocol::Tcp,
        }
    }
}

/// Requests that agree in label, method, protocol and destination. Holds side and protocol in its low bits, so that a full table
/// can fold it without looking anything up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(u64);

impl SeriesId {
    pub(super) fn new(index: u64, side: Side, protocol: Protocol) -> SeriesId {
        let side = u64::from(side == Side::Server);
        SeriesId((index << 3) | (side << 2) | protocol as u64)
    }

    pub(super) fn index(self) -> u64 {
        self.0 >> 3
    }

    pub(super) fn side(self) -> Side {
        if self.0 & 4 == 0 { Side::Client } else { Side::Server }
    }

    pub(super) fn protocol(self) -> Protocol {
        Protocol::from_bits(self.0 as u32)
    }

    /// The series `other` of the same side and protocol.
    pub(super) fn other(self) -> SeriesId {
        SeriesId(self.0 & 7)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> SeriesId {
        SeriesId(bits)
    }
}

//! The number of a series, whose low bits hold its protocol.

use emberline_model::{Side, protocol::Protocol};

/// Bits that hold side and protocol.
const LOW_BITS: u64 = 4;

/// Requests with the same label, method, protocol and destination. Side and protocol are in the low bits, so that a
/// full table can fold a series without a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(u64);

impl SeriesId {
    pub(super) fn new(index: u64, side: Side, protocol: Protocol) -> SeriesId {
        let side = u64::from(side == Side::Server);
        SeriesId((index << LOW_BITS) | (side << 3) | protocol as u64)
    }

    pub(super) fn index(self) -> u64 {
        self.0 >> LOW_BITS
    }

    pub(super) fn side(self) -> Side {
        if self.0 & 8 == 0 { Side::Client } else { Side::Server }
    }

    pub(super) fn protocol(self) -> Protocol {
        Protocol::ALL[(self.0 & 7) as usize % Protocol::ALL.len()]
    }

    /// The series `other` of the same side and protocol.
    pub(super) fn other(self) -> SeriesId {
        SeriesId(self.0 & ((1 << LOW_BITS) - 1))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> SeriesId {
        SeriesId(bits)
    }
}

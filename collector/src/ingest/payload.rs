//! The contents of a request, and how they become windows.
//!
//! Guarantee: what is refused for its memory is refused before it is decoded.

use std::sync::Arc;

use bytes::Bytes;
use emberline_model::{
    Signal,
    otlp::{self, Decoded, Rejected},
    weight::{MEMORY_FACTOR, bytes_of, memory_of},
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest, profiles::v1development::ExportProfilesServiceRequest,
};
use prost::Message;

use super::{memory::Plan, rejection::Rejection, signal_name};

/// A file is expected to decompress to no more than this many times its size, plus a constant.
const UNPACKED_FACTOR: usize = 8;
const UNPACKED_SOME: usize = 64 << 10;

/// Messages up to this many bytes are weighed in tens of microseconds.
const SHORT: usize = 128 << 10;

/// Reads files of another profiler, given the time of receipt in nanoseconds since the Unix epoch, and the most bytes
/// they may decompress to. May be called a second time if the first limit was too low.
type ReadFile = dyn Fn(i64, usize) -> Result<Decoded, Rejection> + Send + Sync;

/// The contents of a request.
#[derive(Clone)]
pub(crate) enum Payload {
    /// Request durations.
    MetricsBytes(Bytes),
    /// The same in JSON.
    MetricsJson(Bytes),
    /// Stacks, in any OTLP profiles layout.
    Profiles(Bytes),
    /// The same in JSON.
    ProfilesJson(Bytes),
    /// Stacks from another profiler.
    ThirdParty {
        /// The size received, compressed or not.
        bytes: usize,
        read: Arc<ReadFile>,
    },
}

impl Payload {
    /// Stacks from another profiler, `bytes` long; for the arguments of `read`, see [`ReadFile`].
    pub(crate) fn third_party(
        bytes: usize,
        read: impl Fn(i64, usize) -> Result<Decoded, Rejection> + Send + Sync + 'static,
    ) -> Payload {
        Payload::ThirdParty {
            bytes,
            read: Arc::new(read),
        }
    }

    pub(super) fn signal(&self) -> Signal {
        match self {
            Payload::MetricsBytes(_) | Payload::MetricsJson(_) => Signal::Requests,
            Payload::Profiles(_) | Payload::ProfilesJson(_) | Payload::ThirdParty { .. } => Signal::Profiles,
        }
    }

    pub(super) fn is_third_party(&self) -> bool {
        matches!(self, Payload::ThirdParty { .. })
    }

    /// True if planning takes less time than another thread would need.
    pub(super) fn is_short(&self) -> bool {
        match self {
            Payload::MetricsBytes(bytes) | Payload::Profiles(bytes) => bytes.len() <= SHORT,
            Payload::MetricsJson(_) | Payload::ProfilesJson(_) | Payload::ThirdParty { .. } => true,
        }
    }

    /// The memory in which it is decoded, or first attempted if only its length is known; all that a message may have
    /// if none.
    pub(super) fn plan(&self, most_memory: u64) -> Result<Option<Plan>, Rejection> {
        let weight = match self {
            Payload::MetricsBytes(bytes) => otlp::weigh_metrics(bytes, most_memory)?,
            Payload::Profiles(bytes) => otlp::weigh_profiles(bytes, most_memory)?,
            Payload::MetricsJson(json) | Payload::ProfilesJson(json) => MEMORY_FACTOR.saturating_mul(json.len() as u64),
            Payload::ThirdParty { bytes, .. } => {
                let unpacked = bytes.saturating_mul(UNPACKED_FACTOR).saturating_add(UNPACKED_SOME);
                return Ok(Plan::all_made(memory_of(unpacked as u64), most_memory));
            }
        };
        Ok(Plan::of(weight, most_memory))
    }

    /// Decodes it, unless the result needs more than this much memory. Its plan has already weighed the message itself.
    /// A file of another profiler may decompress to what fits into that memory.
    pub(super) fn decode(self, received_unix_ns: i64, most_memory: u64) -> Result<Decoded, Rejection> {
        let what = signal_name(self.signal());
        let undecodable = |error: &dyn std::error::Error| Rejection::Undecodable {
            what,
            reason: error.to_string(),
        };
        let unreadable = |error: otlp::DecodeError| match error {
            otlp::DecodeError::TooHeavy(heavy) => Rejection::TooHeavy(heavy),
            error => undecodable(&error),
        };
        let profiles = |bytes: &[u8]| {
            let (request, replaced) = otlp::read_profiles_counting(bytes).map_err(unreadable)?;
            let mut decoded = otlp::decode_profiles_within(&request, most_memory).map_err(unreadable)?;
            decoded.change(Rejected::of("invalid_utf8", "strings of the dictionary", replaced));
            Ok(decoded)
        };
        let metrics = |bytes: &[u8]| -> Result<Decoded, Rejection> {
            let request = ExportMetricsServiceRequest::decode(bytes).map_err(|error| undecodable(&error))?;
            Ok(otlp::decode_metrics_within(request, most_memory))
        };
        match self {
            Payload::MetricsBytes(bytes) => metrics(&bytes),
            Payload::MetricsJson(json) => {
                let written = otlp::metrics_to_protobuf(&json).map_err(|error| undecodable(&error))?;
                otlp::weigh_metrics(&written, most_memory)?;
                metrics(&written)
            }
            Payload::Profiles(bytes) => profiles(&bytes),
            Payload::ProfilesJson(json) => {
                let written = otlp::profiles_to_protobuf(&json).map_err(|error| undecodable(&error))?;
                otlp::weigh_profiles(&written, most_memory)?;
                // Output of the JSON conversion is in the newest layout; detecting it from the bytes could only go
                // wrong.
                let request =
                    ExportProfilesServiceRequest::decode(written.as_slice()).map_err(|error| undecodable(&error))?;
                otlp::decode_profiles_within(&request, most_memory).map_err(unreadable)
            }
            Payload::ThirdParty { read, .. } => {
                let unpacked = usize::try_from(bytes_of(most_memory)).unwrap_or(usize::MAX);
                read(received_unix_ns, unpacked)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_and_small_json_take_a_small_part_of_the_room() {
        let most = memory_of(16 << 20);
        let room = |payload: Payload| payload.plan(most).unwrap().map_or(most, |plan| plan.bytes());
        let file = |bytes| Payload::third_party(bytes, |_, _| Ok(Decoded::default()));
        assert!(room(file(100)) < most / 64);
        assert!(room(Payload::MetricsJson(Bytes::from_static(b"{}"))) < most / 64);
        assert!(room(file(100 << 10)) < most / 8);
        assert_eq!(room(file(16 << 20)), most);
    }

    #[test]
    fn a_file_may_unpack_to_what_its_room_is_enough_for() {
        let read = Payload::third_party(100, |_, limit| {
            assert_eq!(limit, 5 << 20);
            Ok(Decoded::default())
        });
        read.decode(0, memory_of(5 << 20)).unwrap();
    }
}

//! What a request holds, and how it becomes windows.
//!
//! Guarantee: what is refused for the memory that it would take is refused before it is decoded.

use bytes::Bytes;
use emberline_model::{
    Signal,
    otlp::{self, Decoded, Rejected},
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest, profiles::v1development::ExportProfilesServiceRequest,
};
use prost::Message;

use super::{memory::Plan, rejection::Rejection, signal_name};

/// What a request holds.
pub(crate) enum Payload {
    /// Request durations.
    MetricsBytes(Bytes),
    /// The same in JSON.
    MetricsJson(Bytes),
    /// Stacks, in any layout of OTLP profiles.
    Profiles(Bytes),
    /// The same in JSON.
    ProfilesJson(Bytes),
    /// Stacks of another profiler; reads them, given the time of receipt in nanoseconds since the Unix epoch.
    ThirdParty(Box<dyn FnOnce(i64) -> Result<Decoded, Rejection> + Send>),
}

impl Payload {
    pub(super) fn signal(&self) -> Signal {
        match self {
            Payload::MetricsBytes(_) | Payload::MetricsJson(_) => Signal::Requests,
            Payload::Profiles(_) | Payload::ProfilesJson(_) | Payload::ThirdParty(_) => Signal::Profiles,
        }
    }

    pub(super) fn is_third_party(&self) -> bool {
        matches!(self, Payload::ThirdParty(_))
    }

    /// The memory that it is decoded in; all that a message may have where its bytes do not tell.
    pub(super) fn plan(&self, most_memory: u64) -> Result<Option<Plan>, Rejection> {
        let weight = match self {
            Payload::MetricsBytes(bytes) => otlp::weigh_metrics(bytes, most_memory)?,
            Payload::Profiles(bytes) => otlp::weigh_profiles(bytes, most_memory)?,
            Payload::MetricsJson(_) | Payload::ProfilesJson(_) | Payload::ThirdParty(_) => return Ok(None),
        };
        Ok(Plan::of(weight, most_memory))
    }

    /// The same message once more, where there is a plan for it.
    pub(super) fn again(&self) -> Option<Payload> {
        match self {
            Payload::MetricsBytes(bytes) => Some(Payload::MetricsBytes(bytes.clone())),
            Payload::Profiles(bytes) => Some(Payload::Profiles(bytes.clone())),
            Payload::MetricsJson(_) | Payload::ProfilesJson(_) | Payload::ThirdParty(_) => None,
        }
    }

    /// Reads it, if what is made of it does not need more than so many bytes of memory. Its plan has weighed what it holds itself.
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
                // What was written from JSON is in the newest layout; telling it from the bytes could only go wrong.
                let request =
                    ExportProfilesServiceRequest::decode(written.as_slice()).map_err(|error| undecodable(&error))?;
                otlp::decode_profiles_within(&request, most_memory).map_err(unreadable)
            }
            Payload::ThirdParty(read) => read(received_unix_ns),
        }
    }
}

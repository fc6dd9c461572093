//! The calls to the collector, which is not trusted: its responses are bounded in size and in time (see `answer`), and
//! it cannot ask for more than five minutes of silence.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use emberline_model::{RawCodec, Signal, batch::BATCH_ID_HEADER};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse, profiles::v1development::ExportProfilesServiceResponse,
};
use prost::Message;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::CompressionEncoding,
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use super::{
    DropReason,
    answer::{GuardedChannel, MAX_ANSWER_BYTES},
    backoff::MOST_ASKED_FOR,
    batch::QueuedBatch,
};

/// What to do after a failed attempt.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// It may work later: the collector is away, busy or out of room. Keep trying as long as there is room.
    Retry { after: Option<Duration> },
    /// An error that may be specific to this batch: a few more attempts, then give up.
    RetryFewTimes,
    /// Sending the same again cannot work.
    Drop(DropReason),
}

/// Judges a failed call by where the error comes from and by its code.
pub(super) fn judge(status: &Status) -> Failure {
    // A status with a source was created on this side for a broken connection: the collector did not send it.
    if status.source().is_some() && !matches!(status.code(), Code::OutOfRange) {
        return Failure::Retry { after: None };
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled | Code::Aborted => {
            Failure::Retry {
                after: retry_after(status),
            }
        }
        Code::Unknown | Code::Internal | Code::DataLoss | Code::OutOfRange | Code::Ok => Failure::RetryFewTimes,
        Code::Unauthenticated | Code::PermissionDenied => Failure::Drop(DropReason::NotAllowed),
        Code::Unimplemented => Failure::Drop(DropReason::NotSupported),
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => {
            Failure::Drop(DropReason::Refused)
        }
    }
}

/// `google.rpc.Status`, as far as it is needed here.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcDetail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct RpcDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How long the collector asks to wait, by `RetryInfo` or a `retry-after` of seconds; capped.
fn retry_after(status: &Status) -> Option<Duration> {
    let from_details = || {
        let rpc = RpcStatus::decode(status.details()).ok()?;
        let detail = rpc
            .details
            .iter()
            .find(|d| d.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let delay = RetryInfo::decode(detail.value.as_slice()).ok()?.retry_delay?;
        let nanos = u32::try_from(delay.nanos).ok().filter(|n| *n < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos))
    };
    let from_metadata = |metadata: &MetadataMap| {
        let seconds: u64 = metadata.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    };
    from_details()
        .or_else(|| from_metadata(status.metadata()))
        .map(|asked| asked.min(MOST_ASKED_FOR))
}

/// Sends batches over one connection that reconnects by itself.
#[derive(Debug, Clone)]
pub(super) struct Client {
    grpc: Grpc<GuardedChannel>,
    call_timeout: Duration,
}

impl Client {
    pub(super) fn new(channel: GuardedChannel, call_timeout: Duration) -> Client {
        let grpc = Grpc::new(channel)
            // Compressed responses are not accepted: a small one could unpack to a huge one.
            .send_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        Client { grpc, call_timeout }
    }

    /// One attempt. Returns how many items of the batch the collector dropped; an unreadable response does not undo the
    /// acknowledgement.
    pub(super) async fn send(&mut self, batch: &QueuedBatch) -> Result<u64, Status> {
        let path = PathAndQuery::from_static(match batch.id.signal {
            Signal::Requests => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Profiles => "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        });
        let mut request = Request::new(batch.body.clone());
        let id = AsciiMetadataValue::try_from(batch.id.to_string())
            .map_err(|_| Status::invalid_argument("the batch id is not ASCII"))?;
        request.metadata_mut().insert(BATCH_ID_HEADER, id);
        // Lets the collector stop working on an abandoned call.
        request.set_timeout(self.call_timeout);
        let call = async {
            self.grpc.ready().await.map_err(Status::from_error)?;
            self.grpc.unary(request, path, RawCodec).await
        };
        let answer = tokio::time::timeout(self.call_timeout, call)
            .await
            .map_err(|_| Status::deadline_exceeded("the collector did not respond in time (setting call_timeout)"))??;
        Ok(rejected_items(batch.id.signal, answer.into_inner()))
    }
}

fn rejected_items(signal: Signal, answer: Bytes) -> u64 {
    let rejected = match signal {
        Signal::Requests => ExportMetricsServiceResponse::decode(answer)
            .ok()
            .and_then(|a| a.partial_success)
            .map(|p| p.rejected_data_points),
        Signal::Profiles => ExportProfilesServiceResponse::decode(answer)
            .ok()
            .and_then(|a| a.partial_success)
            .map(|p| p.rejected_profiles),
    };
    rejected.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_info_is_honoured_and_capped() {
        let wait = |seconds, nanos| {
            let info = RetryInfo {
                retry_delay: Some(ProtoDuration { seconds, nanos }),
            };
            let detail = RpcDetail {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: info.encode_to_vec(),
            };
            let details = RpcStatus { details: vec![detail] }.encode_to_vec();
            judge(&Status::with_details(Code::ResourceExhausted, "full", details.into()))
        };
        assert_eq!(
            wait(2, 500_000_000),
            Failure::Retry {
                after: Some(Duration::from_millis(2500))
            }
        );
        assert_eq!(
            wait(1_000_000_000, 0),
            Failure::Retry {
                after: Some(MOST_ASKED_FOR)
            }
        );
        assert_eq!(wait(-5, 0), Failure::Retry { after: None });
        assert_eq!(wait(1, -7), Failure::Retry { after: None });
        let garbage = Status::with_details(Code::Unavailable, "", Bytes::from_static(b"\xff\xff\xff"));
        assert_eq!(judge(&garbage), Failure::Retry { after: None });
    }

    #[test]
    fn only_what_can_help_is_retried() {
        assert_eq!(judge(&Status::invalid_argument("")), Failure::Drop(DropReason::Refused));
        assert_eq!(
            judge(&Status::unauthenticated("")),
            Failure::Drop(DropReason::NotAllowed)
        );
        assert_eq!(
            judge(&Status::unimplemented("")),
            Failure::Drop(DropReason::NotSupported)
        );
        assert_eq!(judge(&Status::unavailable("")), Failure::Retry { after: None });
        assert_eq!(judge(&Status::internal("")), Failure::RetryFewTimes);
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset");
        assert_eq!(
            judge(&Status::from_error(broken.into())),
            Failure::Retry { after: None }
        );
    }
}

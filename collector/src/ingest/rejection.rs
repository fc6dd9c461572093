//! Why a request was refused, and how each protocol says so.
//!
//! Guarantees: every refusal says what happened, whose fault it is and which setting to change; it is retryable exactly
//! when sending the same bytes again can succeed, and then includes a delay (gRPC `RetryInfo`, HTTP `Retry-After`). A
//! request that is too large is never called "exhausted": senders retry that, and it would never shrink.

use std::time::Duration;

use bytes::Bytes;
use emberline_model::{
    batch::BATCH_ID_HEADER,
    formats::{FormatError, folded::FoldedError, series::SeriesError},
    pprof::PprofError,
    unpack::UnpackError,
    weight::TooHeavy,
};
use emberline_storage::AppendError;
use http::StatusCode;
use prost::Message;
use tonic::{Code, Status};

/// The longest pause requested. OpenTelemetry's SDK exporters give a request ten seconds in total, and drop it at once
/// if asked to wait for longer than what is left of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A refusal.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Rejection {
    /// The batch ID is invalid.
    #[error("{0}")]
    BatchId(String),
    /// The body is not what the endpoint expects.
    #[error("the request body is not an OTLP {what} request: {reason}; nothing was stored")]
    Undecodable {
        /// `metrics` or `profiles`.
        what: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// The compressed bytes cannot be read.
    #[error("the request body is not valid {encoding}: {reason}; nothing was stored")]
    Compression {
        /// `gzip` or `zstd`.
        encoding: &'static str,
        /// The decompressor's message.
        reason: String,
    },
    /// More bytes than allowed.
    #[error(
        "the request has more than {limit} bytes after decompression (`max_request_mb`); send smaller batches or raise this server setting"
    )]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Small on the wire but large in memory.
    #[error("the request was not processed: {0} (the limit is eight times `max_request_mb`)")]
    TooHeavy(#[from] TooHeavy),
    /// Other requests use all memory for requests.
    #[error("requests in progress use all {bytes} bytes of their memory (a multiple of `max_request_mb`); retry later")]
    NoRoom {
        /// The total.
        bytes: usize,
    },
    /// No more reporting processes are admitted.
    #[error("too many reporting processes; retry later: {0}")]
    NoPlace(String),
    /// Unsupported content type.
    #[error("content type `{content_type}` is not accepted; send {accepted}")]
    ContentType {
        /// What was sent.
        content_type: String,
        /// What is accepted.
        accepted: &'static str,
    },
    /// A third-party profile cannot be read.
    #[error("cannot read the profile: {0}; nothing was stored")]
    Profile(String),
    /// Unsupported profile format.
    #[error("the format `{format}` is not supported; send one of {accepted}")]
    Format {
        /// What was sent.
        format: String,
        /// What is accepted.
        accepted: &'static str,
    },
    /// A query parameter is missing or invalid.
    #[error("parameter `{name}`: {reason}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Everything was dropped, and the protocol has no other way to report it.
    #[error("nothing was stored; {0}")]
    NothingKept(String),
    /// Unsupported compression.
    #[error("content encoding `{0}` is not accepted; send `gzip`, `zstd` or no compression")]
    ContentEncoding(String),
    /// The body did not arrive in time.
    #[error("the request was not complete after {seconds} s (`request_timeout_seconds`); send it again")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// The connection was lost while the body was read.
    #[error("the request body ended early: {0}; nothing was stored")]
    BrokenBody(String),
    /// Too many concurrent requests.
    #[error("too many concurrent requests (`max_concurrent_requests` = {limit}); retry later")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// The store refused it.
    #[error("{0}")]
    Store(#[from] AppendError),
}

impl Rejection {
    /// The batch id names another signal than the endpoint.
    pub(crate) fn wrong_signal(what: &'static str, code: u32) -> Rejection {
        Rejection::BatchId(format!(
            "`{BATCH_ID_HEADER}` names signal {code}, but this is the {what} address (1 = requests, sent as metrics; 2 = profiles)"
        ))
    }

    /// Short name for counters.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Rejection::BatchId(_) => "batch_id",
            Rejection::Undecodable { .. } => "undecodable",
            Rejection::Compression { .. } => "compression",
            Rejection::TooLarge { .. } => "too_large",
            Rejection::TooHeavy(_) => "too_heavy",
            Rejection::NoRoom { .. } => "no_room",
            Rejection::NoPlace(_) => "too_many_workloads",
            Rejection::ContentType { .. } => "content_type",
            Rejection::ContentEncoding(_) => "content_encoding",
            Rejection::Profile(_) => "undecodable",
            Rejection::Format { .. } => "format",
            Rejection::Parameter { .. } => "parameter",
            Rejection::NothingKept(_) => "nothing_kept",
            Rejection::TimedOut { .. } => "timed_out",
            Rejection::BrokenBody(_) => "broken_body",
            Rejection::Overloaded { .. } => "overloaded",
            Rejection::Store(error) => error.reason(),
        }
    }

    /// How long to wait before retrying; `None` if that cannot help.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Rejection::Overloaded { .. } | Rejection::NoRoom { .. } | Rejection::TimedOut { .. } => {
                Some(Duration::from_secs(1))
            }
            Rejection::NoPlace(_) => Some(LONGEST_PAUSE),
            Rejection::Store(error) if !error.is_retryable() => None,
            Rejection::Store(AppendError::DiskFull { .. } | AppendError::Io { .. }) => Some(LONGEST_PAUSE),
            Rejection::Store(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Rejection::TooLarge { .. } | Rejection::TooHeavy(_) => Code::OutOfRange,
            Rejection::TimedOut { .. } => Code::DeadlineExceeded,
            refused if refused.retry_after().is_some() => Code::Unavailable,
            _ => Code::InvalidArgument,
        }
    }

    fn http_status(&self) -> StatusCode {
        match self {
            Rejection::TooLarge { .. } | Rejection::TooHeavy(_) | Rejection::Store(AppendError::TooLarge { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Rejection::ContentType { .. } | Rejection::ContentEncoding(_) | Rejection::Format { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            // Every OTLP exporter retries 503. Not 408, and Python's before 1.44 not 429 either
            // (`findings/opentelemetry-python-drops-what-is-refused-with-429.sh`).
            refused if refused.retry_after().is_some() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// For gRPC.
    pub(crate) fn to_status(&self) -> Status {
        match self.retry_after() {
            Some(_) => Status::with_details(
                self.code(),
                self.to_string(),
                Bytes::from(self.rpc_status().encode_to_vec()),
            ),
            None => Status::new(self.code(), self.to_string()),
        }
    }

    /// For OTLP/HTTP: a protobuf `google.rpc.Status`.
    pub(crate) fn to_http(&self) -> http::Response<axum::body::Body> {
        self.response(self.rpc_status().encode_to_vec(), "application/x-protobuf")
    }

    /// The same in JSON.
    pub(crate) fn to_json(&self) -> http::Response<axum::body::Body> {
        let mut status = serde_json::json!({ "code": self.code() as i32, "message": self.to_string() });
        if let Some(delay) = self.retry_after() {
            status["details"] = serde_json::json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{}s", delay.as_secs()),
            }]);
        }
        self.response(status.to_string().into_bytes(), "application/json")
    }

    /// For Connect and plain HTTP: the name of the code and the message, in JSON.
    pub(crate) fn to_connect(&self) -> http::Response<axum::body::Body> {
        let code = match self.code() {
            Code::OutOfRange => "out_of_range",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::Unavailable => "unavailable",
            _ => "invalid_argument",
        };
        let error = serde_json::json!({ "code": code, "message": self.to_string() });
        self.response(error.to_string().into_bytes(), "application/json")
    }

    /// True if a third-party profile decompresses to more than the limit.
    pub(crate) fn is_too_large(error: &FormatError) -> bool {
        matches!(
            error,
            FormatError::Packed(UnpackError::TooLarge { .. }) | FormatError::Pprof(PprofError::TooLarge { .. })
        )
    }

    /// A third-party profile that cannot be read.
    pub(crate) fn of_format(error: &FormatError, limit: usize) -> Rejection {
        match error {
            FormatError::Packed(UnpackError::TooLarge { .. }) | FormatError::Pprof(PprofError::TooLarge { .. }) => {
                Rejection::TooLarge { limit }
            }
            FormatError::TooHeavy(heavy)
            | FormatError::Pprof(PprofError::TooHeavy(heavy))
            | FormatError::Folded(FoldedError::TooHeavy(heavy)) => Rejection::TooHeavy(*heavy),
            error => Rejection::Profile(error.to_string()),
        }
    }

    /// A request of several third-party profiles that cannot be read.
    pub(crate) fn of_series(error: &SeriesError, limit: usize) -> Rejection {
        match error {
            SeriesError::TooHeavy(heavy) => Rejection::TooHeavy(*heavy),
            SeriesError::Profile { error: inner, .. } => match Rejection::of_format(inner, limit) {
                Rejection::Profile(_) => Rejection::Profile(error.to_string()),
                refused => refused,
            },
            error => Rejection::Profile(error.to_string()),
        }
    }

    fn response(&self, body: Vec<u8>, content_type: &'static str) -> http::Response<axum::body::Body> {
        let mut response = http::Response::new(axum::body::Body::from(body));
        *response.status_mut() = self.http_status();
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        if let Some(delay) = self.retry_after() {
            headers.insert(
                http::header::RETRY_AFTER,
                http::HeaderValue::from(delay.as_secs().max(1)),
            );
        }
        if matches!(self, Rejection::ContentEncoding(_)) {
            headers.insert(
                http::header::ACCEPT_ENCODING,
                http::HeaderValue::from_static("gzip, zstd"),
            );
        }
        response
    }

    fn rpc_status(&self) -> RpcStatus {
        let details = self.retry_after().map(|delay| Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo {
                retry_delay: Some(Delay {
                    seconds: delay.as_secs() as i64,
                    nanos: 0,
                }),
            }
            .encode_to_vec(),
        });
        RpcStatus {
            code: self.code() as i32,
            message: self.to_string(),
            details: details.into_iter().collect(),
        }
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_is_longer_than_exporters_wait() {
        let errors = [
            AppendError::Busy { waiting: 9, limit: 8 },
            AppendError::DiskFull {
                path: "/data".into(),
                free: 1,
                reserve: 2,
            },
            AppendError::Io {
                path: "/data".into(),
                source: std::sync::Arc::new(std::io::Error::other("gone")),
            },
            AppendError::Closed,
        ];
        let stores = errors.into_iter().map(Rejection::Store);
        let others = [
            Rejection::Overloaded { limit: 1 },
            Rejection::NoRoom { bytes: 1 },
            Rejection::NoPlace(String::new()),
            Rejection::TimedOut { seconds: 30 },
        ];
        for refused in stores.chain(others) {
            let pause = refused.retry_after().unwrap();
            assert!((1..=4).contains(&pause.as_secs()), "{refused}: {pause:?}");
            let header = refused.to_http().headers()["retry-after"].to_str().unwrap().to_owned();
            assert_eq!(header, pause.as_secs().to_string());
            let details = RpcStatus::decode(refused.to_status().details()).unwrap();
            let info = RetryInfo::decode(details.details[0].value.as_slice()).unwrap();
            assert_eq!(info.retry_delay.unwrap().seconds, pause.as_secs() as i64);
        }
    }

    #[test]
    fn a_full_queue_is_retryable_and_a_large_request_is_not() {
        let busy = Rejection::Store(AppendError::Busy { waiting: 9, limit: 8 });
        assert_eq!(busy.to_status().code(), Code::Unavailable);
        let details = RpcStatus::decode(busy.to_status().details()).unwrap();
        let info = RetryInfo::decode(details.details[0].value.as_slice()).unwrap();
        assert_eq!(info.retry_delay, Some(Delay { seconds: 1, nanos: 0 }));
        assert_eq!(busy.to_http().headers()["retry-after"], "1");
        assert_eq!(busy.to_http().status(), StatusCode::SERVICE_UNAVAILABLE);

        let large = Rejection::TooLarge { limit: 5 };
        assert_eq!(large.to_status().code(), Code::OutOfRange);
        assert!(large.to_status().message().contains("max_request_mb"));
        assert_eq!(large.to_http().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(large.to_http().headers().get("retry-after").is_none());
    }
}

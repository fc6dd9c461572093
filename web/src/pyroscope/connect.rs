//! Unary calls of the Connect protocol (JSON and protobuf) and of gRPC, distinguished by content type.
//!
//! Guarantees: a body is bounded, even after decompression; every error is reported in the client's own protocol, with
//! the code that says whose fault it is; a call with a time limit is dropped when that has passed, together with its
//! query in the store. Wrong on purpose: one message in each direction, no streams; gRPC responses are not compressed.
//!
//! Sources: connectrpc.com/docs/protocol; the gRPC project's PROTOCOL-HTTP2.

use std::{io::Read, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};

use crate::http::{error::ApiError, limits::MAX_BODY_BYTES};

/// Flag and length before a gRPC message.
const GRPC_PREFIX_BYTES: usize = 5;

/// A client's protocol and encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Connect with JSON.
    Json,
    /// Connect with protobuf.
    Proto,
    /// gRPC with protobuf.
    Grpc,
}

impl Codec {
    /// By the content type; `None` for anything else.
    pub(super) fn of(headers: &HeaderMap) -> Option<Codec> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match content_type.split(';').next()?.trim() {
            "application/json" => Some(Codec::Json),
            "application/proto" => Some(Codec::Proto),
            "application/grpc" | "application/grpc+proto" => Some(Codec::Grpc),
            _ => None,
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    /// Name, HTTP status and gRPC number.
    code: Code,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Code(&'static str, u16, u8);

const INVALID_ARGUMENT: Code = Code("invalid_argument", 400, 3);
const DEADLINE_EXCEEDED: Code = Code("deadline_exceeded", 504, 4);
const NOT_FOUND: Code = Code("not_found", 404, 5);
const RESOURCE_EXHAUSTED: Code = Code("resource_exhausted", 429, 8);
const UNIMPLEMENTED: Code = Code("unimplemented", 501, 12);
const INTERNAL: Code = Code("internal", 500, 13);
const UNAVAILABLE: Code = Code("unavailable", 503, 14);

impl RpcError {
    /// The call itself is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> RpcError {
        RpcError {
            code: INVALID_ARGUMENT,
            message: message.into(),
        }
    }

    /// Something that other servers of this interface support and this one does not.
    pub(super) fn unimplemented(message: impl Into<String>) -> RpcError {
        RpcError {
            code: UNIMPLEMENTED,
            message: message.into(),
        }
    }

    fn too_large() -> RpcError {
        RpcError {
            code: RESOURCE_EXHAUSTED,
            message: format!("the body is longer than {MAX_BODY_BYTES} bytes"),
        }
    }

    /// In the client's protocol.
    pub(super) fn answer(&self, codec: Codec) -> Response {
        let Code(name, status, number) = self.code;
        if codec == Codec::Grpc {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(u16::from(number)));
            let message = percent_encoded(&self.message);
            headers.insert(
                "grpc-message",
                HeaderValue::from_str(&message).expect("escaped text is a header value"),
            );
            return response;
        }
        let body = serde_json::json!({ "code": name, "message": self.message });
        let status = StatusCode::from_u16(status).expect("the table holds statuses");
        (status, axum::Json(body)).into_response()
    }
}

impl From<ApiError> for RpcError {
    fn from(error: ApiError) -> RpcError {
        let code = match error.status {
            StatusCode::BAD_REQUEST => INVALID_ARGUMENT,
            StatusCode::NOT_FOUND => NOT_FOUND,
            StatusCode::UNPROCESSABLE_ENTITY => RESOURCE_EXHAUSTED,
            StatusCode::GATEWAY_TIMEOUT => DEADLINE_EXCEEDED,
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            _ => INTERNAL,
        };
        RpcError {
            code,
            message: error.message,
        }
    }
}

impl From<RpcError> for ApiError {
    fn from(error: RpcError) -> ApiError {
        ApiError {
            status: StatusCode::from_u16(error.code.1).expect("the table holds statuses"),
            code: error.code.0,
            message: error.message,
            retry: false,
        }
    }
}

/// A call that was received completely.
pub(super) struct Call {
    pub(super) codec: Codec,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// A call; its body was bounded when it was collected.
    pub(super) fn new(codec: Codec, headers: HeaderMap, body: Bytes) -> Call {
        Call { codec, headers, body }
    }

    /// The query, decompressed and parsed.
    fn question<Q: Message + Default + DeserializeOwned>(&self) -> Result<Q, RpcError> {
        let (packed, body) = match self.codec {
            Codec::Grpc => self.grpc_message()?,
            _ => (self.is_packed(&header::CONTENT_ENCODING)?, self.body.clone()),
        };
        let body = match packed {
            true => unpack(&body)?,
            false => body.to_vec(),
        };
        if self.codec == Codec::Json {
            // An empty body is an empty query.
            let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
            return serde_json::from_slice(text)
                .map_err(|error| RpcError::invalid(format!("the body is not valid JSON for this call: {error}")));
        }
        Q::decode(body.as_slice())
            .map_err(|error| RpcError::invalid(format!("the body is not valid protobuf for this call: {error}")))
    }

    fn is_packed(&self, name: &header::HeaderName) -> Result<bool, RpcError> {
        match self.headers.get(name).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(false),
            Some(b"gzip") => Ok(true),
            Some(_) => Err(RpcError::unimplemented(format!("`{name}` must be gzip or identity"))),
        }
    }

    /// The only message of a gRPC body, and whether it is compressed.
    fn grpc_message(&self) -> Result<(bool, Bytes), RpcError> {
        let wrong = || RpcError::invalid("the body must contain exactly one gRPC message");
        let Some((prefix, message)) = self.body.split_at_checked(GRPC_PREFIX_BYTES) else {
            return Err(wrong());
        };
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        if length as usize != message.len() {
            return Err(wrong());
        }
        let packed = prefix[0] == 1 && self.is_packed(&header::HeaderName::from_static("grpc-encoding"))?;
        if prefix[0] > 1 || (prefix[0] == 1 && !packed) {
            return Err(wrong());
        }
        Ok((packed, self.body.slice(GRPC_PREFIX_BYTES..)))
    }

    /// How long the caller waits.
    fn limit(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name)?.to_str().ok();
        if self.codec != Codec::Grpc {
            return text("connect-timeout-ms")?.parse().ok().map(Duration::from_millis);
        }
        let text = text("grpc-timeout")?;
        let unit = text.chars().last()?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        match unit {
            'H' => Some(Duration::from_secs(number.saturating_mul(3600))),
            'M' => Some(Duration::from_secs(number.saturating_mul(60))),
            'S' => Some(Duration::from_secs(number)),
            'm' => Some(Duration::from_millis(number)),
            'u' => Some(Duration::from_micros(number)),
            'n' => Some(Duration::from_nanos(number)),
            _ => None,
        }
    }

    /// Parses the query, runs the call within its time limit and writes the response.
    pub(super) async fn run<Q, A, F>(self, work: impl FnOnce(Q) -> F) -> Response
    where
        Q: Message + Default + DeserializeOwned,
        A: Message + Serialize,
        F: Future<Output = Result<A, RpcError>>,
    {
        let codec = self.codec;
        let limit = self.limit();
        let answered = match self.question() {
            Ok(question) => match limit {
                None => work(question).await,
                Some(limit) => tokio::time::timeout(limit, work(question)).await.unwrap_or_else(|_| {
                    Err(RpcError {
                        code: DEADLINE_EXCEEDED,
                        message: format!("no response within the caller's deadline of {limit:?}"),
                    })
                }),
            },
            Err(error) => Err(error),
        };
        match answered {
            Ok(answer) => write(&answer, codec),
            Err(error) => error.answer(codec),
        }
    }
}

fn write<A: Message + Serialize>(answer: &A, codec: Codec) -> Response {
    match codec {
        Codec::Json => match serde_json::to_vec(answer) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => RpcError::from(ApiError::internal(format!(
                "the response cannot be encoded as JSON: {error}"
            )))
            .answer(codec),
        },
        Codec::Proto => ([(header::CONTENT_TYPE, "application/proto")], answer.encode_to_vec()).into_response(),
        Codec::Grpc => {
            let message = answer.encode_to_vec();
            let Ok(length) = u32::try_from(message.len()) else {
                return RpcError::from(ApiError::internal("the response exceeds 4 GiB")).answer(codec);
            };
            let mut framed = Vec::with_capacity(GRPC_PREFIX_BYTES + message.len());
            framed.push(0);
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&message);
            let trailers = HeaderMap::from_iter([(
                header::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
            ([(header::CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
        }
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, RpcError> {
    let mut body = Vec::new();
    let limit = MAX_BODY_BYTES as u64 + 1;
    flate2::read::MultiGzDecoder::new(packed)
        .take(limit)
        .read_to_end(&mut body)
        .map_err(|error| RpcError::invalid(format!("the body is not gzip: {error}")))?;
    if body.len() > MAX_BODY_BYTES {
        return Err(RpcError::too_large());
    }
    Ok(body)
}

/// Reads a body up to the limit.
pub(super) async fn collect(body: Body) -> Result<Bytes, RpcError> {
    let limited = http_body_util::Limited::new(body, MAX_BODY_BYTES);
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(RpcError::too_large()),
        Err(error) => Err(RpcError::invalid(format!("cannot read the body: {error}"))),
    }
}

/// Text encoded for `grpc-message`.
fn percent_encoded(text: &str) -> String {
    const NOT_PRINTABLE: &AsciiSet = &CONTROLS.add(b'%');
    utf8_percent_encode(text, NOT_PRINTABLE).to_string()
}

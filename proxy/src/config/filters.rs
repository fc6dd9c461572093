//! What happens to the requests of a service or of a rule besides being carried, and to their responses.

use std::collections::BTreeMap;

use http::{HeaderName, header};
use serde::{Deserialize, Serialize};

use super::{Address, ValueMatch, scalar};

/// Headers that belong to the connection, to the message's framing or to the proxy itself.
const NOT_THEIRS: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a filter may write a header.
pub(crate) fn may_edit(name: &HeaderName) -> bool {
    !NOT_THEIRS.contains(name) && !name.as_str().starts_with("x-emberline-")
}

/// One filter: exactly one of these keys. Requests pass filters in the order of the list, responses in reverse; the first that
/// answers ends the list.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Limits the rate of requests; the others are answered 429 (`rate_limited`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitConfig>,
    /// Limits the requests in flight, and answers 503 (`concurrency_limit`) beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_limit: Option<ConcurrencyConfig>,
    /// Asks a rate limit service, which counts for all proxies together (Envoy's `rls.v3`, over gRPC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_service: Option<RateLimitServiceConfig>,
    /// Asks another service whether a request may go on (Envoy's `ext_authz`, over gRPC or HTTP).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext_authz: Option<ExtAuthzConfig>,
    /// Delays or fails requests, to see how their callers cope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultConfig>,
    /// Edits headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeadersConfig>,
    /// Lets pages of other origins send requests (CORS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsConfig>,
    /// Reads a whole request before it is forwarded, so that a slow caller ties up none of the destination's workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer: Option<BufferConfig>,
}

impl FilterConfig {
    /// How many of its keys are set.
    pub(super) fn kinds(&self) -> usize {
        let kinds = [
            self.rate_limit.is_some(),
            self.concurrency_limit.is_some(),
            self.rate_limit_service.is_some(),
            self.ext_authz.is_some(),
            self.fault.is_some(),
            self.headers.is_some(),
            self.cors.is_some(),
            self.buffer.is_some(),
        ];
        kinds.into_iter().filter(|is_set| *is_set).count()
    }
}

/// A rate, kept by all workers together and for as long as the filter stays as it is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests per `per_seconds`.
    #[serde(deserialize_with = "scalar::positive_u32")]
    pub requests: u32,
    /// Length of the period in seconds.
    #[serde(default = "one", deserialize_with = "scalar::positive_u32")]
    pub per_seconds: u32,
    /// Requests allowed at once after a pause; default: `requests`.
    #[serde(default, deserialize_with = "scalar::optional_positive_u32")]
    pub burst: Option<u32>,
    /// Which requests count together: all of them (`all`), or those of each caller's address (`caller`; an IPv6 /64 is
    /// one caller).
    #[serde(default)]
    pub each: RateLimitKey,
}

/// Whose requests count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitKey {
    /// Everybody's.
    #[default]
    All,
    /// Those of one address.
    Caller,
}

/// A limit of requests in flight, kept by all workers together and for as long as the filter stays as it is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencyConfig {
    /// Requests in flight, each until its response has ended.
    #[serde(deserialize_with = "scalar::positive")]
    pub requests: usize,
    /// Requests that may wait for one of them to end.
    #[serde(default, deserialize_with = "scalar::number")]
    pub queue: usize,
    /// Longest time that a request waits, in milliseconds.
    #[serde(default = "a_tenth_of_a_second", deserialize_with = "scalar::milliseconds")]
    pub queue_ms: u64,
}

/// A rate limit service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitServiceConfig {
    /// Where it listens for gRPC without TLS, `host:port`. For TLS, use the address of an outbound listener with `tls`.
    pub address: Address,
    /// The domain of its configuration.
    pub domain: String,
    /// What a request is counted by: each descriptor is a list of entries. One with an entry that the request has no value for is
    /// left out.
    pub descriptors: Vec<Vec<RateLimitEntryConfig>>,
    /// Time to answer, in milliseconds.
    #[serde(default = "a_fifth_of_a_second", deserialize_with = "scalar::milliseconds")]
    pub timeout_ms: u64,
    /// Whether requests pass when it does not answer; otherwise they are answered 503 (`rate_limit_unavailable`).
    #[serde(default = "yes")]
    pub allow_on_failure: bool,
}

/// An entry of a descriptor: a key, and exactly one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitEntryConfig {
    /// Its key.
    pub key: String,
    /// A fixed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value of this request header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A value that every request has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<RateLimitValue>,
}

/// A value that every request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitValue {
    /// The caller's address.
    RemoteAddress,
    /// The method.
    Method,
    /// The path, without its query.
    Path,
}

/// An authorization service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExtAuthzConfig {
    /// Where it listens without TLS, `host:port`. For TLS, use the address of an outbound listener with `tls`.
    pub address: Address,
    /// How it is asked: `envoy.service.auth.v3` over gRPC (`grpc`), or the request without its body over HTTP (`http`), where
    /// 200 allows.
    #[serde(default)]
    pub protocol: ExtAuthzProtocol,
    /// Time to answer, in milliseconds.
    #[serde(default = "a_fifth_of_a_second", deserialize_with = "scalar::milliseconds")]
    pub timeout_ms: u64,
    /// Whether requests pass when it does not answer; otherwise they are answered 503 (`ext_authz_unavailable`).
    #[serde(default)]
    pub allow_on_failure: bool,
    /// Over HTTP, put in front of the request's path.
    #[serde(default)]
    pub path_prefix: String,
    /// Over HTTP, request headers that it is told besides `host`, `authorization` and `x-forwarded-for`, which is the caller's address.
    #[serde(default)]
    pub request_headers: Vec<String>,
    /// Over HTTP, headers of its answer that replace those of the request.
    #[serde(default)]
    pub upstream_headers: Vec<String>,
    /// Over gRPC, sent along as `context_extensions`.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
}

/// How an authorization service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtAuthzProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    #[default]
    Grpc,
    /// A request without a body.
    Http,
}

/// A fault made on purpose.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultConfig {
    /// Share of the requests, 0 to 1.
    #[serde(default = "all", deserialize_with = "scalar::share")]
    pub share: f64,
    /// Only requests with this header.
    #[serde(default)]
    pub header: Option<ValueMatch>,
    /// How long to delay them, in milliseconds.
    #[serde(default, deserialize_with = "scalar::optional_milliseconds")]
    pub delay_ms: Option<u64>,
    /// Status to answer them with instead of forwarding them (`fault_injected`), 400 to 599. gRPC callers read the
    /// corresponding gRPC status.
    #[serde(default, deserialize_with = "scalar::optional_error_status")]
    pub status: Option<u16>,
}

/// Edits of headers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeadersConfig {
    /// For requests, before they are forwarded.
    #[serde(default)]
    pub request: HeaderEdits,
    /// For responses, before callers get them.
    #[serde(default)]
    pub response: HeaderEdits,
}

/// Edits of one head, in this order: `remove`, `set`, `append`. Headers of the connection, `host`, `content-length` and
/// `x-emberline-*` are not for filters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Names of headers to remove.
    pub remove: Vec<String>,
    /// Headers to set, replacing existing values.
    pub set: BTreeMap<String, String>,
    /// Headers to add a value to, keeping existing values.
    pub append: BTreeMap<String, String>,
}

/// Cross-origin resource sharing, as the Fetch standard has it. Preflight requests of origins that are listed are answered here;
/// those of others are sent on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Origins that may call, such as `https://shop.example`, or `*` for any.
    pub origins: Vec<String>,
    /// Methods that they may use besides `GET`, `HEAD` and `POST`.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Request headers that they may set.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Response headers that they may read.
    #[serde(default)]
    pub exposed_headers: Vec<String>,
    /// Whether cookies and other credentials may be sent; not with `*`.
    #[serde(default)]
    pub credentials: bool,
    /// How long the response to a preflight may be cached, in seconds, 0 to 86400.
    #[serde(default = "ten_minutes", deserialize_with = "scalar::seconds_of_a_day")]
    pub max_age_seconds: u32,
}

/// Reading before sending on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BufferConfig {
    /// Largest request body in bytes; longer ones are answered 413 (`body_too_large`). What is held counts towards
    /// `limits.memory_bytes`.
    #[serde(deserialize_with = "scalar::positive")]
    pub request_bytes: usize,
}

fn one() -> u32 {
    1
}

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn a_tenth_of_a_second() -> u64 {
    100
}

fn a_fifth_of_a_second() -> u64 {
    200
}

fn ten_minutes() -> u32 {
    600
}

//! What happens to the requests of a service or of a rule besides being carried, and to their responses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ValueMatch, scalar};

/// One filter: exactly one of these keys. Requests pass filters in the order of the list, responses in reverse; the first that
/// answers ends the list.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Limits the rate of requests; the others are answered 429 (`rate_limited`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitConfig>,
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

fn ten_minutes() -> u32 {
    600
}

//! When requests of an outbound listener are tried again.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::scalar;

/// Retries of requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Retries per request, 0 to 10. Endpoints that accept no connection do not count: all are tried within `timeouts.connect_ms`.
    #[serde(deserialize_with = "scalar::attempts")]
    pub attempts: u32,
    /// What is retried: `connect_failure`, `unprocessed` (the endpoint reports that it did not process the request, or
    /// has no stream for it), `reset` (it closed the connection or reset the stream before it responded), `timeout` (no
    /// response in time), or a status from 500 to 599. Default: `connect_failure` and `unprocessed`, which are safe
    /// with every method.
    pub on: Vec<RetryOn>,
    /// Limit of retries as a share of the requests of the last ten seconds, per worker, in percent.
    #[serde(deserialize_with = "scalar::percent")]
    pub budget_percent: u32,
    /// Retries per second and worker allowed in addition.
    #[serde(deserialize_with = "scalar::small")]
    pub budget_min_per_second: u32,
    /// Whether `reset`, `timeout` and statuses are retried with other methods than `GET`, `HEAD`, `OPTIONS`, `PUT` and `DELETE`.
    pub non_idempotent: bool,
    /// Time to the response head for each attempt, in milliseconds, within `timeouts.request_ms`; default: all of it. Not for gRPC.
    #[serde(deserialize_with = "scalar::optional_milliseconds")]
    pub per_try_ms: Option<u64>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            attempts: 1,
            on: vec![RetryOn::ConnectFailure, RetryOn::Unprocessed],
            budget_percent: 20,
            budget_min_per_second: 10,
            non_idempotent: false,
            per_try_ms: None,
        }
    }
}

impl RetryConfig {
    /// [`RetryConfig::per_try_ms`].
    pub fn per_try(&self) -> Option<Duration> {
        self.per_try_ms.map(Duration::from_millis)
    }
}

/// A reason for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection.
    ConnectFailure,
    /// HTTP/2 says that nothing was done, or no stream was free.
    Unprocessed,
    /// The connection or stream ended before the response.
    Reset,
    /// No response in time.
    Timeout,
    /// A response with this status.
    Status(u16),
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RetryOn::ConnectFailure => "connect_failure",
            RetryOn::Unprocessed => "unprocessed",
            RetryOn::Reset => "reset",
            RetryOn::Timeout => "timeout",
            RetryOn::Status(status) => return status.fmt(f),
        })
    }
}

impl FromStr for RetryOn {
    type Err = String;

    fn from_str(text: &str) -> Result<RetryOn, String> {
        let words = [
            RetryOn::ConnectFailure,
            RetryOn::Unprocessed,
            RetryOn::Reset,
            RetryOn::Timeout,
        ];
        let status = text
            .parse()
            .ok()
            .filter(|status| (500..=599).contains(status))
            .map(RetryOn::Status);
        let word = words.into_iter().find(|word| word.to_string() == text);
        word.or(status).ok_or_else(|| {
            format!("`{text}` is not a reason for a retry: use connect_failure, unprocessed, reset, timeout or a status such as 503")
        })
    }
}

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RetryOn, D::Error> {
        deserializer.deserialize_any(Reason)
    }
}

/// Reads a word or a number.
struct Reason;

impl de::Visitor<'_> for Reason {
    type Value = RetryOn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reason for a retry such as reset or 503")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RetryOn, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<RetryOn, E> {
        status.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, status: i64) -> Result<RetryOn, E> {
        status.to_string().parse().map_err(E::custom)
    }
}

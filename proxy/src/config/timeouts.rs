//! How long a proxy waits: for a connection, a response, a body, a peer that is silent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scalar;

/// Timeouts of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Time to open a connection, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub connect_ms: u64,
    /// How long a request waits for a stream if a destination allows no more HTTP/2 streams, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub queue_ms: u64,
    /// Time to the response head, in milliseconds, from the request head or the last progress of its body (checked when the time
    /// is up, so a stalled upload ends after at most twice this long), or `none`. Does not apply to gRPC.
    #[serde(
        deserialize_with = "scalar::milliseconds_or_none",
        serialize_with = "scalar::or_none"
    )]
    pub request_ms: Option<u64>,
    /// Longest time without progress on the body of an HTTP/1 response, in milliseconds, or `none`. Does not apply to streams of events.
    #[serde(
        deserialize_with = "scalar::milliseconds_or_none",
        serialize_with = "scalar::or_none"
    )]
    pub idle_ms: Option<u64>,
    /// How long a pooled connection is kept without a request, in milliseconds. One whose destination announces `Keep-Alive: timeout=N`
    /// is not used in the last second of that time.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub pool_idle_ms: u64,
    /// How long a pooled connection is used, give or take a tenth, in milliseconds, or `none`. With it, connections
    /// reach all instances behind one address.
    #[serde(
        deserialize_with = "scalar::milliseconds_or_none",
        serialize_with = "scalar::or_none"
    )]
    pub pool_age_ms: Option<u64>,
    /// Longest time without a byte in either direction on a TCP or WebSocket connection, in milliseconds, or `none`.
    #[serde(
        deserialize_with = "scalar::milliseconds_or_none",
        serialize_with = "scalar::or_none"
    )]
    pub tcp_idle_ms: Option<u64>,
}

/// In place of a time that has no limit: longer than any connection lasts, and within what timers can do.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 86_400);

fn limit(milliseconds: Option<u64>) -> Duration {
    milliseconds.map_or(NO_LIMIT, Duration::from_millis)
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect_ms: 1_000,
            queue_ms: 1_000,
            request_ms: Some(30_000),
            idle_ms: Some(60_000),
            pool_idle_ms: 60_000,
            pool_age_ms: None,
            tcp_idle_ms: Some(3_600_000),
        }
    }
}

impl Timeouts {
    /// [`Timeouts::connect_ms`].
    pub fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    /// [`Timeouts::queue_ms`].
    pub fn queue(&self) -> Duration {
        Duration::from_millis(self.queue_ms)
    }

    /// [`Timeouts::request_ms`].
    pub fn request(&self) -> Duration {
        limit(self.request_ms)
    }

    /// [`Timeouts::idle_ms`].
    pub fn idle(&self) -> Duration {
        limit(self.idle_ms)
    }

    /// [`Timeouts::pool_idle_ms`].
    pub fn pool_idle(&self) -> Duration {
        Duration::from_millis(self.pool_idle_ms)
    }

    /// [`Timeouts::pool_age_ms`].
    pub fn pool_age(&self) -> Option<Duration> {
        self.pool_age_ms.map(Duration::from_millis)
    }

    /// [`Timeouts::tcp_idle_ms`].
    pub fn tcp_idle(&self) -> Duration {
        limit(self.tcp_idle_ms)
    }
}

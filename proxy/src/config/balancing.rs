//! How the requests of an outbound listener are shared among the endpoints of its service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scalar;

/// Who gets the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BalancerKind {
    /// In turn, exactly by weight.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// Of two at random, the one with fewer requests in flight.
    LeastRequest,
    /// Of two at random, the one with the smaller product of latency and requests in flight.
    PeakEwma,
    /// By the hash of a key, on a ring.
    RingHash,
    /// By the hash of a key, in a table.
    Maglev,
}

impl BalancerKind {
    /// Whether it needs [`HashOn`].
    pub(crate) fn hashes(self) -> bool {
        matches!(self, BalancerKind::RingHash | BalancerKind::Maglev)
    }
}

/// What balancers by hash take as a request's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    /// The first value of a header.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The caller's IP address.
    SourceAddress,
}

/// Details of some balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalancerOptions {
    /// `peak_ewma`: time in which a latency that is not measured again loses two thirds of its weight, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub decay_ms: u64,
    /// `peak_ewma`: latency of an endpoint that has not been measured yet, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub unknown_latency_ms: u64,
    /// `ring_hash`: fewest points on the ring. More points make shares more even.
    #[serde(deserialize_with = "scalar::points")]
    pub ring_min_points: usize,
    /// `ring_hash`: most points on the ring.
    #[serde(deserialize_with = "scalar::points")]
    pub ring_max_points: usize,
    /// `maglev`: size of the table, a prime. Shares are even to about a hundredth if it is a hundred times the number of endpoints.
    #[serde(deserialize_with = "scalar::table_size")]
    pub table_size: usize,
}

impl Default for BalancerOptions {
    /// Latencies as in Linkerd (linkerd2-proxy, `linkerd/app/outbound/src/http/logical`: 30 ms and 10 s), tables as in
    /// Envoy (ring 1024, Maglev 65537).
    fn default() -> Self {
        BalancerOptions {
            decay_ms: 10_000,
            unknown_latency_ms: 30,
            ring_min_points: 1_024,
            ring_max_points: 65_536,
            table_size: 65_537,
        }
    }
}

impl BalancerOptions {
    /// [`BalancerOptions::decay_ms`].
    pub fn decay(&self) -> Duration {
        Duration::from_millis(self.decay_ms)
    }

    /// [`BalancerOptions::unknown_latency_ms`].
    pub fn unknown_latency(&self) -> Duration {
        Duration::from_millis(self.unknown_latency_ms)
    }
}

/// When an endpoint is ejected: passed over for some time, because it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierConfig {
    /// Errors in a row, over all workers: no connection, no response, a status of 500 or more, gRPC's INTERNAL or UNAVAILABLE
    /// without a message.
    #[serde(deserialize_with = "scalar::positive_u32")]
    pub consecutive_errors: u32,
    /// Duration of a first ejection, in milliseconds; the second in a row lasts twice as long, and so on up to ten
    /// times. After that, a single request decides whether the endpoint returns.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub base_ejection_ms: u64,
    /// Share of the endpoints that may be ejected at once, in percent. The last one never is.
    #[serde(deserialize_with = "scalar::percent")]
    pub max_ejected_percent: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        OutlierConfig {
            consecutive_errors: 5,
            base_ejection_ms: 30_000,
            max_ejected_percent: 50,
        }
    }
}

impl OutlierConfig {
    /// [`OutlierConfig::base_ejection_ms`].
    pub fn base_ejection(&self) -> Duration {
        Duration::from_millis(self.base_ejection_ms)
    }
}

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// `GET` over HTTP/1.1.
    #[default]
    Http,
    /// `GET` over HTTP/2 with prior knowledge.
    Http2,
    /// A connection can be opened.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc,
}

/// Active health checks, which each proxy makes of each endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// What is checked: the response to a `GET`, that a connection can be opened, or the gRPC health service.
    pub check: CheckKind,
    /// `http`, `http2`: the path.
    pub path: String,
    /// `http`, `http2`: the expected status; default: any from 200 to 299.
    #[serde(deserialize_with = "scalar::optional_status")]
    pub expect: Option<u16>,
    /// `grpc`: the service asked for; default: the whole server.
    pub service: String,
    /// Time between two checks of an endpoint, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub interval_ms: u64,
    /// Time limit for the response, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub timeout_ms: u64,
    /// Failed checks in a row after which an endpoint gets no requests, unless all are unhealthy.
    #[serde(deserialize_with = "scalar::positive_u32")]
    pub unhealthy_after: u32,
    /// Passed checks in a row after which it gets requests again.
    #[serde(deserialize_with = "scalar::positive_u32")]
    pub healthy_after: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig {
            check: CheckKind::default(),
            path: "/".to_owned(),
            expect: None,
            service: String::new(),
            interval_ms: 5_000,
            timeout_ms: 1_000,
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

impl HealthConfig {
    /// [`HealthConfig::interval_ms`].
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// [`HealthConfig::timeout_ms`].
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

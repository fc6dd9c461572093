//! Requests added up: rate, errors, duration. Guarantee: counts are exact, and quantiles are read from the merged
//! histogram, never from other quantiles. Abandoned requests count but are not part of quantiles.

use emberline_model::Histogram;
use emberline_storage::RequestRow;
use serde::Serialize;
use utoipa::ToSchema;

/// Requests of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Red {
    /// Requests that failed.
    pub(crate) errors: u64,
    /// Requests that their callers abandoned.
    pub(crate) given_up: u64,
    /// Latencies of all others.
    pub(crate) duration: Histogram,
    /// Total time that they continued beyond their latency, in seconds.
    pub(crate) streaming_s: f64,
    /// Body bytes from callers.
    pub(crate) request_bytes: u64,
    /// Body bytes to callers.
    pub(crate) response_bytes: u64,
}

impl Red {
    /// Adds the requests of a row.
    pub(crate) fn add(&mut self, row: &RequestRow) {
        if row.error {
            self.errors = self.errors.saturating_add(row.duration.count());
        }
        match row.latency() {
            Some(latency) => self.duration.merge(latency),
            None => self.given_up = self.given_up.saturating_add(row.duration.count()),
        }
        self.streaming_s += row.streaming_s;
        self.request_bytes = self.request_bytes.saturating_add(row.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(row.response_bytes);
    }

    /// The same for a row that is no longer needed: the first histogram is moved, not copied.
    pub(crate) fn take(&mut self, row: &mut RequestRow) {
        if self.duration.count() == 0 && !row.is_given_up() {
            self.duration = std::mem::take(&mut row.duration);
            if row.error {
                self.errors = self.errors.saturating_add(self.duration.count());
            }
        }
        self.add(row);
    }

    /// Adds another group.
    pub(crate) fn merge(&mut self, other: &Red) {
        self.errors = self.errors.saturating_add(other.errors);
        self.given_up = self.given_up.saturating_add(other.given_up);
        self.duration.merge(&other.duration);
        self.streaming_s += other.streaming_s;
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
    }

    /// The number of requests.
    pub(crate) fn requests(&self) -> u64 {
        self.duration.count().saturating_add(self.given_up)
    }

    /// Share of failed requests, 0 to 1; 0 without requests.
    pub(crate) fn error_ratio(&self) -> f64 {
        if self.requests() == 0 {
            0.0
        } else {
            self.errors as f64 / self.requests() as f64
        }
    }

    /// Quantiles; all `None` without requests.
    pub(crate) fn quantiles(&self) -> Quantiles {
        let ms = |q| self.duration.quantile(q).map(|seconds| seconds * 1e3);
        Quantiles {
            p50_ms: ms(0.5),
            p95_ms: ms(0.95),
            p99_ms: ms(0.99),
        }
    }
}

/// Durations in milliseconds; null without requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Quantiles {
    /// Median: half of the requests took at most this long.
    pub(crate) p50_ms: Option<f64>,
    /// 95 % of the requests took at most this long.
    pub(crate) p95_ms: Option<f64>,
    /// 99 % of the requests took at most this long.
    pub(crate) p99_ms: Option<f64>,
}

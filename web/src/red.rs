//! Requests added up: rate, errors, duration. Guarantee: counts are exact, and quantiles are read from the merged
//! histogram, never from other quantiles.

use emberline_model::Histogram;
use emberline_storage::RequestRow;
use serde::Serialize;
use utoipa::ToSchema;

/// Requests of whatever belongs together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Red {
    /// Requests that failed.
    pub(crate) errors: u64,
    /// Durations of all of them.
    pub(crate) duration: Histogram,
}

impl Red {
    /// Adds the requests of a row.
    pub(crate) fn add(&mut self, row: &RequestRow) {
        if row.error {
            self.errors = self.errors.saturating_add(row.duration.count());
        }
        self.duration.merge(&row.duration);
    }

    /// How many.
    pub(crate) fn requests(&self) -> u64 {
        self.duration.count()
    }

    /// Share of those that failed, 0 to 1; 0 without requests.
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
    /// Half of the requests took at most this.
    pub(crate) p50_ms: Option<f64>,
    /// 95 % of the requests took at most this.
    pub(crate) p95_ms: Option<f64>,
    /// 99 % of the requests took at most this.
    pub(crate) p99_ms: Option<f64>,
}

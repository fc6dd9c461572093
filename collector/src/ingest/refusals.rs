//! Metrics that were left out, for the log and the status page: which service sent what, why it was left out, what to do.
//!
//! Guarantees: at most [`MOST_ROWS`] rows, those that were not seen for the longest time go first; a row is logged when it
//! appears and then at most once an hour, so that a sender that goes on does not fill the log.

use std::{collections::HashMap, sync::Arc};

use emberline_model::otlp::Rejected;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::left_out::Told;

/// Rows that are kept.
const MOST_ROWS: usize = 200;
/// How often a row is logged, in milliseconds.
const LOG_EVERY_MS: i64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row {
    service: String,
    metric: String,
    shape: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    points: u64,
    last_unix_ms: i64,
    logged_unix_ms: i64,
    remedy: String,
}

/// The rows; a clone shows the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<HashMap<Row, Seen>>>);

impl Refusals {
    /// Adds what a request left out.
    pub(super) fn add(&self, rejected: &[Rejected], now_unix_ms: i64) {
        if rejected.is_empty() {
            return;
        }
        let mut rows = self.0.lock();
        for one in rejected {
            let row = Row {
                service: one.service.clone(),
                metric: one.what.clone(),
                shape: one.shape,
                reason: one.reason,
            };
            if !rows.contains_key(&row) && rows.len() >= MOST_ROWS {
                let oldest = rows.iter().min_by_key(|(row, seen)| (seen.last_unix_ms, *row));
                if let Some(oldest) = oldest.map(|(row, _)| row.clone()) {
                    rows.remove(&oldest);
                }
            }
            let seen = rows.entry(row).or_insert(Seen {
                logged_unix_ms: i64::MIN,
                remedy: Told::of(one).advice(),
                ..Seen::default()
            });
            seen.points = seen.points.saturating_add(one.count);
            seen.last_unix_ms = now_unix_ms;
            if now_unix_ms.saturating_sub(seen.logged_unix_ms) >= LOG_EVERY_MS {
                seen.logged_unix_ms = now_unix_ms;
                let (service, metric, shape, reason) = (&one.service, &one.what, one.shape, one.reason);
                // Every SDK sends other metrics too; that is no fault of anybody.
                if reason == "unknown_metric" {
                    tracing::info!(service, metric, shape, reason, "a metric is not taken: {}", seen.remedy);
                } else {
                    tracing::warn!(
                        service,
                        metric,
                        shape,
                        reason,
                        "points of a metric were left out: {}",
                        seen.remedy
                    );
                }
            }
        }
    }

    /// The rows, newest first.
    pub(crate) fn json(&self) -> Value {
        let mut rows: Vec<(Row, Seen)> = self
            .0
            .lock()
            .iter()
            .map(|(row, seen)| (row.clone(), seen.clone()))
            .collect();
        rows.sort_by(|a, b| (b.1.last_unix_ms, &a.0).cmp(&(a.1.last_unix_ms, &b.0)));
        let shown = rows.into_iter().map(|(row, seen)| {
            json!({
                "service": row.service, "metric": row.metric, "shape": row.shape, "reason": row.reason,
                "points": seen.points, "last_ms": seen.last_unix_ms, "remedy": seen.remedy,
            })
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(metric: &str) -> Rejected {
        Rejected::of("not_a_histogram", metric, 2).sent_by("shop", "gauge")
    }

    #[test]
    fn rows_are_bounded_and_the_newest_stay() {
        let refusals = Refusals::default();
        for at in 0..300 {
            refusals.add(&[refused(&format!("m{at}"))], at);
            refusals.add(&[refused("often")], at);
        }
        let shown = refusals.json();
        assert_eq!(shown.as_array().unwrap().len(), MOST_ROWS);
        assert_eq!(shown[0]["metric"], "m299");
        assert_eq!(
            (&shown[1]["metric"], &shown[1]["points"], &shown[1]["last_ms"]),
            (&"often".into(), &600.into(), &299.into())
        );
        assert!(shown[1]["remedy"].as_str().unwrap().contains("histogram"));
    }
}

//! Metrics that were dropped, for the log and the status page: which service sent what, why it was dropped, what to do.
//!
//! Guarantees: at most [`MOST_ROWS`] rows, divided among the senders ([`super::shares`]), so that nobody's made-up
//! metrics push out another's rows; points without a row are counted as `other`. A row is logged when it appears and
//! then at most once an hour, so that a persistent sender does not fill the log.

use std::{collections::HashMap, sync::Arc};

use emberline_model::{id, otlp::Rejected};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    left_out::Told,
    sender::SenderKey,
    shares::{Holder, Shares},
};

/// The most rows kept.
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

#[derive(Debug)]
struct Rows {
    shares: Shares<Row>,
    seen: HashMap<Row, Seen>,
    /// Points that have no row.
    other: Seen,
}

/// The rows; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Refusals(Arc<Mutex<Rows>>);

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals(Arc::new(Mutex::new(Rows {
            shares: Shares::new(MOST_ROWS),
            seen: HashMap::new(),
            other: Seen::default(),
        })))
    }
}

impl Refusals {
    /// Adds what a request lost.
    pub(super) fn add(&self, sender: SenderKey, rejected: &[Rejected], now_unix_ms: i64) {
        if rejected.is_empty() {
            return;
        }
        let rows = &mut *self.0.lock();
        for one in rejected {
            let row = Row {
                service: one.service.clone(),
                metric: one.what.clone(),
                shape: one.shape,
                reason: one.reason,
            };
            let holder = Holder {
                sender,
                group: id::key("service", &[&one.service]),
            };
            let admission = rows.shares.admit(&row, holder, now_unix_ms.div_euclid(1_000));
            for gone in admission.gone {
                rows.seen.remove(&gone);
            }
            if !admission.admitted {
                rows.other.points = rows.other.points.saturating_add(one.count);
                rows.other.last_unix_ms = now_unix_ms;
                continue;
            }
            let seen = rows.seen.entry(row).or_insert(Seen {
                logged_unix_ms: i64::MIN,
                remedy: Told::of(one).advice(),
                ..Seen::default()
            });
            seen.points = seen.points.saturating_add(one.count);
            seen.last_unix_ms = now_unix_ms;
            if now_unix_ms.saturating_sub(seen.logged_unix_ms) >= LOG_EVERY_MS {
                seen.logged_unix_ms = now_unix_ms;
                let (service, metric, shape, reason) = (&one.service, &one.what, one.shape, one.reason);
                // Every SDK also sends other metrics; that is nobody's mistake.
                if reason == "unknown_metric" {
                    tracing::info!(service, metric, shape, reason, "metric ignored: {}", seen.remedy);
                } else {
                    tracing::warn!(
                        service,
                        metric,
                        shape,
                        reason,
                        "data points of a metric were dropped: {}",
                        seen.remedy
                    );
                }
            }
        }
    }

    /// The rows, newest first.
    pub(crate) fn json(&self) -> Value {
        let (mut rows, other) = {
            let rows = self.0.lock();
            let seen = rows.seen.iter().map(|(row, seen)| (row.clone(), seen.clone()));
            (seen.collect::<Vec<_>>(), rows.other.clone())
        };
        if other.points > 0 {
            let row = Row {
                service: "other".to_owned(),
                metric: "other".to_owned(),
                shape: "",
                reason: "too_many_rows",
            };
            rows.push((row, other));
        }
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
    fn rows_are_bounded_and_one_sender_does_not_push_anothers_out() {
        let refusals = Refusals::default();
        let address = |last: u8| SenderKey::of_address(std::net::IpAddr::from([10, 0, 0, last]));
        for at in 0..300 {
            refusals.add(address(1), &[refused("often")], at);
            refusals.add(address(2), &[refused(&format!("m{at}"))], at);
        }
        refusals.add(address(3), &[refused("new")], 400);
        let shown = refusals.json();
        assert_eq!(shown.as_array().unwrap().len(), MOST_ROWS + 1);
        assert_eq!(shown[0]["metric"], "new");
        let row = |metric: &str| {
            let rows = shown.as_array().unwrap().iter();
            rows.clone().find(|row| row["metric"] == metric).unwrap()
        };
        assert_eq!(
            (&row("often")["points"], &row("often")["last_ms"]),
            (&600.into(), &299.into())
        );
        assert_eq!(row("other")["points"], 202);
        assert!(row("often")["remedy"].as_str().unwrap().contains("histogram"));
    }
}

//! Alerts in the format of Alertmanager's API v2: `POST /api/v2/alerts`, a JSON array.
//!
//! There, an alert's labels are its identity, so they contain only its subject, and never a number that changes.
//!
//! Source: github.com/prometheus/alertmanager, `api/v2/openapi.yaml` and docs/alerts_api.md.

use std::collections::BTreeMap;

use emberline_model::alert::Alert;
use serde::Serialize;

use super::{event::Event, rfc3339};
use crate::verdict::{CLIENT_LATENCY, ERRORS};

/// Path of the API.
pub(super) const PATH: &str = "/api/v2/alerts";
/// Value of the label `alertname`.
fn name(alert: &Alert) -> &'static str {
    match alert.kind.as_str() {
        ERRORS => "EmberlineErrorRegression",
        CLIENT_LATENCY => "EmberlineClientLatencyRegression",
        _ => "EmberlineLatencyRegression",
    }
}
/// How long an alert stays firing there after the last message: three missed repetitions.
const KEEP_MS: i64 = 3 * 60_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostableAlert<'a> {
    labels: BTreeMap<&'static str, &'a str>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
}

/// The message for some alerts.
pub(super) fn body(alerts: &[(&Alert, Event)], now_ms: i64, external_url: &str) -> Vec<u8> {
    let messages: Vec<_> = alerts
        .iter()
        .map(|(alert, event)| message(alert, *event, now_ms, external_url))
        .collect();
    serde_json::to_vec(&messages).expect("strings and maps with string keys always serialise")
}

fn message<'a>(alert: &'a Alert, event: Event, now_ms: i64, external_url: &str) -> PostableAlert<'a> {
    let mut labels = BTreeMap::from([
        ("alertname", name(alert)),
        ("namespace", alert.namespace.as_str()),
        ("service", alert.service.as_str()),
        ("version", alert.candidate.as_str()),
        ("baseline", alert.baseline.as_str()),
        ("route", alert.route.as_str()),
        ("source", alert.source.as_deref().unwrap_or("")),
        ("severity", "warning"),
    ]);
    // Alertmanager treats an empty label as missing.
    labels.retain(|_, value| !value.is_empty());
    let mut annotations = BTreeMap::from([("summary".to_owned(), alert.sentence.clone())]);
    if let Some(function) = &alert.function {
        annotations.insert("function".to_owned(), function.name.clone());
    }
    for pair in &alert.latency.quantiles {
        if let (Some(before), Some(after)) = (pair.baseline_ms, pair.candidate_ms) {
            annotations.insert(
                format!("p{:.0}", pair.q * 100.0),
                format!("{before:.2} ms → {after:.2} ms"),
            );
        }
    }
    if let Some(reason) = &alert.ended_reason {
        annotations.insert("ended".to_owned(), reason.clone());
    }
    if !alert.folded.is_empty() {
        annotations.insert("explains".to_owned(), alert.folded.join(", "));
    }
    let ends_at = match event {
        Event::Firing => now_ms + KEEP_MS,
        Event::Resolved => alert.resolved_ms.unwrap_or(now_ms),
    };
    PostableAlert {
        labels,
        annotations,
        starts_at: rfc3339::format(alert.started_ms),
        ends_at: rfc3339::format(ends_at),
        generator_url: format!("{}{}", external_url.trim_end_matches('/'), alert.diff_url),
    }
}

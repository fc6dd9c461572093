//! The generic webhook: one POST per alert and event, the alert as the API shows it.

use emberline_model::alert::Alert;
use serde::Serialize;

use super::event::Event;

#[derive(Serialize)]
struct Message<'a> {
    /// `firing` or `resolved`.
    event: &'static str,
    /// URL of the comparison.
    url: String,
    alert: &'a Alert,
}

/// The message for one alert.
pub(super) fn body(alert: &Alert, event: Event, external_url: &str) -> Vec<u8> {
    let message = Message {
        event: event.name(),
        url: format!("{}{}", external_url.trim_end_matches('/'), alert.diff_url),
        alert,
    };
    serde_json::to_vec(&message).expect("an alert has only string keys, and JSON writes any number")
}

//! When to send what: one task per receiver.
//!
//! Alertmanager forgets what it does not hear of again: all firing alerts are sent every minute, at once when something
//! changes, and resolved ones for five minutes. A webhook hears of each alert once when it fires and once when it is
//! resolved. What is suspected, and what is suppressed, is not sent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use emberline_model::{
    alert::{Alert, AlertStatus},
    time::Clock,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    alertmanager,
    http_post::{InvalidUrl, Outcome, Target},
    webhook,
};
use crate::self_metrics::SelfMetrics;

/// Firing alerts are repeated to Alertmanager this often.
const REPEAT: Duration = Duration::from_secs(60);
/// A resolved alert is told for so long, in milliseconds.
const TELL_RESOLVED_MS: i64 = 5 * 60_000;
/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What is told of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Firing,
    Resolved,
}

impl Event {
    pub(super) fn name(self) -> &'static str {
        match self {
            Event::Firing => "firing",
            Event::Resolved => "resolved",
        }
    }

    /// What there is to tell of an alert now; nothing of one that is suspected, suppressed or long over.
    fn of(alert: &Alert, now_ms: i64) -> Option<Event> {
        if alert.suppressed_reason.is_some() {
            return None;
        }
        match alert.state {
            AlertStatus::Suspected => None,
            AlertStatus::Firing | AlertStatus::Recovering => Some(Event::Firing),
            AlertStatus::Resolved => {
                let since = now_ms - alert.resolved_ms.unwrap_or(alert.updated_ms);
                (since <= TELL_RESOLVED_MS).then_some(Event::Resolved)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alertmanager,
    Webhook,
}

/// Somebody to tell.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    kind: Kind,
    target: Target,
}

impl Receiver {
    /// Reads the configured addresses.
    pub(crate) fn parse_all(alertmanagers: &[String], webhooks: &[String]) -> Result<Vec<Receiver>, InvalidUrl> {
        let mut receivers = Vec::new();
        for url in alertmanagers {
            let target = Target::parse(url)?.with_path(alertmanager::PATH);
            receivers.push(Receiver {
                kind: Kind::Alertmanager,
                target,
            });
        }
        for url in webhooks {
            receivers.push(Receiver {
                kind: Kind::Webhook,
                target: Target::parse(url)?,
            });
        }
        Ok(receivers)
    }
}

/// A message and what it tells: alert, event, start of the alert.
struct Message {
    body: Vec<u8>,
    tells: Vec<(String, Event, i64)>,
}

/// The task of one receiver.
pub(crate) struct Notifier {
    pub(crate) receiver: Receiver,
    pub(crate) alerts: watch::Receiver<Arc<Vec<Alert>>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) external_url: String,
    pub(crate) metrics: SelfMetrics,
}

/// What a receiver has been told.
#[derive(Default)]
struct Told {
    /// Newest event by alert, with the start of the alert it was about.
    events: BTreeMap<String, (Event, i64)>,
    /// When Alertmanager was last told everything.
    at: Option<Instant>,
}

impl Notifier {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut told = Told::default();
        let mut backoff = Duration::ZERO;
        loop {
            let messages = self.due(&told, Instant::now());
            let mut failed = false;
            for message in messages {
                let outcome = tokio::select! {
                    outcome = self.receiver.target.post(message.body.clone()) => outcome,
                    () = stop.cancelled() => return,
                };
                if let Outcome::Retry(_) = outcome {
                    failed = true;
                }
                self.note(&mut told, &message, &outcome);
            }
            backoff = if failed {
                (backoff * 2).clamp(Duration::from_secs(1), MAX_BACKOFF)
            } else {
                Duration::ZERO
            };
            tokio::select! {
                // While a receiver is in trouble, news waits for the next attempt with everything else.
                changed = self.alerts.changed(), if !failed => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(if failed { backoff } else { REPEAT / 4 }) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Messages to send now.
    fn due(&mut self, told: &Told, now: Instant) -> Vec<Message> {
        let alerts = Arc::clone(&self.alerts.borrow_and_update());
        let now_ms = self.clock.now_unix_ms();
        let events: Vec<(&Alert, Event)> = alerts.iter().filter_map(|a| Some((a, Event::of(a, now_ms)?))).collect();
        let is_news = |alert: &Alert, event: Event| match told.events.get(&alert.id) {
            // Another process may have told that it fires; that it is over is worth telling twice.
            None => true,
            Some(&(last, started_ms)) => last != event || (event == Event::Firing && started_ms != alert.started_ms),
        };
        let tells = |alert: &Alert, event: Event| (alert.id.clone(), event, alert.started_ms);
        match self.receiver.kind {
            Kind::Webhook => {
                let news = events.iter().filter(|(alert, event)| is_news(alert, *event));
                let message = |(alert, event): &(&Alert, Event)| Message {
                    body: webhook::body(alert, *event, &self.external_url),
                    tells: vec![tells(alert, *event)],
                };
                news.map(message).collect()
            }
            Kind::Alertmanager => {
                let repeat = told.at.is_none_or(|at| now.duration_since(at) >= REPEAT);
                let any_news = events.iter().any(|(alert, event)| is_news(alert, *event));
                if events.is_empty() || !(repeat || any_news) {
                    return Vec::new();
                }
                let body = alertmanager::body(&events, now_ms, &self.external_url);
                vec![Message {
                    body,
                    tells: events.iter().map(|(a, e)| tells(a, *e)).collect(),
                }]
            }
        }
    }

    fn note(&self, told: &mut Told, message: &Message, outcome: &Outcome) {
        let receiver = self.receiver.target.name();
        let counted = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Retry(why) => {
                tracing::warn!(receiver, "an alert message was not delivered and is tried again: {why}");
                "retried"
            }
            Outcome::Refused(why) => {
                tracing::error!(receiver, "the receiver refused an alert message, it is dropped: {why}");
                "refused"
            }
        };
        self.metrics.notification(receiver, counted);
        if matches!(outcome, Outcome::Retry(_)) {
            return;
        }
        for (id, event, started_ms) in &message.tells {
            told.events.insert(id.clone(), (*event, *started_ms));
        }
        told.at = Some(Instant::now());
        let alerts = self.alerts.borrow();
        told.events.retain(|id, _| alerts.iter().any(|alert| alert.id == *id));
    }
}

//! When to send what: one task per receiver.
//!
//! Alertmanager forgets alerts that are not repeated: all firing alerts are sent every minute, immediately when
//! something changes, and resolved ones for five minutes. A webhook is notified of each alert once when it fires and
//! once when it is resolved. Suspected and suppressed alerts are not sent; nor is the end of an alert that a receiver
//! was never notified of.

use std::{sync::Arc, time::Duration};

use emberline_client::{Client, InvalidAddress, Tls, TlsError};
use emberline_model::{alert::Alert, id, time::Clock};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    alertmanager,
    event::Event,
    http_post::{Outcome, Target},
    webhook,
};
use crate::{
    alert_book::{AlertBook, Entry, Told},
    self_metrics::SelfMetrics,
};

/// Firing alerts are repeated to Alertmanager this often.
const REPEAT: Duration = Duration::from_secs(60);
/// A resolved alert is sent for this long, in milliseconds.
const TELL_RESOLVED_MS: i64 = 5 * 60_000;
/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alertmanager,
    Webhook,
}

/// A receiver of alerts.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    kind: Kind,
    target: Target,
}

impl Receiver {
    /// Identifies it across restarts; the address itself may contain a secret.
    pub(crate) fn key(&self) -> String {
        let kind = match self.kind {
            Kind::Alertmanager => "alertmanager",
            Kind::Webhook => "webhook",
        };
        format!("{:016x}", id::key(kind, &[&self.target.name(), self.target.path()]))
    }

    /// Parses the configured addresses, and reads the files of their TLS settings.
    pub(crate) fn parse_all(
        alertmanagers: (&[String], &Tls),
        webhooks: (&[String], &Tls),
    ) -> Result<Vec<Receiver>, InvalidReceiver> {
        let mut receivers = Vec::new();
        for (kind, setting, (urls, tls)) in [
            (Kind::Alertmanager, "alertmanager", alertmanagers),
            (Kind::Webhook, "webhook", webhooks),
        ] {
            let client = Client::new(tls).map_err(|error| InvalidReceiver::Tls(setting, error))?;
            for url in urls {
                let target = Target::parse(url, &client).map_err(|error| InvalidReceiver::Address(setting, error))?;
                let target = match kind {
                    Kind::Alertmanager => target.with_path(alertmanager::PATH),
                    Kind::Webhook => target,
                };
                receivers.push(Receiver { kind, target });
            }
        }
        Ok(receivers)
    }
}

/// An invalid alert receiver.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReceiver {
    /// Its address is invalid.
    #[error("{0}: {1}")]
    Address(&'static str, InvalidAddress),
    /// Its TLS settings are invalid.
    #[error("TLS settings of the {0}: {1}")]
    Tls(&'static str, TlsError),
}

/// A message and the alerts in it.
struct Message {
    body: Vec<u8>,
    tells: Vec<(Alert, Event)>,
}

impl Message {
    fn told_of(&self, event: Event) -> Vec<Alert> {
        let of = self.tells.iter().filter(|(_, told)| *told == event);
        of.map(|(alert, _)| alert.clone()).collect()
    }
}

/// The task of one receiver.
pub(crate) struct Notifier {
    pub(crate) receiver: Receiver,
    /// Signals that alerts have changed.
    pub(crate) alerts: watch::Receiver<Arc<Vec<Alert>>>,
    pub(crate) book: AlertBook,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) external_url: String,
    pub(crate) metrics: SelfMetrics,
}

impl Notifier {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // When everything was last sent to Alertmanager.
        let mut repeated: Option<Instant> = None;
        let mut backoff = Duration::ZERO;
        loop {
            self.alerts.borrow_and_update();
            let repeat = repeated.is_none_or(|at| at.elapsed() >= REPEAT);
            let mut failed = false;
            for message in self.due(repeat) {
                // Recorded before sending, since it may arrive.
                self.note(&message, Event::Firing, Told::Perhaps);
                self.book.save().await;
                let outcome = tokio::select! {
                    outcome = self.receiver.target.post(message.body.clone()) => outcome,
                    () = stop.cancelled() => return,
                };
                if self.is_done(&outcome) {
                    self.note(&message, Event::Firing, Told::Firing);
                    self.note(&message, Event::Resolved, Told::Resolved);
                    self.book.save().await;
                    repeated = Some(Instant::now());
                } else {
                    failed = true;
                }
            }
            backoff = if failed {
                (backoff * 2).clamp(Duration::from_secs(1), MAX_BACKOFF)
            } else {
                Duration::ZERO
            };
            tokio::select! {
                // While a receiver is failing, news waits for the next attempt with everything else.
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

    /// What to send about an alert now, and whether it is news.
    fn event(&self, key: &str, entry: &Entry) -> Option<(Event, bool)> {
        let told = entry.told.get(key);
        if entry.is_open() {
            let knows = told.is_some_and(|m| m.told == Told::Firing && m.started_ms == entry.alert.started_ms);
            return Some((Event::Firing, !knows));
        }
        // A receiver that was never notified does not need the end.
        let told = told?;
        if told.told != Told::Resolved {
            return Some((Event::Resolved, true));
        }
        let again = self.clock.now_unix_ms() - told.at_ms <= TELL_RESOLVED_MS;
        (self.receiver.kind == Kind::Alertmanager && again).then_some((Event::Resolved, false))
    }

    /// Messages to send now; `repeat` if it is time to send unchanged alerts again.
    fn due(&self, repeat: bool) -> Vec<Message> {
        let now_ms = self.clock.now_unix_ms();
        let key = self.receiver.key();
        let entries = self.book.entries().into_iter();
        let events: Vec<(Alert, Event, bool)> = entries
            .filter_map(|entry| {
                let (event, is_news) = self.event(&key, &entry)?;
                Some((entry.alert, event, is_news))
            })
            .collect();
        match self.receiver.kind {
            Kind::Webhook => {
                let news = events.into_iter().filter(|(.., is_news)| *is_news);
                let message = |(alert, event, _): (Alert, Event, bool)| Message {
                    body: webhook::body(&alert, event, &self.external_url),
                    tells: vec![(alert, event)],
                };
                news.map(message).collect()
            }
            Kind::Alertmanager => {
                let any_news = events.iter().any(|(.., is_news)| *is_news);
                if events.is_empty() || !(repeat || any_news) {
                    return Vec::new();
                }
                let tells: Vec<(Alert, Event)> = events.into_iter().map(|(alert, event, _)| (alert, event)).collect();
                let said: Vec<(&Alert, Event)> = tells.iter().map(|(alert, event)| (alert, *event)).collect();
                let body = alertmanager::body(&said, now_ms, &self.external_url);
                vec![Message { body, tells }]
            }
        }
    }

    /// Records that the receiver was notified of a message's alerts with this event. What it already knows is not taken
    /// back; the end of an alert is sent repeatedly for some time.
    fn note(&self, message: &Message, event: Event, told: Told) {
        let alerts = message.told_of(event);
        self.book
            .note(&self.receiver.key(), &alerts, told, self.clock.now_unix_ms());
    }

    /// Counts an attempt. False if it is to be repeated.
    fn is_done(&self, outcome: &Outcome) -> bool {
        let receiver = self.receiver.target.name();
        let counted = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Retry(why) => {
                tracing::warn!(receiver, "cannot deliver an alert, retrying: {why}");
                "retried"
            }
            Outcome::Refused(why) => {
                tracing::error!(receiver, "the receiver rejected an alert, dropping it: {why}");
                "refused"
            }
        };
        self.metrics.notification(&receiver, counted);
        !matches!(outcome, Outcome::Retry(_))
    }
}

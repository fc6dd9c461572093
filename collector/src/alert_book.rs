//! The alerts that fired, and which receivers were notified: facts that are stored, not derived from other data.
//!
//! Verdicts are a function of the windows in the store; the book makes an alert one thing from its beginning to its
//! end. Guarantees: an alert that fired stays open until it ends, and every receiver that was notified is notified of
//! its end, whatever happened in between: another release, a rollback, a deleted service, a restart. It is on disk
//! before the first receiver is notified. Bounded: [`MOST_ENTRIES`] alerts; those that ended longest ago are dropped
//! first.
//!
//! Wrong on purpose: if the disk cannot be written, receivers are notified all the same; after a restart they may then
//! be notified twice, or not of the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use emberline_model::alert::{Alert, AlertStatus};
use emberline_storage::Store;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::verdict::AlertKey;

/// The most alerts kept.
const MOST_ENTRIES: usize = 1_000;
/// How long an alert is shown after its end, in milliseconds.
const SHOW_OVER_MS: i64 = 3_600_000;
/// A receiver that was unreachable for this long is given up, in milliseconds.
const GIVE_UP_MS: i64 = 7 * 86_400_000;

/// What a receiver has been notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Told {
    /// Firing: sent, and possibly delivered.
    Perhaps,
    /// Firing: delivered.
    Firing,
    /// Resolved.
    Resolved,
}

/// When, and about which beginning of the alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) told: Told,
    /// Beginning of the alert it was about.
    pub(crate) started_ms: i64,
    pub(crate) at_ms: i64,
}

/// An alert that fired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its latest state; after its end, the state at its end.
    pub(crate) alert: Alert,
    /// By receiver.
    #[serde(default)]
    pub(crate) told: BTreeMap<String, Message>,
}

impl Entry {
    pub(crate) fn is_open(&self) -> bool {
        self.alert.state != AlertStatus::Resolved
    }

    fn ended_ms(&self) -> i64 {
        self.alert.resolved_ms.unwrap_or(self.alert.updated_ms)
    }

    /// True if a receiver has yet to be notified of the end.
    fn owes(&self, receivers: &BTreeSet<String>) -> bool {
        self.told
            .iter()
            .any(|(receiver, message)| receivers.contains(receiver) && message.told != Told::Resolved)
    }
}

/// An alert as judged, and since when it has been in this state.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) alert: Alert,
    pub(crate) changed_ms: i64,
}

#[derive(Debug, Default)]
struct Pages {
    entries: BTreeMap<AlertKey, Entry>,
    changed: bool,
}

/// The book; clones share it.
#[derive(Clone)]
pub(crate) struct AlertBook {
    store: Store,
    receivers: Arc<BTreeSet<String>>,
    pages: Arc<Mutex<Pages>>,
}

impl AlertBook {
    /// Loads the stored alerts. Blocks.
    pub(crate) fn open(store: Store, receivers: BTreeSet<String>) -> AlertBook {
        let mut pages = Pages::default();
        for record in store.remembered_alerts() {
            match serde_json::from_slice::<Entry>(&record) {
                Ok(entry) => drop(pages.entries.insert(AlertKey::of(&entry.alert), entry)),
                Err(error) => {
                    tracing::warn!(%error, "dropped a stored alert with an unknown format version");
                }
            }
        }
        AlertBook {
            store,
            receivers: Arc::new(receivers),
            pages: Arc::new(Mutex::new(pages)),
        }
    }

    /// Alerts that fired and have not ended.
    pub(crate) fn open_alerts(&self) -> Vec<Alert> {
        let pages = self.pages.lock();
        let open = pages.entries.values().filter(|entry| entry.is_open());
        open.map(|entry| entry.alert.clone()).collect()
    }

    /// A copy of everything.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.pages.lock().entries.values().cloned().collect()
    }

    /// Merges the latest verdicts and returns the current alerts: alerts keep their beginning and id, and one that
    /// fired but is no longer found ends, for the reason given by `why`. While `hold` is set, nothing ends.
    pub(crate) fn reconcile(
        &self,
        judged: Vec<Judged>,
        now_ms: i64,
        hold: bool,
        why: impl Fn(&Alert) -> String,
    ) -> Vec<Alert> {
        let mut pages = self.pages.lock();
        let pages = &mut *pages;
        let mut shown = Vec::new();
        let mut found = BTreeSet::new();
        for Judged { mut alert, changed_ms } in judged {
            let key = AlertKey::of(&alert);
            found.insert(key.clone());
            let fires = matches!(alert.state, AlertStatus::Firing | AlertStatus::Recovering);
            match pages.entries.get_mut(&key) {
                Some(entry) if entry.is_open() => {
                    alert.id.clone_from(&entry.alert.id);
                    alert.source.clone_from(&entry.alert.source);
                    alert.started_ms = entry.alert.started_ms;
                    match alert.state {
                        // It has fired already, so it cannot be merely suspected.
                        AlertStatus::Suspected => alert.state = AlertStatus::Firing,
                        AlertStatus::Resolved if hold => alert = entry.alert.clone(),
                        AlertStatus::Resolved => {
                            alert.suppressed_reason = None;
                            alert.resolved_ms.get_or_insert(now_ms);
                            pages.changed = true;
                        }
                        AlertStatus::Firing | AlertStatus::Recovering => {}
                    }
                    entry.alert = alert.clone();
                }
                // The same windows, judged again.
                Some(entry) if alert.state == AlertStatus::Resolved || changed_ms <= entry.ended_ms() => {
                    alert = entry.alert.clone();
                }
                Some(entry) => {
                    alert.started_ms = alert.started_ms.max(changed_ms);
                    if fires {
                        entry.alert = alert.clone();
                        pages.changed = true;
                    }
                }
                None if fires => {
                    let told = BTreeMap::new();
                    let entry = Entry {
                        alert: alert.clone(),
                        told,
                    };
                    pages.entries.insert(key, entry);
                    pages.changed = true;
                }
                None => {}
            }
            shown.push(alert);
        }
        for (key, entry) in &mut pages.entries {
            if found.contains(key) {
                continue;
            }
            if entry.is_open() && !hold {
                entry.alert.ended_reason = Some(why(&entry.alert));
                entry.alert.state = AlertStatus::Resolved;
                entry.alert.resolved_ms = Some(now_ms);
                entry.alert.updated_ms = entry.alert.updated_ms.max(now_ms);
                pages.changed = true;
            }
            if entry.is_open() || now_ms - entry.ended_ms() <= SHOW_OVER_MS {
                shown.push(entry.alert.clone());
            }
        }
        self.forget(pages, now_ms);
        shown
    }

    fn forget(&self, pages: &mut Pages, now_ms: i64) {
        let before = pages.entries.len();
        pages.entries.retain(|_, entry| {
            let over_ms = now_ms - entry.ended_ms();
            entry.is_open() || over_ms <= SHOW_OVER_MS || (over_ms <= GIVE_UP_MS && entry.owes(&self.receivers))
        });
        while pages.entries.len() > MOST_ENTRIES {
            let rank = |(_, entry): &(&AlertKey, &Entry)| (entry.is_open(), entry.ended_ms());
            let Some(oldest) = pages.entries.iter().min_by_key(rank).map(|(key, _)| key.clone()) else {
                break;
            };
            tracing::warn!(
                ?oldest,
                "too many open alerts: receivers may not be notified when this one ends"
            );
            pages.entries.remove(&oldest);
        }
        pages.changed |= pages.entries.len() != before;
    }

    /// Records that a receiver is being notified, or was.
    pub(crate) fn note(&self, receiver: &str, alerts: &[Alert], told: Told, at_ms: i64) {
        let mut pages = self.pages.lock();
        for alert in alerts {
            let Some(entry) = pages.entries.get_mut(&AlertKey::of(alert)) else {
                continue;
            };
            let message = Message {
                told,
                started_ms: alert.started_ms,
                at_ms,
            };
            // A repetition changes nothing and is not worth a write; nor is a past notification taken back.
            let known = entry.told.get(receiver).is_some_and(|before| {
                before.started_ms == alert.started_ms
                    && (before.told == told || (before.told == Told::Firing && told == Told::Perhaps))
            });
            if !known {
                entry.told.insert(receiver.to_owned(), message);
                pages.changed = true;
            }
        }
    }

    /// Writes changes to disk. A failure is logged and made up for by the next call.
    pub(crate) async fn save(&self) {
        let book = self.clone();
        let saved = tokio::task::spawn_blocking(move || {
            // Held while writing: the last write has the last changes.
            let mut pages = book.pages.lock();
            if !pages.changed {
                return Ok(());
            }
            let records: Vec<Vec<u8>> = pages
                .entries
                .values()
                .map(|entry| {
                    serde_json::to_vec(entry).expect("an alert has only string keys, and JSON writes any number")
                })
                .collect();
            book.store.remember_alerts(&records)?;
            pages.changed = false;
            Ok::<(), std::io::Error>(())
        });
        if let Ok(Err(error)) = saved.await {
            tracing::error!(%error, "cannot write the alert state; after a restart, resolutions may not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use emberline_model::{
        alert::ComparisonMode,
        time::{Clock, SystemClock},
    };
    use emberline_storage::Options;

    use super::*;

    const RECEIVER: &str = "webhook";

    fn book() -> (AlertBook, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::open(Options::new(folder.path()), clock).unwrap();
        (AlertBook::open(store, BTreeSet::from([RECEIVER.to_owned()])), folder)
    }

    fn judged(state: AlertStatus, changed_ms: i64) -> Vec<Judged> {
        let alert = Alert {
            id: format!("pay {changed_ms}"),
            state,
            kind: "latency".to_owned(),
            namespace: "demo".to_owned(),
            service: "pay".to_owned(),
            baseline: "v1".to_owned(),
            candidate: "v2".to_owned(),
            route: "/pay".to_owned(),
            source: None,
            mode: ComparisonMode::Concurrent,
            started_ms: changed_ms,
            updated_ms: changed_ms,
            resolved_ms: None,
            sentence: String::new(),
            function: None,
            functions: Vec::new(),
            latency: Default::default(),
            e_value: 5_000.0,
            alpha: 0.001,
            windows: 3,
            client_server: Default::default(),
            folded: Vec::new(),
            diff_url: String::new(),
            suppressed_reason: None,
            ended_reason: None,
        };
        vec![Judged { alert, changed_ms }]
    }

    fn shown(book: &AlertBook, judged: Vec<Judged>, now_ms: i64, hold: bool) -> Vec<(AlertStatus, i64)> {
        let all = book.reconcile(judged, now_ms, hold, |_| "gone".to_owned());
        all.iter().map(|alert| (alert.state, alert.started_ms)).collect()
    }

    #[test]
    fn the_windows_that_an_alert_was_stated_from_do_not_state_it_again_when_it_is_over() {
        use AlertStatus::{Firing, Resolved};
        let (book, _folder) = book();
        assert_eq!(shown(&book, judged(Firing, 100), 200, false), [(Firing, 100)]);
        assert_eq!(shown(&book, Vec::new(), 300, false), [(Resolved, 100)]);
        assert_eq!(shown(&book, judged(Firing, 100), 400, false), [(Resolved, 100)]);
        assert!(book.open_alerts().is_empty());
        // An alert that begins after its end is a new one.
        assert_eq!(shown(&book, judged(Firing, 350), 500, false), [(Firing, 350)]);
        assert_eq!(book.open_alerts().len(), 1);
    }

    #[test]
    fn nothing_ends_while_senders_may_still_deliver() {
        use AlertStatus::{Firing, Resolved};
        let (book, _folder) = book();
        shown(&book, judged(Firing, 100), 200, false);
        assert_eq!(shown(&book, judged(Resolved, 150), 300, true), [(Firing, 100)]);
        assert_eq!(shown(&book, Vec::new(), 300, true), [(Firing, 100)]);
        assert_eq!(shown(&book, judged(Resolved, 150), 400, false), [(Resolved, 100)]);
    }

    #[test]
    fn what_a_receiver_heard_is_not_taken_back_and_its_end_is_owed() {
        let (book, _folder) = book();
        shown(&book, judged(AlertStatus::Firing, 100), 200, false);
        let alert = book.open_alerts();
        book.note(RECEIVER, &alert, Told::Firing, 210);
        book.note(RECEIVER, &alert, Told::Perhaps, 220);
        let entry = book.entries().remove(0);
        assert_eq!(
            (entry.told[RECEIVER].told, entry.told[RECEIVER].at_ms),
            (Told::Firing, 210)
        );
        assert!(entry.owes(&BTreeSet::from([RECEIVER.to_owned()])));
        book.note(RECEIVER, &alert, Told::Resolved, 300);
        assert!(!book.entries()[0].owes(&BTreeSet::from([RECEIVER.to_owned()])));
    }
}

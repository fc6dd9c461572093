//! The outcome of each scrape, for the status page and the counters.
//!
//! Guarantee: there is one row for each profile of each current target, and none for others.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{config::Kind, target::Target};

/// A profile of a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) job: String,
    pub(super) target: Target,
    pub(super) kind: Kind,
}

/// The last scrape of a profile.
#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    /// When it ended; 0 before the first.
    pub(super) at_unix_ms: i64,
    pub(super) took_ms: u64,
    /// The error; empty if there was none.
    pub(super) error: String,
    /// Samples stored.
    pub(super) samples: usize,
    /// Items dropped.
    pub(super) left_out: String,
    /// Restarts of the process that its counters showed.
    pub(super) restarts: u64,
    /// Failures since the last success.
    pub(super) failures: u64,
}

#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<Row, Last>,
    problems: BTreeMap<String, Vec<String>>,
}

/// The rows; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Rows>>);

impl Board {
    pub(super) fn open(&self, row: Row) {
        self.0.lock().rows.entry(row).or_default();
    }

    pub(super) fn close(&self, row: &Row) {
        self.0.lock().rows.remove(row);
    }

    /// Changes a row, unless it has been closed meanwhile.
    pub(super) fn change(&self, row: &Row, change: impl FnOnce(&mut Last)) {
        if let Some(last) = self.0.lock().rows.get_mut(row) {
            change(last);
        }
    }

    /// Sets the problems of a job's discovery. Returns whether they are news.
    pub(super) fn set_problems(&self, job: &str, problems: &[String]) -> bool {
        let mut rows = self.0.lock();
        let known = rows.problems.entry(job.to_owned()).or_default();
        let is_news = known != problems;
        problems.clone_into(known);
        is_news
    }

    /// Profiles of a job that are up, down and not scraped yet.
    pub(super) fn counts(&self, job: &str) -> [usize; 3] {
        let rows = self.0.lock();
        let mut counts = [0; 3];
        for (_, last) in rows.rows.iter().filter(|(row, _)| row.job == job) {
            counts[last.state() as usize] += 1;
        }
        counts
    }

    /// Everything, as shown on the status page.
    pub(crate) fn json(&self) -> Value {
        let rows = self.0.lock();
        let targets: Vec<Value> = rows
            .rows
            .iter()
            .map(|(row, last)| {
                json!({
                    "job": row.job,
                    "address": row.target.address.authority(),
                    "labels": row.target.labels,
                    "profile": row.kind.word(),
                    "state": STATES[last.state() as usize],
                    "last_error": last.error,
                    "last_scrape_unix_ms": last.at_unix_ms,
                    "last_scrape_ms": last.took_ms,
                    "samples": last.samples,
                    "left_out": last.left_out,
                    "restarts": last.restarts,
                    "failures": last.failures,
                })
            })
            .collect();
        json!({ "targets": targets, "problems": rows.problems })
    }
}

/// Names of the states of a target, by [`State`].
pub(super) const STATES: [&str; 3] = ["up", "down", "unknown"];

#[derive(Clone, Copy)]
enum State {
    Up,
    Down,
    Unknown,
}

impl Last {
    fn state(&self) -> State {
        match self {
            Last { at_unix_ms: 0, .. } => State::Unknown,
            Last { error, .. } if error.is_empty() => State::Up,
            _ => State::Down,
        }
    }
}

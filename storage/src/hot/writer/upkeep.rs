//! Maintenance of stored data: finished hours become parts, the parts of a day are merged, and expired data is dropped.
//!
//! Guarantees: each step leaves every row in one place (`sources`), and a failed one is counted and retried; the
//! journal is trimmed only as far as every row is sealed or expired. All of it runs on the writing thread, except that
//! compaction reads and writes on a thread of its own; its result is put in place here.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Writer, deleting, newest_s};
use crate::{
    hot::{
        compact,
        failure::{self, Kind},
        hours, reconcile,
        rewrite::Problem,
        seal::{self, SealError},
    },
    journal::{Lsn, Needless},
    options::whole_seconds,
    parts::{self, Dropped, PartSet},
};

/// How long a compaction that failed, or does not fit into memory, is not retried.
const COMPACT_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What is known about compactions, apart from the current one.
#[derive(Default)]
pub(super) struct Compaction {
    /// First hours of plans that failed or did not fit into memory, and when.
    refused: BTreeMap<u32, Instant>,
    /// Callers waiting until nothing is left to compact.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    /// There are commits to remove.
    has_commits: bool,
}

impl Writer {
    /// Seals finished hours, then trims the journal as far as everything is sealed. Hours that already have parts wait
    /// for more late rows, unless `eager`.
    pub(super) fn seal_due(&mut self, eager: bool) {
        let now_s = self.shared.clock.now_unix_s();
        let after_s = whole_seconds(self.shared.options.seal_after);
        let Some(engine) = self.state.engine() else { return };
        let due: Vec<(u32, u32)> = {
            let sources = self.shared.known.sources.read();
            let is_due = |hour: u32| {
                let end_s = (i64::from(hour) + 1) * hours::HOUR_S;
                let since_s = engine.waiting.get(&hour).map_or(0, |waiting| waiting.1);
                let waited = eager || !sources.parts.has_hour(hour) || now_s - since_s >= after_s;
                now_s.saturating_sub(end_s) >= after_s && waited
            };
            let tables = sources.tables.iter().filter(|&(&hour, _)| is_due(hour));
            tables.map(|(&hour, &generation)| (hour, generation)).collect()
        };
        if !due.is_empty() && !self.has_room() {
            self.shared.counters.seal_failures.add(1);
            return;
        }
        let mut sealed = false;
        for (hour, generation) in due {
            // A bug triggered by one hour must not end the thread.
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| self.seal_hour(hour, generation)));
            match done {
                Ok(true) => sealed = true,
                Ok(false) => break,
                Err(_) => {
                    self.shared.counters.seal_failures.add(1);
                    self.repair(Kind::Fatal, "sealing panicked");
                    break;
                }
            }
        }
        if sealed {
            self.sweep(false);
        }
        self.trim_journal();
    }

    /// Moves one hour from tables to parts. False when that failed.
    fn seal_hour(&mut self, hour: u32, generation: u32) -> bool {
        let Some(engine) = self.state.engine_mut() else {
            return false;
        };
        let shared = &self.shared;
        match seal::seal(shared, &engine.database, hour, generation) {
            Ok(parts) => {
                {
                    let mut sources = shared.known.sources.write();
                    let mut set = PartSet::clone(&sources.parts);
                    parts.into_iter().for_each(|part| set.insert(part));
                    sources.parts = Arc::new(set);
                    sources.tables.remove(&hour);
                }
                engine.waiting.remove(&hour);
                shared.counters.seals.add(1);
                // Questions that started earlier and have not read the table yet find it missing, and start over.
                if let Err(error) = engine.database.drop_hour(hour, generation) {
                    tracing::warn!(%error, hour, "cannot drop the tables of a sealed hour");
                    self.repair(reopening(failure::kind(&error)), &error.to_string());
                    return false;
                }
                true
            }
            Err(error) => {
                shared.counters.seal_failures.add(1);
                tracing::error!(%error, hour, "cannot seal an hour; retrying in a minute");
                let kind = match &error {
                    SealError::Engine(cause) => failure::kind(cause),
                    SealError::Unknown(_) => Kind::Fatal,
                    SealError::Disk(_) | SealError::Internal(_) => Kind::Other,
                };
                if matches!(kind, Kind::Damaged | Kind::Fatal) {
                    self.repair(kind, &error.to_string());
                }
                false
            }
        }
    }

    /// Starts the next compaction, or tells the waiters that there is none.
    pub(super) fn compact_next(&mut self) {
        if self.worker.is_some() {
            return;
        }
        if self.compaction.has_commits {
            let dir = parts::folder(&self.shared.options.data_dir);
            self.compaction.has_commits = parts::tidy(&*self.shared.disk, &dir).is_err();
        }
        if let Some(plan) = self.plan_compaction() {
            let (shared, hour) = (self.shared.clone(), plan.hour());
            *shared.compacting.lock() = Some(plan.commit());
            let compactor = std::thread::Builder::new().name("compactor".to_owned()).spawn(move || {
                // A bug triggered by one day must not leave the writer waiting.
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| compact::compact(&shared, plan)))
                    .unwrap_or_else(|_| Err(Problem::Internal("compacting panicked".to_owned())));
                let outcome = compact::Outcome { hour, result };
                shared.queue.request(|requests| requests.compacted = Some(outcome));
            });
            match compactor {
                Ok(compactor) => {
                    self.worker = Some(compactor);
                    return;
                }
                Err(error) => {
                    *self.shared.compacting.lock() = None;
                    tracing::warn!(%error, "cannot start a compaction thread; retrying in a minute");
                }
            }
        }
        for done in self.compaction.waiting.drain(..) {
            let _ = done.send(());
        }
    }

    fn plan_compaction(&self) -> Option<compact::Plan> {
        let sealed_through = self.sealed_through();
        self.state.engine()?;
        // Parts that are to be rewritten must not be merged first.
        if self.deleting.is_busy() || deleting::unfinished(&self.shared).is_some() {
            return None;
        }
        let after_s = whole_seconds(self.shared.options.compact_after);
        let before_s = self.shared.clock.now_unix_s().saturating_sub(after_s).max(0);
        let recent = |refused: &Instant| refused.elapsed() < COMPACT_AGAIN_AFTER;
        let refused = self
            .compaction
            .refused
            .iter()
            .filter(|(_, at)| recent(at))
            .map(|(&hour, _)| hour);
        let refused: BTreeSet<u32> = refused.collect();
        let sources = self.shared.known.sources.read();
        let due = compact::Due {
            before_hour: u32::try_from(before_s / hours::HOUR_S).unwrap_or(0),
            sealed_through,
            has_table: &|hour| sources.tables.contains_key(&hour),
            refused: &refused,
        };
        compact::plan(&sources.parts, &due)
    }

    /// A compaction ended: its result replaces what it read.
    pub(super) fn compacted(&mut self, outcome: compact::Outcome) {
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
        let shared = self.shared.clone();
        let failure = match outcome.result {
            Ok(Some(done)) => match compact::publish(&shared, done) {
                Ok(()) => {
                    shared.counters.compactions.add(1);
                    self.compaction.has_commits = true;
                    None
                }
                Err(error) => {
                    self.repair(Kind::Fatal, &format!("cannot rename compacted parts: {error}"));
                    Some(error.to_string())
                }
            },
            Ok(None) => {
                tracing::info!(
                    hour = outcome.hour,
                    "the stacks of two parts do not fit `compaction_locations`; day left as several parts, raise the setting"
                );
                self.compaction.refused.insert(outcome.hour, Instant::now());
                None
            }
            Err(Problem::Damaged(parts)) => {
                shared.set_aside(&parts);
                None
            }
            Err(problem) => Some(problem.to_string()),
        };
        *shared.compacting.lock() = None;
        if let Some(message) = failure {
            tracing::error!(
                message,
                hour = outcome.hour,
                "cannot compact parts; leaving them as they are"
            );
            shared.counters.compaction_failures.add(1);
            self.compaction.refused.insert(outcome.hour, Instant::now());
        }
    }

    /// Removes from the file and from memory what no table mentions. If hours were `dropped` for good, also the names
    /// that no part mentions either.
    pub(super) fn sweep(&mut self, dropped: bool) {
        let Some(engine) = self.state.engine_mut() else { return };
        let (tables, parts) = {
            let sources = self.shared.known.sources.read();
            (sources.tables.clone(), sources.parts.clone())
        };
        let database = &engine.database;
        let kept = dropped.then(|| reconcile::kept(&self.shared, &parts));
        let swept = database
            .sweep_dictionary(&tables, kept.as_ref())
            .and_then(|()| database.checkpoint())
            .and_then(|()| database.contents())
            .and_then(|contents| {
                if dropped {
                    reconcile::again(&self.shared, database, contents)
                } else {
                    Ok(contents.seen)
                }
            });
        match swept {
            Ok(seen) => {
                self.shared.known.set_dictionary(&seen);
                let before = std::mem::take(&mut engine.seen);
                engine.seen = seen.after(before);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot clean up the dictionary");
                // What memory knows about the dictionary may be wrong now: it is read again with the file.
                self.repair(failure::kind(&error), &error.to_string());
            }
        }
    }

    /// Drops hours past retention, by age and by size, and journal segments.
    pub(super) fn retain(&mut self) {
        let shared = self.shared.clone();
        let keep = shared.keep(newest_s(&self.journal, &shared.parts()));
        let oldest_hour = keep.oldest_samples;
        let oldest_kept_s = i64::from(keep.oldest_hour) * hours::HOUR_S;
        shared.history.lock().expire(oldest_kept_s);
        let mut dropped: BTreeSet<u32> = {
            let mut sources = shared.known.sources.write();
            let mut parts = PartSet::clone(&sources.parts);
            let dropped = parts.retain(&keep);
            if dropped != Dropped::default() {
                sources.parts = Arc::new(parts);
            }
            shared.counters.sample_parts_dropped.add(dropped.sample_parts);
            dropped.hours.into_iter().collect()
        };
        // Checked after the parts were dropped, which may have made room. Parts of dropped hours are gone in any case.
        let has_room = self.has_room();
        if let Some(engine) = self.state.engine_mut().filter(|_| has_room) {
            let old: Vec<(u32, u32)> = {
                let sources = shared.known.sources.read();
                sources
                    .tables
                    .range(..oldest_hour)
                    .map(|(&hour, &of)| (hour, of))
                    .collect()
            };
            for (hour, generation) in old {
                // Questions stop looking before the tables are dropped.
                shared.known.sources.write().tables.remove(&hour);
                if let Err(error) = engine.database.drop_hour(hour, generation) {
                    tracing::warn!(%error, hour, "cannot drop an expired hour");
                    shared.known.sources.write().tables.insert(hour, generation);
                    break;
                }
                engine.waiting.remove(&hour);
                dropped.insert(hour);
            }
        }
        if !dropped.is_empty() {
            shared.counters.hours_dropped.add(dropped.len() as u64);
            if has_room {
                self.sweep(true);
            }
        }
        self.trim_journal();
    }

    /// The last batch up to which every row is sealed.
    fn sealed_through(&self) -> Lsn {
        self.state.engine().map_or(0, |engine| {
            let first = engine.waiting.values().map(|waiting| waiting.0).min();
            first.map_or(engine.applied, |first| first.saturating_sub(1))
        })
    }

    /// Removes journal segments whose rows are all sealed, or past retention.
    fn trim_journal(&self) {
        let parts = self.shared.parts();
        let oldest_hour = self.shared.oldest_hour(newest_s(&self.journal, &parts));
        let needless = Needless {
            before_s: oldest_hour.saturating_mul(hours::HOUR_S as u32),
            through: self.sealed_through(),
        };
        // A closed journal drops the reply.
        let _ = self.journal.trim(needless).blocking_recv();
    }
}

/// The kind of repair after which the file is reopened in any case.
fn reopening(kind: Kind) -> Kind {
    match kind {
        Kind::Damaged | Kind::Full => kind,
        _ => Kind::Fatal,
    }
}

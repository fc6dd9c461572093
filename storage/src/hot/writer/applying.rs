//! Writes batches to tables: in groups of one transaction each, in journal order.
//!
//! Guarantees: a transaction holds all rows of its batches and the number it reaches; a failed one is retried, then
//! batch by batch, and a batch that cannot be applied is skipped and counted, so that it does not hold up the others.

use std::{sync::Arc, time::Instant};

use emberline_model::Batch;

use super::{Engine, Shared, Writer, newest_s, state::Writes};
use crate::{
    hot::{
        database::WriteError,
        failure::{self, Kind},
        hours,
        rows::{self, News},
    },
    journal::Lsn,
};

/// Encoded bytes of batches per transaction.
pub(super) const TRANSACTION_BYTES: usize = 4 << 20;
/// How often a batch is tried before it is skipped.
const ATTEMPTS: u32 = 3;

impl Writer {
    /// Applies the next group of batches, from memory or, if they did not fit there, from the journal.
    pub(super) fn apply_some(&mut self) {
        let Some(applied) = self.state.engine().map(Engine::applied) else {
            return;
        };
        let mut group: Vec<(Lsn, Arc<Batch>)> = Vec::new();
        let limit = self.group_bytes();
        {
            let mut inbox = self.shared.queue.inbox.lock();
            while let Some((lsn, _, bytes)) = inbox.batches.front().map(|(lsn, b, n)| (*lsn, b, *n))
                && lsn <= applied
            {
                inbox.bytes -= bytes;
                inbox.batches.pop_front();
            }
            // Batches stay in the queue until they are committed: a retry finds them again.
            let mut bytes = 0;
            for (at, (lsn, batch, length)) in inbox.batches.iter().enumerate() {
                if *lsn != applied + 1 + at as Lsn || (at > 0 && bytes + length > limit) {
                    break;
                }
                bytes += length;
                group.push((*lsn, batch.clone()));
            }
        }
        match group.last() {
            Some(&(through, _)) => {
                self.apply(&group, through);
            }
            None => self.catch_up(applied),
        }
        self.last_apply = Instant::now();
    }

    /// Bytes of batches per transaction: while one is suspected, each gets its own.
    fn group_bytes(&self) -> usize {
        if self.state.suspect().is_some() {
            0
        } else {
            TRANSACTION_BYTES
        }
    }

    /// Applies one segment's worth of the journal.
    fn catch_up(&mut self, applied: Lsn) {
        let Some(records) = self.journal.read_after(applied) else {
            return;
        };
        let mut group: Vec<(Lsn, Arc<Batch>)> = Vec::new();
        let mut bytes = 0;
        for (lsn, batch) in records.batches() {
            match batch {
                Some((length, batch)) => {
                    bytes += length;
                    group.push((lsn, Arc::new(batch)));
                }
                // Counted when the journal was opened.
                None => tracing::error!(lsn, "an intact journal record is not a batch"),
            }
            if bytes >= self.group_bytes() {
                if !self.apply(&group, lsn) || self.shared.queue.inbox.lock().close {
                    return;
                }
                group.clear();
                bytes = 0;
            }
        }
        self.apply(&group, records.through);
    }

    /// Applies batches in one transaction. False when it failed; the engine may be closed then.
    fn apply(&mut self, group: &[(Lsn, Arc<Batch>)], through: Lsn) -> bool {
        if !self.has_room() {
            return false;
        }
        let given_up = self.state.suspect().filter(|suspect| suspect.attempts >= ATTEMPTS);
        let skipped = given_up.map(|suspect| suspect.lsn);
        let Some(engine) = self.state.engine_mut() else {
            return false;
        };
        if group.is_empty() && through <= engine.applied {
            return true;
        }
        let shown = group.iter().filter(|(lsn, _)| Some(*lsn) != skipped);
        let batches: Vec<(Lsn, Arc<Batch>)> = {
            let deletions = self.shared.deletions.lock();
            let filtered = shown.map(|(lsn, batch)| (*lsn, deletions.filter(*lsn, batch)));
            filtered.collect()
        };
        let parts = self.shared.parts();
        let oldest_hour = self.shared.oldest_hour(newest_s(&self.journal, &parts));
        let (staged, news) = rows::stage(&batches, &mut engine.seen, oldest_hour, &parts);
        match write(engine, &self.shared, staged, through) {
            Ok(()) => {
                let since_s = self.shared.clock.now_unix_s();
                for &hour in &news.hours {
                    engine.waiting.entry(hour).or_insert((engine.applied + 1, since_s));
                }
                engine.applied = through;
                self.state.set_writes(Writes::Freely);
                note_releases(&self.shared, &batches, oldest_hour);
                if batches.len() < group.len() {
                    self.shared
                        .counters
                        .batches_skipped
                        .add((group.len() - batches.len()) as u64);
                    tracing::error!(
                        lsn = skipped,
                        "a batch cannot be applied and is skipped; it stays in the journal until its hours are sealed"
                    );
                }
                self.state.clear_through(through);
                self.publish(news, through);
                true
            }
            Err(error) => {
                engine.seen.forget(&news.added);
                self.failed(error, group.first().map(|(lsn, _)| *lsn), group.len());
                false
            }
        }
    }

    fn publish(&self, news: News, through: Lsn) {
        let shared = &self.shared;
        if let Some(engine) = self.state.engine() {
            shared.known.set_dictionary(&engine.seen);
        }
        {
            let mut spans = shared.known.spans.write();
            for (workload, (first, last)) in news.spans {
                let span = spans.entry(workload).or_insert((first, last));
                *span = (span.0.min(first), span.1.max(last));
            }
        }
        news.native
            .iter()
            .for_each(|(mapping, offsets)| shared.symbols.note(mapping, offsets));
        shared.counters.sample_rows.add(news.sample_rows);
        shared.counters.request_rows.add(news.request_rows);
        shared.counters.window_rows.add(news.window_rows);
        shared.counters.expired_windows.add(news.expired_windows);
        shared.counters.id_collisions.add(news.id_collisions);
        shared.applied.send_replace(through);
    }

    /// A transaction failed: decides between repairing the engine and suspecting the batch.
    fn failed(&mut self, error: WriteError, first: Option<Lsn>, batches: usize) {
        self.state.set_writes(Writes::WhenDue);
        self.shared.counters.hot_failures.add(1);
        let (error, unknown) = match error {
            WriteError::Before(error) => (error, false),
            WriteError::Commit(error) => (error, true),
        };
        let kind = failure::kind(&error);
        tracing::error!(%error, ?kind, batches, "a transaction failed");
        let alive = self
            .state
            .engine()
            .is_some_and(|e| e.database.connection.execute_batch("SELECT 1").is_ok());
        match kind {
            Kind::Damaged | Kind::Full => self.repair(kind, &error.to_string()),
            // After a failed commit only the file knows whether the rows are in it.
            _ if unknown || !alive => self.repair(Kind::Fatal, &error.to_string()),
            _ => {}
        }
        if matches!(kind, Kind::Other | Kind::Memory | Kind::Fatal)
            && let Some(first) = first
        {
            self.state.blame(first);
        }
    }

    /// Suspects the next batch to be applied.
    pub(super) fn blame_next(&mut self) {
        if let Some(applied) = self.state.engine().map(Engine::applied) {
            self.state.blame(applied + 1);
        }
    }
}

/// Records the releases that report.
fn note_releases(shared: &Shared, batches: &[(Lsn, Arc<Batch>)], oldest_hour: u32) {
    let oldest_s = i64::from(oldest_hour) * hours::HOUR_S;
    let mut history = shared.history.lock();
    for (_, batch) in batches {
        let kept = batch.windows.iter().filter(|window| window.start_unix_s >= oldest_s);
        kept.for_each(|window| history.note(window, batch.received_unix_ms));
    }
}

/// Creates the missing hours, then writes the rows.
fn write(engine: &mut Engine, shared: &Shared, staged: rows::Staged, through: Lsn) -> Result<(), WriteError> {
    let missing: Vec<u32> = {
        let known = shared.known.sources.read();
        staged.hours().filter(|hour| !known.tables.contains_key(hour)).collect()
    };
    for hour in missing {
        // An hour without tables has nothing to lose: any failure here is one before the rows.
        let generation = engine.next_generation;
        engine.next_generation += 1;
        engine
            .database
            .create_hour(hour, generation)
            .map_err(WriteError::Before)?;
        shared.known.sources.write().tables.insert(hour, generation);
    }
    let tables = shared.known.sources.read().tables.clone();
    engine.database.write(staged, &tables, through)
}

//! The thread that owns the engine: applies batches, repairs, checkpoints, and drops what is too old.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_model::Batch;
use tokio::sync::oneshot;

use super::{
    Shared,
    database::{self, Contents, Database, WriteError},
    failure::{self, Kind},
    rows::{self, News, Seen},
};
use crate::{
    journal::{Journal, Lsn},
    quarantine,
};

/// Encoded bytes of batches that go into one transaction.
const TRANSACTION_BYTES: usize = 4 << 20;
/// How often a batch is tried before it is skipped.
const ATTEMPTS: u32 = 3;
/// How long to wait before the engine is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often retention is looked at.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// The write-ahead log is moved into the file at this size, or after this time.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// See [`CHECKPOINT_BYTES`].
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// How long a close goes on applying batches; the rest is applied at the next start.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The engine, open.
pub(crate) struct Engine {
    database: Database,
    seen: Seen,
    applied: Lsn,
}

impl Engine {
    /// Opens the engine and tells the rest of the store what it holds. A file that is damaged is set aside, and an
    /// empty one takes its place; any other failure is for the caller to retry.
    pub(crate) fn open(shared: &Shared) -> Result<Engine, String> {
        let (database, contents) = match Database::open(&shared.options) {
            Ok(opened) => opened,
            Err(error) => match failure::kind(&error) {
                Kind::Full | Kind::InUse | Kind::Memory | Kind::Interrupted => return Err(error.to_string()),
                _ => {
                    tracing::error!(%error, "the query engine's file cannot be opened; rebuilding it from the journal");
                    shared.counters.set_hot_error(Some(error.to_string()));
                    set_aside(shared)?;
                    Database::open(&shared.options).map_err(|error| error.to_string())?
                }
            },
        };
        let base = database.connection.try_clone().map_err(|error| error.to_string())?;
        let (seen, applied) = announce(shared, contents);
        shared.readers.open(base);
        shared.counters.set_hot_error(None);
        shared.applied.send_replace(applied);
        Ok(Engine {
            database,
            seen,
            applied,
        })
    }

    /// Number of the last batch applied.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }
}

/// Moves the engine's files to the quarantine folder; removes them when they cannot be moved.
fn set_aside(shared: &Shared) -> Result<(), String> {
    shared.counters.hot_rebuilds.add(1);
    let path = database::path_of(&shared.options.data_dir);
    for file in [database::wal_of(&path), path] {
        if !file.exists() {
            continue;
        }
        let name = file
            .file_name()
            .map_or_else(|| "hot".into(), |n| n.to_string_lossy().into_owned());
        let place = quarantine::place(
            &*shared.disk,
            &shared.options.data_dir,
            &name,
            shared.clock.now_unix_ms(),
        );
        if std::fs::rename(&file, &place).is_err() {
            std::fs::remove_file(&file).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
        }
    }
    Ok(())
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    engine: Option<Engine>,
    retry_at: Instant,
    last_apply: Instant,
    last_checkpoint: Instant,
    last_retention: Instant,
    /// A batch that made a transaction fail, and how often.
    suspect: Option<(Lsn, u32)>,
    closing: Option<Instant>,
    /// The last transaction failed: the next one waits its time.
    failing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, journal: Arc<Journal>, engine: Option<Engine>) -> Writer {
        let now = Instant::now();
        Writer {
            last_apply: now.checked_sub(shared.options.apply_interval).unwrap_or(now),
            shared,
            journal,
            engine,
            retry_at: now,
            last_checkpoint: now,
            last_retention: now,
            suspect: None,
            closing: None,
            failing: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let (repair, retention) = self.wait();
            if let Some((kind, why)) = repair {
                self.repair(kind, &why);
            }
            if self.engine.is_none() && Instant::now() >= self.retry_at {
                self.open();
            }
            // A mistake of ours in one batch must not end the thread: it is found, tried again, and skipped.
            if std::panic::catch_unwind(AssertUnwindSafe(|| self.apply_some())).is_err() {
                tracing::error!("applying batches panicked");
                self.blame_next();
                self.repair(Kind::Fatal, "applying batches panicked");
            }
            if !retention.is_empty() || self.last_retention.elapsed() >= RETENTION_EVERY {
                self.retain();
                for done in retention {
                    let _ = done.send(());
                }
            }
            self.checkpoint_when_due();
            if let Some(since) = self.closing
                && (self.caught_up() || self.engine.is_none() || since.elapsed() >= CLOSE_WITHIN)
            {
                break;
            }
        }
        self.shared.readers.close("the store is closing");
        if let Some(engine) = self.engine.take()
            && let Err(error) = engine.database.checkpoint()
        {
            tracing::warn!(%error, "no checkpoint at the end; the next start replays the write-ahead log");
        }
    }

    fn caught_up(&self) -> bool {
        self.engine
            .as_ref()
            .is_some_and(|engine| engine.applied >= self.journal.durable())
    }

    /// Waits until there is something to do: batches whose time has come, a request, or a due check.
    fn wait(&mut self) -> (Option<(Kind, String)>, Vec<oneshot::Sender<()>>) {
        let queue = self.shared.queue.clone();
        let mut inbox = queue.inbox.lock();
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            if inbox.requests.close && self.closing.is_none() {
                self.closing = Some(Instant::now());
            }
            let requests = &mut inbox.requests;
            if self.closing.is_some() || requests.repair.is_some() || !requests.retention.is_empty() {
                return (requests.repair.take(), std::mem::take(&mut requests.retention));
            }
            let now = Instant::now();
            let mut until = patience;
            match &self.engine {
                Some(engine) if engine.applied < inbox.durable => {
                    let due = self.last_apply + self.shared.options.apply_interval;
                    // What is not in memory is far behind, and has waited long enough.
                    let behind = inbox.batches.front().is_none_or(|(lsn, ..)| *lsn > engine.applied + 1);
                    if now >= due || (!self.failing && (behind || inbox.bytes >= TRANSACTION_BYTES)) {
                        return (None, Vec::new());
                    }
                    until = until.min(due);
                }
                Some(_) => {}
                None => until = until.min(self.retry_at.max(now)),
            }
            if now >= until {
                return (None, Vec::new());
            }
            queue.wake.wait_until(&mut inbox, until);
        }
    }

    fn open(&mut self) {
        match Engine::open(&self.shared) {
            Ok(engine) if engine.applied > self.journal.durable() => {
                // Its numbers mean other batches than the journal's: it belongs to a journal that is gone.
                self.engine = Some(engine);
                self.repair(Kind::Damaged, "it is ahead of the journal");
            }
            Ok(engine) => self.engine = Some(engine),
            Err(message) => {
                tracing::error!(message, "the query engine cannot be opened; trying again");
                self.shared.readers.close(&message);
                self.shared.counters.set_hot_error(Some(message));
                self.retry_at = Instant::now() + RETRY_AFTER;
            }
        }
    }

    /// Closes the engine; damaged files are set aside. It is opened again at once, or when there is space again.
    fn repair(&mut self, kind: Kind, why: &str) {
        tracing::error!(?kind, why, "the query engine is repaired");
        self.shared.counters.set_hot_error(Some(why.to_owned()));
        // Readers first: no connection may keep the old instance alive while the new one opens the file.
        self.shared.readers.close(why);
        self.engine = None;
        self.retry_at = Instant::now();
        match kind {
            Kind::Damaged => {
                if let Err(message) = set_aside(&self.shared) {
                    tracing::error!(message, "a damaged file cannot be set aside");
                    self.retry_at = Instant::now() + RETRY_AFTER;
                }
            }
            Kind::Full => {
                self.shared.counters.hot_reopens.add(1);
                self.retry_at = Instant::now() + RETRY_AFTER;
            }
            _ => self.shared.counters.hot_reopens.add(1),
        }
    }

    /// Applies the next group of batches, from memory or, when they did not fit there, from the journal.
    fn apply_some(&mut self) {
        let Some(applied) = self.engine.as_ref().map(|e| e.applied) else {
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
            // Batches stay in the queue until they are committed: a failed transaction finds them again.
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
        if self.suspect.is_some() { 0 } else { TRANSACTION_BYTES }
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
                None => tracing::error!(lsn, "an intact journal record holds no batch"),
            }
            if bytes >= self.group_bytes() {
                if !self.apply(&group, lsn) || self.shared.queue.inbox.lock().requests.close {
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
        let Some(engine) = &mut self.engine else { return false };
        if group.is_empty() && through <= engine.applied {
            return true;
        }
        let skipped = self
            .suspect
            .filter(|&(_, attempts)| attempts >= ATTEMPTS)
            .map(|(lsn, _)| lsn);
        let batches: Vec<Arc<Batch>> = group
            .iter()
            .filter(|(lsn, _)| Some(*lsn) != skipped)
            .map(|(_, batch)| batch.clone())
            .collect();
        let oldest_hour = self.shared.oldest_hour(self.journal.newest_s());
        let (staged, news) = rows::stage(&batches, &mut engine.seen, oldest_hour);
        match write(engine, &self.shared, staged, through) {
            Ok(()) => {
                engine.applied = through;
                self.failing = false;
                if batches.len() < group.len() {
                    self.shared
                        .counters
                        .batches_skipped
                        .add((group.len() - batches.len()) as u64);
                    tracing::error!(
                        lsn = skipped,
                        "a batch cannot be shown and is skipped; the journal keeps it"
                    );
                }
                if self.suspect.is_some_and(|(lsn, _)| lsn <= through) {
                    self.suspect = None;
                }
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
        if let Some(engine) = &self.engine {
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
        shared.applied.send_replace(through);
    }

    /// A transaction failed: decides between repairing the engine and suspecting the batch.
    fn failed(&mut self, error: WriteError, first: Option<Lsn>, batches: usize) {
        self.failing = true;
        self.shared.counters.hot_failures.add(1);
        let (error, unknown) = match error {
            WriteError::Before(error) => (error, false),
            WriteError::Commit(error) => (error, true),
        };
        let kind = failure::kind(&error);
        tracing::error!(%error, ?kind, batches, "a transaction failed");
        let alive = self
            .engine
            .as_ref()
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
            self.blame(first);
        }
    }

    /// Suspects the next batch to be applied.
    fn blame_next(&mut self) {
        if let Some(applied) = self.engine.as_ref().map(|e| e.applied) {
            self.blame(applied + 1);
        }
    }

    /// From now on batches are applied one by one until this one is behind.
    fn blame(&mut self, lsn: Lsn) {
        self.suspect = match self.suspect {
            Some((suspect, attempts)) if suspect == lsn => Some((lsn, attempts + 1)),
            // The first failure was that of a group: it says nothing about its first batch yet.
            _ => Some((lsn, 0)),
        };
    }

    fn checkpoint_when_due(&mut self) {
        let Some(engine) = &self.engine else { return };
        let bytes = engine.database.wal_bytes();
        if bytes == 0 || (bytes < CHECKPOINT_BYTES && self.last_checkpoint.elapsed() < CHECKPOINT_EVERY) {
            return;
        }
        self.last_checkpoint = Instant::now();
        if let Err(error) = engine.database.checkpoint() {
            let kind = failure::kind(&error);
            tracing::warn!(%error, ?kind, "a checkpoint failed");
            if matches!(kind, Kind::Fatal | Kind::Full | Kind::Damaged) {
                self.repair(kind, &error.to_string());
            }
        }
    }

    /// After hours were dropped: removes what only they mentioned, from the file and from memory.
    fn sweep(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let hours = self.shared.known.hours.read().clone();
        let database = &engine.database;
        let swept = database
            .sweep_dictionary(&hours)
            .and_then(|()| database.checkpoint())
            .and_then(|()| database.contents());
        match swept {
            Ok(contents) => (engine.seen, engine.applied) = announce(&self.shared, contents),
            Err(error) => {
                tracing::warn!(%error, "the dictionary cannot be swept");
                // What memory says of the dictionary may be wrong now: it is read anew with the file.
                self.repair(failure::kind(&error), &error.to_string());
            }
        }
    }

    /// Drops hours and journal segments past retention.
    fn retain(&mut self) {
        self.last_retention = Instant::now();
        let oldest_hour = self.shared.oldest_hour(self.journal.newest_s());
        if let Some(engine) = &self.engine {
            let old: Vec<u32> = self.shared.known.hours.read().range(..oldest_hour).copied().collect();
            let mut dropped = 0;
            for hour in old {
                // Questions stop looking before the tables go.
                self.shared.known.hours.write().remove(&hour);
                if let Err(error) = engine.database.drop_hour(hour) {
                    tracing::warn!(%error, hour, "an old hour cannot be dropped");
                    self.shared.known.hours.write().insert(hour);
                    break;
                }
                dropped += 1;
            }
            if dropped > 0 {
                self.shared.counters.hours_dropped.add(dropped);
                self.sweep();
            }
        }
        let before = oldest_hour.saturating_mul(super::hours::HOUR_S as u32);
        // A closed journal answers by dropping its end.
        let _ = self.journal.trim(before).blocking_recv();
    }
}

/// Tells the rest of the store what the engine holds.
fn announce(shared: &Shared, contents: Contents) -> (Seen, Lsn) {
    let Contents {
        applied,
        hours,
        seen,
        spans,
        native,
    } = contents;
    shared.known.set_dictionary(&seen);
    *shared.known.hours.write() = hours;
    *shared.known.spans.write() = spans;
    shared.symbols.forget_seen();
    native
        .iter()
        .for_each(|(mapping, offsets)| shared.symbols.note(mapping, offsets));
    (seen, applied)
}

/// Makes the hours that are missing, then writes the rows.
fn write(engine: &Engine, shared: &Shared, staged: rows::Staged, through: Lsn) -> Result<(), WriteError> {
    let missing: Vec<u32> = {
        let known = shared.known.hours.read();
        staged.hours().filter(|hour| !known.contains(hour)).collect()
    };
    for hour in missing {
        // An hour without tables has nothing to lose: any failure is one before the rows.
        engine.database.create_hour(hour).map_err(WriteError::Before)?;
        shared.known.hours.write().insert(hour);
    }
    engine.database.write(staged, through)
}

//! The thread that owns the engine: applies batches, repairs, checkpoints, and does the upkeep (`upkeep`).

mod deleting;
mod upkeep;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use emberline_model::Batch;
use tokio::sync::oneshot;

use deleting::{Deleting, Removed};

use super::{
    ROOM_BYTES, Shared, compact,
    database::{self, Database, WriteError},
    failure::{self, Kind},
    hours, purge,
    reconcile::{self, Reconciled},
    rows::{self, News, Seen},
};
use crate::{
    journal::{Journal, Lsn},
    parts::PartSet,
    quarantine,
};

pub(super) use deleting::Waiter;

/// Encoded bytes of batches that go into one transaction.
const TRANSACTION_BYTES: usize = 4 << 20;
/// How often a batch is tried before it is skipped.
const ATTEMPTS: u32 = 3;
/// How long to wait before the engine is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often retention, and hours to seal, are looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);
/// The write-ahead log is moved into the file at the size of `checkpoint_bytes`, or after this time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// How long a close goes on applying batches; the rest is applied at the next start.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// How often what is known of releases is written at most.
const HISTORY_EVERY: Duration = Duration::from_secs(1);

/// The engine, open.
pub(crate) struct Engine {
    database: Database,
    seen: Seen,
    applied: Lsn,
    /// Of each hour with tables: no row is from a batch before this one, and since when there are any.
    waiting: BTreeMap<u32, (Lsn, i64)>,
    /// The generation that the next tables get.
    next_generation: u32,
    /// Rows of deleted services are still to leave the tables.
    holds_deleted: bool,
}

impl Engine {
    /// Opens the engine and tells the rest of the store what it holds. A file that is damaged is set aside, and an
    /// empty one takes its place; any other failure is for the caller to retry.
    pub(crate) fn open(shared: &Shared) -> Result<Engine, String> {
        let (database, reconciled) = match open(shared)? {
            Ok(opened) => opened,
            Err(error) => match failure::kind(&error) {
                Kind::Full | Kind::InUse | Kind::Memory | Kind::Interrupted => return Err(error.to_string()),
                _ => {
                    tracing::error!(%error, "the query engine's file cannot be opened; rebuilding it from journal and parts");
                    shared.counters.set_hot_error(Some(error.to_string()));
                    set_aside(shared)?;
                    open(shared)?.map_err(|error| error.to_string())?
                }
            },
        };
        let base = database.connection.try_clone().map_err(|error| error.to_string())?;
        shared.readers.open(base);
        shared.counters.set_hot_error(None);
        if let Err(error) = derive_history(shared, &database) {
            return Err(error.to_string());
        }
        shared.applied.send_replace(reconciled.applied);
        let since_s = shared.clock.now_unix_s();
        let waiting = reconciled.first.iter().map(|(&hour, &first)| (hour, (first, since_s)));
        Ok(Engine {
            waiting: waiting.collect(),
            next_generation: reconciled.next_generation,
            holds_deleted: reconciled.holds_deleted,
            database,
            seen: reconciled.seen,
            applied: reconciled.applied,
        })
    }

    /// Number of the last batch applied.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }
}

/// Opens the file and makes it agree with the parts. The outer error is that of the folder of parts.
fn open(shared: &Shared) -> Result<duckdb::Result<(Database, Reconciled)>, String> {
    let parts = PartSet::list(&shared.disk, &shared.options.data_dir)
        .map_err(|error| format!("the folder of sealed parts cannot be read: {error}"))?;
    Ok(
        Database::open(&shared.options, &shared.checks).and_then(|(database, mut contents)| {
            let removed = Engine::remove_deleted(shared, &database, &contents.tables)?;
            if removed == Removed::Something {
                contents = database.contents()?;
            }
            let mut reconciled = reconcile::first(shared, &database, contents, parts)?;
            reconciled.holds_deleted = removed == Removed::Later;
            Ok((database, reconciled))
        }),
    )
}

/// Adds the releases that the windows tell of and the history does not.
fn derive_history(shared: &Shared, database: &Database) -> duckdb::Result<()> {
    let releases = database.releases()?;
    let spans = shared.known.spans.read();
    let mut history = shared.history.lock();
    for (workload, release) in &releases {
        if let Some(&(first_s, last_s)) = spans.get(workload) {
            history.derive(release, i64::from(first_s), i64::from(last_s));
        }
    }
    Ok(())
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

/// What there is to do beside applying batches.
#[derive(Default)]
struct Work {
    repair: Option<(Kind, String)>,
    retention: Vec<oneshot::Sender<()>>,
    seal: Vec<oneshot::Sender<()>>,
    compact: Vec<oneshot::Sender<()>>,
    compacted: Option<compact::Outcome>,
    delete: Vec<Waiter>,
    purged: Option<purge::Outcome>,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    engine: Option<Engine>,
    retry_at: Instant,
    last_apply: Instant,
    last_checkpoint: Instant,
    last_upkeep: Instant,
    last_history: Instant,
    /// A batch that made a transaction fail, and how often.
    suspect: Option<(Lsn, u32)>,
    closing: Option<Instant>,
    /// The last transaction failed: the next one waits its time.
    failing: bool,
    /// Reads and writes parts: for a compaction, or for a deletion.
    worker: Option<JoinHandle<()>>,
    /// First hours of plans that failed or do not fit into memory, and when.
    refused: BTreeMap<u32, Instant>,
    /// Who waits until nothing is left to compact.
    waiting_for_compaction: Vec<oneshot::Sender<()>>,
    deleting: Deleting,
    /// There are commits of compactions to remove.
    untidy: bool,
    /// The disk is so full that the engine only answers questions.
    starved: bool,
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
            last_upkeep: now,
            last_history: now,
            suspect: None,
            closing: None,
            failing: false,
            worker: None,
            refused: BTreeMap::new(),
            waiting_for_compaction: Vec::new(),
            deleting: Deleting::new(),
            untidy: false,
            starved: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let work = self.wait();
            if let Some((kind, why)) = work.repair {
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
            let due = self.last_upkeep.elapsed() >= UPKEEP_EVERY;
            if due {
                self.last_upkeep = Instant::now();
            }
            if self.closing.is_none() && (due || !work.seal.is_empty()) {
                self.seal_due(!work.seal.is_empty());
            }
            if due || !work.retention.is_empty() {
                self.retain();
            }
            for done in work.seal.into_iter().chain(work.retention) {
                let _ = done.send(());
            }
            let compacting = work.compacted.is_some() || !work.compact.is_empty();
            self.waiting_for_compaction.extend(work.compact);
            if let Some(outcome) = work.compacted {
                self.compacted(outcome);
            }
            let deleting = work.purged.is_some();
            self.deleting.ask(work.delete);
            if let Some(outcome) = work.purged {
                self.purged(outcome);
            }
            if due {
                self.deleting.look_again();
            }
            self.delete_next();
            if self.closing.is_none() && (due || compacting || deleting) {
                self.compact_next();
            }
            self.checkpoint_when_due();
            if self.last_history.elapsed() >= HISTORY_EVERY {
                self.write_history();
            }
            if let Some(since) = self.closing
                && (self.caught_up() || self.engine.is_none() || self.starved || since.elapsed() >= CLOSE_WITHIN)
            {
                break;
            }
        }
        self.write_history();
        self.shared.readers.close("the store is closing");
        if let Some(worker) = self.worker.take() {
            // Its reads have been refused just now; what it wrote has no name yet.
            let _ = worker.join();
        }
        if let Some(engine) = self.engine.take()
            && let Err(error) = engine.database.checkpoint()
        {
            tracing::warn!(%error, "no checkpoint at the end; the next start replays the write-ahead log");
        }
    }

    /// Writes what is new of releases; what cannot be written now is later, and could be read from the windows.
    fn write_history(&mut self) {
        self.last_history = Instant::now();
        let shared = &self.shared;
        let mut history = shared.history.lock();
        if history.is_changed()
            && shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX) >= ROOM_BYTES
            && let Err(error) = history.make_durable(&*shared.disk, &shared.options.data_dir)
        {
            tracing::warn!(%error, "the release history cannot be written; retrying");
        }
    }

    fn caught_up(&self) -> bool {
        self.engine
            .as_ref()
            .is_some_and(|engine| engine.applied >= self.journal.durable())
    }

    /// Waits until there is something to do: batches whose time has come, a request, or a due check.
    fn wait(&mut self) -> Work {
        let queue = self.shared.queue.clone();
        let mut inbox = queue.inbox.lock();
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            if inbox.requests.close && self.closing.is_none() {
                self.closing = Some(Instant::now());
            }
            let requests = &mut inbox.requests;
            let asked = !requests.retention.is_empty()
                || !requests.seal.is_empty()
                || !requests.compact.is_empty()
                || requests.compacted.is_some()
                || !requests.delete.is_empty()
                || requests.purged.is_some();
            if self.closing.is_some() || requests.repair.is_some() || asked {
                return Work {
                    repair: requests.repair.take(),
                    retention: std::mem::take(&mut requests.retention),
                    seal: std::mem::take(&mut requests.seal),
                    compact: std::mem::take(&mut requests.compact),
                    compacted: requests.compacted.take(),
                    delete: std::mem::take(&mut requests.delete),
                    purged: requests.purged.take(),
                };
            }
            let now = Instant::now();
            let mut until = patience;
            match &self.engine {
                Some(engine) if engine.applied < inbox.durable => {
                    let due = self.last_apply + self.shared.options.apply_interval;
                    // What is not in memory is far behind, and has waited long enough.
                    let behind = inbox.batches.front().is_none_or(|(lsn, ..)| *lsn > engine.applied + 1);
                    if now >= due || (!self.failing && (behind || inbox.bytes >= TRANSACTION_BYTES)) {
                        return Work::default();
                    }
                    until = until.min(due);
                }
                Some(_) => {}
                None => until = until.min(self.retry_at.max(now)),
            }
            if now >= until {
                return Work::default();
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
            Ok(engine) => {
                self.engine = Some(engine);
                self.starved = false;
            }
            Err(message) => {
                tracing::error!(message, "cannot open the query engine; retrying");
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
                    tracing::error!(message, "cannot quarantine a damaged file");
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

    fn free_bytes(&self) -> u64 {
        let shared = &self.shared;
        shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX)
    }

    /// Looks whether the engine may write. While it may not, batches wait in the journal and questions are answered from
    /// what is there.
    fn has_room(&mut self) -> bool {
        let Some(engine) = &self.engine else { return true };
        let free = self.free_bytes();
        let needed = ROOM_BYTES.saturating_add(engine.database.wal_bytes().saturating_mul(2));
        let starved = free < needed;
        if starved != self.starved {
            let why = starved.then(|| {
                format!("{free} bytes are free where {needed} are needed: new batches wait in the journal; free space on the disk")
            });
            tracing::warn!(free, needed, starved, "room for the query engine");
            self.shared.counters.set_hot_error(why);
            self.starved = starved;
        }
        !starved
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
                None => tracing::error!(lsn, "an intact journal record is not a batch"),
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
        if !self.has_room() {
            self.failing = true;
            return false;
        }
        let Some(engine) = &mut self.engine else { return false };
        if group.is_empty() && through <= engine.applied {
            return true;
        }
        let skipped = self
            .suspect
            .filter(|&(_, attempts)| attempts >= ATTEMPTS)
            .map(|(lsn, _)| lsn);
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
                self.failing = false;
                note_releases(&self.shared, &batches, oldest_hour);
                if batches.len() < group.len() {
                    self.shared
                        .counters
                        .batches_skipped
                        .add((group.len() - batches.len()) as u64);
                    tracing::error!(
                        lsn = skipped,
                        "a batch cannot be shown and is skipped; it stays in the journal until its hours are sealed"
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
        shared.counters.id_collisions.add(news.id_collisions);
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
        if bytes == 0
            || (bytes < self.shared.options.checkpoint_bytes && self.last_checkpoint.elapsed() < CHECKPOINT_EVERY)
        {
            return;
        }
        self.last_checkpoint = Instant::now();
        // It needs less room than what comes after it, which it makes room for.
        if self.free_bytes() < ROOM_BYTES.saturating_add(bytes) {
            return;
        }
        if let Err(error) = engine.database.checkpoint() {
            let kind = failure::kind(&error);
            tracing::warn!(%error, ?kind, "a checkpoint failed");
            if matches!(kind, Kind::Fatal | Kind::Full | Kind::Damaged) {
                self.repair(kind, &error.to_string());
            }
        }
    }
}

/// Takes note of the releases that report.
fn note_releases(shared: &Shared, batches: &[(Lsn, Arc<Batch>)], oldest_hour: u32) {
    let oldest_s = i64::from(oldest_hour) * hours::HOUR_S;
    let mut history = shared.history.lock();
    for (_, batch) in batches {
        let kept = batch.windows.iter().filter(|window| window.start_unix_s >= oldest_s);
        kept.for_each(|window| history.note(window, batch.received_unix_ms));
    }
}

/// The newest second that was ever stored; of sealed hours their first.
fn newest_s(journal: &Journal, parts: &PartSet) -> u32 {
    let sealed = parts
        .newest_hour()
        .map_or(0, |hour| hour.saturating_mul(hours::HOUR_S as u32));
    journal.newest_s().max(sealed)
}

/// Makes the hours that are missing, then writes the rows.
fn write(engine: &mut Engine, shared: &Shared, staged: rows::Staged, through: Lsn) -> Result<(), WriteError> {
    let missing: Vec<u32> = {
        let known = shared.known.sources.read();
        staged.hours().filter(|hour| !known.tables.contains_key(hour)).collect()
    };
    for hour in missing {
        // An hour without tables has nothing to lose: any failure is one before the rows.
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

//! The thread that owns the engine: applies batches (`applying`), repairs, checkpoints, and does the maintenance
//! (`upkeep`).

mod applying;
mod deleting;
mod engine;
mod state;
mod upkeep;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use applying::TRANSACTION_BYTES;
use deleting::Deleting;
use engine::set_aside;
use state::{WriterState, Writes};
use upkeep::Compaction;

use super::{
    ROOM_BYTES, Shared,
    failure::{self, Kind},
    hours,
    queue::Requests,
};
use crate::{journal::Journal, parts::PartSet};

pub(super) use deleting::Waiter;
pub(crate) use engine::Engine;

/// How long to wait before the engine is reopened.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often retention and sealing are checked.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);
/// The write-ahead log is moved into the file when it reaches `checkpoint_bytes`, or after this time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Length of an age: what is not used for two of them is dropped from the dictionary cache.
const AGE_EVERY: Duration = Duration::from_secs(20);
/// Checkpoints held up for this long are reported.
const HELD_UP: Duration = Duration::from_secs(120);
/// How long a closing store keeps applying batches; the rest is applied at the next start.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// The release history is written at most this often.
const HISTORY_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    state: WriterState,
    /// Ages the dictionary cache by one step.
    on_age: Box<dyn Fn() + Send>,
    last_apply: Instant,
    last_age: Instant,
    last_checkpoint: Instant,
    /// Since when checkpoints have been held up, and whether that was reported.
    held_up: Option<(Instant, bool)>,
    last_upkeep: Instant,
    last_history: Instant,
    /// Since when the store has been closing.
    closing_since: Option<Instant>,
    /// Reads and writes parts, for a compaction or a deletion.
    worker: Option<JoinHandle<()>>,
    compaction: Compaction,
    deleting: Deleting,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Arc<Journal>,
        engine: Option<Engine>,
        on_age: Box<dyn Fn() + Send>,
    ) -> Writer {
        let now = Instant::now();
        Writer {
            last_apply: now.checked_sub(shared.options.apply_interval).unwrap_or(now),
            shared,
            journal,
            state: WriterState::of(engine),
            on_age,
            last_age: now,
            last_checkpoint: now,
            held_up: None,
            last_upkeep: now,
            last_history: now,
            closing_since: None,
            worker: None,
            compaction: Compaction::default(),
            deleting: Deleting::new(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let work = self.wait();
            if let Some((kind, why)) = work.repair {
                self.repair(kind, &why);
            }
            if self.state.is_due_to_open(Instant::now()) {
                self.open();
            }
            // A bug triggered by one batch must not end the thread: the batch is found, retried, and skipped.
            if std::panic::catch_unwind(AssertUnwindSafe(|| self.apply_some())).is_err() {
                tracing::error!("applying batches panicked");
                self.blame_next();
                self.repair(Kind::Fatal, "applying batches panicked");
            }
            if self.last_age.elapsed() >= AGE_EVERY {
                self.last_age = Instant::now();
                (self.on_age)();
            }
            let due = self.last_upkeep.elapsed() >= UPKEEP_EVERY;
            if due {
                self.last_upkeep = Instant::now();
            }
            if self.closing_since.is_none() && (due || !work.seal.is_empty()) {
                self.seal_due(!work.seal.is_empty());
            }
            if due || !work.retention.is_empty() {
                self.retain();
            }
            for done in work.seal.into_iter().chain(work.retention) {
                let _ = done.send(());
            }
            let compacting = work.compacted.is_some() || !work.compact.is_empty();
            self.compaction.waiting.extend(work.compact);
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
            if self.closing_since.is_none() && (due || compacting || deleting) {
                self.compact_next();
            }
            self.checkpoint_when_due();
            if self.last_history.elapsed() >= HISTORY_EVERY {
                self.write_history();
            }
            if let Some(since) = self.closing_since
                && (self.caught_up() || self.state.cannot_write() || since.elapsed() >= CLOSE_WITHIN)
            {
                break;
            }
        }
        self.write_history();
        self.shared.readers.close("the store is closing");
        if let Some(worker) = self.worker.take() {
            // Its reads have just been refused; what it wrote has no name yet.
            let _ = worker.join();
        }
        if let Some(engine) = self.state.engine()
            && let Err(error) = engine.database.checkpoint()
        {
            tracing::warn!(%error, "shutdown checkpoint failed; the next start replays the write-ahead log");
        }
    }

    /// Writes changes of the release history; if that fails it is retried, and the windows still have the facts.
    fn write_history(&mut self) {
        self.last_history = Instant::now();
        let shared = &self.shared;
        let mut history = shared.history.lock();
        if history.is_changed()
            && shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX) >= ROOM_BYTES
            && let Err(error) = history.make_durable(&*shared.disk, &shared.options.data_dir)
        {
            tracing::warn!(%error, "cannot write the release history; retrying");
        }
    }

    fn caught_up(&self) -> bool {
        self.state
            .engine()
            .is_some_and(|engine| engine.applied >= self.journal.durable())
    }

    /// Waits until there is something to do: batches whose time has come, a request, or a due check.
    fn wait(&mut self) -> Requests {
        let queue = self.shared.queue.clone();
        let mut inbox = queue.inbox.lock();
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            if inbox.close {
                self.closing_since.get_or_insert_with(Instant::now);
            }
            if self.closing_since.is_some() || !inbox.requests.is_empty() {
                return std::mem::take(&mut inbox.requests);
            }
            let now = Instant::now();
            let mut until = patience;
            match &self.state {
                WriterState::Open { engine, writes, .. } if engine.applied < inbox.durable => {
                    let due = self.last_apply + self.shared.options.apply_interval;
                    // What is not in memory is far behind, and has waited long enough.
                    let behind = inbox.batches.front().is_none_or(|(lsn, ..)| *lsn > engine.applied + 1);
                    let is_full = behind || inbox.bytes >= TRANSACTION_BYTES;
                    if now >= due || (*writes == Writes::Freely && is_full) {
                        return Requests::default();
                    }
                    until = until.min(due);
                }
                WriterState::Open { .. } => {}
                WriterState::Shut { retry_at, .. } => until = until.min((*retry_at).max(now)),
            }
            if now >= until {
                return Requests::default();
            }
            queue.wake.wait_until(&mut inbox, until);
        }
    }

    fn open(&mut self) {
        match Engine::open(&self.shared) {
            Ok(engine) if engine.applied > self.journal.durable() => {
                // Its numbers refer to other batches than the journal's: it belongs to a journal that is gone.
                drop(engine);
                self.repair(Kind::Damaged, "its data is newer than the journal");
            }
            Ok(engine) => self.state.open(engine),
            Err(message) => {
                tracing::error!(message, "cannot open the query engine; retrying");
                self.shared.readers.close(&message);
                self.shared.counters.set_hot_error(Some(message));
                self.state.shut(Instant::now() + RETRY_AFTER);
            }
        }
    }

    /// Closes the engine; damaged files are set aside. It is reopened at once, or after a delay if the disk is full.
    fn repair(&mut self, kind: Kind, why: &str) {
        tracing::error!(?kind, why, "query engine repaired");
        self.shared.counters.set_hot_error(Some(why.to_owned()));
        // Readers first: no connection may keep the old instance alive while the new one opens the file.
        self.shared.readers.close(why);
        self.state.shut(Instant::now());
        let later = match kind {
            Kind::Damaged => set_aside(&self.shared)
                .inspect_err(|message| tracing::error!(message, "cannot quarantine a damaged file"))
                .is_err(),
            _ => {
                self.shared.counters.hot_reopens.add(1);
                kind == Kind::Full
            }
        };
        if later {
            self.state.shut(Instant::now() + RETRY_AFTER);
        }
    }

    fn free_bytes(&self) -> u64 {
        let shared = &self.shared;
        shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX)
    }

    /// Checks whether the engine may write. While it may not, batches wait in the journal and questions are answered
    /// from what is there.
    fn has_room(&mut self) -> bool {
        let Some(engine) = self.state.engine() else { return true };
        let free = self.free_bytes();
        let needed = ROOM_BYTES.saturating_add(engine.database.wal_bytes().saturating_mul(2));
        let had_room = self.state.writes() != Some(Writes::NoRoom);
        let has_room = free >= needed;
        if has_room && !had_room {
            tracing::info!(free, needed, "the disk has room for the query engine again");
            self.shared.counters.set_hot_error(None);
            self.state.set_writes(Writes::WhenDue);
        }
        if !has_room && had_room {
            tracing::warn!(free, needed, "the disk is too full for the query engine to write");
            let why = format!(
                "{free} bytes are free where {needed} are needed: new batches wait in the journal; free space on the disk"
            );
            self.shared.counters.set_hot_error(Some(why));
            self.state.set_writes(Writes::NoRoom);
        }
        has_room
    }

    fn checkpoint_when_due(&mut self) {
        let Some(engine) = self.state.engine() else { return };
        let bytes = engine.database.wal_bytes();
        if bytes == 0
            || (bytes < self.shared.options.checkpoint_bytes && self.last_checkpoint.elapsed() < CHECKPOINT_EVERY)
        {
            return;
        }
        self.last_checkpoint = Instant::now();
        // A checkpoint needs less space than the writes after it, and makes room for them.
        if self.free_bytes() < ROOM_BYTES.saturating_add(bytes) {
            return;
        }
        if let Err(error) = engine.database.checkpoint() {
            let kind = failure::kind(&error);
            if kind == Kind::HeldUp {
                // Questions are in the way now and then; a write-ahead log that keeps growing is a problem.
                let (since, is_told) = self.held_up.get_or_insert((Instant::now(), false));
                if !*is_told && since.elapsed() >= HELD_UP {
                    *is_told = true;
                    tracing::warn!(%error, bytes, "no checkpoint for {HELD_UP:?}: the write-ahead log grows until one succeeds");
                }
                return;
            }
            tracing::warn!(%error, ?kind, "a checkpoint failed");
            if matches!(kind, Kind::Fatal | Kind::Full | Kind::Damaged) {
                self.repair(kind, &error.to_string());
            }
        } else {
            self.held_up = None;
        }
    }
}

/// The newest second ever stored; for sealed hours, their first.
fn newest_s(journal: &Journal, parts: &PartSet) -> u32 {
    let sealed = parts
        .newest_hour()
        .map_or(0, |hour| hour.saturating_mul(hours::HOUR_S as u32));
    journal.newest_s().max(sealed)
}

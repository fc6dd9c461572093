//! The hot store: DuckDB as the query engine over sealed parts and over what the journal holds.
//!
//! Guarantees: one thread writes, in journal order, and each transaction commits the number it reaches; the file can be
//! deleted, damaged or left behind at any time and is brought up to date from journal and parts. Nothing here stops
//! ingest: when the engine fails, batches are still acknowledged, questions are refused with "retry", and the engine is
//! reopened or rebuilt. Delayed on purpose: batches become visible in groups, at most `apply_interval` after they are
//! acknowledged, as long as the machine keeps up.

mod chunks;
mod compact;
pub(crate) mod cut;
pub(crate) mod database;
pub(crate) mod failure;
pub(crate) mod hours;
mod purge;
mod queue;
mod reconcile;
mod rewrite;
pub(crate) mod rows;
pub(crate) mod saturated;
pub(crate) mod schema;
mod seal;
pub(crate) mod sources;
mod sums;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use emberline_model::time::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::{
    checks::Checks,
    deletions::{DeleteProgress, Deleted, Deletions, ServiceName},
    disk::Disk,
    error::{DeleteError, OpenError, QueryError},
    history::History,
    hot::{rows::Seen, sources::Sources},
    ids::IdMap,
    journal::{Journal, Lsn},
    options::{Options, whole_seconds},
    parts::{Commit, Keep, Part, PartSet, ROW_KINDS},
    quarantine,
    range::Range,
    readers::Readers,
    stats::Counters,
    symbols::Symbols,
};

pub(crate) use queue::Queue;
pub(crate) use sources::{Grain, Span};
pub(crate) use writer::Engine;
use writer::Waiter;

/// Free disk space that the engine needs before it writes anything, on top of twice the size of the write-ahead log:
/// DuckDB does not survive running out of space, and questions fail with it.
const ROOM_BYTES: u64 = 4 << 20;

/// What questions need to know about the engine.
#[derive(Default)]
pub(crate) struct Known {
    /// Where the rows are.
    pub(crate) sources: RwLock<Sources>,
    /// First and last window start of each workload.
    pub(crate) spans: RwLock<IdMap<(u32, u32)>>,
    /// Rows of the dictionary.
    pub(crate) stacks: AtomicU64,
    /// Like `stacks`.
    pub(crate) locations: AtomicU64,
}

impl Known {
    fn set_dictionary(&self, seen: &Seen) {
        self.stacks.store(seen.stacks.len() as u64, Ordering::Relaxed);
        self.locations.store(seen.locations.len() as u64, Ordering::Relaxed);
    }
}

/// State shared by the writing thread and everybody else.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) symbols: Arc<Symbols>,
    pub(crate) checks: Checks,
    pub(crate) readers: Readers,
    pub(crate) known: Known,
    pub(crate) deletions: Mutex<Deletions>,
    pub(crate) history: Mutex<History>,
    pub(crate) queue: Arc<Queue>,
    /// The compaction in progress.
    compacting: Mutex<Option<Commit>>,
    applied: watch::Sender<Lsn>,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        counters: Arc<Counters>,
        symbols: Arc<Symbols>,
        checks: Checks,
    ) -> Arc<Shared> {
        // A decoded batch takes several times its bytes; one that does not fit is read from the journal when its turn
        // comes.
        let queue = Queue::new(options.queue_bytes / 4);
        let readers = Readers::new(
            options.reader_connections,
            Duration::from_secs(options.max_query_seconds),
            counters.clone(),
            Box::new({
                let queue = queue.clone();
                move |kind, why| queue.repair(kind, why)
            }),
        );
        let known = Known::default();
        let deletions = Deletions::read(&*disk, &options.data_dir, &counters, clock.now_unix_ms());
        let history = History::read(&*disk, &options.data_dir, &counters, clock.now_unix_ms());
        let applied = watch::Sender::new(0);
        Arc::new(Shared {
            options,
            clock,
            disk,
            counters,
            symbols,
            checks,
            readers,
            known,
            deletions: Mutex::new(deletions),
            history: Mutex::new(history),
            queue,
            compacting: Mutex::new(None),
            applied,
        })
    }

    /// Number of the last batch visible to queries.
    pub(crate) fn applied(&self) -> Lsn {
        *self.applied.borrow()
    }

    /// The sources with rows of a range.
    pub(crate) fn span(&self, range: Range) -> Result<Span, QueryError> {
        self.known.sources.read().span(range)
    }

    /// The current sealed parts.
    pub(crate) fn parts(&self) -> Arc<PartSet> {
        self.known.sources.read().parts.clone()
    }

    /// The sequence for the next parts of an hour; above that of a running compaction, which must not replace late
    /// data.
    fn next_sequence(&self, hour: u32) -> u32 {
        let next = self.parts().next_sequence(hour);
        match *self.compacting.lock() {
            Some(commit) if (commit.hour..commit.hour + commit.hours).contains(&hour) => next.max(commit.sequence),
            _ => next,
        }
    }

    /// Takes damaged parts out of use, keeps them for a human to look at, and counts what they held.
    pub(crate) fn set_aside(&self, damaged: &[Arc<Part>]) {
        let removed = {
            let mut sources = self.known.sources.write();
            let mut parts = PartSet::clone(&sources.parts);
            let removed = parts.remove(damaged);
            sources.parts = Arc::new(parts);
            removed
        };
        for part in removed {
            tracing::error!(path = %part.path.display(), rows = part.name.rows, "a sealed part is damaged or missing");
            self.counters.parts_quarantined.add(1);
            if ROW_KINDS.contains(&part.name.kind) {
                self.counters.sealed_rows_lost.add(part.name.rows);
            }
            let place = quarantine::place(
                &*self.disk,
                &self.options.data_dir,
                &part.name.to_string(),
                self.clock.now_unix_ms(),
            );
            match self.disk.rename(&part.path, &place) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %part.path.display(), %error, "cannot quarantine a damaged part");
                }
                _ => {}
            }
        }
    }

    /// Bytes of the engine's files.
    pub(crate) fn bytes(&self) -> u64 {
        let path = database::path_of(&self.options.data_dir);
        [database::wal_of(&path), path]
            .iter()
            .filter_map(|p| std::fs::metadata(p).ok())
            .map(|m| m.len())
            .sum()
    }

    /// The first hour whose samples are kept. Time alone does not age data out: a clock that jumps ahead must not empty
    /// the store, so `newest_s`, the newest second ever stored here, has to have come as far.
    pub(crate) fn oldest_hour(&self, newest_s: u32) -> u32 {
        self.hour_before(newest_s, self.options.retention)
    }

    /// What retention keeps of sealed hours.
    pub(crate) fn keep(&self, newest_s: u32) -> Keep {
        let options = &self.options;
        let oldest_samples = self.oldest_hour(newest_s);
        Keep {
            oldest_samples,
            oldest_hour: self.hour_before(newest_s, options.rollup_retention).min(oldest_samples),
            sample_bytes: options.samples_limit_mb << 20,
            other_bytes: options.rollup_limit_mb << 20,
        }
    }

    fn hour_before(&self, newest_s: u32, age: Duration) -> u32 {
        let now = self.clock.now_unix_s().min(i64::from(newest_s) + hours::HOUR_S);
        let age = whole_seconds(age);
        u32::try_from(now.saturating_sub(age).max(0) / hours::HOUR_S).unwrap_or(0)
    }
}

/// The writing thread.
pub(crate) struct Hot {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Hot {
    /// Starts the writing thread on an engine that was opened, or failed to open; it calls `on_age` at even intervals.
    pub(crate) fn start(
        shared: Arc<Shared>,
        journal: Arc<Journal>,
        engine: Option<Engine>,
        on_age: Box<dyn Fn() + Send>,
    ) -> Result<Hot, OpenError> {
        {
            let mut inbox = shared.queue.inbox.lock();
            inbox.durable = inbox.durable.max(journal.durable());
        }
        let writer = writer::Writer::new(shared.clone(), journal, engine, on_age);
        let thread = std::thread::Builder::new()
            .name("hot-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        Ok(Hot {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Resolves when everything up to `lsn` is visible to questions.
    pub(crate) async fn reached(&self, lsn: Lsn) -> Result<(), QueryError> {
        let mut applied = self.shared.applied.subscribe();
        loop {
            if *applied.borrow_and_update() >= lsn {
                return Ok(());
            }
            // Checked between waits: the thread that would signal progress may have ended.
            if self.has_ended() {
                return Err(QueryError::Closed);
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), applied.changed()).await;
        }
    }

    fn has_ended(&self) -> bool {
        self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Seals finished hours now instead of within a minute.
    pub(crate) async fn seal(&self) -> Result<(), QueryError> {
        let (done, finished) = oneshot::channel();
        self.shared.queue.request(|requests| requests.seal.push(done));
        finished.await.map_err(|_| QueryError::Closed)
    }

    /// Compacts what is due now instead of within a minute.
    pub(crate) async fn compact(&self) -> Result<(), QueryError> {
        let (done, finished) = oneshot::channel();
        self.shared.queue.request(|requests| requests.compact.push(done));
        finished.await.map_err(|_| QueryError::Closed)
    }

    /// Deletes a service; see [`crate::Store::delete_service`].
    pub(crate) async fn delete(
        &self,
        who: ServiceName,
        after: Lsn,
        on_progress: &mut (dyn FnMut(DeleteProgress) + Send),
    ) -> Result<Deleted, DeleteError> {
        let (reply, mut finished) = oneshot::channel();
        let (progress, mut steps) = watch::channel(DeleteProgress::default());
        let waiter = Waiter {
            who,
            after,
            progress,
            reply,
        };
        self.shared.queue.request(|requests| requests.delete.push(waiter));
        loop {
            tokio::select! {
                biased;
                deleted = &mut finished => return deleted.map_err(|_| DeleteError::Closed)?,
                Ok(()) = steps.changed() => on_progress(*steps.borrow_and_update()),
                // A request queued after the thread has ended is never picked up.
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    if self.has_ended() {
                        return Err(DeleteError::Closed);
                    }
                }
            }
        }
    }

    /// Drops what is past retention now instead of within a minute.
    pub(crate) async fn retain(&self) -> Result<(), QueryError> {
        let (done, finished) = oneshot::channel();
        self.shared.queue.request(|requests| requests.retention.push(done));
        finished.await.map_err(|_| QueryError::Closed)
    }

    /// Applies what is durable, checkpoints, and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the hot store's thread panicked");
        }
    }
}

impl Drop for Hot {
    fn drop(&mut self) {
        self.close();
    }
}

//! What the exporter counts, and the state its tasks share.
//!
//! Guarantee: every batch made is either waiting, acknowledged or dropped for a named reason, so
//! `acked + dropped + queue_batches` equals the batches made, and taken over from processes that ended, at every moment.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use emberline_model::{BatchId, Profile, Signal};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{
    FlushReport,
    batch::QueuedBatch,
    queue::{BatchQueue, Held},
    spool::Spool,
};

/// Why a batch was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// No room: the collector was away for too long, or the queue is too small (`queue_bytes`).
    QueueFull,
    /// No room on disk: the collector was away for too long, or the spool is too small (`collector.spool.max_bytes`).
    SpoolFull,
    /// The file on disk is incomplete, was changed or cannot be read.
    SpoolUnreadable,
    /// The collector says the batch is wrong (INVALID_ARGUMENT and the like); sending it again cannot help.
    Refused,
    /// The collector does not let this sender in (UNAUTHENTICATED, PERMISSION_DENIED).
    NotAllowed,
    /// The address answers but does not speak this protocol (UNIMPLEMENTED).
    NotSupported,
    /// The collector failed on this batch again and again for an unknown cause.
    GaveUp,
}

impl DropReason {
    /// Name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::SpoolFull => "spool_full",
            DropReason::SpoolUnreadable => "spool_unreadable",
            DropReason::Refused => "refused",
            DropReason::NotAllowed => "not_allowed",
            DropReason::NotSupported => "not_supported",
            DropReason::GaveUp => "gave_up",
        }
    }
}

/// State of the export; counts since start-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportStats {
    /// Windows closed, including empty ones.
    pub windows_cut: u64,
    /// Windows closed late because this thread could not run.
    pub windows_late: u64,
    /// Requests batches acknowledged.
    pub requests_acked: u64,
    /// Profiles batches acknowledged.
    pub profiles_acked: u64,
    /// Batches dropped, by reason and signal code (1 requests, 2 profiles).
    pub batches_dropped: BTreeMap<(DropReason, u32), u64>,
    /// Failed attempts that were retried.
    pub retries: u64,
    /// Delay before the next attempt after a failure; zero when none is pending.
    pub waiting_to_retry: Duration,
    /// Data points and samples that the collector dropped from batches.
    pub items_rejected: u64,
    /// Bytes waiting in memory.
    pub queue_bytes: u64,
    /// Bytes waiting on disk.
    pub spool_bytes: u64,
    /// Batches waiting, in memory and on disk.
    pub queue_batches: u64,
    /// Those of them that are on disk, and survive the process.
    pub spool_batches: u64,
    /// Batches taken over from processes that had ended.
    pub spool_taken_over: u64,
    /// Batches that could not be written to disk, and wait in memory instead.
    pub spool_errors: u64,
    /// When the last batch was acknowledged, milliseconds since the Unix epoch.
    pub last_ack_unix_ms: Option<i64>,
    /// Times the collector became available again.
    pub reconnects: u64,
    /// Builds the collector was asked about.
    pub builds_asked: u64,
    /// Builds whose debug information was sent.
    pub builds_uploaded: u64,
    /// Bytes of debug information sent.
    pub upload_bytes: u64,
    /// Uploads skipped because the file was removed or replaced.
    pub upload_wrong_file: u64,
    /// Failed queries and uploads.
    pub upload_errors: u64,
}

impl ExportStats {
    /// Batches of both signals acknowledged.
    pub fn batches_acked(&self) -> u64 {
        self.requests_acked + self.profiles_acked
    }

    /// Dropped batches of both signals.
    pub fn batches_dropped(&self) -> u64 {
        self.batches_dropped.values().sum()
    }
}

/// State shared by the tasks of the export thread and the handle.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Locked for as long as a file is written; only the export thread does.
    spool: Option<Mutex<Spool>>,
    /// A batch was queued, or a flush began.
    wake_sender: Notify,
    /// The queue became empty.
    emptied: Notify,
}

#[derive(Debug)]
struct Inner {
    queue: BatchQueue,
    stats: ExportStats,
    last_profile: Option<Arc<Profile>>,
    flushing: bool,
    last_drop_log: Option<std::time::Instant>,
    /// The disk has refused a batch since it last took one.
    has_logged_spool_error: bool,
}

/// Drops are logged at most this often.
const DROP_LOG_EVERY: Duration = Duration::from_secs(60);

impl Shared {
    /// Room in memory, and the spool with its room where there is one.
    pub(super) fn new(queue_bytes: usize, spool: Option<(Spool, u64)>) -> Shared {
        let (spool, spool_bytes) = spool.map_or((None, 0), |(spool, bytes)| (Some(spool), bytes));
        let inner = Inner {
            queue: BatchQueue::new(queue_bytes as u64, spool_bytes),
            stats: ExportStats::default(),
            last_profile: None,
            flushing: false,
            last_drop_log: None,
            has_logged_spool_error: false,
        };
        Shared {
            inner: Mutex::new(inner),
            spool: spool.map(Mutex::new),
            wake_sender: Notify::new(),
            emptied: Notify::new(),
        }
    }

    pub(super) fn stats(&self) -> ExportStats {
        let inner = self.inner.lock();
        ExportStats {
            queue_bytes: inner.queue.memory_bytes(),
            spool_bytes: inner.queue.disk_bytes(),
            queue_batches: inner.queue.len() as u64,
            spool_batches: inner.queue.on_disk() as u64,
            ..inner.stats.clone()
        }
    }

    /// Changes the counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut ExportStats)) {
        change(&mut self.inner.lock().stats);
    }

    pub(super) fn waiting_batches(&self) -> u64 {
        self.inner.lock().queue.len() as u64
    }

    /// What a flush that had so many batches acknowledged leaves.
    pub(super) fn left(&self, acked: u64) -> FlushReport {
        let inner = self.inner.lock();
        let spooled = inner.queue.on_disk() as u64;
        FlushReport {
            acked,
            unacked: inner.queue.len() as u64 - spooled,
            spooled,
        }
    }

    pub(super) fn last_profile(&self) -> Option<Arc<Profile>> {
        self.inner.lock().last_profile.clone()
    }

    pub(super) fn set_last_profile(&self, profile: Profile) {
        self.inner.lock().last_profile = Some(Arc::new(profile));
    }

    pub(super) fn push(&self, batch: QueuedBatch) {
        let written = self.spool.as_ref().map(|spool| spool.lock().write(&batch));
        let mut inner = self.inner.lock();
        let held = match written {
            Some(Ok(spooled)) => {
                inner.has_logged_spool_error = false;
                Held::Disk(spooled)
            }
            Some(Err(error)) => {
                inner.count_spool_error(&error);
                Held::Memory(batch)
            }
            None => Held::Memory(batch),
        };
        let dropped = inner.queue.push(held);
        inner.count_full(&dropped);
        drop(inner);
        remove(dropped);
        self.wake_sender.notify_one();
    }

    /// Takes over what processes that ended left on disk. It goes first: it is older.
    pub(super) fn take_over(&self) {
        let Some(spool) = &self.spool else { return };
        let (found, unreadable) = spool.lock().take_over();
        if found.is_empty() && unreadable == 0 {
            return;
        }
        tracing::info!(
            batches = found.len(),
            unreadable,
            "taking over spooled telemetry of a process that ended"
        );
        let mut inner = self.inner.lock();
        inner.stats.spool_taken_over += found.len() as u64;
        let reason = (DropReason::SpoolUnreadable, 0);
        if unreadable > 0 {
            *inner.stats.batches_dropped.entry(reason).or_default() += unreadable;
        }
        let mut dropped = Vec::new();
        for spooled in found.into_iter().rev() {
            dropped.extend(inner.queue.push_front(Held::Disk(spooled)));
        }
        inner.count_full(&dropped);
        drop(inner);
        remove(dropped);
        self.wake_sender.notify_one();
    }

    /// The batch to send next; waits for one.
    pub(super) async fn next_batch(&self) -> QueuedBatch {
        loop {
            let spooled = match self.inner.lock().queue.begin() {
                Some(Held::Memory(batch)) => return batch.clone(),
                Some(Held::Disk(spooled)) => Some(spooled.clone()),
                None => None,
            };
            match spooled.map(|spooled| (spooled.read(), spooled)) {
                Some((Ok(batch), _)) => return batch,
                Some((Err(error), spooled)) => {
                    let why = format!("cannot read it back from the spool: {error}");
                    self.dropped(DropReason::SpoolUnreadable, &spooled.id, &why);
                }
                None => self.wake_sender.notified().await,
            }
        }
    }

    pub(super) fn acked(&self, id: &BatchId, now_unix_ms: i64) {
        let mut inner = self.inner.lock();
        match id.signal {
            Signal::Requests => inner.stats.requests_acked += 1,
            Signal::Profiles => inner.stats.profiles_acked += 1,
        }
        inner.stats.last_ack_unix_ms = Some(now_unix_ms);
        self.settle(inner);
    }

    pub(super) fn dropped(&self, reason: DropReason, id: &BatchId, why: &str) {
        let mut inner = self.inner.lock();
        inner.count_drop(reason, id, why);
        self.settle(inner);
    }

    fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let settled = inner.queue.settle();
        if inner.queue.is_empty() {
            self.emptied.notify_one();
        }
        drop(inner);
        remove(settled);
    }

    pub(super) fn begin_flush(&self) {
        self.inner.lock().flushing = true;
        self.wake_sender.notify_one();
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.inner.lock().flushing
    }

    /// Sleeps before another attempt; a flush ends the sleep.
    pub(super) async fn wait_before_retry(&self, wait: Duration) {
        self.count(|stats| stats.waiting_to_retry = wait);
        self.wait_or_flush(wait).await;
        self.count(|stats| stats.waiting_to_retry = Duration::ZERO);
    }

    async fn wait_or_flush(&self, wait: Duration) {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            if self.is_flushing() {
                // The process is about to end: retry at once, but do not spin.
                tokio::time::sleep(wait.min(Duration::from_millis(100))).await;
                return;
            }
            tokio::select! {
                () = &mut over => return,
                () = self.wake_sender.notified() => {}
            }
        }
    }

    pub(super) async fn queue_is_empty(&self) {
        while self.waiting_batches() > 0 {
            self.emptied.notified().await;
        }
    }
}

/// Removes the files of batches that are no longer in the queue.
fn remove(batches: impl IntoIterator<Item = Held>) {
    for batch in batches {
        if let Held::Disk(spooled) = batch {
            spooled.remove();
        }
    }
}

impl Inner {
    fn count_full(&mut self, dropped: &[Held]) {
        for batch in dropped {
            let (reason, why) = match batch {
                Held::Memory(_) => (DropReason::QueueFull, "too much waits in memory for the collector"),
                Held::Disk(_) => (
                    DropReason::SpoolFull,
                    "too much waits on disk for the collector (setting collector.spool.max_bytes)",
                ),
            };
            self.count_drop(reason, batch.id(), why);
        }
    }

    fn count_spool_error(&mut self, error: &io::Error) {
        self.stats.spool_errors += 1;
        if !std::mem::replace(&mut self.has_logged_spool_error, true) {
            tracing::warn!(%error, "cannot write to collector.spool.directory; telemetry waits in memory instead");
        }
    }

    fn count_drop(&mut self, reason: DropReason, id: &BatchId, why: &str) {
        *self
            .stats
            .batches_dropped
            .entry((reason, id.signal.code()))
            .or_default() += 1;
        if self.last_drop_log.is_some_and(|at| at.elapsed() < DROP_LOG_EVERY) {
            return;
        }
        self.last_drop_log = Some(std::time::Instant::now());
        tracing::warn!(
            batch = %id,
            reason = reason.as_str(),
            dropped_in_all = self.stats.batches_dropped(),
            "telemetry dropped, traffic is not affected: {why}"
        );
    }
}

//! What the store counts about itself. Guarantee: nothing that is refused, cut, skipped or repaired goes
//! uncounted. The counters start at zero with the process; sizes and LSNs are read when asked.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use serde::Serialize;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shared by all threads of a store.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches_stored: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) journal_groups: Counter,
    pub(crate) journal_sync_failures: Counter,
    pub(crate) journal_segments_removed: Counter,
    pub(crate) journal_records_lost: Counter,
    pub(crate) journal_bytes_damaged: Counter,
    pub(crate) journal_tail_bytes_cut: Counter,
    pub(crate) journal_unreadable_batches: Counter,
    pub(crate) dedup_rebuilds: Counter,
    pub(crate) symbol_records_damaged: Counter,
    pub(crate) hot_rebuilds: Counter,
    pub(crate) hot_reopens: Counter,
    pub(crate) hot_failures: Counter,
    pub(crate) batches_skipped: Counter,
    pub(crate) sample_rows: Counter,
    pub(crate) request_rows: Counter,
    pub(crate) window_rows: Counter,
    pub(crate) expired_windows: Counter,
    pub(crate) hours_dropped: Counter,
    pub(crate) sample_parts_dropped: Counter,
    pub(crate) seals: Counter,
    pub(crate) seal_failures: Counter,
    pub(crate) compactions: Counter,
    pub(crate) compaction_failures: Counter,
    pub(crate) parts_quarantined: Counter,
    pub(crate) sealed_rows_lost: Counter,
    pub(crate) services_deleted: Counter,
    pub(crate) deletion_failures: Counter,
    pub(crate) deletions_lost: Counter,
    pub(crate) releases_forgotten: Counter,
    pub(crate) alerts_forgotten: Counter,
    pub(crate) id_collisions: Counter,
    pub(crate) queries: Counter,
    pub(crate) query_timeouts: Counter,
    pub(crate) query_failures: Counter,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    last_hot_error: Mutex<Option<String>>,
}

impl Counters {
    pub(crate) fn reject(&self, reason: &'static str) {
        *self.rejected.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn rejected(&self) -> BTreeMap<&'static str, u64> {
        self.rejected.lock().clone()
    }

    pub(crate) fn set_hot_error(&self, error: Option<String>) {
        *self.last_hot_error.lock() = error;
    }

    pub(crate) fn hot_error(&self) -> Option<String> {
        self.last_hot_error.lock().clone()
    }
}

/// The state of a store at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Bytes of all journal segments.
    pub journal_bytes: u64,
    /// Number of journal segments.
    pub journal_segments: u64,
    /// Bytes of DuckDB's file and its write-ahead log.
    pub hot_bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Bytes of batches that wait for the journal.
    pub queued_bytes: u64,
    /// Number of the last batch on disk.
    pub lsn_durable: u64,
    /// Number of the last batch visible to questions.
    pub lsn_applied: u64,
    /// The query engine is open.
    pub hot_available: bool,
    /// What last went wrong with the query engine; cleared when it works again.
    pub hot_error: Option<String>,
    /// Batches stored.
    pub batches_stored: u64,
    /// Batches that had been stored before and were acknowledged again.
    pub duplicates: u64,
    /// Batches refused, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Groups written with one sync each.
    pub journal_groups: u64,
    /// Writes or syncs of the journal that failed.
    pub journal_sync_failures: u64,
    /// Journal segments removed by retention.
    pub journal_segments_removed: u64,
    /// Batches known to be lost to damage of the journal.
    pub journal_records_lost: u64,
    /// Damaged bytes between intact records of the journal.
    pub journal_bytes_damaged: u64,
    /// Bytes cut from the end of the journal at start: torn, zero or damaged.
    pub journal_tail_bytes_cut: u64,
    /// Intact records that do not decode to a batch.
    pub journal_unreadable_batches: u64,
    /// Times the memory of senders was rebuilt because its checkpoint was damaged.
    pub dedup_rebuilds: u64,
    /// Damaged places in symbol files.
    pub symbol_records_damaged: u64,
    /// Times DuckDB's file was set aside and rebuilt from the journal.
    pub hot_rebuilds: u64,
    /// Times DuckDB was closed and opened again after a fatal error.
    pub hot_reopens: u64,
    /// Transactions of the query engine that failed.
    pub hot_failures: u64,
    /// Batches that could not be made visible and were skipped; they stay in the journal until their hours are sealed.
    pub batches_skipped: u64,
    /// Sample rows made visible.
    pub sample_rows: u64,
    /// Request rows made visible.
    pub request_rows: u64,
    /// Window rows made visible.
    pub window_rows: u64,
    /// Windows not made visible because their hour is past retention.
    pub expired_windows: u64,
    /// Hours dropped by retention.
    pub hours_dropped: u64,
    /// Sample parts dropped by retention whose hours are kept as sums.
    pub sample_parts_dropped: u64,
    /// Hours held.
    pub hours: u64,
    /// Hours of which a part is sealed.
    pub sealed_hours: u64,
    /// Files of sealed parts.
    pub sealed_files: u64,
    /// Their bytes.
    pub sealed_bytes: u64,
    /// Their rows: samples, requests and windows.
    pub sealed_rows: u64,
    /// Times an hour was sealed.
    pub seals: u64,
    /// Times that failed; tried again a minute later.
    pub seal_failures: u64,
    /// Times that parts of several hours became one.
    pub compactions: u64,
    /// Compactions that failed; they are tried again.
    pub compaction_failures: u64,
    /// Sealed files that were damaged or gone.
    pub parts_quarantined: u64,
    /// Rows that these held, by their names.
    pub sealed_rows_lost: u64,
    /// Services deleted by name.
    pub services_deleted: u64,
    /// Sealed files that still hold something of a deleted service; they are written anew one after the other.
    pub deletion_files_left: u64,
    /// Times that failed; tried again a minute later.
    pub deletion_failures: u64,
    /// Deletions of services that damage made forgotten: what was left of these services is back.
    pub deletions_lost: u64,
    /// Releases whose beginning damage made forgotten: it is read from their windows, unless it was stated.
    pub releases_forgotten: u64,
    /// Alerts of which damage made forgotten whom they were told to.
    pub alerts_forgotten: u64,
    /// Rows of the dictionary whose identifier another content had already, as somebody can make on purpose: they are kept
    /// apart from it.
    pub id_collisions: u64,
    /// Stacks in the dictionary.
    pub dictionary_stacks: u64,
    /// Locations in the dictionary.
    pub dictionary_locations: u64,
    /// Questions under way in the query engine.
    pub queries_running: u64,
    /// Questions asked.
    pub queries: u64,
    /// Questions interrupted because they took too long.
    pub query_timeouts: u64,
    /// Questions that failed otherwise.
    pub query_failures: u64,
}

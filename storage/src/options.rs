//! How a store is set up. Every limit that can be hit is named here, and errors name the setting to change.

use std::{path::PathBuf, time::Duration};

/// A duration in whole seconds, signed.
pub(crate) fn whole_seconds(length: Duration) -> i64 {
    i64::try_from(length.as_secs()).unwrap_or(i64::MAX)
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data directory; created if missing.
    pub data_dir: PathBuf,
    /// Memory limit of DuckDB, in MiB.
    pub memory_limit_mb: u64,
    /// Threads of DuckDB.
    pub duckdb_threads: usize,
    /// Disk space for DuckDB's intermediate results, in MiB.
    pub temp_limit_mb: u64,
    /// Concurrent queries.
    pub reader_connections: usize,
    /// Retention of individual samples. Batches with older windows are refused.
    pub retention: Duration,
    /// Retention of requests, windows, and sums of samples per hour and release; at least `retention`.
    pub rollup_retention: Duration,
    /// Disk space for sealed samples, in MiB; above it, the oldest are deleted early.
    pub samples_limit_mb: u64,
    /// Disk space for all other sealed data, in MiB; above it, the oldest hours are deleted early.
    pub rollup_limit_mb: u64,
    /// Delay between the end of an hour and sealing it; late data becomes a second part of that hour after the same
    /// delay.
    pub seal_after: Duration,
    /// Delay between the end of a day and compacting its parts.
    pub compact_after: Duration,
    /// Stack locations held in memory during compaction, 4 bytes each; a larger day is split into several parts.
    pub compaction_locations: usize,
    /// How far in the future the windows of a batch may be.
    pub max_future: Duration,
    /// Deduplication horizon after a sender's last batch; must exceed the time for which any sender retries.
    pub dedup_horizon: Duration,
    /// Encoded batches waiting for the journal, in bytes; beyond this, senders are told to retry.
    pub queue_bytes: usize,
    /// The longest encoded batch, in bytes; at most 64 MiB.
    pub max_batch_bytes: usize,
    /// Size at which a journal segment is closed, in bytes.
    pub segment_bytes: u64,
    /// How long the journal waits for more batches before it syncs.
    pub group_wait: Duration,
    /// Longest delay until acknowledged batches are visible to queries.
    pub apply_interval: Duration,
    /// Size at which DuckDB's write-ahead log is moved into its file, in bytes.
    pub checkpoint_bytes: u64,
    /// Free disk space below which batches are refused, in MiB.
    pub min_free_mb: u64,
    /// Time after which a query is interrupted, in seconds.
    pub max_query_seconds: u64,
    /// Size of the cache of decoded stacks and locations, in bytes.
    pub dictionary_cache_bytes: usize,
}

impl Options {
    /// The defaults, for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            memory_limit_mb: 170,
            duckdb_threads: 1,
            temp_limit_mb: 1024,
            reader_connections: 2,
            retention: Duration::from_secs(3 * 24 * 3600),
            rollup_retention: Duration::from_secs(30 * 24 * 3600),
            samples_limit_mb: 16 << 10,
            rollup_limit_mb: 8 << 10,
            seal_after: Duration::from_secs(600),
            compact_after: Duration::from_secs(2 * 3600),
            compaction_locations: 16 << 20,
            max_future: Duration::from_secs(3600),
            dedup_horizon: Duration::from_secs(72 * 3600),
            queue_bytes: 32 << 20,
            max_batch_bytes: 32 << 20,
            segment_bytes: 16 << 20,
            group_wait: Duration::from_millis(2),
            apply_interval: Duration::from_millis(250),
            checkpoint_bytes: 16 << 20,
            min_free_mb: 64,
            max_query_seconds: 30,
            dictionary_cache_bytes: 64 << 20,
        }
    }
}

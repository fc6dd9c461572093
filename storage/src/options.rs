//! How a store is set up. Every limit that can be hit is named here, and errors name the setting to change.

use std::{path::PathBuf, time::Duration};

/// A length of time in seconds, where times are signed.
pub(crate) fn whole_seconds(length: Duration) -> i64 {
    i64::try_from(length.as_secs()).unwrap_or(i64::MAX)
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that holds everything; created when missing.
    pub data_dir: PathBuf,
    /// Memory DuckDB may use, in MiB.
    pub memory_limit_mb: u64,
    /// Threads DuckDB may use.
    pub duckdb_threads: usize,
    /// Disk space DuckDB may use for intermediate results of queries, in MiB.
    pub temp_limit_mb: u64,
    /// Questions answered at the same time.
    pub reader_connections: usize,
    /// How long single samples are kept. Batches with older windows are refused.
    pub retention: Duration,
    /// How long requests, windows, and sums of samples per hour and release are kept; not shorter than `retention`.
    pub rollup_retention: Duration,
    /// Bytes that sealed samples may take on disk, in MiB. When they take more, the oldest go before their time.
    pub samples_limit_mb: u64,
    /// Bytes that everything else that is sealed may take on disk, in MiB. When it takes more, the oldest hours go.
    pub rollup_limit_mb: u64,
    /// How long after its end an hour is sealed; windows that arrive later make another part of that hour, after as long
    /// again.
    pub seal_after: Duration,
    /// How long after its end a day's parts are made into few.
    pub compact_after: Duration,
    /// Locations of stacks that a compaction holds in memory, 4 bytes each; a day with more becomes several parts.
    pub compaction_locations: usize,
    /// How far the windows of a batch may lie in the future.
    pub max_future: Duration,
    /// How long a sender is remembered after its last batch; longer than any sender keeps unacknowledged batches.
    pub dedup_horizon: Duration,
    /// Bytes of encoded batches that may wait for the journal; more are refused as busy.
    pub queue_bytes: usize,
    /// The longest encoded batch, in bytes; at most 64 MiB.
    pub max_batch_bytes: usize,
    /// Size at which a journal segment is closed, in bytes.
    pub segment_bytes: u64,
    /// How long the journal waits for more batches before it syncs.
    pub group_wait: Duration,
    /// How long acknowledged batches may wait before they become visible to questions.
    pub apply_interval: Duration,
    /// Size at which DuckDB's write-ahead log is moved into its file, in bytes.
    pub checkpoint_bytes: u64,
    /// Free disk space below which batches are refused, in MiB.
    pub min_free_mb: u64,
    /// Time after which a question is interrupted, in seconds.
    pub max_query_seconds: u64,
    /// Bytes of decoded stacks and locations kept in memory.
    pub dictionary_cache_bytes: usize,
}

impl Options {
    /// The defaults, in a folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            memory_limit_mb: 192,
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

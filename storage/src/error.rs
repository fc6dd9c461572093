//! What can go wrong, whose fault it is, and whether trying again can help.

use std::{path::PathBuf, sync::Arc};

use emberline_model::profile::InvalidProfile;

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be created or written.
    #[error(
        "cannot write to the data directory {path}: {source}; make it writable for this user or set another `data_dir`"
    )]
    NotWritable {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory contains no store.
    #[error("no store in {path}: pass the `--data-dir` of `emberline serve`")]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has the data directory open.
    #[error("the data directory {path} is in use by process {pid}; stop that process or set another `data_dir`")]
    LockedByOther {
        /// The folder.
        path: PathBuf,
        /// Its process id, 0 if it did not record one.
        pid: u32,
    },
    /// A file was written by a newer version of this program.
    #[error(
        "{path} has format {found}, and this version reads up to {known}; start the newer version or set another `data_dir`"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; raise the limit on processes")]
    Thread(std::io::Error),
}

/// Why a batch was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Too much data is waiting for the disk.
    #[error("{waiting} bytes are waiting for the journal (`queue_bytes` = {limit}); retry later")]
    Busy {
        /// Bytes waiting.
        waiting: usize,
        /// The setting.
        limit: usize,
    },
    /// No space on the disk.
    #[error("the disk of {path} is full ({free} bytes free, `min_free_mb` reserves {reserve}); free space, then retry")]
    DiskFull {
        /// The journal's folder.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes kept free.
        reserve: u64,
    },
    /// The disk failed; the batch is not stored.
    #[error("cannot write the journal in {path}: {source}; retrying is safe")]
    Io {
        /// The journal's folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The store is being closed.
    #[error("the store is closing; retry later")]
    Closed,
    /// A window is from before everything that is kept.
    #[error(
        "a window that starts at {start_unix_s} is older than the retention limit {oldest_unix_s} (`retention_hours`)"
    )]
    TooOld {
        /// Start of the window, seconds since the Unix epoch.
        start_unix_s: i64,
        /// The oldest start accepted.
        oldest_unix_s: i64,
    },
    /// A window is in the future.
    #[error(
        "a window that starts at {start_unix_s} is after {newest_unix_s} (`max_future_seconds`); correct the sender's clock"
    )]
    TooNew {
        /// Start of the window, seconds since the Unix epoch.
        start_unix_s: i64,
        /// The newest start accepted.
        newest_unix_s: i64,
    },
    /// Too many batches of this sender are missing to tell whether this one was stored.
    #[error("sequence {sequence} is too old to tell whether it is already stored; refused to avoid counting it twice")]
    Forgotten {
        /// Its sequence.
        sequence: u64,
    },
    /// The batch is too long.
    #[error("a batch of {bytes} bytes exceeds `max_batch_bytes` = {limit}")]
    TooLarge {
        /// Its encoded length.
        bytes: usize,
        /// The setting.
        limit: usize,
    },
    /// A profile's tables do not fit together.
    #[error("the batch is invalid: {0}")]
    Invalid(#[from] InvalidProfile),
}

impl AppendError {
    /// True if a retry with the same batch can succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            AppendError::Busy { .. } | AppendError::DiskFull { .. } | AppendError::Io { .. } | AppendError::Closed
        )
    }

    /// Short name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            AppendError::Busy { .. } => "busy",
            AppendError::DiskFull { .. } => "disk_full",
            AppendError::Io { .. } => "io",
            AppendError::Closed => "closed",
            AppendError::TooOld { .. } => "too_old",
            AppendError::TooNew { .. } => "too_new",
            AppendError::Forgotten { .. } => "forgotten",
            AppendError::TooLarge { .. } => "too_large",
            AppendError::Invalid(_) => "invalid",
        }
    }
}

/// Why a query failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// The range ends before it begins or is outside the representable times.
    #[error("the range {from_unix_s}..{to_unix_s} is empty or outside 1970..2106; `from` must be before `to`")]
    BadRange {
        /// First second.
        from_unix_s: i64,
        /// Second after the last.
        to_unix_s: i64,
    },
    /// It took too long.
    #[error("the query exceeded `max_query_seconds` = {seconds}; use a shorter range or raise the setting")]
    Timeout {
        /// The setting.
        seconds: u64,
    },
    /// It needs more memory than allowed.
    #[error("the query needs more memory than `memory_limit_mb`; use a shorter range or raise the setting: {message}")]
    TooLarge {
        /// What the engine said.
        message: String,
    },
    /// Its answer would hold more memory than allowed.
    #[error(
        "the response exceeds the limit of {megabytes} MB; use a shorter range, a single service or a lower `limit` for the tree, or give the server more memory"
    )]
    AnswerTooLarge {
        /// What one answer may hold.
        megabytes: u64,
    },
    /// Other answers hold the memory.
    #[error("waited {seconds} s for another large response to release its {megabytes} MB; retry in a moment")]
    NoRoom {
        /// What one may hold.
        megabytes: u64,
        /// How long a question waits.
        seconds: u64,
    },
    /// The query engine is being reopened or rebuilt from the journal.
    #[error("the query engine is unavailable ({message}); retry in a few seconds")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// The store is being closed.
    #[error("the store is closing")]
    Closed,
    /// The engine failed because of a bug in this program.
    #[error("the query engine failed: {message}; this is a bug in Emberline")]
    Internal {
        /// What the engine said.
        message: String,
    },
}

impl QueryError {
    /// True if a retry can succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            QueryError::NoRoom { .. } | QueryError::Unavailable { .. } | QueryError::Closed
        )
    }
}

/// Why a service was not deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeleteError {
    /// No data of it is stored.
    #[error("no data of service `{service}` in namespace `{namespace}`")]
    UnknownService {
        /// Namespace.
        namespace: String,
        /// Service name.
        service: String,
    },
    /// Nothing was changed.
    #[error("nothing was deleted: {message}; retry")]
    Unavailable {
        /// What is in the way.
        message: String,
    },
    /// It has started and may be partly done.
    #[error("deletion is incomplete: {message}; the store retries automatically, also after a restart")]
    Unfinished {
        /// What is in the way.
        message: String,
    },
    /// The store is being closed; a deletion that was started is finished at the next start.
    #[error("the store is closing; repeat the deletion to be sure")]
    Closed,
}

/// Why a declared release was not stored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The time is too long ago, or too far ahead.
    #[error(
        "the time {time_s} (Unix seconds) is outside {from_s} to {to_s}: older than all stored data, or in the future"
    )]
    OutOfRange {
        /// The declared time.
        time_s: i64,
        /// The earliest time accepted.
        from_s: i64,
        /// The latest time accepted.
        to_s: i64,
    },
    /// Too many declared releases have never reported.
    #[error("{most} declared releases never reported, the maximum: declare only releases being deployed")]
    TooMany {
        /// How many are kept.
        most: usize,
    },
    /// Writing failed.
    #[error("cannot write {path}: {source}; free space on the disk, then declare it again")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why symbols were not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SymbolError {
    /// The disk failed.
    #[error("cannot write {path}: {source}; free space or repair the disk; the symbols are then requested again")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
}

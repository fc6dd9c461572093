//! Why a file of debug information is refused: each reason says whose fault it is and what to do.

use std::path::PathBuf;

/// Files received at the same time.
pub(super) const MAX_RECEIVING: usize = 4;
/// The same for one address.
pub(super) const MAX_RECEIVING_OF_ADDRESS: usize = 2;
/// The slowest upload allowed.
pub(super) const LEAST_BYTES_PER_S: u64 = 64 << 10;

/// Why a file is not wanted or not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwanted {
    /// The build ID is invalid.
    #[error("`{0}` is not a build id: expected an even number of hexadecimal digits, 4 to 128")]
    NotABuildId(String),
    /// It is already stored.
    #[error("already stored")]
    Stored,
    /// Another process is sending it.
    #[error("being sent by another process")]
    BeingSent,
    /// Too many files are being received.
    #[error("already receiving {MAX_RECEIVING} other files; retry later")]
    TooManyAtOnce,
    /// Too many from this address.
    #[error("already receiving {MAX_RECEIVING_OF_ADDRESS} files from this address; retry later")]
    TooManyOfAddress,
    /// Larger than allowed.
    #[error(
        "too large: {size} bytes, and `max_debug_file_mb` allows {limit}; strip what is not needed, or raise the setting"
    )]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk is too full.
    #[error("not enough disk space on the server for {size} bytes: {free} are free, and `min_free_mb` reserves {kept}")]
    NoRoom {
        /// Its size.
        size: u64,
        /// Free now.
        free: u64,
        /// The space to keep free.
        kept: u64,
    },
    /// Slower than allowed.
    #[error("too slow: {received} bytes in {seconds} s, the minimum is {LEAST_BYTES_PER_S} bytes per second")]
    TooSlow {
        /// Bytes received.
        received: u64,
        /// Since the first part.
        seconds: u64,
    },
    /// The received size differs from the declared size.
    #[error("the header declared {declared} bytes, but {received} arrived{}", if .received < .declared { ": the file is truncated" } else { "" })]
    WrongSize {
        /// As in the header.
        declared: u64,
        /// Bytes received.
        received: u64,
    },
    /// Not the build it was sent for.
    #[error("it is not an ELF file of build {wanted}: {found}")]
    WrongFile {
        /// The build it was sent for.
        wanted: String,
        /// The actual build.
        found: String,
    },
    /// It cannot be read within the limits.
    #[error("it cannot be used: {0}")]
    Unreadable(String),
    /// Refused earlier.
    #[error("refused earlier: {0}")]
    RefusedBefore(String),
    /// The disk failed.
    #[error("cannot store the file in {path}: {reason}; free space or repair the disk, then send it again")]
    Disk {
        /// The directory.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
}

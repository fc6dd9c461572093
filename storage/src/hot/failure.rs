//! What kind of failure DuckDB reported. It reports failures only as text, so this is the one place that parses them.

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The file is damaged: rebuild it from the journal.
    Damaged,
    /// No space: retry later.
    Full,
    /// The instance is unusable: reopen it.
    Fatal,
    /// Another process has the file open.
    InUse,
    /// A question was interrupted.
    Interrupted,
    /// The memory limit was hit.
    Memory,
    /// A checkpoint waits for open transactions.
    HeldUp,
    /// A table is gone: its hour was dropped in the meantime.
    MissingTable,
    /// Anything else.
    Other,
}

/// The kind of a failure.
pub(crate) fn kind(error: &duckdb::Error) -> Kind {
    kind_of(&error.to_string())
}

fn kind_of(message: &str) -> Kind {
    let message = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["no space left", "disk quota exceeded", "enospc", "file too large"]) {
        Kind::Full
    } else if has(&["could not set lock", "conflicting lock"]) {
        Kind::InUse
    } else if has(&["interrupt error", "interrupted!"]) {
        Kind::Interrupted
    } else if has(&[
        "checksum",
        "corrupt",
        "not a valid duckdb",
        "deserializ",
        "serialization error",
        "replaying wal",
        "replay wal",
    ]) {
        Kind::Damaged
    } else if has(&[
        "out of memory",
        "could not allocate",
        "failed to offload",
        "max_temp_directory_size",
    ]) {
        Kind::Memory
    } else if has(&["fatal error", "has been invalidated", "internal error"]) {
        Kind::Fatal
    } else if has(&["cannot checkpoint"]) {
        Kind::HeldUp
    } else if has(&["does not exist"]) && has(&["catalog error", "table with name"]) {
        Kind::MissingTable
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        for (message, expected) in [
            (
                "IO Error: Corrupt database file: computed checksum 1 does not match stored checksum 2",
                Kind::Damaged,
            ),
            (
                "Serialization Error: Failed to deserialize: field id mismatch",
                Kind::Damaged,
            ),
            (
                "The file \"x\" exists, but it is not a valid DuckDB database file!",
                Kind::Damaged,
            ),
            (
                "IO Error: Could not write file \"x\": No space left on device",
                Kind::Full,
            ),
            (
                "TransactionContext Error: Cannot CHECKPOINT: there are other write transactions active. Try again.",
                Kind::HeldUp,
            ),
            (
                "FATAL Error: Failed: database has been invalidated because of a previous fatal error",
                Kind::Fatal,
            ),
            (
                "IO Error: Could not set lock on file \"x\": Conflicting lock is held in PID 7",
                Kind::InUse,
            ),
            ("INTERRUPT Error: Interrupted!", Kind::Interrupted),
            ("Out of Memory Error: failed to allocate data", Kind::Memory),
            (
                "Catalog Error: Table with name samples_1 does not exist!",
                Kind::MissingTable,
            ),
            ("Binder Error: no such column", Kind::Other),
        ] {
            assert_eq!(kind_of(message), expected, "{message}");
        }
    }
}

//! Why TLS settings are unusable.
//!
//! Guarantee: each error names the setting, and the file if there is one; none contains any part of a private key.

use std::path::PathBuf;

/// Why TLS settings cannot be used. Fix the file or the setting, then retry.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{setting}` {}: {why}; check the path and its permissions", path.display())]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A file has the wrong contents.
    #[error("`{setting}` {} {why}", path.display())]
    Contents {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Only one of certificate and key is set.
    #[error("`{given}` is set without `{missing}`: set both, or neither")]
    Half {
        /// The one that is set.
        given: &'static str,
        /// The other one.
        missing: &'static str,
    },
    /// The name is invalid.
    #[error("`server_name: {0}` is neither a host name nor an IP address: use a name from the server's certificate")]
    ServerName(String),
    /// The system has no CA certificates.
    #[error("this system has no CA certificates{0}: install them (package `ca-certificates`) or set `ca_file`")]
    NoSystemRoots(String),
}

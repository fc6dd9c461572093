//! Messages about a configuration: where, what is wrong, what to write.

use std::path::{Path, PathBuf};

pub use emberline_yaml::Problem;
use emberline_yaml::show_problems;

/// An invalid configuration. Fix the file, then retry.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: larger than the {limit}-byte limit; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// The file contains errors.
    #[error("{}", show_problems(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    pub(super) fn one(path: &Path, problem: Problem) -> ConfigError {
        ConfigError::Invalid {
            path: path.to_owned(),
            problems: vec![problem],
        }
    }
}

/// A line that shows how a key is written.
pub(super) fn example_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "workload" => "workload: {service: cart, version: v1}",
        "service" => "service: cart",
        "listen" => "listen: 127.0.0.1:8080",
        "to" => "to: 127.0.0.1:9080",
        "destinations" => "destinations: [{address: 127.0.0.1:9101}]",
        "address" => "address: 127.0.0.1:9101",
        "endpoint" => "endpoint: \"http://127.0.0.1:4317\"",
        _ => return None,
    })
}

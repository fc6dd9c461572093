//! The scrape configuration (YAML), in Prometheus syntax; the section `scrape` of the server's file.
//!
//! ```yaml
//! global: {scrape_interval: 15s, scrape_timeout: 10s}
//! limits: {max_targets: 1000, max_concurrent_reads: 4, max_profile_bytes: 16777216}
//! scrape_configs:
//!   - job_name: shop
//!     scrape_interval: 15s
//!     scheme: http                             # or https
//!     tls_config: {ca_file: ca.pem, cert_file: own.pem, key_file: own.key, server_name: shop}   # of https; read again
//!     path_prefix: ""                          # before every path below
//!     static_configs:
//!       - {targets: ["10.0.0.1:6060"], labels: {service: shop, version: v2, namespace: prod}}
//!     file_sd_configs:
//!       - {files: ["targets/*.yaml"]}          # lists of {targets, labels}; read again when they change
//!     dns_sd_configs:
//!       - {names: [shop.prod.svc], type: A, port: 6060, refresh_interval: 30s}   # or AAAA
//!       - {names: [_pprof._tcp.shop.prod.svc]}  # SRV, which has ports
//!     relabel_configs:
//!       - {source_labels: [__meta_dns_name], target_label: service}
//!     profiles:                                # all but `allocs` unless switched off
//!       profile: {enabled: true, path: /debug/pprof/profile, seconds: 10}
//!       heap: {enabled: true, path: /debug/pprof/heap}
//!       allocs: {enabled: false}
//!       mutex: {enabled: true}
//!       block: {enabled: true}
//!       goroutine: {enabled: true}
//! ```
//!
//! Guarantees: an unknown key is an error, and every message begins with `file:line`; a configuration that loads has
//! jobs with distinct names, valid rules and profiles that fit into their interval.
//!
//! Wrong on purpose: of errors in the structure of the file only the first is reported, because the parser stops there;
//! `tls_config` has no `insecure_skip_verify`; a name without `type` means A if there is a `port`, and SRV otherwise,
//! while in Prometheus it always means SRV.
//!
//! `schema` has the keys, `resolve` their meaning.

mod resolve;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use emberline_yaml::{Problem, show_problems};
use serde::Deserialize;

pub(super) use self::{
    resolve::{Endpoint, Job, Keeps, Kind},
    schema::{DnsDiscovery, FileDiscovery, Group, Limits, Lookup, Scheme},
};

/// An invalid scrape configuration. Fix the file, then retry.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeConfigError {
    /// The file contains errors.
    #[error("{}", show_problems(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// A scrape configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct ScrapeConfig {
    /// The directory that paths are relative to.
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
    pub(super) jobs: Vec<Job>,
}

impl ScrapeConfig {
    /// Names of the jobs.
    pub fn jobs(&self) -> Vec<&str> {
        self.jobs.iter().map(|job| job.name.as_str()).collect()
    }
}

/// A server configuration, of which only this section is read.
#[derive(Deserialize)]
struct Whole {
    scrape: schema::File,
}

/// Checks the text of a scrape configuration; `path` names it in messages, and paths in it are relative to its
/// directory.
///
/// # Errors
/// When it is not YAML of this structure, or contradicts itself.
pub fn parse(path: &Path, text: &str) -> Result<ScrapeConfig, ScrapeConfigError> {
    let read = || {
        let file = emberline_yaml::from_str(text).map_err(|problem| vec![problem])?;
        resolve::resolve(
            path,
            &emberline_yaml::parse(text).map_err(|problem| vec![problem])?,
            "",
            file,
        )
    };
    read().map_err(|problems| invalid(path, problems))
}

/// The same for the section `scrape` of a whole configuration.
///
/// # Errors
/// As [`parse`].
pub fn parse_section(path: &Path, text: &str) -> Result<ScrapeConfig, ScrapeConfigError> {
    let read = || {
        let file: Whole = emberline_yaml::from_str(text).map_err(|problem| vec![problem])?;
        let places = emberline_yaml::parse(text).map_err(|problem| vec![problem])?;
        resolve::resolve(path, &places, "scrape.", file.scrape)
    };
    read().map_err(|problems| invalid(path, problems))
}

fn invalid(path: &Path, problems: Vec<Problem>) -> ScrapeConfigError {
    ScrapeConfigError::Invalid {
        path: path.to_owned(),
        problems,
    }
}

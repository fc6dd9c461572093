//! The scrape configuration (YAML), in the words of Prometheus; the section `scrape` of the server's file.
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
//! jobs of different names, rules that can work and profiles that fit into their interval.
//!
//! Wrong on purpose: of errors in the shape of the file only the first is reported, because the parser stops there;
//! of `tls_config` there is no `insecure_skip_verify`; a name without `type` means A where a `port` stands beside it, and SRV
//! otherwise, while Prometheus always means SRV.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use emberline_client::Tls;
use serde::Deserialize;

use super::{
    address::address,
    duration,
    relabel::{Labels, Rule},
};

/// The largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Samples of CPU time are asked for over so many seconds unless said otherwise.
const CPU_SECONDS: u64 = 10;

/// A scrape configuration that cannot be used. A retry helps once the file is mended.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeConfigError {
    /// The file says something wrong.
    #[error("{}", Places(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Lines, from 1, and what is wrong there; at least one.
        problems: Vec<(usize, String)>,
    },
}

struct Places<'a>(&'a Path, &'a [(usize, String)]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (line, message)) in self.1.iter().enumerate() {
            let end = if at + 1 < self.1.len() { "\n" } else { "" };
            write!(f, "{}:{line}: {message}{end}", self.0.display())?;
        }
        Ok(())
    }
}

/// A scrape configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct ScrapeConfig {
    /// Names of files are meant from here.
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What holds for all jobs that do not say otherwise.
    #[serde(default)]
    global: Global,
    /// Bounds of what scraping may take.
    #[serde(default)]
    limits: Limits,
    /// The jobs; at least one.
    scrape_configs: Vec<RawJob>,
}

/// A configuration of the server, of which only this section is looked at.
#[derive(Deserialize)]
struct Whole {
    scrape: File,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Global {
    /// How often a target is scraped; 15s.
    #[serde(deserialize_with = "duration::read")]
    scrape_interval: Duration,
    /// How long an answer may take; 10s, at most the interval.
    #[serde(deserialize_with = "duration::read")]
    scrape_timeout: Duration,
}

impl Default for Global {
    fn default() -> Global {
        Global {
            scrape_interval: Duration::from_secs(15),
            scrape_timeout: Duration::from_secs(10),
        }
    }
}

/// Bounds of what scraping may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Targets of all jobs together, 1000; each has at most six connections.
    pub(super) max_targets: usize,
    /// Answers that are read and unpacked at the same time, 4.
    pub(super) max_concurrent_reads: usize,
    /// Most bytes of one profile, packed and unpacked, 16777216.
    pub(super) max_profile_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_targets: 1_000,
            max_concurrent_reads: 4,
            max_profile_bytes: 16 << 20,
        }
    }
}

/// A way a target may be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    /// The port of addresses that name none.
    pub(super) fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJob {
    /// Name of the job; each has its own.
    job_name: String,
    /// As in `global`, for this job.
    #[serde(default, deserialize_with = "duration::read_some")]
    scrape_interval: Option<Duration>,
    /// As in `global`, for this job.
    #[serde(default, deserialize_with = "duration::read_some")]
    scrape_timeout: Option<Duration>,
    /// How targets are reached.
    #[serde(default)]
    scheme: Scheme,
    /// TLS to targets whose scheme is `https`, as in Prometheus.
    #[serde(default)]
    tls_config: Tls,
    /// Stands before every path below, for example `/admin`.
    #[serde(default)]
    path_prefix: String,
    /// Targets that are written down.
    #[serde(default)]
    static_configs: Vec<Group>,
    /// Targets in files.
    #[serde(default)]
    file_sd_configs: Vec<FileDiscovery>,
    /// Targets behind names.
    #[serde(default)]
    dns_sd_configs: Vec<DnsDiscovery>,
    /// Rules that name, keep or drop targets, as in Prometheus.
    #[serde(default)]
    relabel_configs: Vec<Rule>,
    /// What is fetched of each target. All but `allocs` is on unless switched off.
    #[serde(default)]
    profiles: RawProfiles,
}

/// Addresses with the labels they share; also what the files of `file_sd_configs` hold.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// Addresses, `host:port`.
    pub(super) targets: Vec<String>,
    /// Labels of these targets: `service`, `version`, `namespace`, `instance` and others for rules.
    #[serde(default)]
    pub(super) labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileDiscovery {
    /// Paths of files with lists of `{targets, labels}`; the last part may hold one `*`.
    pub(super) files: Vec<String>,
    /// How often the files are looked at; 5s.
    #[serde(default = "five_seconds", deserialize_with = "duration::read")]
    pub(super) refresh_interval: Duration,
    /// Whether the files may name this machine: whoever writes them then has the server ask what listens here.
    #[serde(default)]
    pub(super) allow_this_machine: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsDiscovery {
    /// Names that are looked up.
    pub(super) names: Vec<String>,
    /// Which records; A where a `port` is given, SRV otherwise.
    #[serde(default, rename = "type")]
    record: Option<Record>,
    /// Of A and AAAA, which have none of their own.
    #[serde(default)]
    port: Option<u16>,
    /// How often the names are looked up; 30s.
    #[serde(default = "thirty_seconds", deserialize_with = "duration::read")]
    pub(super) refresh_interval: Duration,
}

/// Records that are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Record {
    A,
    #[serde(rename = "AAAA")]
    Aaaa,
    #[serde(rename = "SRV")]
    Srv,
}

/// What a name is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Addresses, all with this port.
    Addresses { v6: bool, port: u16 },
    /// Names with ports.
    Services,
}

impl DnsDiscovery {
    pub(super) fn lookup(&self) -> Result<Lookup, &'static str> {
        let v6 = self.record == Some(Record::Aaaa);
        match (self.record, self.port) {
            (None | Some(Record::Srv), None) => Ok(Lookup::Services),
            (Some(Record::Srv), Some(_)) => {
                Err("has a `port`, which SRV records bring: leave it out, or write `type: A`")
            }
            (_, Some(port)) => Ok(Lookup::Addresses { v6, port }),
            (_, None) => Err("needs a `port`, which A and AAAA records do not have"),
        }
    }
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawProfiles {
    /// CPU time, over some seconds.
    profile: RawProfile,
    /// Memory in use, and allocations where `allocs` is off.
    heap: RawProfile,
    /// Allocations; off unless switched on.
    allocs: RawProfile,
    /// Waiting for locks.
    mutex: RawProfile,
    /// Waiting on synchronisation.
    block: RawProfile,
    /// Goroutines that are there.
    goroutine: RawProfile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawProfile {
    /// Whether it is fetched.
    enabled: Option<bool>,
    /// Where; `/debug/pprof/` and its name if not given.
    path: Option<String>,
    /// Of `profile` alone: how long it measures, 10 or a second less than the interval.
    seconds: Option<u64>,
}

/// What is asked of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Profile,
    Heap,
    Allocs,
    Mutex,
    Block,
    Goroutine,
}

impl Kind {
    /// As configurations and addresses have it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Profile => "profile",
            Kind::Heap => "heap",
            Kind::Allocs => "allocs",
            Kind::Mutex => "mutex",
            Kind::Block => "block",
            Kind::Goroutine => "goroutine",
        }
    }

    /// The first part of the profile type, where the file does not say it: Go's mutex and block files look alike.
    pub(super) fn type_name(self) -> Option<&'static str> {
        match self {
            Kind::Mutex => Some("mutex"),
            Kind::Block => Some("block"),
            _ => None,
        }
    }
}

/// A profile that is scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) kind: Kind,
    /// Path and query.
    pub(super) path: String,
    /// How long the target measures before it answers.
    pub(super) seconds: u64,
    /// Which of its types are stored.
    pub(super) keeps: Keeps,
}

/// Which types of a file are stored: `heap` and `allocs` hold the same ones, and where both are scraped, each gives half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// All.
    All,
    /// What is there at a moment.
    Gauges,
    /// What counts from the start of the process.
    Counters,
}

/// A job that was read and checked.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) scheme: Scheme,
    pub(super) tls: Tls,
    pub(super) groups: Vec<Group>,
    pub(super) files: Vec<FileDiscovery>,
    pub(super) dns: Vec<DnsDiscovery>,
    pub(super) rules: Vec<Rule>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Why a file was not read.
pub(super) enum Unread {
    Io(std::io::Error),
    TooLarge,
}

/// Reads a text file of at most the bytes of a configuration.
pub(super) fn read_bounded(path: &Path) -> Result<String, Unread> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(Unread::Io)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    if read.map_err(Unread::Io)? as u64 > MAX_FILE_BYTES {
        return Err(Unread::TooLarge);
    }
    Ok(text)
}

/// Checks the text of a scrape configuration; `path` names it in messages, and its folder is where file names begin.
///
/// # Errors
/// When it is not YAML of this shape, or contradicts itself.
pub fn parse(path: &Path, text: &str) -> Result<ScrapeConfig, ScrapeConfigError> {
    match serde_yaml_ng::from_str(text) {
        Ok(file) => checked(path, text, file),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// The same for the section `scrape` of a whole configuration.
///
/// # Errors
/// As [`parse`].
pub fn parse_section(path: &Path, text: &str) -> Result<ScrapeConfig, ScrapeConfigError> {
    match serde_yaml_ng::from_str::<Whole>(text) {
        Ok(whole) => checked(path, text, whole.scrape),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &serde_yaml_ng::Error) -> ScrapeConfigError {
    ScrapeConfigError::Invalid {
        path: path.to_owned(),
        problems: vec![problem_of(error)],
    }
}

fn checked(path: &Path, text: &str, file: File) -> Result<ScrapeConfig, ScrapeConfigError> {
    let invalid = |problems| ScrapeConfigError::Invalid {
        path: path.to_owned(),
        problems,
    };
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut problems = Vec::new();
    let mut names = HashSet::new();
    let mut jobs = Vec::with_capacity(file.scrape_configs.len());
    for raw in file.scrape_configs {
        let line = line_of(text, &["job_name", &raw.job_name]);
        if !names.insert(raw.job_name.clone()) {
            problems.push((
                line,
                format!("two jobs are named `{}`: give each its own name", raw.job_name),
            ));
        }
        let mut found = Vec::new();
        let job = job(raw, &file.global, &folder, &mut found);
        problems.extend(found.into_iter().map(|message| (line, message)));
        jobs.push(job);
    }
    if jobs.is_empty() {
        problems.push((1, "`scrape_configs` is empty: write at least one job".to_owned()));
    }
    for (name, value) in [
        ("max_targets", file.limits.max_targets),
        ("max_concurrent_reads", file.limits.max_concurrent_reads),
        ("max_profile_bytes", file.limits.max_profile_bytes),
    ] {
        if value == 0 {
            problems.push((
                line_of(text, &[name]),
                format!("`{name}: 0` would scrape nothing: write a larger number"),
            ));
        }
    }
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    Ok(ScrapeConfig {
        folder,
        limits: file.limits,
        jobs,
    })
}

/// The parser's message without the place, which is shown as `file:line`.
pub(super) fn problem_of(error: &serde_yaml_ng::Error) -> (usize, String) {
    let full = error.to_string();
    let message = full.split(" at line ").next().unwrap_or(&full);
    let line = error.location().map_or(1, |location| location.line());
    (line, message.replace("unknown field", "unknown key"))
}

/// The first line, from 1, that holds all of these words.
fn line_of(text: &str, words: &[&str]) -> usize {
    let holds = |line: &str| words.iter().all(|word| line.contains(word));
    text.lines().position(holds).map_or(1, |at| at + 1)
}

fn job(raw: RawJob, global: &Global, folder: &Path, problems: &mut Vec<String>) -> Job {
    let name = raw.job_name;
    if name.is_empty() {
        problems.push("`job_name` is empty: write a name".to_owned());
    }
    if raw.scheme == Scheme::Http && !raw.tls_config.is_empty() {
        problems.push(format!(
            "`tls_config` of job `{name}` is not used without `scheme: https`: write that, or leave `tls_config` out"
        ));
    }
    if let Err(error) = raw.tls_config.check() {
        problems.push(format!("`tls_config` of job `{name}`: {error}"));
    }
    if !raw.path_prefix.is_empty() && (!raw.path_prefix.starts_with('/') || raw.path_prefix.ends_with('/')) {
        problems.push(format!(
            "`path_prefix` of job `{name}` must begin with `/` and not end with it"
        ));
    }
    let groups = [
        raw.static_configs.is_empty(),
        raw.file_sd_configs.is_empty(),
        raw.dns_sd_configs.is_empty(),
    ];
    if groups == [true; 3] {
        problems.push(format!(
            "job `{name}` has no targets: write `static_configs: [{{targets: [\"127.0.0.1:6060\"]}}]`, `file_sd_configs` or \
             `dns_sd_configs`"
        ));
    }
    let targets = raw.static_configs.iter().flat_map(|group| &group.targets);
    problems.extend(targets.filter_map(|target| address(target, raw.scheme.port()).err()));
    for pattern in raw.file_sd_configs.iter().flat_map(|discovery| &discovery.files) {
        let (folder, file) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        if folder.contains('*') || file.matches('*').count() > 1 {
            problems.push(format!(
                "`{pattern}` of job `{name}`: one `*` may stand in the last part of a path"
            ));
        }
    }
    let lookups = raw
        .dns_sd_configs
        .iter()
        .filter_map(|discovery| discovery.lookup().err());
    problems.extend(lookups.map(|problem| format!("`dns_sd_configs` of job `{name}` {problem}")));
    problems.extend(raw.relabel_configs.iter().filter_map(Rule::problem));
    let interval = raw.scrape_interval.unwrap_or(global.scrape_interval);
    // What all jobs share need not fit the one that scrapes more often.
    let timeout = raw.scrape_timeout.unwrap_or(global.scrape_timeout.min(interval));
    if timeout > interval {
        problems.push(format!(
            "`scrape_timeout` of job `{name}` is longer than its `scrape_interval`: make it shorter"
        ));
    }
    let endpoints = endpoints(&name, &raw.path_prefix, raw.profiles, interval, problems);
    Job {
        name,
        interval,
        timeout,
        scheme: raw.scheme,
        tls: raw.tls_config.in_folder(folder),
        groups: raw.static_configs,
        files: raw.file_sd_configs,
        dns: raw.dns_sd_configs,
        rules: raw.relabel_configs,
        endpoints,
    }
}

fn endpoints(
    job: &str,
    prefix: &str,
    raw: RawProfiles,
    interval: Duration,
    problems: &mut Vec<String>,
) -> Vec<Endpoint> {
    let kinds = BTreeMap::from([
        (Kind::Profile, (raw.profile, true)),
        (Kind::Heap, (raw.heap, true)),
        // The same file as `heap`, after no collection of garbage.
        (Kind::Allocs, (raw.allocs, false)),
        (Kind::Mutex, (raw.mutex, true)),
        (Kind::Block, (raw.block, true)),
        (Kind::Goroutine, (raw.goroutine, true)),
    ]);
    let enabled = |kind: Kind| {
        let (raw, default) = &kinds[&kind];
        raw.enabled.unwrap_or(*default)
    };
    let mut endpoints = Vec::new();
    for (&kind, (raw, _)) in kinds.iter().filter(|(kind, _)| enabled(**kind)) {
        let word = kind.word();
        let path = raw.path.clone().unwrap_or_else(|| format!("/debug/pprof/{word}"));
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            problems.push(format!(
                "`path: {path}` of profile `{word}` of job `{job}` must be a path such as `/debug/pprof/{word}`"
            ));
        }
        let mut endpoint = Endpoint {
            kind,
            path: format!("{prefix}{path}"),
            seconds: 0,
            keeps: match kind {
                Kind::Heap if enabled(Kind::Allocs) => Keeps::Gauges,
                Kind::Allocs if enabled(Kind::Heap) => Keeps::Counters,
                _ => Keeps::All,
            },
        };
        if kind == Kind::Profile {
            // Two measurements of one process must not overlap: Go answers the second with an error.
            let most = interval.as_secs().saturating_sub(1).max(1);
            let seconds = raw.seconds.unwrap_or(CPU_SECONDS.min(most));
            if seconds == 0 || Duration::from_secs(seconds) > interval {
                problems.push(format!(
                    "`seconds: {seconds}` of profile `profile` of job `{job}` must be between 1 and its `scrape_interval`"
                ));
            }
            let separator = if endpoint.path.contains('?') { '&' } else { '?' };
            endpoint.path = format!("{}{separator}seconds={seconds}", endpoint.path);
            endpoint.seconds = seconds;
        } else if raw.seconds.is_some() {
            problems.push(format!(
                "`seconds` of profile `{word}` of job `{job}`: only `profile` is measured for a time; leave it out"
            ));
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        problems.push(format!("every profile of job `{job}` is switched off: leave one on"));
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScrapeConfig, String> {
        parse(Path::new("/etc/scrape.yaml"), text).map_err(|error| error.to_string())
    }

    fn one_job(more: &str) -> String {
        format!("scrape_configs:\n  - job_name: shop\n    static_configs: [{{targets: ['127.0.0.1:1']}}]\n{more}")
    }

    #[test]
    fn a_job_has_the_defaults_of_all_and_its_own() {
        let text = format!(
            "global: {{scrape_interval: 30s}}\n{}",
            one_job("    path_prefix: /x\n    profiles: {heap: {path: /h}, block: {enabled: false}}\n")
        );
        let config = read(&text).unwrap();
        let job = &config.jobs[0];
        assert_eq!((job.interval.as_secs(), job.timeout.as_secs()), (30, 10));
        let paths: Vec<&str> = job.endpoints.iter().map(|endpoint| endpoint.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/x/debug/pprof/profile?seconds=10",
                "/x/h",
                "/x/debug/pprof/mutex",
                "/x/debug/pprof/goroutine"
            ]
        );
        assert_eq!(config.folder, Path::new("/etc"));
        assert_eq!((job.scheme, job.tls.is_empty()), (Scheme::Http, true));
        let text = one_job("    scheme: https\n    tls_config: {ca_file: tls/ca.pem, server_name: shop}\n");
        let job = &read(&text).unwrap().jobs[0];
        assert_eq!(job.scheme, Scheme::Https);
        assert_eq!(job.tls.ca_file.as_deref(), Some(Path::new("/etc/tls/ca.pem")));
    }

    #[test]
    fn what_heap_and_allocs_both_hold_is_taken_once() {
        let kept = |yaml: &str| -> Vec<(Kind, Keeps)> {
            let config = read(&one_job(yaml)).unwrap();
            let endpoints = config.jobs[0].endpoints.iter();
            endpoints
                .filter(|e| matches!(e.kind, Kind::Heap | Kind::Allocs))
                .map(|e| (e.kind, e.keeps))
                .collect()
        };
        assert_eq!(kept(""), [(Kind::Heap, Keeps::All)]);
        assert_eq!(
            kept("    profiles: {allocs: {enabled: true}}"),
            [(Kind::Heap, Keeps::Gauges), (Kind::Allocs, Keeps::Counters)]
        );
        assert_eq!(
            kept("    profiles: {heap: {enabled: false}, allocs: {enabled: true}}"),
            [(Kind::Allocs, Keeps::All)]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, said) in [
            (one_job("    job: x\n"), 4, "unknown key `job`"),
            (one_job("    scheme: ftp\n"), 4, "unknown variant `ftp`"),
            (
                one_job("    tls_config: {ca_file: ca.pem}\n"),
                2,
                "not used without `scheme: https`",
            ),
            (
                one_job("    scheme: https\n    tls_config: {cert_file: own.pem}\n"),
                2,
                "`cert_file` is set without `key_file`",
            ),
            (
                one_job("    scheme: https\n    tls_config: {insecure_skip_verify: true}\n"),
                5,
                "unknown key `insecure_skip_verify`",
            ),
            (
                one_job("    scrape_interval: 5s\n    scrape_timeout: 6s\n"),
                2,
                "scrape_timeout",
            ),
            (
                one_job("    scrape_interval: soon\n"),
                4,
                "`soon` is not a length of time",
            ),
            (
                one_job("    relabel_configs: [{action: keep, regex: '('}]\n"),
                4,
                "cannot be used",
            ),
            (
                one_job("    relabel_configs: [{source_labels: [a]}]\n"),
                2,
                "target_label",
            ),
            (
                one_job("    dns_sd_configs: [{names: [a], type: SRV, port: 1}]\n"),
                2,
                "leave it out",
            ),
            (
                one_job("    dns_sd_configs: [{names: [a], type: AAAA}]\n"),
                2,
                "needs a `port`",
            ),
            (
                one_job("    file_sd_configs: [{files: ['*/a.yaml']}]\n"),
                2,
                "last part",
            ),
            (one_job("    profiles: {profile: {seconds: 16}}\n"), 2, "`seconds: 16`"),
            (one_job("    profiles: {heap: {seconds: 1}}\n"), 2, "only `profile`"),
            (
                one_job("    profiles: {wall: {enabled: true}}\n"),
                4,
                "unknown key `wall`",
            ),
            (one_job("    path_prefix: x\n"), 2, "path_prefix"),
            (one_job("  - {job_name: shop, static_configs: []}\n"), 2, "two jobs"),
            ("scrape_configs: []\n".to_owned(), 1, "is empty"),
            ("scrape_configs:\n  - {job_name: a}\n".to_owned(), 2, "no targets"),
            (
                one_job("    static_configs: [{targets: ['http://a']}]\n"),
                2,
                "duplicate",
            ),
            (one_job("").replace("127.0.0.1:1", "http://a/b"), 2, "`http://a/b`"),
            (format!("limits: {{max_targets: 0}}\n{}", one_job("")), 1, "max_targets"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(said), "{error}\n{text}");
            let place = error.split(": ").next().unwrap_or_default();
            let at = place.rsplit(':').next().unwrap_or_default();
            assert!(
                at == line.to_string() || at == (line + 1).to_string(),
                "{error}\n{text}"
            );
        }
    }

    proptest::proptest! {
        /// Keys and values in any place, in any nesting: read, or refused with a line.
        #[test]
        fn text_of_any_kind_is_read_or_refused(
            lines in proptest::collection::vec((0usize..4, proptest::sample::select(vec![
                "scrape_configs:", "- job_name: a", "- job_name: b", "scheme: https", "scheme: http", "tls_config: {ca_file: [x], server_name: 'a b'}", "static_configs:",
                "- targets: ['127.0.0.1:1', 'x']", "labels: {service: s}", "dns_sd_configs: [{names: [a.b], type: SRV, port: 99999}]",
                "file_sd_configs: [{files: ['*.yaml', '/etc/../*']}]", "relabel_configs: [{source_labels: [a], regex: '((', action: drop}]",
                "profiles: {heap: {enabled: 7}, profile: {seconds: 99999999999}}", "scrape_interval: 9999999y", "scrape_timeout: -1s",
                "global: &a {scrape_interval: 15s}", "global: *a", "limits: {max_targets: 18446744073709551616}", "path_prefix: \"\\0\"", "? [x]", "!!binary |",
            ])), 0..12),
            noise in "\\PC{0,40}",
        ) {
            let text: String = lines.iter().map(|(depth, line)| format!("{}{line}\n", "  ".repeat(*depth))).collect();
            for text in [format!("{text}{noise}"), one_job(&text), noise] {
                if let Err(error) = read(&text) {
                    proptest::prop_assert!(error.starts_with("/etc/scrape.yaml:"), "{error}");
                }
            }
        }
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for depth in 1..12 {
            let before = vec![format!("*a{}", depth - 1); 10].join(", ");
            text.push_str(&format!("a{depth}: &a{depth} [{before}]\n"));
        }
        assert!(read(&text).is_err());
        assert!(read(&format!("scrape_configs: {}", "[".repeat(100_000))).is_err());
    }
}

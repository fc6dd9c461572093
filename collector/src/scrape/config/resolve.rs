//! From the keys of a scrape configuration to jobs with consistent parts, or to contradictions with their lines.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::Duration,
};

use emberline_client::Tls;
use emberline_yaml::{Node, Problem};

use super::{
    super::{address::address, relabel::Rule},
    ScrapeConfig,
    schema::{DnsDiscovery, File, FileDiscovery, Global, Group, RawJob, RawProfiles, Scheme},
};

/// The default duration of a CPU profile.
const CPU_SECONDS: u64 = 10;

/// The kind of profile requested from a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) enum Kind {
    Profile,
    Heap,
    Allocs,
    Mutex,
    Block,
    Goroutine,
}

impl Kind {
    /// As in configurations and URLs.
    pub(in super::super) fn word(self) -> &'static str {
        match self {
            Kind::Profile => "profile",
            Kind::Heap => "heap",
            Kind::Allocs => "allocs",
            Kind::Mutex => "mutex",
            Kind::Block => "block",
            Kind::Goroutine => "goroutine",
        }
    }

    /// The first part of the profile type, if the file does not state it: Go's mutex and block files look alike.
    pub(in super::super) fn type_name(self) -> Option<&'static str> {
        match self {
            Kind::Mutex => Some("mutex"),
            Kind::Block => Some("block"),
            _ => None,
        }
    }
}

/// A profile that is scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Endpoint {
    pub(in super::super) kind: Kind,
    /// Path and query.
    pub(in super::super) path: String,
    /// How long the target measures before it responds.
    pub(in super::super) seconds: u64,
    /// Which of its types are stored.
    pub(in super::super) keeps: Keeps,
}

/// Which types of a file are stored: `heap` and `allocs` contain the same ones, and if both are scraped, each provides
/// half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Keeps {
    /// All.
    All,
    /// The current state.
    Gauges,
    /// What counts from the start of the process.
    Counters,
}

/// A job that was read and checked.
#[derive(Debug, Clone)]
pub(in super::super) struct Job {
    pub(in super::super) name: String,
    pub(in super::super) interval: Duration,
    pub(in super::super) timeout: Duration,
    pub(in super::super) scheme: Scheme,
    pub(in super::super) tls: Tls,
    pub(in super::super) groups: Vec<Group>,
    pub(in super::super) files: Vec<FileDiscovery>,
    pub(in super::super) dns: Vec<DnsDiscovery>,
    pub(in super::super) rules: Vec<Rule>,
    pub(in super::super) endpoints: Vec<Endpoint>,
}

/// The location of a part's keys, and its problems.
struct Part<'a> {
    places: &'a Node,
    /// Path of the part, as a prefix of its keys' paths.
    path: String,
    problems: Vec<Problem>,
}

impl Part<'_> {
    /// Reports a problem with a key of this part; if the key is missing, at the line of the part.
    fn say(&mut self, key: &str, message: String) {
        let line = self.places.line_of(&format!("{}{key}", self.path));
        self.problems.push(Problem::new(line, message));
    }

    /// The same for each message of a list.
    fn say_all(&mut self, key: &str, messages: impl IntoIterator<Item = String>) {
        for message in messages {
            self.say(key, message);
        }
    }
}

/// Resolves a file; `places` is the file as a tree, and `section` the path of the relevant part, as a prefix.
pub(super) fn resolve(path: &Path, places: &Node, section: &str, file: File) -> Result<ScrapeConfig, Vec<Problem>> {
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut whole = Part {
        places,
        path: section.to_owned(),
        problems: Vec::new(),
    };
    let mut names = HashSet::new();
    let mut jobs = Vec::with_capacity(file.scrape_configs.len());
    for (index, raw) in file.scrape_configs.into_iter().enumerate() {
        let mut part = Part {
            places,
            path: format!("{section}scrape_configs[{index}]."),
            problems: Vec::new(),
        };
        if !names.insert(raw.job_name.clone()) {
            let message = format!("two jobs are named `{}`: give each its own name", raw.job_name);
            part.say("job_name", message);
        }
        jobs.push(job(raw, &file.global, &folder, &mut part));
        whole.problems.append(&mut part.problems);
    }
    if jobs.is_empty() {
        let message = "`scrape_configs` is empty: add at least one job".to_owned();
        whole.say("scrape_configs", message);
    }
    for (name, value) in [
        ("max_targets", file.limits.max_targets),
        ("max_concurrent_reads", file.limits.max_concurrent_reads),
        ("max_profile_bytes", file.limits.max_profile_bytes),
    ] {
        if value == 0 {
            let message = format!("`{name}: 0` would scrape nothing: use a larger number");
            whole.say(&format!("limits.{name}"), message);
        }
    }
    match whole.problems.is_empty() {
        true => Ok(ScrapeConfig {
            folder,
            limits: file.limits,
            jobs,
        }),
        false => Err(whole.problems),
    }
}

fn job(raw: RawJob, global: &Global, folder: &Path, part: &mut Part<'_>) -> Job {
    let name = raw.job_name;
    if name.is_empty() {
        part.say("job_name", "`job_name` is empty: set a name".to_owned());
    }
    if raw.scheme == Scheme::Http && !raw.tls_config.is_empty() {
        let message = format!(
            "`tls_config` of job `{name}` has no effect without `scheme: https`: set it, or remove `tls_config`"
        );
        part.say("tls_config", message);
    }
    if let Err(error) = raw.tls_config.check() {
        part.say("tls_config", format!("`tls_config` of job `{name}`: {error}"));
    }
    if !raw.path_prefix.is_empty() && (!raw.path_prefix.starts_with('/') || raw.path_prefix.ends_with('/')) {
        let message = format!("`path_prefix` of job `{name}` must begin with `/` and not end with it");
        part.say("path_prefix", message);
    }
    let groups = [
        raw.static_configs.is_empty(),
        raw.file_sd_configs.is_empty(),
        raw.dns_sd_configs.is_empty(),
    ];
    if groups == [true; 3] {
        let message = format!(
            "job `{name}` has no targets: add `static_configs: [{{targets: [\"127.0.0.1:6060\"]}}]`, `file_sd_configs` or \
             `dns_sd_configs`"
        );
        part.say("job_name", message);
    }
    for (at, group) in raw.static_configs.iter().enumerate() {
        for (index, target) in group.targets.iter().enumerate() {
            let wrong = address(target, raw.scheme.port()).err();
            part.say_all(&format!("static_configs[{at}].targets[{index}]"), wrong);
        }
    }
    for (at, discovery) in raw.file_sd_configs.iter().enumerate() {
        for (index, pattern) in discovery.files.iter().enumerate() {
            let (folder, file) = pattern.rsplit_once('/').unwrap_or(("", pattern));
            if folder.contains('*') || file.matches('*').count() > 1 {
                let message = format!("`{pattern}` of job `{name}`: only one `*` is allowed, in the last path segment");
                part.say(&format!("file_sd_configs[{at}].files[{index}]"), message);
            }
        }
    }
    for (at, discovery) in raw.dns_sd_configs.iter().enumerate() {
        let wrong = discovery.lookup().err();
        let message = wrong.map(|problem| format!("`dns_sd_configs` of job `{name}` {problem}"));
        part.say_all(&format!("dns_sd_configs[{at}]"), message);
    }
    for (at, rule) in raw.relabel_configs.iter().enumerate() {
        part.say_all(&format!("relabel_configs[{at}]"), rule.problem());
    }
    let interval = raw.scrape_interval.unwrap_or(global.scrape_interval);
    // The shared timeout may not fit a job that scrapes more often.
    let timeout = raw.scrape_timeout.unwrap_or(global.scrape_timeout.min(interval));
    if timeout > interval {
        let message = format!("`scrape_timeout` of job `{name}` is longer than its `scrape_interval`: shorten it");
        part.say("scrape_timeout", message);
    }
    let endpoints = endpoints(&name, &raw.path_prefix, raw.profiles, interval, part);
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

fn endpoints(job: &str, prefix: &str, raw: RawProfiles, interval: Duration, part: &mut Part<'_>) -> Vec<Endpoint> {
    let kinds = BTreeMap::from([
        (Kind::Profile, (raw.profile, true)),
        (Kind::Heap, (raw.heap, true)),
        // The same file as `heap`, without a preceding garbage collection.
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
            let message = format!(
                "`path: {path}` of profile `{word}` of job `{job}` must be a path such as `/debug/pprof/{word}`"
            );
            part.say(&format!("profiles.{word}.path"), message);
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
                let message = format!(
                    "`seconds: {seconds}` of profile `profile` of job `{job}` must be between 1 and its `scrape_interval`"
                );
                part.say("profiles.profile.seconds", message);
            }
            let separator = if endpoint.path.contains('?') { '&' } else { '?' };
            endpoint.path = format!("{}{separator}seconds={seconds}", endpoint.path);
            endpoint.seconds = seconds;
        } else if raw.seconds.is_some() {
            let message =
                format!("`seconds` of profile `{word}` of job `{job}`: only `profile` has a duration; remove it");
            part.say(&format!("profiles.{word}.seconds"), message);
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        let message = format!("every profile of job `{job}` is disabled: enable at least one");
        part.say("profiles", message);
    }
    endpoints
}

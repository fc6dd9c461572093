//! The keys of a scrape configuration. The reference of keys is generated from the documentation of these fields.

use std::time::Duration;

use emberline_client::Tls;
use serde::Deserialize;

use super::super::{
    duration,
    relabel::{Labels, Rule},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Defaults for all jobs.
    #[serde(default)]
    pub(super) global: Global,
    /// Resource limits of scraping.
    #[serde(default)]
    pub(super) limits: Limits,
    /// The jobs; at least one.
    pub(super) scrape_configs: Vec<RawJob>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Global {
    /// How often to scrape a target; default 15s.
    #[serde(deserialize_with = "duration::read")]
    pub(super) scrape_interval: Duration,
    /// Timeout of a scrape; default 10s, at most the interval.
    #[serde(deserialize_with = "duration::read")]
    pub(super) scrape_timeout: Duration,
}

impl Default for Global {
    fn default() -> Global {
        Global {
            scrape_interval: Duration::from_secs(15),
            scrape_timeout: Duration::from_secs(10),
        }
    }
}

/// Resource limits of scraping.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in super::super) struct Limits {
    /// Targets across all jobs; default 1000. Each uses at most six connections.
    pub(in super::super) max_targets: usize,
    /// Responses read and decompressed concurrently; default 4.
    pub(in super::super) max_concurrent_reads: usize,
    /// Largest profile in bytes, compressed and decompressed, and no more than `max_request_mb`; default 16777216.
    pub(in super::super) max_profile_bytes: usize,
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
pub(in super::super) enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    /// The port of addresses that name none.
    pub(in super::super) fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJob {
    /// Unique name of the job.
    pub(super) job_name: String,
    /// As in `global`, for this job.
    #[serde(default, deserialize_with = "duration::read_some")]
    pub(super) scrape_interval: Option<Duration>,
    /// As in `global`, for this job.
    #[serde(default, deserialize_with = "duration::read_some")]
    pub(super) scrape_timeout: Option<Duration>,
    /// Protocol to reach targets with; default http.
    #[serde(default)]
    pub(super) scheme: Scheme,
    /// TLS for targets with scheme `https`, as in Prometheus.
    #[serde(default)]
    pub(super) tls_config: Tls,
    /// Prefix of every path below, for example `/admin`.
    #[serde(default)]
    pub(super) path_prefix: String,
    /// Static targets.
    #[serde(default)]
    pub(super) static_configs: Vec<Group>,
    /// Targets read from files.
    #[serde(default)]
    pub(super) file_sd_configs: Vec<FileDiscovery>,
    /// DNS discovery.
    #[serde(default)]
    pub(super) dns_sd_configs: Vec<DnsDiscovery>,
    /// Rules that relabel, keep or drop targets, as in Prometheus.
    #[serde(default)]
    pub(super) relabel_configs: Vec<Rule>,
    /// Profiles to fetch. All but `allocs` are on by default.
    #[serde(default)]
    pub(super) profiles: RawProfiles,
}

/// Addresses with the labels they share; also what the files of `file_sd_configs` hold.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Group {
    /// Addresses, `host:port`.
    pub(in super::super) targets: Vec<String>,
    /// Labels of these targets: `service`, `version`, `namespace`, `instance`, and others for use in rules.
    #[serde(default)]
    pub(in super::super) labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct FileDiscovery {
    /// Paths of files with lists of `{targets, labels}`; the last path segment may contain one `*`.
    pub(in super::super) files: Vec<String>,
    /// How often to check the files; default 5s.
    #[serde(default = "five_seconds", deserialize_with = "duration::read")]
    pub(in super::super) refresh_interval: Duration,
    /// Allow targets on this machine. This lets anyone who can write the file make the server probe local ports.
    #[serde(default)]
    pub(in super::super) allow_this_machine: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DnsDiscovery {
    /// Names to look up.
    pub(in super::super) names: Vec<String>,
    /// Record type; default A if `port` is set, else SRV.
    #[serde(default, rename = "type")]
    record: Option<Record>,
    /// Port for A/AAAA records.
    #[serde(default)]
    port: Option<u16>,
    /// How often to look up the names; default 30s.
    #[serde(default = "thirty_seconds", deserialize_with = "duration::read")]
    pub(in super::super) refresh_interval: Duration,
}

/// Supported record types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Record {
    A,
    #[serde(rename = "AAAA")]
    Aaaa,
    #[serde(rename = "SRV")]
    Srv,
}

/// What to look up for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Lookup {
    /// Addresses, all with this port.
    Addresses { v6: bool, port: u16 },
    /// Names with ports.
    Services,
}

impl DnsDiscovery {
    pub(in super::super) fn lookup(&self) -> Result<Lookup, &'static str> {
        let v6 = self.record == Some(Record::Aaaa);
        match (self.record, self.port) {
            (None | Some(Record::Srv), None) => Ok(Lookup::Services),
            (Some(Record::Srv), Some(_)) => {
                Err("has a `port`, which SRV records already include: remove it, or set `type: A`")
            }
            (_, Some(port)) => Ok(Lookup::Addresses { v6, port }),
            (_, None) => Err("needs a `port`, which A and AAAA records do not include"),
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
pub(super) struct RawProfiles {
    /// CPU time, measured over some seconds.
    pub(super) profile: RawProfile,
    /// Memory in use, and allocations if `allocs` is off.
    pub(super) heap: RawProfile,
    /// Allocations; off by default.
    pub(super) allocs: RawProfile,
    /// Lock contention.
    pub(super) mutex: RawProfile,
    /// Time blocked on synchronisation.
    pub(super) block: RawProfile,
    /// Live goroutines.
    pub(super) goroutine: RawProfile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawProfile {
    /// Whether to fetch it.
    pub(super) enabled: Option<bool>,
    /// Path; default `/debug/pprof/` and the profile's name.
    pub(super) path: Option<String>,
    /// `profile` only: how long to measure; default 10, or a second less than the interval if that is shorter.
    pub(super) seconds: Option<u64>,
}

//! A job's current targets: static, from files, and from DNS.
//!
//! Guarantees: an unreadable file and a failed lookup keep their previous targets, and are reported as problems; a
//! target from two sources exists once; no source yields more than the limit.
//!
//! Wrong on purpose: a changed file is recognised by its time and length; a change that keeps both goes unnoticed until
//! the next one.
//!
//! One file because each source of targets keeps and reports the same things. A third of it are tests with a name
//! server of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use emberline_yaml::{Unreadable, show_problems};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::ResolverConfig,
    net::runtime::TokioRuntimeProvider,
    proto::rr::{Name, RData},
};
use tokio::time::Instant;

use super::{
    address::Address,
    config::{DnsDiscovery, FileDiscovery, Group, Job, Lookup},
    target::{Target, Trust},
};

/// Longest lookup of a name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// The most files of one pattern.
const MAX_FILES: usize = 1_000;
/// The most problems kept per job.
const MAX_PROBLEMS: usize = 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) targets: BTreeSet<Target>,
    pub(super) problems: Vec<String>,
}

/// The contents of a file when last read.
struct ReadFile {
    stamp: (Option<SystemTime>, u64),
    groups: Vec<Group>,
    problem: Option<String>,
}

/// The result of a name's last lookup.
struct LookedUp {
    /// When it is looked up again.
    next: Instant,
    groups: Vec<Group>,
    problem: Option<String>,
}

/// Finds the targets of a job; remembers the contents of files and the results of lookups.
pub(super) struct Discovery {
    job: Job,
    folder: PathBuf,
    files: BTreeMap<PathBuf, ReadFile>,
    names: BTreeMap<(usize, usize), LookedUp>,
    /// The servers for SRV lookups; `None` for the system's current ones.
    name_servers: Option<ResolverConfig>,
}

impl Discovery {
    pub(super) fn new(job: Job, folder: PathBuf) -> Discovery {
        Discovery {
            job,
            folder,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            name_servers: None,
        }
    }

    /// How long the result remains valid.
    pub(super) fn pause(&self) -> Option<Duration> {
        let files = self.job.files.iter().map(|discovery| discovery.refresh_interval);
        let names = self.job.dns.iter().map(|discovery| discovery.refresh_interval);
        files.chain(names).min()
    }

    /// Refreshes the sources that are due.
    pub(super) async fn refresh(&mut self, max_targets: usize) -> Found {
        let mut found = Found::default();
        let mut groups: Vec<(Group, Trust)> = self
            .job
            .groups
            .iter()
            .map(|group| (group.clone(), Trust::Written))
            .collect();
        let mut before = std::mem::take(&mut self.files);
        for discovery in self.job.files.clone() {
            self.refresh_files(&discovery, &mut before, &mut groups, &mut found.problems);
        }
        for (at, discovery) in self.job.dns.clone().iter().enumerate() {
            for (nth, name) in discovery.names.iter().enumerate() {
                self.refresh_name((at, nth), discovery, name, &mut groups, &mut found.problems)
                    .await;
            }
        }
        for (group, trust) in &groups {
            for target in Target::of_group(&self.job.name, group, *trust, &self.job.rules, self.job.scheme) {
                match target {
                    Ok(target) if found.targets.len() < max_targets => {
                        found.targets.insert(target);
                    }
                    Ok(target) if found.targets.contains(&target) => {}
                    Ok(_) => found.problems.push(format!(
                        "more than {max_targets} targets (`max_targets`); the others are not scraped"
                    )),
                    Err(problem) => found.problems.push(problem),
                }
            }
        }
        found.problems.dedup();
        found.problems.truncate(MAX_PROBLEMS);
        found
    }

    fn refresh_files(
        &mut self,
        discovery: &FileDiscovery,
        before: &mut BTreeMap<PathBuf, ReadFile>,
        groups: &mut Vec<(Group, Trust)>,
        problems: &mut Vec<String>,
    ) {
        let mut paths = Vec::new();
        for pattern in &discovery.files {
            match matching(&self.folder.join(pattern)) {
                Ok(matched) => paths.extend(matched),
                Err(error) => problems.push(format!("{pattern}: {error}")),
            }
        }
        for path in paths {
            let read = refresh_file(&path, before.remove(&path));
            problems.extend(read.problem.clone());
            groups.extend(read.groups.iter().map(|group| {
                let mut group = group.clone();
                let from = path.to_string_lossy().into_owned();
                group.labels.entry("__meta_filepath".to_owned()).or_insert(from);
                let trust = if discovery.allow_this_machine {
                    Trust::Written
                } else {
                    Trust::Looked
                };
                (group, trust)
            }));
            self.files.insert(path, read);
        }
    }

    async fn refresh_name(
        &mut self,
        key: (usize, usize),
        discovery: &DnsDiscovery,
        name: &str,
        groups: &mut Vec<(Group, Trust)>,
        problems: &mut Vec<String>,
    ) {
        let known = self.names.remove(&key);
        let now = Instant::now();
        let looked = match known {
            Some(known) if known.next > now => known,
            known => {
                let looked = tokio::time::timeout(LOOKUP_LIMIT, look_up(discovery, name, self.name_servers.as_ref()));
                let looked = looked
                    .await
                    .unwrap_or_else(|_| Err(format!("no response within {LOOKUP_LIMIT:?}")));
                let next = now + discovery.refresh_interval;
                match looked {
                    Ok(groups) => LookedUp {
                        next,
                        groups,
                        problem: None,
                    },
                    Err(problem) => LookedUp {
                        next,
                        groups: known.map(|known| known.groups).unwrap_or_default(),
                        problem: Some(format!("cannot look up `{name}`: {problem}")),
                    },
                }
            }
        };
        problems.extend(looked.problem.clone());
        groups.extend(looked.groups.iter().map(|group| (group.clone(), Trust::Looked)));
        self.names.insert(key, looked);
    }
}

/// Looks up a name.
async fn look_up(
    discovery: &DnsDiscovery,
    name: &str,
    name_servers: Option<&ResolverConfig>,
) -> Result<Vec<Group>, String> {
    let said = BTreeMap::from([("__meta_dns_name".to_owned(), name.to_owned())]);
    match discovery.lookup()? {
        Lookup::Addresses { v6, port } => {
            let addresses = tokio::net::lookup_host((name, port)).await;
            let addresses = addresses.map_err(|error| error.to_string())?;
            let targets = addresses.filter(|address| address.is_ipv6() == v6).map(|address| {
                let (host, port) = (address.ip().to_string(), address.port());
                Address { host, port }.authority()
            });
            Ok(vec![Group {
                targets: targets.collect(),
                labels: said,
            }])
        }
        Lookup::Services => {
            let services = services(name, name_servers).await?;
            let groups = services.into_iter().map(|Address { host, port }| {
                let mut labels = said.clone();
                labels.insert("__meta_dns_srv_record_target".to_owned(), host.clone());
                labels.insert("__meta_dns_srv_record_port".to_owned(), port.to_string());
                Group {
                    targets: vec![Address { host, port }.authority()],
                    labels,
                }
            });
            Ok(groups.collect())
        }
    }
}

/// SRV records (RFC 2782), which the system's resolver does not return.
async fn services(name: &str, name_servers: Option<&ResolverConfig>) -> Result<Vec<Address>, String> {
    let builder = match name_servers {
        Some(servers) => Ok(Resolver::builder_with_config(
            servers.clone(),
            TokioRuntimeProvider::default(),
        )),
        None => TokioResolver::builder_tokio(),
    };
    let resolver = builder.and_then(|mut builder| {
        // `refresh_interval` determines how old an answer may be.
        builder.options_mut().cache_size = 0;
        builder.build()
    });
    let resolver = resolver.map_err(|error| error.to_string())?;
    // Underscores within a label are refused in UTF-8, but not in ASCII.
    let name = Name::from_ascii(name).or_else(|_| Name::from_utf8(name));
    let name = name.map_err(|error| error.to_string())?;
    let looked = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
    let services = looked.answers().iter().filter_map(|record| match &record.data {
        // The root as target means that there is no such service.
        RData::SRV(service) if !service.target.is_root() => Some(Address {
            host: service.target.to_ascii().trim_end_matches('.').to_owned(),
            port: service.port,
        }),
        _ => None,
    });
    Ok(services.collect())
}

/// The paths that match a pattern: itself, or the files in its directory that match its `*`.
fn matching(pattern: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    let Some((before, after)) = name.split_once('*') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fits = name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after);
        if fits && paths.len() < MAX_FILES {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a file if it has changed; an unreadable one keeps its previous contents.
fn refresh_file(path: &Path, known: Option<ReadFile>) -> ReadFile {
    let stamp = std::fs::metadata(path).map_or((None, 0), |data| (data.modified().ok(), data.len()));
    let groups = match known {
        Some(known) if known.stamp == stamp && known.stamp.0.is_some() => return known,
        Some(known) => known.groups,
        None => Vec::new(),
    };
    let read = emberline_yaml::read_file(path).map_err(|error| match error {
        Unreadable::Io(error) => format!("{}: {error}", path.display()),
        Unreadable::TooLarge => format!("{}: too large for a target list", path.display()),
    });
    let parsed = read.and_then(|text| {
        let groups: Result<Vec<Group>, _> = emberline_yaml::from_str(&text);
        groups.map_err(|problem| show_problems(path, &[problem]).to_string())
    });
    match parsed {
        Ok(groups) => ReadFile {
            stamp,
            groups,
            problem: None,
        },
        Err(problem) => ReadFile {
            stamp,
            groups,
            problem: Some(format!("{problem}; keeping the previous targets")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig},
        proto::{
            op::{Message, ResponseCode},
            rr::{Name, RecordType, rdata::SRV},
        },
    };

    use super::*;

    fn discovery(folder: &Path, yaml: &str) -> Discovery {
        let text = format!("scrape_configs:\n  - job_name: shop\n{yaml}");
        let config = crate::scrape::config::parse(&folder.join("scrape.yaml"), &text).unwrap();
        Discovery::new(config.jobs[0].clone(), config.folder)
    }

    fn addresses(found: &Found) -> Vec<String> {
        found.targets.iter().map(|target| target.address.authority()).collect()
    }

    #[tokio::test]
    async fn files_are_read_again_when_they_change_and_a_broken_one_keeps_its_targets() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let mut discovery = discovery(
            folder.path(),
            "    static_configs: [{targets: ['s:1']}]\n    file_sd_configs: [{files: ['t-*.yaml', 'one.json']}]\n",
        );
        write("t-a.yaml", "- targets: ['a:1']\n  labels: {version: v1}\n");
        write("t-b.yaml", "- targets: ['a:1']\n  labels: {version: v1}\n");
        write("one.json", r#"[{"targets": ["j:1"], "labels": {}}]"#);
        write("other.yaml", "- targets: ['never:1']\n");
        let found = discovery.refresh(10).await;
        assert_eq!(
            addresses(&found),
            ["a:1", "j:1", "s:1"],
            "the one that two files give is there once"
        );
        assert_eq!(found.problems, Vec::<String>::new());

        write("t-a.yaml", "- targets: ['a:1', 'a:22']\n  labels: {version: v1}\n");
        assert_eq!(addresses(&discovery.refresh(10).await), ["a:1", "a:22", "j:1", "s:1"]);
        write("t-a.yaml", "- targets: ['a:1']\n  lables: {version: v1}\n");
        let found = discovery.refresh(10).await;
        assert_eq!(addresses(&found), ["a:1", "a:22", "j:1", "s:1"]);
        assert!(found.problems[0].contains("t-a.yaml:2: "), "{:?}", found.problems);
        assert!(found.problems[0].contains("`lables`"), "{:?}", found.problems);
        std::fs::remove_file(folder.path().join("t-a.yaml")).unwrap();
        let found = discovery.refresh(10).await;
        assert_eq!(
            addresses(&found),
            ["a:1", "j:1", "s:1"],
            "a file that is gone gives nothing"
        );
    }

    #[tokio::test]
    async fn files_may_name_this_machine_only_where_the_configuration_allows_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.json"), r#"[{"targets": ["127.0.0.1:1"]}]"#).unwrap();
        for (allowed, trust) in [("", Trust::Looked), (", allow_this_machine: true", Trust::Written)] {
            let files = format!("    file_sd_configs: [{{files: ['a.json']{allowed}}}]\n");
            let found = discovery(folder.path(), &files).refresh(10).await;
            assert_eq!(
                found.targets.first().map(|target| target.trust),
                Some(trust),
                "{:?}",
                found.problems
            );
        }
    }

    #[tokio::test]
    async fn targets_over_the_limit_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut discovery = discovery(
            folder.path(),
            "    static_configs: [{targets: ['a:1', 'b:1', 'c:1']}]\n",
        );
        let found = discovery.refresh(2).await;
        assert_eq!(found.targets.len(), 2);
        assert!(found.problems[0].contains("max_targets"));
    }

    #[tokio::test]
    async fn names_give_addresses_that_are_not_trusted_with_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let mut discovery = discovery(
            folder.path(),
            "    dns_sd_configs: [{names: [localhost], port: 6060}]\n    relabel_configs: [{source_labels: [__meta_dns_name], \
             target_label: service}]\n",
        );
        let found = discovery.refresh(10).await;
        let target = found.targets.first().unwrap();
        assert_eq!(target.address.authority(), "127.0.0.1:6060");
        assert_eq!(
            (target.trust, target.labels["service"].as_str()),
            (Trust::Looked, "localhost")
        );
    }

    /// Answers with the given records of a name, NXDOMAIN for unknown names, and SERVFAIL for everything once told to
    /// fail.
    async fn name_server(records: Vec<(&'static str, u16, &'static str)>) -> (ResolverConfig, Arc<AtomicBool>) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let told = fails.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let question = asked.queries[0].clone();
                let mut answer = Message::response(asked.id, asked.op_code);
                let fails = told.load(Ordering::SeqCst);
                for (name, port, target) in records.iter().filter(|_| !fails) {
                    let name = Name::from_ascii(name).unwrap();
                    if &name == question.name() && question.query_type() == RecordType::SRV {
                        let service = SRV::new(0, 0, *port, Name::from_ascii(target).unwrap());
                        answer.add_answer(hickory_resolver::proto::rr::Record::from_rdata(
                            name,
                            5,
                            RData::SRV(service),
                        ));
                    }
                }
                if fails {
                    answer.metadata.response_code = ResponseCode::ServFail;
                } else if answer.answers.is_empty() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.add_query(question);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let mut over_udp = ConnectionConfig::udp();
        over_udp.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![over_udp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        (config, fails)
    }

    #[tokio::test]
    async fn services_of_a_name_have_ports_and_stay_while_they_cannot_be_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut discovery = discovery(
            folder.path(),
            "    dns_sd_configs: [{names: [_pprof._tcp.shop.test., _gone._tcp.shop.test.]}]\n    \
             relabel_configs:\n      - {source_labels: [__meta_dns_srv_record_target, __meta_dns_srv_record_port], \
             separator: '/', target_label: instance}\n",
        );
        let (config, fails) = name_server(vec![
            ("_pprof._tcp.shop.test.", 6060, "a.shop.test."),
            ("_pprof._tcp.shop.test.", 6061, "b.shop.test."),
            ("_pprof._tcp.shop.test.", 1, "."),
            ("_other._tcp.shop.test.", 2, "c.shop.test."),
        ])
        .await;
        discovery.name_servers = Some(config);
        let found = discovery.refresh(10).await;
        assert_eq!(addresses(&found), ["a.shop.test:6060", "b.shop.test:6061"]);
        let target = found.targets.first().unwrap();
        assert_eq!(
            (target.trust, target.labels["instance"].as_str()),
            (Trust::Looked, "a.shop.test/6060")
        );
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert!(found.problems[0].contains("_gone._tcp"), "{:?}", found.problems);

        fails.store(true, Ordering::SeqCst);
        // It is time to look up again.
        discovery
            .names
            .values_mut()
            .for_each(|looked| looked.next = Instant::now());
        let later = discovery.refresh(10).await;
        assert_eq!(addresses(&later), addresses(&found), "what was found is kept");
        assert_eq!(later.problems.len(), 2, "{:?}", later.problems);
    }

    #[tokio::test]
    async fn a_name_with_an_underscore_within_is_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = "    dns_sd_configs: [{names: [_pprof._tcp.my_shop.test.]}]\n";
        let mut discovery = discovery(folder.path(), jobs);
        let (config, _) = name_server(vec![("_pprof._tcp.my_shop.test.", 6060, "my_a.test.")]).await;
        discovery.name_servers = Some(config);
        let found = discovery.refresh(10).await;
        assert_eq!(addresses(&found), ["my_a.test:6060"], "{:?}", found.problems);
    }
}

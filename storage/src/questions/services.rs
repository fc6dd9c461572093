//! Which services there are, in which releases, and since when.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use emberline_model::{Component, Mapping, Release, version::compare_versions};

use crate::{
    history::ReleaseBeginning,
    hot::{Span, rows::SERIES_WINDOWS},
    ids::IdMap,
    questions::{Question, View, selection::WorkloadFilter, sql::Sql},
    range::Range,
    readers::{Failure, Reader},
};

/// Releases last seen within this many seconds of each other served together.
const TOGETHER_S: i64 = 60;

/// A service and its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Namespace.
    pub namespace: String,
    /// Service name.
    pub service: String,
    /// The releases that reported windows in the range, newest first: by when they were first seen, according to the
    /// store's history, and by version where that is not enough.
    pub releases: Vec<ReleaseInfo>,
}

/// A release that reported windows in the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseInfo {
    /// Version.
    pub version: String,
    /// When it was first seen, or its start as declared through the API; seconds since the Unix epoch. It does not
    /// depend on the range, on what is still stored, or on which processes remain.
    pub first_seen_s: i64,
    /// Whether the start was declared through the API.
    pub is_stated: bool,
    /// Start of the first window kept, also before the range.
    pub first_window_s: i64,
    /// End of the last window in the range.
    pub last_seen_s: i64,
    /// Its processes, sorted; only some if there are very many.
    pub instances: Vec<String>,
    /// How many there are.
    pub instance_count: usize,
    /// For each of these, the start of the first window kept, also before the range.
    pub instances_since_s: Vec<i64>,
    /// Builds of the files its code was loaded from, without shared libraries if there is anything else; those of the
    /// application if it reports profiles, otherwise those of the proxy.
    pub build_ids: Vec<String>,
    /// Who reports.
    pub components: Vec<Component>,
}

/// Memory of a release and of a process, here and in an answer, with their names, in bytes.
const RELEASE_BYTES: usize = 1_024;
const INSTANCE_BYTES: usize = 384;

#[derive(Default)]
struct Found {
    first_s: u32,
    last_s: i64,
    instances: BTreeMap<String, u32>,
    components: BTreeSet<Component>,
    workloads: BTreeSet<u64>,
}

/// The release that `candidate` is compared with when none is named, among `releases`, newest first: of the older ones,
/// the newest that still served when the last of them did. A release that was rolled back is not what its successor
/// replaces.
pub fn baseline_of<'a>(releases: &'a [ReleaseInfo], candidate: &str) -> Option<&'a ReleaseInfo> {
    let at = releases.iter().position(|release| release.version == candidate)?;
    let older = &releases[at + 1..];
    let last_s = older.iter().map(|release| release.last_seen_s).max()?;
    older.iter().find(|release| release.last_seen_s + TOGETHER_S >= last_s)
}

/// When a release began, and its sort key.
type Began<'a> = &'a dyn Fn(&Release) -> Option<(ReleaseBeginning, (i64, i64))>;

/// Services in an answer, unless the question says otherwise.
const MOST_SERVICES: usize = 5_000;
/// The most processes that an answer names.
const MOST_INSTANCES: usize = 20_000;

/// The services that reported windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// Those that reported for longest, by namespace and name.
    pub services: Vec<ServiceInfo>,
    /// How many others there are.
    pub left_out: u64,
}

/// Which services reported windows.
///
/// If somebody makes up endless services, each of them reports only briefly: those that last stay in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicesQuery {
    /// How many; the others are only counted.
    pub most: usize,
    /// Whose.
    pub who: WorkloadFilter,
    /// When.
    pub range: Range,
}

impl ServicesQuery {
    /// All services, up to what an answer holds.
    pub fn new(range: Range) -> ServicesQuery {
        ServicesQuery {
            most: MOST_SERVICES,
            who: WorkloadFilter::default(),
            range,
        }
    }
}

impl Question for ServicesQuery {
    type Answer = Services;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Services, Failure> {
        let spans = view.shared.known.spans.read().clone();
        let began = |release: &Release| view.shared.history.lock().of(release);
        services(view.reader, view.span, self, &spans, &began)
    }
}

/// Answers which services reported windows in a span. `spans` has the first window of each workload, `began` what the
/// history knows about a release.
fn services(
    reader: &Reader<'_>,
    span: &Span,
    query: &ServicesQuery,
    spans: &IdMap<(u32, u32)>,
    began: Began<'_>,
) -> Result<Services, Failure> {
    if span.is_empty() {
        return Ok(Services::default());
    }
    let (mut all, mut named) = (0, 0);
    let mut services: BTreeMap<(String, String), BTreeMap<String, Found>> = BTreeMap::new();
    let mut sql = Sql::new(
        "WITH w AS MATERIALIZED (SELECT workload_id, component, min(ts) AS first_s,
            max(ts::BIGINT + length::BIGINT * windows) AS last_s, sum(windows) AS windows FROM ",
    );
    // Names are joined last: grouping single windows by them takes ten times the memory.
    sql.runs(span).push(
        " GROUP BY 1, 2), found AS MATERIALIZED (
            SELECT d.namespace, d.service, d.version, d.instance, w.* FROM w JOIN series d
            ON d.workload_id = w.workload_id AND d.component = w.component WHERE d.profile_type = ",
    );
    sql.bind(SERIES_WINDOWS.to_owned());
    query.who.push(&mut sql);
    sql.push(
        "), kept AS (SELECT namespace, service, count(*) OVER () AS services
            FROM (SELECT namespace, service, max(last_s) - min(first_s) AS lasted, sum(windows) AS windows
                FROM found GROUP BY 1, 2)
            ORDER BY lasted DESC, windows DESC, namespace, service LIMIT ",
    );
    sql.bind(query.most as u64).push(
        ") SELECT namespace, service, version, instance, component, workload_id, first_s, last_s, services
            FROM found JOIN kept USING (namespace, service)",
    );
    sql.run(reader, |columns| {
        let (namespace, service) = (columns.text(0)?, columns.text(1)?);
        let (version, instance) = (columns.text(2)?, columns.text(3)?);
        let (component, workload) = (columns.u8(4)?, columns.u64(5)?);
        let (first, last) = (columns.u32(6)?, columns.i64(7)?);
        let counted = columns.i64(8)?;
        all = counted.first().copied().unwrap_or(all);
        for row in 0..columns.rows() {
            let first_s = spans
                .get(&workload[row])
                .map_or(first[row], |span| span.0.min(first[row]));
            let releases = services
                .entry((namespace.string(row), service.string(row)))
                .or_default();
            let found = match releases.entry(version.string(row)) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(place) => {
                    reader.hold(RELEASE_BYTES)?;
                    place.insert(Found {
                        first_s,
                        last_s: last[row],
                        ..Found::default()
                    })
                }
            };
            found.first_s = found.first_s.min(first_s);
            found.last_s = found.last_s.max(last[row]);
            match found.instances.entry(instance.string(row)) {
                Entry::Occupied(mut since_s) => *since_s.get_mut() = (*since_s.get()).min(first_s),
                Entry::Vacant(place) if named < MOST_INSTANCES => {
                    reader.hold(INSTANCE_BYTES)?;
                    named += 1;
                    place.insert(first_s);
                }
                Entry::Vacant(_) => {}
            }
            found.components.insert(Component::from_code(u32::from(component[row])));
            found.workloads.insert(workload[row]);
        }
        Ok(())
    })?;
    let builds = builds(reader, &query.who)?;
    let infos = services.into_iter().map(|((namespace, service), releases)| {
        let mut ordered: Vec<((i64, i64), ReleaseInfo)> = releases
            .into_iter()
            .map(|(version, found)| {
                let release = Release {
                    namespace: namespace.clone(),
                    service: service.clone(),
                    version,
                };
                let first_s = i64::from(found.first_s);
                // Everything stored has a history; a window that arrived this moment may not have one yet.
                let unknown = ReleaseBeginning {
                    first_seen_s: first_s,
                    is_stated: false,
                };
                let (beginning, order) = began(&release).unwrap_or((unknown, (first_s, first_s)));
                (order, release_info(release.version, beginning, found, &builds))
            })
            .collect();
        ordered.sort_by(|(a_order, a), (b_order, b)| {
            let by_version = || compare_versions(&b.version, &a.version);
            b_order.cmp(a_order).then_with(by_version)
        });
        ServiceInfo {
            namespace,
            service,
            releases: ordered.into_iter().map(|(_, release)| release).collect(),
        }
    });
    let services: Vec<ServiceInfo> = infos.collect();
    Ok(Services {
        left_out: (all as u64).saturating_sub(services.len() as u64),
        services,
    })
}

fn release_info(version: String, beginning: ReleaseBeginning, found: Found, builds: &Builds) -> ReleaseInfo {
    let of = |component| builds.of(found.workloads.iter().copied(), component);
    let mut build_ids = of(Component::Application);
    if build_ids.is_empty() {
        build_ids = of(Component::Proxy);
    }
    ReleaseInfo {
        version,
        first_seen_s: beginning.first_seen_s,
        is_stated: beginning.is_stated,
        first_window_s: i64::from(found.first_s),
        last_seen_s: found.last_s,
        instance_count: found.workloads.len(),
        instances_since_s: found.instances.values().map(|&since_s| i64::from(since_s)).collect(),
        instances: found.instances.into_keys().collect(),
        build_ids,
        components: found.components.into_iter().collect(),
    }
}

/// Which files the code of each workload was loaded from.
pub(super) struct Builds(IdMap<Vec<(u8, Mapping)>>);

/// Reads which files the code of each workload was loaded from.
pub(super) fn builds(reader: &Reader<'_>, who: &WorkloadFilter) -> Result<Builds, Failure> {
    let mut builds: IdMap<Vec<(u8, Mapping)>> = IdMap::default();
    let mut sql = Sql::new(
        "SELECT b.workload_id, b.component, m.build_id, m.path FROM workload_builds b JOIN mappings m USING (mapping_id)",
    );
    if *who != WorkloadFilter::default() {
        sql.push(" WHERE b.workload_id IN (SELECT d.workload_id FROM series d WHERE true");
        who.push(&mut sql);
        sql.push(")");
    }
    sql.run(reader, |columns| {
        let (workload, component) = (columns.u64(0)?, columns.u8(1)?);
        let (build_id, path) = (columns.text(2)?, columns.text(3)?);
        for row in 0..columns.rows() {
            let mapping = Mapping {
                build_id: build_id.string(row),
                path: path.string(row),
            };
            builds.entry(workload[row]).or_default().push((component[row], mapping));
        }
        Ok(())
    })?;
    Ok(Builds(builds))
}

impl Builds {
    /// Build ids of the files that some workloads ran, sorted; shared libraries only if there is nothing else.
    pub(super) fn of(&self, workloads: impl Iterator<Item = u64>, component: Component) -> Vec<String> {
        let mut programs = BTreeSet::new();
        let mut libraries = BTreeSet::new();
        for (code, mapping) in workloads.filter_map(|w| self.0.get(&w)).flatten() {
            if *code != component.code() || mapping.build_id.is_empty() {
                continue;
            }
            let kind = if is_library(&mapping.path) {
                &mut libraries
            } else {
                &mut programs
            };
            kind.insert(mapping.build_id.clone());
        }
        if programs.is_empty() { libraries } else { programs }
            .into_iter()
            .collect()
    }
}

/// True for shared libraries and code without a file, judging by the name.
fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.ends_with(".so") || name.contains(".so.") || name.starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_what_the_candidate_replaces() {
        let release = |version: &str, last_seen_s: i64| ReleaseInfo {
            version: version.to_owned(),
            first_seen_s: 0,
            is_stated: false,
            first_window_s: 0,
            last_seen_s,
            instances: Vec::new(),
            instance_count: 0,
            instances_since_s: Vec::new(),
            build_ids: Vec::new(),
            components: Vec::new(),
        };
        for (newest_first, candidate, baseline) in [
            ([("v3", 900), ("v2", 900), ("v1", 900)], "v3", Some("v2")),
            // v2 was rolled back before v3 came.
            ([("v3", 900), ("v2", 300), ("v1", 900)], "v3", Some("v1")),
            // v3 replaced v2, which had replaced v1.
            ([("v3", 900), ("v2", 500), ("v1", 100)], "v3", Some("v2")),
            ([("v3", 900), ("v2", 500), ("v1", 540)], "v3", Some("v2")),
            // A newer release is no baseline, even if it serves.
            ([("v3", 900), ("v2", 300), ("v1", 100)], "v2", Some("v1")),
            ([("v3", 900), ("v2", 300), ("v1", 100)], "v1", None),
            ([("v3", 900), ("v2", 300), ("v1", 100)], "v4", None),
        ] {
            let releases = newest_first.map(|(version, last)| release(version, last));
            let found = baseline_of(&releases, candidate).map(|release| release.version.as_str());
            assert_eq!(found, baseline, "{newest_first:?} {candidate}");
        }
    }

    #[test]
    fn programs_go_before_libraries() {
        for library in ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/libduckdb.so", "[vdso]"] {
            assert!(is_library(library), "{library}");
        }
        assert!(!is_library("/opt/shop.so.d/checkout"));
    }
}

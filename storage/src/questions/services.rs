//! Which services there are, in which releases, since when.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{Component, Mapping, Release, version::compare_versions};

use crate::{
    history::ReleaseBeginning,
    hot::{Span, rows::SERIES_WINDOWS},
    ids::IdMap,
    questions::{Question, View, sql::Sql},
    range::Range,
    readers::{Failure, Reader},
};

/// Releases that were last seen within so many seconds of each other served together.
const TOGETHER_S: i64 = 60;

/// A service and its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Group of services.
    pub namespace: String,
    /// Name.
    pub service: String,
    /// Those that reported windows in the range, the newest first: by when they were first seen, as the store's history has
    /// it, and by version where that says nothing.
    pub releases: Vec<ReleaseInfo>,
}

/// A release, as far as it reported windows in the range.
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
    /// Its processes, sorted.
    pub instances: Vec<String>,
    /// Of each of these the start of the first window kept, also before the range.
    pub instances_since_s: Vec<i64>,
    /// Builds of the files its code was loaded from, without shared libraries where there is anything else; those of
    /// the application when it reports profiles, otherwise those of the proxy.
    pub build_ids: Vec<String>,
    /// Who reports.
    pub components: Vec<Component>,
}

#[derive(Default)]
struct Found {
    first_s: u32,
    last_s: i64,
    instances: BTreeMap<String, u32>,
    components: BTreeSet<Component>,
    workloads: BTreeSet<u64>,
}

/// The release that another of the same service is compared with when none is named, among `releases`, the newest first: of
/// the older ones the newest that still served when the last of them did. A release that was rolled back is not what its
/// successor replaces.
pub fn baseline_of<'a>(releases: &'a [ReleaseInfo], candidate: &str) -> Option<&'a ReleaseInfo> {
    let at = releases.iter().position(|release| release.version == candidate)?;
    let older = &releases[at + 1..];
    let last_s = older.iter().map(|release| release.last_seen_s).max()?;
    older.iter().find(|release| release.last_seen_s + TOGETHER_S >= last_s)
}

/// When a release began, and by what it is ordered.
type Began<'a> = &'a dyn Fn(&Release) -> Option<(ReleaseBeginning, (i64, i64))>;

/// Which services reported windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicesQuery {
    /// When.
    pub range: Range,
}

impl Question for ServicesQuery {
    type Answer = Vec<ServiceInfo>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<ServiceInfo>, Failure> {
        let spans = view.shared.known.spans.read().clone();
        let began = |release: &Release| view.shared.history.lock().of(release);
        services(view.reader, view.span, &spans, &began)
    }
}

/// Answers which services reported windows in a span. `spans` says when each workload was first seen, `began` what the
/// history knows of a release.
fn services(
    reader: &Reader<'_>,
    span: &Span,
    spans: &IdMap<(u32, u32)>,
    began: Began<'_>,
) -> Result<Vec<ServiceInfo>, Failure> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let mut services: BTreeMap<(String, String), BTreeMap<String, Found>> = BTreeMap::new();
    let mut sql = Sql::new(
        "SELECT d.namespace, d.service, d.version, d.instance, w.component, w.workload_id, min(w.ts),
            max(w.ts::BIGINT + w.length::BIGINT * w.windows) FROM ",
    );
    sql.runs(span)
        .push(" w JOIN series d ON d.workload_id = w.workload_id AND d.component = w.component WHERE d.profile_type = ")
        .bind(SERIES_WINDOWS.to_owned())
        .push(" GROUP BY 1, 2, 3, 4, 5, 6");
    sql.run(reader, |columns| {
        let (namespace, service) = (columns.text(0)?, columns.text(1)?);
        let (version, instance) = (columns.text(2)?, columns.text(3)?);
        let (component, workload) = (columns.u8(4)?, columns.u64(5)?);
        let (first, last) = (columns.u32(6)?, columns.i64(7)?);
        for row in 0..columns.rows() {
            let first_s = spans
                .get(&workload[row])
                .map_or(first[row], |span| span.0.min(first[row]));
            let found = services
                .entry((namespace.string(row), service.string(row)))
                .or_default()
                .entry(version.string(row))
                .or_insert_with(|| Found {
                    first_s,
                    last_s: last[row],
                    ..Found::default()
                });
            found.first_s = found.first_s.min(first_s);
            found.last_s = found.last_s.max(last[row]);
            let since_s = found.instances.entry(instance.string(row)).or_insert(first_s);
            *since_s = (*since_s).min(first_s);
            found.components.insert(Component::from_code(u32::from(component[row])));
            found.workloads.insert(workload[row]);
        }
        Ok(())
    })?;
    let builds = builds(reader)?;
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
                // Everything that is stored has a history; a window that came this moment may not have one yet.
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
    Ok(infos.collect())
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
        instances_since_s: found.instances.values().map(|&since_s| i64::from(since_s)).collect(),
        instances: found.instances.into_keys().collect(),
        build_ids,
        components: found.components.into_iter().collect(),
    }
}

/// Which files the code of each workload was loaded from.
pub(super) struct Builds(IdMap<Vec<(u8, Mapping)>>);

/// Reads which files the code of each workload was loaded from.
pub(super) fn builds(reader: &Reader<'_>) -> Result<Builds, Failure> {
    let mut builds: IdMap<Vec<(u8, Mapping)>> = IdMap::default();
    let sql = Sql::new(
        "SELECT b.workload_id, b.component, m.build_id, m.path FROM workload_builds b JOIN mappings m USING (mapping_id)",
    );
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
    /// Build ids of the files that some workloads ran, sorted; shared libraries only when there is nothing else.
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

/// True for shared libraries and code that is no file, by their names.
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
            // What is newer is no baseline, also where it serves.
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

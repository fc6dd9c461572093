//! Which services there are, in which releases, since when.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{Component, Mapping};

use crate::{
    hot::{Span, database::WINDOWS, rows::SERIES_WINDOWS},
    ids::IdMap,
    questions::sql::Sql,
    readers::{Failure, Reader},
};

/// A service and its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Group of services.
    pub namespace: String,
    /// Name.
    pub service: String,
    /// Those that reported windows in the range, the latest first seen first.
    pub releases: Vec<ReleaseInfo>,
}

/// A release, as far as it reported windows in the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseInfo {
    /// Version.
    pub version: String,
    /// Start of the first window kept, also before the range; seconds since the Unix epoch.
    pub first_seen_s: i64,
    /// End of the last window in the range.
    pub last_seen_s: i64,
    /// Its processes, sorted.
    pub instances: Vec<String>,
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
    instances: BTreeSet<String>,
    components: BTreeSet<Component>,
    workloads: BTreeSet<u64>,
}

/// Answers which services reported windows in a span. `spans` says when each workload was first seen.
pub(crate) fn services(
    reader: &Reader<'_>,
    span: &Span,
    spans: &IdMap<(u32, u32)>,
) -> Result<Vec<ServiceInfo>, Failure> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let mut services: BTreeMap<(String, String), BTreeMap<String, Found>> = BTreeMap::new();
    let mut sql = Sql::new(
        "SELECT d.namespace, d.service, d.version, d.instance, w.component, w.workload_id, min(w.ts),
            max(w.ts::BIGINT + w.length) FROM ",
    );
    sql.hours(WINDOWS, span)
        .push(" w JOIN series d ON d.workload_id = w.workload_id AND d.component = w.component WHERE ")
        .within("w.ts", span)
        .push(" AND d.profile_type = ")
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
            found.instances.insert(instance.string(row));
            found.components.insert(Component::from_code(u32::from(component[row])));
            found.workloads.insert(workload[row]);
        }
        Ok(())
    })?;
    let builds = builds(reader)?;
    let infos = services.into_iter().map(|((namespace, service), releases)| {
        let mut releases: Vec<ReleaseInfo> = releases
            .into_iter()
            .map(|(version, found)| release_info(version, found, &builds))
            .collect();
        releases.sort_by(|a, b| (b.first_seen_s, &b.version).cmp(&(a.first_seen_s, &a.version)));
        ServiceInfo {
            namespace,
            service,
            releases,
        }
    });
    Ok(infos.collect())
}

fn release_info(version: String, found: Found, builds: &Builds) -> ReleaseInfo {
    let of = |component| builds.of(found.workloads.iter().copied(), component);
    let mut build_ids = of(Component::Application);
    if build_ids.is_empty() {
        build_ids = of(Component::Proxy);
    }
    ReleaseInfo {
        version,
        first_seen_s: i64::from(found.first_s),
        last_seen_s: found.last_s,
        instances: found.instances.into_iter().collect(),
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
    fn programs_go_before_libraries() {
        for library in ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/libduckdb.so", "[vdso]"] {
            assert!(is_library(library), "{library}");
        }
        assert!(!is_library("/opt/shop.so.d/checkout"));
    }
}

//! Batches as rows. Guarantee: the values of a profile's samples reach the rows exactly; a dictionary row is
//! written once per file. What was staged and not committed is taken back with [`Seen::forget`].

mod requests;
mod stage;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, ListBuilder, StringArray, StringBuilder, UInt8Array, UInt32Array,
    UInt32Builder, UInt64Array, UInt64Builder,
};
use emberline_model::{
    Component, Frame, Mapping, Release, Workload, WorkloadWindow,
    id::{self, Content},
};

use crate::{
    checks::{Checked, Checks, Sealed},
    hot::schema::{self, Tables},
    ids::{IdMap, IdSet},
    journal::Lsn,
};

pub(crate) use requests::RequestRows;
pub(crate) use stage::{restore, stage};

/// Profile type of the series that request rows belong to.
pub(crate) const SERIES_REQUESTS: &str = "requests";
/// Profile type of the series that stands for a workload and component that reported a window.
pub(crate) const SERIES_WINDOWS: &str = "windows";

/// What the identifier of a workload is the hash of.
pub(crate) fn workload_content(workload: &Workload) -> Content {
    Content::names(
        "workload",
        &[
            &workload.namespace,
            &workload.service,
            &workload.version,
            &workload.instance,
        ],
    )
}

/// Identifier of a profile type among those that a window had.
pub(crate) fn type_id(profile_type: &str) -> u64 {
    id::key("profile type", &[profile_type])
}

/// What the identifier of a mapping is the hash of.
pub(crate) fn mapping_content(mapping: &Mapping) -> Content {
    Content::names("mapping", &[&mapping.build_id, &mapping.path])
}

/// Dictionary rows that are in the file, or in the transaction under way, with their checks ([`crate::checks`]).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) checks: Checks,
    pub(crate) series: Checked,
    pub(crate) workloads: Checked,
    pub(crate) label_sets: Checked,
    pub(crate) mappings: Checked,
    pub(crate) locations: Checked,
    pub(crate) stacks: Checked,
    pub(crate) builds: IdSet,
    /// Identifiers of rows whose own was taken.
    pub(crate) salted: IdSet,
    /// What only parts have.
    pub(crate) sealed_locations: Sealed,
    pub(crate) sealed_stacks: Sealed,
}

impl Seen {
    /// Key of "this workload runs code of this file".
    pub(crate) fn build_key(workload_id: u64, component: u8, mapping_id: u64) -> u64 {
        workload_id.rotate_left(32).wrapping_add(u64::from(component)) ^ mapping_id
    }

    /// Takes back what a transaction that failed had added.
    pub(crate) fn forget(&mut self, added: &Added) {
        let maps = [
            (&mut self.series, &added.series),
            (&mut self.workloads, &added.workloads),
            (&mut self.label_sets, &added.label_sets),
            (&mut self.mappings, &added.mappings),
            (&mut self.locations, &added.locations),
            (&mut self.stacks, &added.stacks),
        ];
        for (map, ids) in maps {
            for id in ids {
                map.remove(id);
            }
        }
        for (set, ids) in [(&mut self.builds, &added.builds), (&mut self.salted, &added.salted)] {
            for id in ids {
                set.remove(id);
            }
        }
    }

    /// Remembers of what was known before, and is in the tables no more, that parts have it.
    pub(crate) fn after(mut self, before: Seen) -> Seen {
        self.sealed_locations = before.sealed_locations;
        self.sealed_stacks = before.sealed_stacks;
        for (id, check) in before
            .locations
            .into_iter()
            .filter(|(id, _)| !self.locations.contains_key(id))
        {
            self.sealed_locations.insert(id, check);
        }
        for (id, check) in before
            .stacks
            .into_iter()
            .filter(|(id, _)| !self.stacks.contains_key(id))
        {
            self.sealed_stacks.insert(id, check);
        }
        self
    }
}

/// Dictionary rows that a transaction adds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Added {
    series: Vec<u64>,
    workloads: Vec<u64>,
    label_sets: Vec<u64>,
    mappings: Vec<u64>,
    locations: Vec<u64>,
    stacks: Vec<u64>,
    builds: Vec<u64>,
    salted: Vec<u64>,
}

/// What becomes known to the rest of the store once the rows are committed.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// First and last window start of each workload.
    pub(crate) spans: IdMap<(u32, u32)>,
    /// Native locations that are new.
    pub(crate) native: Vec<(Arc<Mapping>, Vec<u64>)>,
    /// Hours that get rows.
    pub(crate) hours: BTreeSet<u32>,
    pub(crate) sample_rows: u64,
    pub(crate) request_rows: u64,
    pub(crate) window_rows: u64,
    pub(crate) expired_windows: u64,
    pub(crate) id_collisions: u64,
    pub(crate) added: Added,
}

/// Rows of some batches.
#[derive(Default)]
pub(crate) struct Staged {
    hours: BTreeMap<u32, HourRows>,
    series: SeriesRows,
    label_sets: LabelSetRows,
    mappings: (Vec<u64>, Vec<String>, Vec<String>, Vec<u64>),
    locations: LocationRows,
    stacks: (Vec<u64>, ListBuilder<UInt64Builder>, Vec<u64>),
    builds: (Vec<u64>, Vec<u8>, Vec<u64>),
    salted: Vec<u64>,
}

#[derive(Default)]
struct HourRows {
    samples: SampleRows,
    exemplars: ExemplarRows,
    requests: RequestRows,
    windows: WindowRows,
}

#[derive(Default)]
struct SampleRows {
    ts: Vec<u32>,
    series: Vec<u64>,
    label_set: Vec<u64>,
    stack: Vec<u64>,
    value: Vec<u64>,
    samples: Vec<u64>,
    lsn: Vec<u64>,
}

#[derive(Default)]
struct ExemplarRows {
    ts: Vec<u32>,
    series: Vec<u64>,
    label_set: Vec<u64>,
    stack: Vec<u64>,
    value: Vec<u64>,
    at_ns: Vec<u64>,
    trace_high: Vec<u64>,
    trace_low: Vec<u64>,
    span_id: Vec<u64>,
    cut: Vec<u64>,
    lsn: Vec<u64>,
}

#[derive(Default)]
struct WindowRows {
    ts: Vec<u32>,
    workload: Vec<u64>,
    component: Vec<u8>,
    length: Vec<u32>,
    has_requests: Vec<bool>,
    has_profiles: Vec<bool>,
    profile_types: ListBuilder<UInt64Builder>,
    rate_hz: Vec<f64>,
    dropped: Vec<u64>,
    truncated: Vec<u64>,
    cpu_ns: Vec<u64>,
    overhead_ns: Vec<u64>,
    lsn: Vec<u64>,
}

#[derive(Default)]
struct SeriesRows {
    id: Vec<u64>,
    workload: Vec<u64>,
    namespace: Vec<String>,
    service: Vec<String>,
    version: Vec<String>,
    instance: Vec<String>,
    component: Vec<u8>,
    profile_type: Vec<String>,
    check: Vec<u64>,
    workload_check: Vec<u64>,
}

#[derive(Default)]
struct LabelSetRows {
    id: Vec<u64>,
    side: Vec<u8>,
    route: Vec<String>,
    peer: PeerColumns,
    check: Vec<u64>,
}

#[derive(Default)]
struct LocationRows {
    id: Vec<u64>,
    mapping: Vec<Option<u64>>,
    offset: Vec<u64>,
    functions: ListBuilder<StringBuilder>,
    files: ListBuilder<StringBuilder>,
    lines: ListBuilder<UInt32Builder>,
    check: Vec<u64>,
}

/// A row's identifier, and the check of its content.
#[derive(Debug, Clone, Copy)]
struct Identity {
    id: u64,
    check: u64,
}

/// A release at the other end as three columns, all null when it is not known.
#[derive(Default)]
struct PeerColumns {
    namespace: StringBuilder,
    service: StringBuilder,
    version: StringBuilder,
}

impl PeerColumns {
    fn push(&mut self, peer: Option<&Release>) {
        self.namespace.append_option(peer.map(|p| &p.namespace));
        self.service.append_option(peer.map(|p| &p.service));
        self.version.append_option(peer.map(|p| &p.version));
    }

    fn finish(mut self) -> [ArrayRef; 3] {
        [
            Arc::new(self.namespace.finish()),
            Arc::new(self.service.finish()),
            Arc::new(self.version.finish()),
        ]
    }
}

impl WindowRows {
    fn push(&mut self, window: &WorkloadWindow, ts: u32, workload: u64, lsn: Lsn) {
        let mut stats = emberline_model::ProfileStats::default();
        for profile in &window.profiles {
            stats.rate_hz = stats.rate_hz.max(profile.stats.rate_hz);
            stats.dropped = stats.dropped.saturating_add(profile.stats.dropped);
            stats.truncated = stats.truncated.saturating_add(profile.stats.truncated);
            stats.cpu_ns = stats.cpu_ns.saturating_add(profile.stats.cpu_ns);
            stats.overhead_ns = stats.overhead_ns.saturating_add(profile.stats.overhead_ns);
        }
        self.ts.push(ts);
        self.workload.push(workload);
        self.component.push(window.component.code());
        self.length.push(window.length_s);
        self.has_requests.push(window.has_requests);
        self.has_profiles.push(window.has_profiles);
        let types: BTreeSet<&str> = window.profiles.iter().map(|p| p.profile_type.0.as_str()).collect();
        for profile_type in types {
            self.profile_types.values().append_value(type_id(profile_type));
        }
        self.profile_types.append(true);
        self.rate_hz.push(stats.rate_hz);
        self.dropped.push(stats.dropped);
        self.truncated.push(stats.truncated);
        self.cpu_ns.push(stats.cpu_ns);
        self.overhead_ns.push(stats.overhead_ns);
        self.lsn.push(lsn);
    }
}

impl SeriesRows {
    fn push(&mut self, row: Identity, of: Identity, workload: &Workload, component: Component, profile_type: &str) {
        self.id.push(row.id);
        self.check.push(row.check);
        self.workload.push(of.id);
        self.workload_check.push(of.check);
        self.namespace.push(workload.namespace.clone());
        self.service.push(workload.service.clone());
        self.version.push(workload.version.clone());
        self.instance.push(workload.instance.clone());
        self.component.push(component.code());
        self.profile_type.push(profile_type.to_owned());
    }
}

impl LocationRows {
    fn push(&mut self, row: Identity, mapping: Option<u64>, offset: u64, frames: &[Frame]) {
        self.id.push(row.id);
        self.check.push(row.check);
        self.mapping.push(mapping);
        self.offset.push(offset);
        for frame in frames {
            self.functions.values().append_value(&frame.function);
            self.files.values().append_value(&frame.file);
            self.lines.values().append_value(frame.line);
        }
        self.functions.append(true);
        self.files.append(true);
        self.lines.append(true);
    }
}

fn numbers(values: Vec<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn doubles(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn flags(values: Vec<bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(values))
}

fn codes(values: Vec<u8>) -> ArrayRef {
    Arc::new(UInt8Array::from(values))
}

fn times(values: Vec<u32>) -> ArrayRef {
    Arc::new(UInt32Array::from(values))
}

impl Staged {
    /// True when there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.hours.is_empty()
            && self.series.id.is_empty()
            && self.label_sets.id.is_empty()
            && self.mappings.0.is_empty()
            && self.locations.id.is_empty()
            && self.stacks.0.is_empty()
            && self.builds.0.is_empty()
            && self.salted.is_empty()
    }

    /// The hours whose tables must exist.
    pub(crate) fn hours(&self) -> impl Iterator<Item = u32> {
        self.hours.keys().copied()
    }

    /// Columns of every table that gets rows, in the order of its definition. `generations` has all of the hours.
    pub(crate) fn into_tables(self, generations: &BTreeMap<u32, u32>) -> Tables {
        let mut tables = Tables::new();
        for (hour, rows) in self.hours {
            let generation = generations.get(&hour).copied().unwrap_or_default();
            let table = |kind| schema::table(kind, hour, generation);
            tables.insert(table(schema::SAMPLES), rows.samples.into_columns());
            tables.insert(table(schema::EXEMPLARS), rows.exemplars.into_columns());
            tables.insert(table(schema::REQUESTS), rows.requests.into_columns());
            tables.insert(table(schema::WINDOWS), rows.windows.into_columns());
        }
        let s = self.series;
        tables.insert(
            "series".to_owned(),
            vec![
                numbers(s.id),
                numbers(s.workload),
                texts(s.namespace),
                texts(s.service),
                texts(s.version),
                texts(s.instance),
                codes(s.component),
                texts(s.profile_type),
                numbers(s.check),
                numbers(s.workload_check),
            ],
        );
        let l = self.label_sets;
        let [namespace, service, version] = l.peer.finish();
        tables.insert(
            "label_sets".to_owned(),
            vec![
                numbers(l.id),
                codes(l.side),
                texts(l.route),
                namespace,
                service,
                version,
                numbers(l.check),
            ],
        );
        let (ids, build_ids, paths, checks) = self.mappings;
        tables.insert(
            "mappings".to_owned(),
            vec![numbers(ids), texts(build_ids), texts(paths), numbers(checks)],
        );
        let mut l = self.locations;
        tables.insert(
            "locations".to_owned(),
            vec![
                numbers(l.id),
                Arc::new(UInt64Array::from(l.mapping)),
                numbers(l.offset),
                Arc::new(l.functions.finish()),
                Arc::new(l.files.finish()),
                Arc::new(l.lines.finish()),
                numbers(l.check),
            ],
        );
        let (ids, mut lists, checks) = self.stacks;
        let stacks = vec![numbers(ids), Arc::new(lists.finish()), numbers(checks)];
        tables.insert("stacks".to_owned(), stacks);
        tables.insert("salted".to_owned(), vec![numbers(self.salted)]);
        let (workloads, components, mappings) = self.builds;
        tables.insert(
            "workload_builds".to_owned(),
            vec![numbers(workloads), codes(components), numbers(mappings)],
        );
        tables
    }
}

impl SampleRows {
    fn into_columns(self) -> Vec<ArrayRef> {
        vec![
            times(self.ts),
            numbers(self.series),
            numbers(self.label_set),
            numbers(self.stack),
            numbers(self.value),
            numbers(self.samples),
            numbers(self.lsn),
        ]
    }
}

impl ExemplarRows {
    fn into_columns(self) -> Vec<ArrayRef> {
        vec![
            times(self.ts),
            numbers(self.series),
            numbers(self.label_set),
            numbers(self.stack),
            numbers(self.value),
            numbers(self.at_ns),
            numbers(self.trace_high),
            numbers(self.trace_low),
            numbers(self.span_id),
            numbers(self.cut),
            numbers(self.lsn),
        ]
    }
}

impl WindowRows {
    fn into_columns(mut self) -> Vec<ArrayRef> {
        vec![
            times(self.ts),
            numbers(self.workload),
            codes(self.component),
            times(self.length),
            flags(self.has_requests),
            flags(self.has_profiles),
            Arc::new(self.profile_types.finish()),
            doubles(self.rate_hz),
            numbers(self.dropped),
            numbers(self.truncated),
            numbers(self.cpu_ns),
            numbers(self.overhead_ns),
            numbers(self.lsn),
        ]
    }
}

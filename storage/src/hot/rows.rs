//! Batches as rows. Guarantee: the values of a profile's samples reach the rows exactly; a dictionary row is written
//! once per file. What was staged but not committed is undone with [`Seen::forget`].

mod columns;
mod requests;
mod stage;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::{ListBuilder, UInt64Array, UInt64Builder};
use emberline_model::{
    Mapping, Workload,
    id::{self, Content},
};

use crate::{
    checks::{Checked, Checks, Sealed},
    hot::schema::{self, Tables},
    ids::{IdMap, IdSet},
    parts::Kind,
};

use columns::{ExemplarRows, LabelSetRows, LocationRows, SampleRows, SeriesRows, WindowRows, codes, numbers, texts};
pub(crate) use requests::RequestRows;
pub(crate) use stage::{restore, stage};

/// Profile type of the series that request rows belong to.
pub(crate) const SERIES_REQUESTS: &str = "requests";
/// Profile type of the series that marks a workload and component as having reported a window.
pub(crate) const SERIES_WINDOWS: &str = "windows";

/// The content that a workload's identifier is the hash of.
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

/// Identifier of a profile type in a window's list.
pub(crate) fn type_id(profile_type: &str) -> u64 {
    id::key("profile type", &[profile_type])
}

/// The content that a mapping's identifier is the hash of.
pub(crate) fn mapping_content(mapping: &Mapping) -> Content {
    Content::names("mapping", &[&mapping.build_id, &mapping.path])
}

/// Dictionary rows in the file, or in the current transaction, with their checks ([`crate::checks`]).
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
    /// Only in parts.
    pub(crate) sealed_locations: Sealed,
    pub(crate) sealed_stacks: Sealed,
}

impl Seen {
    /// Key of "this workload runs code of this file".
    pub(crate) fn build_key(workload_id: u64, component: u8, mapping_id: u64) -> u64 {
        workload_id.rotate_left(32).wrapping_add(u64::from(component)) ^ mapping_id
    }

    /// Undoes what a failed transaction had added.
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

    /// Remembers rows that were known before and are no longer in the tables as being in parts.
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

/// What the rest of the store learns once the rows are committed.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// First and last window start of each workload.
    pub(crate) spans: IdMap<(u32, u32)>,
    /// New native locations.
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

    /// Columns of every table that gets rows, in the order of its definition. `generations` must contain all of the
    /// hours.
    pub(crate) fn into_tables(self, generations: &BTreeMap<u32, u32>) -> Tables {
        let mut tables = Tables::new();
        for (hour, rows) in self.hours {
            let generation = generations.get(&hour).copied().unwrap_or_default();
            let table = |kind| schema::table(kind, hour, generation);
            tables.insert(table(Kind::Samples), rows.samples.into_columns());
            tables.insert(table(Kind::Exemplars), rows.exemplars.into_columns());
            tables.insert(table(Kind::Requests), rows.requests.into_columns());
            tables.insert(table(Kind::Windows), rows.windows.into_columns());
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

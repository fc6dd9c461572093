//! What must be known about a file when it is opened: its rows' identifiers, and where they are from.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::AsArray, datatypes::UInt64Type};
use emberline_model::{Mapping, Release};

use super::{Database, LAYOUT, our_failure};
use crate::{
    hot::{
        hours,
        rows::{SERIES_WINDOWS, Seen},
        schema::table,
    },
    ids::IdMap,
    journal::Lsn,
    parts::Kind,
};

/// What a file holds, as read when it is opened.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) applied: Lsn,
    /// Hours with tables, and their generation.
    pub(crate) tables: BTreeMap<u32, u32>,
    pub(crate) seen: Seen,
    /// First and last window start of each workload.
    pub(crate) spans: IdMap<(u32, u32)>,
    /// Native locations and the files they are in.
    pub(crate) native: Vec<(Arc<Mapping>, Vec<u64>)>,
}

impl Database {
    /// Reads what must be known about the file.
    pub(crate) fn contents(&self) -> duckdb::Result<Contents> {
        let layout: u32 = self
            .connection
            .query_row("SELECT max(version) FROM layout", [], |row| row.get(0))?;
        if layout != LAYOUT {
            return Err(our_failure(format!("corrupt: layout {layout}, expected {LAYOUT}")));
        }
        let secret: u64 = self
            .connection
            .query_row("SELECT max(secret) FROM layout", [], |row| row.get(0))?;
        if secret != self.checks.fingerprint() {
            return Err(our_failure(
                "corrupt: its rows were written with a different check key".to_owned(),
            ));
        }
        let tables = self.tables("windows_")?;
        let tables = tables.iter().filter_map(|name| {
            let (hour, generation) = name["windows_".len()..].split_once('_')?;
            Some((hours::from_name(hour)?, generation.parse().ok()?))
        });
        let tables: BTreeMap<u32, u32> = tables.collect();
        let mut contents = Contents {
            applied: self
                .connection
                .query_row("SELECT max(lsn) FROM applied", [], |row| row.get(0))?,
            tables,
            ..Contents::default()
        };
        let seen = &mut contents.seen;
        seen.checks = self.checks.clone();
        let rows = [
            ("SELECT series_id, row_check FROM series", &mut seen.series),
            ("SELECT workload_id, workload_check FROM series", &mut seen.workloads),
            ("SELECT label_set, row_check FROM label_sets", &mut seen.label_sets),
            ("SELECT mapping_id, row_check FROM mappings", &mut seen.mappings),
            ("SELECT location_id, row_check FROM locations", &mut seen.locations),
            ("SELECT stack_id, row_check FROM stacks", &mut seen.stacks),
        ];
        for (sql, checked) in rows {
            self.each_pair(sql, |id, check| {
                checked.insert(id, check);
            })?;
        }
        self.each_id("SELECT id FROM salted", |id| seen.salted.insert(id))?;
        let mut statement = self
            .connection
            .prepare("SELECT workload_id, component, mapping_id FROM workload_builds")?;
        for row in statement.query_map([], |row| Ok(Seen::build_key(row.get(0)?, row.get(1)?, row.get(2)?)))? {
            seen.builds.insert(row?);
        }
        contents.native = self.native_locations()?;
        contents.spans = self.spans(&contents.tables)?;
        Ok(contents)
    }

    fn each_id<R>(&self, sql: &str, mut each: impl FnMut(u64) -> R) -> duckdb::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        drop(statement.stream_arrow([])?);
        while let Some(chunk) = statement.step()? {
            for &id in chunk.column(0).as_primitive::<UInt64Type>().values() {
                each(id);
            }
        }
        Ok(())
    }

    fn each_pair(&self, sql: &str, mut each: impl FnMut(u64, u64)) -> duckdb::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        drop(statement.stream_arrow([])?);
        while let Some(chunk) = statement.step()? {
            let (a, b) = (
                chunk.column(0).as_primitive::<UInt64Type>(),
                chunk.column(1).as_primitive::<UInt64Type>(),
            );
            a.values().iter().zip(b.values()).for_each(|(&a, &b)| each(a, b));
        }
        Ok(())
    }

    fn native_locations(&self) -> duckdb::Result<Vec<(Arc<Mapping>, Vec<u64>)>> {
        let mut mappings: IdMap<(Arc<Mapping>, Vec<u64>)> = IdMap::default();
        let mut statement = self
            .connection
            .prepare("SELECT mapping_id, build_id, path FROM mappings")?;
        let rows = statement.query_map([], |row| {
            Ok((
                row.get::<_, u64>(0)?,
                Mapping {
                    build_id: row.get(1)?,
                    path: row.get(2)?,
                },
            ))
        })?;
        for row in rows {
            let (id, mapping) = row?;
            mappings.insert(id, (Arc::new(mapping), Vec::new()));
        }
        self.each_pair(
            "SELECT mapping_id, file_offset FROM locations WHERE mapping_id IS NOT NULL",
            |id, offset| {
                if let Some((_, offsets)) = mappings.get_mut(&id) {
                    offsets.push(offset);
                }
            },
        )?;
        Ok(mappings
            .into_values()
            .filter(|(_, offsets)| !offsets.is_empty())
            .collect())
    }

    /// First and last window start of each workload.
    fn spans(&self, tables: &BTreeMap<u32, u32>) -> duckdb::Result<IdMap<(u32, u32)>> {
        let mut spans: IdMap<(u32, u32)> = IdMap::default();
        for (&hour, &generation) in tables {
            let sql = format!(
                "SELECT workload_id, min(ts), max(ts) FROM {} GROUP BY 1",
                table(Kind::Windows, hour, generation)
            );
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            for row in rows {
                let (workload, first, last): (u64, u32, u32) = row?;
                let span = spans.entry(workload).or_insert((first, last));
                *span = (span.0.min(first), span.1.max(last));
            }
        }
        Ok(spans)
    }

    /// The workloads that reported windows, with their releases.
    pub(in crate::hot) fn releases(&self) -> duckdb::Result<Vec<(u64, Release)>> {
        let mut statement = self
            .connection
            .prepare("SELECT DISTINCT workload_id, namespace, service, version FROM series WHERE profile_type = ?")?;
        let rows = statement.query_map([SERIES_WINDOWS], |row| {
            let release = Release {
                namespace: row.get(1)?,
                service: row.get(2)?,
                version: row.get(3)?,
            };
            Ok((row.get(0)?, release))
        })?;
        rows.collect()
    }
}

//! Removes rows that are also sealed, rows of deleted services, and names that no row mentions any more.

use std::collections::BTreeMap;

use super::Database;
use crate::{
    deletions::{Deletion, Owned, ServiceName},
    hot::schema::table,
    ids::IdSet,
    parts::{Kind, PartSet, ROW_KINDS},
};

impl Database {
    /// Removes stacks and locations that no row of these tables mentions: those of sealed rows are in dictionary parts.
    /// With the names of all parts, also removes whatever neither the tables nor these mention. The rest has to be read
    /// again: see [`Database::contents`]. An hour that is no longer kept must not hold memory forever.
    pub(crate) fn sweep_dictionary(&self, tables: &BTreeMap<u32, u32>, kept: Option<&Kept>) -> duckdb::Result<()> {
        let all = |kinds: &[Kind], column: &str| {
            let selects: Vec<String> = tables
                .iter()
                .flat_map(|(&hour, &generation)| kinds.iter().map(move |&kind| table(kind, hour, generation)))
                .map(|table| format!("SELECT {column} FROM {table}"))
                .collect();
            // No tables: nothing is mentioned.
            if selects.is_empty() {
                "SELECT 0::UBIGINT WHERE false".to_owned()
            } else {
                selects.join(" UNION ALL ")
            }
        };
        let of_samples = [Kind::Samples, Kind::Exemplars];
        let (stacks, label_sets) = (all(&of_samples, "stack_id"), all(&of_samples, "label_set"));
        let workloads = all(&[Kind::Windows], "workload_id");
        let names = kept.map_or_else(String::new, |kept| {
            let (kept_workloads, kept_label_sets) = (id_list(&kept.workloads), id_list(&kept.label_sets));
            format!(
                "DELETE FROM label_sets WHERE label_set NOT IN ({label_sets}) AND label_set NOT IN ({kept_label_sets});
                 DELETE FROM series WHERE workload_id NOT IN ({workloads}) AND workload_id NOT IN ({kept_workloads})
                     AND NOT (instance = '' AND (namespace, service, version) IN
                         (SELECT (namespace, service, version) FROM series WHERE workload_id IN ({workloads})));
                 DELETE FROM workload_builds WHERE workload_id NOT IN ({workloads})
                     AND workload_id NOT IN ({kept_workloads});
                 DELETE FROM mappings WHERE mapping_id NOT IN (SELECT mapping_id FROM workload_builds)
                     AND mapping_id NOT IN (SELECT mapping_id FROM locations WHERE mapping_id IS NOT NULL);"
            )
        });
        let swept = self.connection.execute_batch(&format!(
            "BEGIN;
             DELETE FROM stacks WHERE stack_id NOT IN ({stacks});
             DELETE FROM locations WHERE location_id NOT IN (SELECT unnest(locations) FROM stacks);
             {names}
             COMMIT;"
        ));
        swept.inspect_err(|_| drop(self.connection.execute_batch("ROLLBACK")))
    }

    /// Removes rows that are also sealed: an interrupted seal left them in both places.
    pub(crate) fn remove_sealed(&self, tables: &BTreeMap<u32, u32>, parts: &PartSet) -> duckdb::Result<()> {
        for (&hour, &generation) in tables {
            for name in parts.of_hour(hour).map(|part| part.name) {
                if let Some(kind) = name.kind.table() {
                    self.connection.execute(
                        &format!(
                            "DELETE FROM {} WHERE lsn BETWEEN ? AND ?",
                            table(kind, hour, generation)
                        ),
                        [name.first_lsn, name.last_lsn],
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Identifiers of a service's rows, in tables and parts alike: the names of all parts are here.
    pub(crate) fn owned(&self, who: &ServiceName) -> duckdb::Result<Owned> {
        let mut statement = self
            .connection
            .prepare("SELECT series_id, workload_id FROM series WHERE namespace = ? AND service = ?")?;
        let rows = statement.query_map([&who.namespace, &who.service], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut owned = Owned::default();
        for row in rows {
            let (series, workload) = row?;
            owned.series.insert(series);
            owned.workloads.insert(workload);
        }
        Ok(owned)
    }

    /// How many rows of a service the tables hold.
    pub(crate) fn count_owned(&self, tables: &BTreeMap<u32, u32>, owned: &Owned) -> duckdb::Result<u64> {
        let mut rows = 0;
        for (&hour, &generation) in tables {
            for kind in ROW_KINDS {
                let sql = format!(
                    "SELECT CAST(count(*) AS UBIGINT) FROM {} WHERE {}",
                    table(kind, hour, generation),
                    is_owned(kind, owned)
                );
                rows += self.connection.query_row(&sql, [], |row| row.get::<_, u64>(0))?;
            }
        }
        Ok(rows)
    }

    /// Removes rows of deleted services from the tables, in one transaction; returns how many.
    pub(crate) fn remove_deleted(&self, tables: &BTreeMap<u32, u32>, deleted: &[Deletion]) -> duckdb::Result<usize> {
        self.connection.execute_batch("BEGIN")?;
        let removed = self.remove_deleted_rows(tables, deleted).and_then(|rows| {
            self.connection.execute_batch("COMMIT")?;
            Ok(rows)
        });
        removed.inspect_err(|_| drop(self.connection.execute_batch("ROLLBACK")))
    }

    fn remove_deleted_rows(&self, tables: &BTreeMap<u32, u32>, deleted: &[Deletion]) -> duckdb::Result<usize> {
        let mut rows = 0;
        for deletion in deleted {
            let owned = deletion.owned();
            for (&hour, &generation) in tables {
                for kind in ROW_KINDS {
                    let sql = format!(
                        "DELETE FROM {} WHERE lsn <= ? AND {}",
                        table(kind, hour, generation),
                        is_owned(kind, &owned)
                    );
                    rows += self.connection.execute(&sql, [deletion.through])?;
                }
            }
        }
        Ok(rows)
    }
}

/// A query of ids. They are numbers of our own, so they may be part of the text.
fn id_list(ids: &IdSet) -> String {
    if ids.is_empty() {
        return "SELECT 0::UBIGINT WHERE false".to_owned();
    }
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    format!(
        "SELECT unnest(CAST(string_split('{}', ',') AS UBIGINT[]))",
        list.join(",")
    )
}

/// The condition that a row of a kind belongs to a service.
pub(crate) fn is_owned(kind: Kind, owned: &Owned) -> String {
    match kind {
        Kind::Windows | Kind::Runs => format!("workload_id IN ({})", id_list(&owned.workloads)),
        _ => format!("series_id IN ({})", id_list(&owned.series)),
    }
}

/// What the names of all parts mention.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) workloads: IdSet,
    pub(crate) label_sets: IdSet,
}

//! DuckDB's file: how it is opened, what tables it has, how an hour comes and goes.
//!
//! Guarantees: the number of the last batch applied is committed together with its rows; hour tables are made
//! outside of data transactions and checkpointed at once, because replaying definitions together with data from
//! a write-ahead log is where DuckDB has had its bugs. Each row carries the number of its batch, so that rows which are
//! sealed as well are found. The file holds nothing that the journal or the parts do not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{Field, Schema, UInt64Type},
    record_batch::RecordBatch,
};
use duckdb::{Config, Connection};
use emberline_model::{Mapping, Release};

use crate::{
    checks::Checks,
    deletions::{Deletion, Owned, ServiceName},
    hot::{
        failure, hours,
        rows::{SERIES_WINDOWS, Seen, Staged},
        schema::{EXEMPLARS, SAMPLES, WINDOWS, columns, quoted, table},
    },
    ids::{IdMap, IdSet},
    journal::Lsn,
    options::Options,
    parts::{self, Kind, PartSet, ROW_KINDS},
};

/// Number of the layout below; a file of another layout is rebuilt.
const LAYOUT: u32 = 6;

const DICTIONARY_TABLES: &str = "
    CREATE TABLE layout (version UINTEGER, secret UBIGINT);
    CREATE TABLE applied (lsn UBIGINT);
    CREATE TABLE series (series_id UBIGINT, workload_id UBIGINT, namespace VARCHAR, service VARCHAR, version VARCHAR,
        instance VARCHAR, component UTINYINT, profile_type VARCHAR, row_check UBIGINT, workload_check UBIGINT);
    CREATE TABLE label_sets (label_set UBIGINT, side UTINYINT, route VARCHAR, peer_namespace VARCHAR,
        peer_service VARCHAR, peer_version VARCHAR, row_check UBIGINT);
    CREATE TABLE mappings (mapping_id UBIGINT, build_id VARCHAR, path VARCHAR, row_check UBIGINT);
    CREATE TABLE locations (location_id UBIGINT, mapping_id UBIGINT, file_offset UBIGINT, functions VARCHAR[],
        files VARCHAR[], lines UINTEGER[], row_check UBIGINT);
    CREATE TABLE stacks (stack_id UBIGINT, locations UBIGINT[], row_check UBIGINT);
    CREATE TABLE workload_builds (workload_id UBIGINT, component UTINYINT, mapping_id UBIGINT);
    CREATE TABLE salted (id UBIGINT);
    INSERT INTO applied VALUES (0);
";

/// An open file.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    path: PathBuf,
    checks: Checks,
}

/// What a file holds, as read when it is opened.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) applied: Lsn,
    /// Hours that have tables, and their generation.
    pub(crate) tables: BTreeMap<u32, u32>,
    pub(crate) seen: Seen,
    /// First and last window start of each workload.
    pub(crate) spans: IdMap<(u32, u32)>,
    /// Native locations and the files they lie in.
    pub(crate) native: Vec<(Arc<Mapping>, Vec<u64>)>,
}

/// Where the file lies.
pub(crate) fn path_of(data_dir: &Path) -> PathBuf {
    data_dir.join("hot.duckdb")
}

/// Its write-ahead log.
pub(crate) fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".wal");
    PathBuf::from(name)
}

impl Database {
    /// Opens or creates the file, and reads what must be known of it.
    pub(crate) fn open(options: &Options, checks: &Checks) -> duckdb::Result<(Database, Contents)> {
        let path = path_of(&options.data_dir);
        let temporary = options.data_dir.join("tmp");
        let config = Config::default()
            .with("memory_limit", format!("{}MiB", options.memory_limit_mb))?
            .with("threads", options.duckdb_threads.max(1).to_string())?
            .with("temp_directory", temporary.to_string_lossy())?
            .with("max_temp_directory_size", format!("{}MiB", options.temp_limit_mb))?
            .with("preserve_insertion_order", "false")?
            // What a question or a seal needed goes back to the system, not into the engine's pockets.
            .with("allocator_background_threads", "true")?
            .with("allocator_flush_threshold", "16MiB")?
            .with("allocator_bulk_deallocation_flush_threshold", "32MiB")?
            // Checkpoints come from the writer's own schedule, never in the middle of a commit.
            .with("wal_autocheckpoint", "1TB")?
            .enable_autoload_extension(false)?;
        let connection = Connection::open_with_flags(&path, config)?;
        // The only files it may touch beside its own are the parts.
        connection.execute_batch(&format!(
            "SET allowed_directories = [{}]; SET enable_external_access = false; SET lock_configuration = true;",
            quoted(&parts::folder(&options.data_dir))
        ))?;
        let database = Database {
            connection,
            path,
            checks: checks.clone(),
        };
        if database.tables("layout")?.is_empty() {
            database.create_dictionary()?;
        }
        let contents = database.contents()?;
        Ok((database, contents))
    }

    /// Names of tables that begin with `prefix`.
    fn tables(&self, prefix: &str) -> duckdb::Result<Vec<String>> {
        let mut statement = self
            .connection
            .prepare("SELECT table_name FROM information_schema.tables WHERE starts_with(table_name, ?)")?;
        let names = statement.query_map([prefix], |row| row.get(0))?;
        names.collect()
    }

    fn create_dictionary(&self) -> duckdb::Result<()> {
        self.define(&format!(
            "{DICTIONARY_TABLES} INSERT INTO layout VALUES ({LAYOUT}, {});",
            self.checks.fingerprint()
        ))
    }

    /// Changes definitions in a transaction of their own and checkpoints at once.
    fn define(&self, statements: &str) -> duckdb::Result<()> {
        if let Err(error) = self.connection.execute_batch(&format!("BEGIN; {statements} COMMIT;")) {
            // The transaction may have got stuck half-way.
            let _ = self.connection.execute_batch("ROLLBACK");
            return Err(error);
        }
        match self.checkpoint() {
            // Readers may be in the way; then the definitions stay in the log until the next checkpoint.
            Err(error) if failure::kind(&error) == failure::Kind::Other => Ok(()),
            result => result,
        }
    }

    /// Reads what must be known of the file.
    pub(crate) fn contents(&self) -> duckdb::Result<Contents> {
        let layout: u32 = self
            .connection
            .query_row("SELECT max(version) FROM layout", [], |row| row.get(0))?;
        if layout != LAYOUT {
            return Err(our_failure(format!(
                "corrupt: layout {layout} where {LAYOUT} is expected"
            )));
        }
        let secret: u64 = self
            .connection
            .query_row("SELECT max(secret) FROM layout", [], |row| row.get(0))?;
        if secret != self.checks.fingerprint() {
            return Err(our_failure(
                "corrupt: its rows were checked with another key".to_owned(),
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

    /// Removes stacks and locations that no row of these tables mentions: those of sealed rows are in dictionary parts.
    /// With the names of all parts, also removes whatever neither the tables nor these mention. What is left is read anew:
    /// see [`Database::contents`]. An hour that nobody keeps must not hold memory for ever.
    pub(crate) fn sweep_dictionary(&self, tables: &BTreeMap<u32, u32>, kept: Option<&Kept>) -> duckdb::Result<()> {
        let all = |kinds: &[Kind], column: &str| {
            let selects: Vec<String> = tables
                .iter()
                .flat_map(|(&hour, &generation)| kinds.iter().map(move |&kind| table(kind, hour, generation)))
                .map(|table| format!("SELECT {column} FROM {table}"))
                .collect();
            // Nothing kept: nothing mentioned.
            if selects.is_empty() {
                "SELECT 0::UBIGINT WHERE false".to_owned()
            } else {
                selects.join(" UNION ALL ")
            }
        };
        let of_samples = [SAMPLES, EXEMPLARS];
        let (stacks, label_sets) = (all(&of_samples, "stack_id"), all(&of_samples, "label_set"));
        let workloads = all(&[WINDOWS], "workload_id");
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

    /// First and last window start of each workload.
    fn spans(&self, tables: &BTreeMap<u32, u32>) -> duckdb::Result<IdMap<(u32, u32)>> {
        let mut spans: IdMap<(u32, u32)> = IdMap::default();
        for (&hour, &generation) in tables {
            let sql = format!(
                "SELECT workload_id, min(ts), max(ts) FROM {} GROUP BY 1",
                table(WINDOWS, hour, generation)
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
    pub(super) fn releases(&self) -> duckdb::Result<Vec<(u64, Release)>> {
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

    /// Makes the tables of an hour.
    pub(crate) fn create_hour(&self, hour: u32, generation: u32) -> duckdb::Result<()> {
        let define = |kind: Kind| {
            let columns: Vec<String> = columns(kind).iter().map(|(name, of)| format!("{name} {of}")).collect();
            format!(
                "CREATE TABLE IF NOT EXISTS {} ({}, lsn UBIGINT);",
                table(kind, hour, generation),
                columns.join(", ")
            )
        };
        self.define(&ROW_KINDS.map(define).concat())
    }

    /// Drops the tables of an hour.
    pub(crate) fn drop_hour(&self, hour: u32, generation: u32) -> duckdb::Result<()> {
        let drop = |kind: Kind| format!("DROP TABLE IF EXISTS {};", table(kind, hour, generation));
        self.define(&ROW_KINDS.map(drop).concat())
    }

    /// Removes rows that are sealed as well: a seal that did not come to its end left them in both places.
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

    /// Identifiers that rows of a service have, in tables and parts alike: the names of all parts are here.
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

    /// Removes rows of deleted services from the tables, in one transaction; answers how many.
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

    /// Rows of a table, and the first and last batch they come from; `None` when it is empty.
    pub(crate) fn extent(&self, kind: Kind, hour: u32, generation: u32) -> duckdb::Result<Option<(Lsn, Lsn)>> {
        let sql = format!("SELECT min(lsn), max(lsn) FROM {}", table(kind, hour, generation));
        let (first, last): (Option<Lsn>, Option<Lsn>) = self
            .connection
            .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(first.zip(last))
    }

    /// The first batch with a row in the tables of an hour.
    pub(crate) fn first_lsn(&self, hour: u32, generation: u32) -> duckdb::Result<Option<Lsn>> {
        let mut first = None;
        for kind in ROW_KINDS {
            let of_kind = self.extent(kind, hour, generation)?.map(|extent| extent.0);
            first = [first, of_kind].into_iter().flatten().min();
        }
        Ok(first)
    }

    /// Moves the write-ahead log into the file.
    pub(crate) fn checkpoint(&self) -> duckdb::Result<()> {
        self.connection.execute_batch("CHECKPOINT")
    }

    /// Bytes of the write-ahead log.
    pub(crate) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(wal_of(&self.path)).map_or(0, |m| m.len())
    }

    /// Writes rows and the number they reach, in one transaction. After an error nothing is written, except when
    /// the error came from the commit itself: then it is not known.
    pub(crate) fn write(&self, staged: Staged, tables: &BTreeMap<u32, u32>, through: Lsn) -> Result<(), WriteError> {
        self.connection.execute_batch("BEGIN").map_err(WriteError::Before)?;
        self.write_rows(staged, tables, through).map_err(|error| {
            // A connection that cannot roll back is found out by the caller's next step.
            let _ = self.connection.execute_batch("ROLLBACK");
            WriteError::Before(error)
        })?;
        self.connection.execute_batch("COMMIT").map_err(WriteError::Commit)
    }

    fn write_rows(&self, staged: Staged, tables: &BTreeMap<u32, u32>, through: Lsn) -> duckdb::Result<()> {
        for (name, columns) in staged.into_tables(tables) {
            self.append(&name, columns)?;
        }
        self.connection.execute("UPDATE applied SET lsn = ?", [through])?;
        Ok(())
    }

    fn append(&self, name: &str, columns: Vec<ArrayRef>) -> duckdb::Result<()> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|c| Field::new("column", c.data_type().clone(), true))
            .collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .map_err(|error| our_failure(format!("rows of {name}: {error}")))?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut appender = self.connection.appender(name)?;
        appender.append_record_batch(rows)?;
        appender.flush()
    }
}

/// A failure to write rows.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Nothing was written.
    Before(duckdb::Error),
    /// It is not known whether the rows were written.
    Commit(duckdb::Error),
}

/// An error of our own in the engine's type.
fn our_failure(message: String) -> duckdb::Error {
    duckdb::Error::ToSqlConversionFailure(message.into())
}

/// A query of ids. They are numbers of our own, so they may stand in the text.
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

/// The condition that a row of a kind is a service's.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::MemoryDisk, parts::PartName};
    use crate::{
        hot::schema::{column_names, rows_of},
        parts::Part,
    };

    /// Parts that were sealed before a window said which profiles it had are read as before, alone and beside new ones.
    #[test]
    fn parts_of_before_there_was_a_column_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open_in_memory().unwrap();
        let path = |name: &str| quoted(&dir.path().join(name));
        let write = |name: &str, but: &str, types: &str| {
            let row = format!(
                "SELECT 7::UINTEGER AS ts, 1::UBIGINT AS workload_id, 1::UTINYINT AS component, 10::UINTEGER AS length,
                    true AS has_requests, true AS has_profiles, {types}::UBIGINT[] AS profile_types, 99.0::DOUBLE AS rate_hz,
                    0::UBIGINT AS dropped, 0::UBIGINT AS truncated, 0::UBIGINT AS cpu_ns, 0::UBIGINT AS overhead_ns"
            );
            let sql = format!("COPY (SELECT * {but} FROM ({row})) TO {} (FORMAT parquet)", path(name));
            connection.execute_batch(&sql).unwrap();
        };
        write("old.parquet", "EXCLUDE (profile_types)", "NULL");
        write("new.parquet", "", "[5]");
        let part = |file: &&str| {
            let name = PartName {
                kind: Kind::Windows,
                hour: 0,
                hours: 1,
                sequence: 1,
                first_lsn: 1,
                last_lsn: 1,
                rows: 1,
                checksum: 0,
            };
            Arc::new(Part::new(Arc::new(MemoryDisk::new()), dir.path().join(file), name, 1))
        };
        let read = |files: &[&str]| -> Vec<(u32, Option<u64>)> {
            let parts: Vec<Arc<Part>> = files.iter().map(part).collect();
            let names = column_names(Kind::Windows);
            let from = rows_of(Kind::Windows, &parts);
            let sql = format!("SELECT ts, profile_types[1] FROM (SELECT {names} FROM {from}) ORDER BY 2 NULLS FIRST");
            let mut statement = connection.prepare(&sql).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        assert_eq!(read(&["old.parquet"]), [(7, None)]);
        assert_eq!(read(&["new.parquet"]), [(7, Some(5))]);
        assert_eq!(read(&["old.parquet", "new.parquet"]), [(7, None), (7, Some(5))]);
        assert_eq!(read(&["new.parquet", "old.parquet"]), [(7, None), (7, Some(5))]);
    }
}

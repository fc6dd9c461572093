//! DuckDB's file: how it is opened, what tables it has, how an hour comes and goes.
//!
//! Guarantees: the number of the last batch applied is committed together with its rows; hour tables are made
//! outside of data transactions and checkpointed at once, because replaying definitions together with data from
//! a write-ahead log is where DuckDB has had its bugs. The file holds nothing that the journal does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{Field, Schema, UInt64Type},
    record_batch::RecordBatch,
};
use duckdb::{Config, Connection};
use emberline_model::Mapping;

use crate::{
    hot::{
        failure, hours,
        rows::{Seen, Staged},
    },
    ids::IdMap,
    journal::Lsn,
    options::Options,
};

/// Number of the layout below; a file of another layout is rebuilt.
const LAYOUT: u32 = 1;

const DICTIONARY_TABLES: &str = "
    CREATE TABLE layout (version UINTEGER);
    CREATE TABLE applied (lsn UBIGINT);
    CREATE TABLE series (series_id UBIGINT, workload_id UBIGINT, namespace VARCHAR, service VARCHAR, version VARCHAR,
        instance VARCHAR, component UTINYINT, profile_type VARCHAR);
    CREATE TABLE label_sets (label_set UBIGINT, side UTINYINT, route VARCHAR, peer_namespace VARCHAR,
        peer_service VARCHAR, peer_version VARCHAR);
    CREATE TABLE mappings (mapping_id UBIGINT, build_id VARCHAR, path VARCHAR);
    CREATE TABLE locations (location_id UBIGINT, mapping_id UBIGINT, file_offset UBIGINT, functions VARCHAR[],
        files VARCHAR[], lines UINTEGER[]);
    CREATE TABLE stacks (stack_id UBIGINT, locations UBIGINT[]);
    CREATE TABLE workload_builds (workload_id UBIGINT, component UTINYINT, mapping_id UBIGINT);
    INSERT INTO applied VALUES (0);
";

/// The kinds of hour tables.
pub(crate) const SAMPLES: &str = "samples";
/// See [`SAMPLES`].
pub(crate) const REQUESTS: &str = "requests";
/// See [`SAMPLES`].
pub(crate) const WINDOWS: &str = "windows";

/// An open file.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    path: PathBuf,
}

/// What a file holds, as read when it is opened.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) applied: Lsn,
    pub(crate) hours: BTreeSet<u32>,
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
    pub(crate) fn open(options: &Options) -> duckdb::Result<(Database, Contents)> {
        let path = path_of(&options.data_dir);
        let temporary = options.data_dir.join("tmp");
        let config = Config::default()
            .with("memory_limit", format!("{}MiB", options.memory_limit_mb))?
            .with("threads", options.duckdb_threads.max(1).to_string())?
            .with("temp_directory", temporary.to_string_lossy())?
            .with("max_temp_directory_size", format!("{}MiB", options.temp_limit_mb))?
            .with("preserve_insertion_order", "false")?
            // Checkpoints come from the writer's own schedule, never in the middle of a commit.
            .with("wal_autocheckpoint", "1TB")?
            .enable_autoload_extension(false)?
            .enable_external_access(false)?;
        let connection = Connection::open_with_flags(&path, config)?;
        connection.execute_batch("SET lock_configuration = true")?;
        let database = Database { connection, path };
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
        self.define(&format!("{DICTIONARY_TABLES} INSERT INTO layout VALUES ({LAYOUT});"))
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
        let hours = self
            .tables("windows_")?
            .iter()
            .filter_map(|n| hours::from_name(&n["windows_".len()..]))
            .collect();
        let mut contents = Contents {
            applied: self
                .connection
                .query_row("SELECT max(lsn) FROM applied", [], |row| row.get(0))?,
            hours,
            ..Contents::default()
        };
        let seen = &mut contents.seen;
        self.each_id("SELECT series_id FROM series", |id| seen.series.insert(id))?;
        self.each_id("SELECT label_set FROM label_sets", |id| seen.label_sets.insert(id))?;
        self.each_id("SELECT mapping_id FROM mappings", |id| seen.mappings.insert(id))?;
        self.each_id("SELECT location_id FROM locations", |id| seen.locations.insert(id))?;
        self.each_id("SELECT stack_id FROM stacks", |id| seen.stacks.insert(id))?;
        let mut statement = self
            .connection
            .prepare("SELECT workload_id, component, mapping_id FROM workload_builds")?;
        for row in statement.query_map([], |row| Ok(Seen::build_key(row.get(0)?, row.get(1)?, row.get(2)?)))? {
            seen.builds.insert(row?);
        }
        contents.native = self.native_locations()?;
        contents.spans = self.spans(&contents.hours)?;
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

    /// Removes dictionary rows that no row of these hours mentions. What is left is read anew: see
    /// [`Database::contents`]. An hour that nobody keeps must not hold memory for ever.
    pub(crate) fn sweep_dictionary(&self, hours: &BTreeSet<u32>) -> duckdb::Result<()> {
        let all = |kind: &str, column: &str| {
            let selects: Vec<String> = hours
                .iter()
                .map(|&hour| format!("SELECT {column} FROM {}", table(kind, hour)))
                .collect();
            // Nothing kept: nothing mentioned.
            if selects.is_empty() {
                "SELECT 0::UBIGINT WHERE false".to_owned()
            } else {
                selects.join(" UNION ALL ")
            }
        };
        let (stacks, label_sets) = (all(SAMPLES, "stack_id"), all(SAMPLES, "label_set"));
        let workloads = all(WINDOWS, "workload_id");
        let swept = self.connection.execute_batch(&format!(
            "BEGIN;
             DELETE FROM stacks WHERE stack_id NOT IN ({stacks});
             DELETE FROM locations WHERE location_id NOT IN (SELECT unnest(locations) FROM stacks);
             DELETE FROM label_sets WHERE label_set NOT IN ({label_sets});
             DELETE FROM series WHERE workload_id NOT IN ({workloads});
             DELETE FROM workload_builds WHERE workload_id NOT IN ({workloads});
             DELETE FROM mappings WHERE mapping_id NOT IN (SELECT mapping_id FROM workload_builds)
                 AND mapping_id NOT IN (SELECT mapping_id FROM locations WHERE mapping_id IS NOT NULL);
             COMMIT;"
        ));
        swept.inspect_err(|_| drop(self.connection.execute_batch("ROLLBACK")))
    }

    /// First and last window start of each workload.
    pub(crate) fn spans(&self, hours: &BTreeSet<u32>) -> duckdb::Result<IdMap<(u32, u32)>> {
        let mut spans: IdMap<(u32, u32)> = IdMap::default();
        for &hour in hours {
            let sql = format!(
                "SELECT workload_id, min(ts), max(ts) FROM {} GROUP BY 1",
                table(WINDOWS, hour)
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

    /// Makes the tables of an hour.
    pub(crate) fn create_hour(&self, hour: u32) -> duckdb::Result<()> {
        let (samples, requests, windows) = (table(SAMPLES, hour), table(REQUESTS, hour), table(WINDOWS, hour));
        self.define(&format!(
            "CREATE TABLE IF NOT EXISTS {samples} (ts UINTEGER, series_id UBIGINT, label_set UBIGINT, stack_id UBIGINT, value UBIGINT,
                 samples UBIGINT);
             CREATE TABLE IF NOT EXISTS {requests} (ts UINTEGER, series_id UBIGINT, side UTINYINT, route VARCHAR, method VARCHAR,
                 peer_namespace VARCHAR, peer_service VARCHAR, peer_version VARCHAR, protocol VARCHAR, status USMALLINT,
                 error BOOLEAN, zero_count UBIGINT, sum DOUBLE, min DOUBLE, max DOUBLE, bucket SMALLINT[], n UBIGINT[],
                 request_bytes UBIGINT, response_bytes UBIGINT);
             CREATE TABLE IF NOT EXISTS {windows} (ts UINTEGER, workload_id UBIGINT, component UTINYINT, length UINTEGER,
                 has_requests BOOLEAN, has_profiles BOOLEAN, rate_hz DOUBLE, dropped UBIGINT, truncated UBIGINT,
                 cpu_ns UBIGINT, overhead_ns UBIGINT);"
        ))
    }

    /// Drops the tables of an hour.
    pub(crate) fn drop_hour(&self, hour: u32) -> duckdb::Result<()> {
        let (samples, requests, windows) = (table(SAMPLES, hour), table(REQUESTS, hour), table(WINDOWS, hour));
        self.define(&format!(
            "DROP TABLE IF EXISTS {samples}; DROP TABLE IF EXISTS {requests}; DROP TABLE IF EXISTS {windows};"
        ))
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
    pub(crate) fn write(&self, staged: Staged, through: Lsn) -> Result<(), WriteError> {
        self.connection.execute_batch("BEGIN").map_err(WriteError::Before)?;
        self.write_rows(staged, through).map_err(|error| {
            // A connection that cannot roll back is found out by the caller's next step.
            let _ = self.connection.execute_batch("ROLLBACK");
            WriteError::Before(error)
        })?;
        self.connection.execute_batch("COMMIT").map_err(WriteError::Commit)
    }

    fn write_rows(&self, staged: Staged, through: Lsn) -> duckdb::Result<()> {
        for (name, columns) in staged.into_tables() {
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

/// The table of a kind and hour.
pub(crate) fn table(kind: &str, hour: u32) -> String {
    format!("{kind}_{}", hours::name_of(hour))
}

/// Columns of a table, ready to append.
pub(crate) type Tables = BTreeMap<String, Vec<ArrayRef>>;

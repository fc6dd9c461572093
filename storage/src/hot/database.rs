//! DuckDB's file: how it is opened, which tables it has, how hours are added and dropped.
//!
//! Guarantees: the number of the last batch applied is committed together with its rows; hour tables are created
//! outside of data transactions and checkpointed at once, because DuckDB has had its bugs in replaying definitions
//! together with data from a write-ahead log. Each row carries the number of its batch, so that rows which are also
//! sealed can be found. The file holds nothing that is not in the journal or the parts.

mod contents;
mod removing;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef},
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use duckdb::{Config, Connection};

use crate::{
    checks::Checks,
    hot::{
        failure,
        rows::Staged,
        schema::{columns, quoted, table},
    },
    journal::Lsn,
    options::Options,
    parts::{self, Kind, ROW_KINDS},
};

pub(crate) use contents::Contents;
pub(crate) use removing::{Kept, is_owned};

/// Number of the layout below; a file with another layout is rebuilt.
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

/// The path of the file.
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
    /// Opens or creates the file, and reads what must be known about it.
    pub(crate) fn open(options: &Options, checks: &Checks) -> duckdb::Result<(Database, Contents)> {
        let path = path_of(&options.data_dir);
        let temporary = options.data_dir.join("tmp");
        let config = Config::default()
            .with("memory_limit", format!("{}MiB", options.memory_limit_mb))?
            .with("threads", options.duckdb_threads.max(1).to_string())?
            .with("temp_directory", temporary.to_string_lossy())?
            .with("max_temp_directory_size", format!("{}MiB", options.temp_limit_mb))?
            .with("preserve_insertion_order", "false")?
            // Memory that a question or a seal needed goes back to the system instead of being cached by the engine.
            .with("allocator_background_threads", "true")?
            .with("allocator_flush_threshold", "16MiB")?
            .with("allocator_bulk_deallocation_flush_threshold", "32MiB")?
            // Checkpoints follow the writer's own schedule, and never happen in the middle of a commit.
            .with("wal_autocheckpoint", "1TB")?
            .enable_autoload_extension(false)?;
        let connection = Connection::open_with_flags(&path, config)?;
        // The only files it may touch besides its own are the parts.
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

    /// Changes definitions in a transaction of their own, and checkpoints at once.
    fn define(&self, statements: &str) -> duckdb::Result<()> {
        if let Err(error) = self.connection.execute_batch(&format!("BEGIN; {statements} COMMIT;")) {
            // The transaction may still be open.
            let _ = self.connection.execute_batch("ROLLBACK");
            return Err(error);
        }
        match self.checkpoint() {
            // Readers may be in the way; the definitions then stay in the log until the next checkpoint.
            Err(error) if matches!(failure::kind(&error), failure::Kind::Other | failure::Kind::HeldUp) => Ok(()),
            result => result,
        }
    }

    /// Creates the tables of an hour.
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

    /// First and last batch with rows in a table; `None` when it is empty.
    pub(crate) fn extent(&self, kind: Kind, hour: u32, generation: u32) -> duckdb::Result<Option<(Lsn, Lsn)>> {
        let sql = format!("SELECT min(lsn), max(lsn) FROM {}", table(kind, hour, generation));
        let (first, last): (Option<Lsn>, Option<Lsn>) = self
            .connection
            .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(first.zip(last))
    }

    /// The first batch with rows in the tables of an hour.
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

    /// Writes rows and the number they reach, in one transaction. After an error nothing is written, unless the commit
    /// itself failed: then the outcome is unknown.
    pub(crate) fn write(&self, staged: Staged, tables: &BTreeMap<u32, u32>, through: Lsn) -> Result<(), WriteError> {
        self.connection.execute_batch("BEGIN").map_err(WriteError::Before)?;
        self.write_rows(staged, tables, through).map_err(|error| {
            // A connection that cannot roll back is noticed at the caller's next step.
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

//! Whether every row of the query engine's file can be read. Guarantee: it is opened read-only.

use std::path::Path;

use duckdb::{AccessMode, Config, Connection};

/// Reads all tables; the error says what the engine stumbled over.
pub(super) fn check(path: &Path, memory_limit_mb: u64) -> Result<(), String> {
    read_all(path, memory_limit_mb).map_err(|error| error.to_string())
}

fn read_all(path: &Path, memory_limit_mb: u64) -> duckdb::Result<()> {
    let config = Config::default()
        .access_mode(AccessMode::ReadOnly)?
        .with("memory_limit", format!("{memory_limit_mb}MiB"))?
        .with("threads", "1")?
        // Sums need no disk space.
        .with("max_temp_directory_size", "0B")?
        .enable_autoload_extension(false)?;
    let connection = Connection::open_with_flags(path, config)?;
    connection.execute_batch("SET enable_external_access = false; SET lock_configuration = true;")?;
    let mut statement = connection.prepare("SELECT table_name FROM information_schema.tables")?;
    let tables: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<duckdb::Result<_>>()?;
    for table in tables {
        // A hash of each whole row: only what is read is checked.
        let sql = format!(
            "SELECT count(*), bit_xor(hash(t)) FROM \"{}\" t",
            table.replace('"', "\"\"")
        );
        connection.query_row(&sql, [], |row| row.get::<_, u64>(0))?;
    }
    Ok(())
}

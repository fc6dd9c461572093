//! What rows look like: the columns of each kind, the same in the engine's tables and in parts, the names of tables,
//! and the order of rows in parts.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::array::ArrayRef;

use super::hours;
use crate::parts::{Kind, Part};

/// A column's name and type.
pub(crate) type Column = (&'static str, &'static str);

/// Columns of requests, and of their sums, after those that say when and whose they are.
const OF_REQUESTS: [Column; 20] = [
    ("side", "UTINYINT"),
    ("route", "VARCHAR"),
    ("method", "VARCHAR"),
    ("peer_namespace", "VARCHAR"),
    ("peer_service", "VARCHAR"),
    ("peer_version", "VARCHAR"),
    ("protocol", "VARCHAR"),
    ("status", "USMALLINT"),
    ("error", "BOOLEAN"),
    ("zero_count", "UBIGINT"),
    ("sum", "DOUBLE"),
    ("min", "DOUBLE"),
    ("max", "DOUBLE"),
    ("bucket", "SMALLINT[]"),
    ("n", "UBIGINT[]"),
    ("request_bytes", "UBIGINT"),
    ("response_bytes", "UBIGINT"),
    // Parts of older versions lack the following; see [`rows_of`].
    ("destination", "VARCHAR"),
    ("streaming_s", "DOUBLE"),
    ("open", "UBIGINT"),
];

const REQUESTS: [Column; 22] = before_those_of_requests([("ts", "UINTEGER"), ("series_id", "UBIGINT")]);

const SUMS: [Column; 23] = before_those_of_requests([
    // The quarter of an hour, or of a day, in which the windows begin, and the one that contains their middles.
    ("ts", "UINTEGER"),
    ("piece", "UINTEGER"),
    // That of one process, which stands for its release.
    ("series_id", "UBIGINT"),
]);

const fn before_those_of_requests<const KEY: usize, const ALL: usize>(key: [Column; KEY]) -> [Column; ALL] {
    assert!(ALL == KEY + OF_REQUESTS.len(), "all of them");
    let mut all = [("", ""); ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < KEY { key[at] } else { OF_REQUESTS[at - KEY] };
        at += 1;
    }
    all
}

/// Columns of a kind of rows with their types, the same in tables and parts. Tables also have the batch number, last.
pub(crate) fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Samples => &[
            ("ts", "UINTEGER"),
            ("series_id", "UBIGINT"),
            ("label_set", "UBIGINT"),
            ("stack_id", "UBIGINT"),
            ("value", "UBIGINT"),
            ("samples", "UBIGINT"),
        ],
        Kind::Exemplars => &[
            ("ts", "UINTEGER"),
            ("series_id", "UBIGINT"),
            ("label_set", "UBIGINT"),
            ("stack_id", "UBIGINT"),
            ("value", "UBIGINT"),
            ("at_ns", "UBIGINT"),
            ("trace_high", "UBIGINT"),
            ("trace_low", "UBIGINT"),
            ("span_id", "UBIGINT"),
            // How many more there were of this profile; only in its first row, 0 in the others.
            ("cut", "UBIGINT"),
        ],
        Kind::Requests => &REQUESTS,
        Kind::Windows => &[
            ("ts", "UINTEGER"),
            ("workload_id", "UBIGINT"),
            ("component", "UTINYINT"),
            ("length", "UINTEGER"),
            ("has_requests", "BOOLEAN"),
            ("has_profiles", "BOOLEAN"),
            // Types of the profiles that arrived, with samples or without ([`rows::type_id`]). Empty: the profiler's
            // own, idle. Null in parts from before this column existed: any.
            ("profile_types", "UBIGINT[]"),
            ("rate_hz", "DOUBLE"),
            ("dropped", "UBIGINT"),
            ("truncated", "UBIGINT"),
            ("cpu_ns", "UBIGINT"),
            ("overhead_ns", "UBIGINT"),
        ],
        Kind::Rollup | Kind::Quarters => &[
            // The start of the hour, or of the quarter of a day.
            ("ts", "UINTEGER"),
            // That of the release: a process's, without the instance.
            ("series_id", "UBIGINT"),
            ("label_set", "UBIGINT"),
            ("stack_id", "UBIGINT"),
            ("value", "UBIGINT"),
            ("samples", "UBIGINT"),
            // How many windows had the stack; 0 for CPU, which adds up and does not need it.
            ("windows", "USMALLINT"),
        ],
        Kind::Sums | Kind::DaySums => &SUMS,
        Kind::Totals => &[
            ("ts", "UINTEGER"),
            ("piece", "UINTEGER"),
            // That of the release: a process's, without the instance.
            ("series_id", "UBIGINT"),
            ("label_set", "UBIGINT"),
            ("value", "UBIGINT"),
            ("samples", "UBIGINT"),
        ],
        Kind::Runs => &[
            // Start of the first window.
            ("ts", "UINTEGER"),
            ("workload_id", "UBIGINT"),
            ("component", "UTINYINT"),
            // Of each window.
            ("length", "UINTEGER"),
            ("windows", "UINTEGER"),
            ("has_requests", "BOOLEAN"),
            ("has_profiles", "BOOLEAN"),
            ("profile_types", "UBIGINT[]"),
        ],
        Kind::Names | Kind::Stacks => &[],
    }
}

/// Names of the columns of a kind of rows.
pub(crate) fn column_names(kind: Kind) -> String {
    let names: Vec<&str> = columns(kind).iter().map(|c| c.0).collect();
    names.join(", ")
}

/// Parts of a kind as a table expression, with every column of [`columns`]: those that an older part lacks are null.
pub(crate) fn rows_of(kind: Kind, parts: &[Arc<Part>]) -> String {
    let paths: Vec<String> = parts.iter().map(|part| quoted(&part.path)).collect();
    let paths = paths.join(", ");
    if !matches!(kind, Kind::Requests | Kind::Windows) {
        return format!("read_parquet([{paths}])");
    }
    let typed: Vec<String> = columns(kind)
        .iter()
        .map(|(name, of)| format!("CAST(NULL AS {of}) AS {name}"))
        .collect();
    format!(
        "(SELECT {} WHERE false UNION ALL BY NAME SELECT * FROM read_parquet([{paths}], union_by_name = true))",
        typed.join(", ")
    )
}

/// The table of a kind and hour. Each time an hour gets tables, they have a new generation.
pub(crate) fn table(kind: Kind, hour: u32, generation: u32) -> String {
    format!("{}_{}_{generation}", kind.word(), hours::name_of(hour))
}

/// A path as a literal.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "''"))
}

/// Order of rows in parts: equal identifiers next to each other, times ascending.
pub(super) fn order(kind: Kind) -> &'static str {
    match kind {
        Kind::Samples | Kind::Rollup | Kind::Quarters => "series_id, stack_id, label_set, ts",
        Kind::Exemplars => "trace_high, trace_low, span_id, at_ns",
        Kind::Requests => {
            "series_id, side, route, method, protocol, status, destination, peer_service, peer_version, ts"
        }
        Kind::Sums | Kind::DaySums => {
            "series_id, side, route, method, protocol, status, destination, peer_service, peer_version, ts, piece"
        }
        Kind::Totals => "series_id, label_set, ts, piece",
        _ => "workload_id, component, ts",
    }
}

/// Columns of a table, ready to append.
pub(crate) type Tables = BTreeMap<String, Vec<ArrayRef>>;

#[cfg(test)]
mod tests {
    use duckdb::Connection;

    use super::*;
    use crate::{disk::MemoryDisk, parts::PartName};

    /// Parts sealed before windows listed their profile types are read as before, alone and together with new ones.
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

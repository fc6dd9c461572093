//! What rows look like: the columns of each kind, in the engine's tables and in parts alike, the names of tables, and the order
//! of rows in parts.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::array::ArrayRef;

use super::hours;
use crate::parts::{Kind, Part};

/// The kinds of hour tables.
pub(crate) const SAMPLES: Kind = Kind::Samples;
/// See [`SAMPLES`].
pub(crate) const REQUESTS: Kind = Kind::Requests;
/// See [`SAMPLES`].
pub(crate) const WINDOWS: Kind = Kind::Windows;

/// See [`SAMPLES`].
pub(crate) const EXEMPLARS: Kind = Kind::Exemplars;

/// Columns of a kind of rows with their types, in tables and parts alike. In tables the number of the batch follows.
pub(crate) fn columns(kind: Kind) -> &'static [(&'static str, &'static str)] {
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
            // How many more there were of this profile; in its first row, 0 in the others.
            ("cut", "UBIGINT"),
        ],
        Kind::Requests => &[
            ("ts", "UINTEGER"),
            ("series_id", "UBIGINT"),
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
            // Parts of older versions lack what follows; see [`rows_of`].
            ("destination", "VARCHAR"),
            ("streaming_s", "DOUBLE"),
            ("open", "UBIGINT"),
        ],
        Kind::Windows => &[
            ("ts", "UINTEGER"),
            ("workload_id", "UBIGINT"),
            ("component", "UTINYINT"),
            ("length", "UINTEGER"),
            ("has_requests", "BOOLEAN"),
            ("has_profiles", "BOOLEAN"),
            // Which types of profiles arrived, with samples or without ([`rows::type_id`]). Empty: the profiler's own, idle. Null in
            // parts of before there was this column: any.
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
            // Of the release: that of its processes, without an instance.
            ("series_id", "UBIGINT"),
            ("label_set", "UBIGINT"),
            ("stack_id", "UBIGINT"),
            ("value", "UBIGINT"),
            ("samples", "UBIGINT"),
            // How many windows had the stack. CPU adds up and has no use for it: 0.
            ("windows", "USMALLINT"),
        ],
        Kind::Sums | Kind::DaySums => &[
            // The quarter of an hour, or of a day, in which the windows begin, and that in which their middles lie.
            ("ts", "UINTEGER"),
            ("piece", "UINTEGER"),
            // Of one of the processes, which stands for its release.
            ("series_id", "UBIGINT"),
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
            ("destination", "VARCHAR"),
            ("streaming_s", "DOUBLE"),
            ("open", "UBIGINT"),
        ],
        Kind::Totals => &[
            ("ts", "UINTEGER"),
            ("piece", "UINTEGER"),
            // Of the release: that of its processes, without an instance.
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

/// Parts of a kind as a table of a query, with every column of [`columns`]: those that a part of an older version lacks
/// are null.
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

/// The table of a kind and hour. Each time an hour gets tables they are of another generation.
pub(crate) fn table(kind: Kind, hour: u32, generation: u32) -> String {
    format!("{}_{}_{generation}", kind.word(), hours::name_of(hour))
}

/// A path as a literal.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "''"))
}

/// Order of rows in parts: equal identifiers side by side, times rising.
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

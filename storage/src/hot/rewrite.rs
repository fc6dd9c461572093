//! Rewrites rows of sealed parts into another part: sorted, and all of them or those that match a condition.
//!
//! Guarantees: a damaged part is found before any of its rows is read; memory is bounded by the rows of a chunk
//! (`chunks`), on top of what the engine may use; closing the engine ends a rewrite. A draft that is dropped leaves
//! nothing behind.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    sync::Arc,
};

use arrow::{array::StructArray, datatypes::Schema};

use super::{
    Shared,
    chunks::{CHUNK_ROWS, series_ranges},
    cut::{QUARTER_OF_DAY, QUARTER_OF_HOUR},
    hours::QUARTER_S,
    schema::{column_names, columns, order, rows_of},
    sums::{self, RequestSums},
};
use crate::hot::saturated::saturated_u64;
use crate::{
    parts::{self, DraftFile, Kind, Part, rows::RowWriter},
    questions::columns::Columns,
    readers::Failure,
};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// The disk failed.
    #[error("{0}; free space or repair the disk")]
    Disk(#[from] io::Error),
    /// Parts are damaged; without them, the work to do is different.
    #[error("{} parts are damaged", .0.len())]
    Damaged(Vec<Arc<Part>>),
    /// The engine failed or was closed.
    #[error("the query engine failed: {0}")]
    Engine(String),
    /// A bug in this program.
    #[error("{0}; this is a bug in Emberline")]
    Internal(String),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        match failure {
            Failure::Engine(error) => Problem::Engine(error.to_string()),
            Failure::Question(error) => Problem::Engine(error.to_string()),
            Failure::NoRoom | Failure::Cancelled => Problem::Engine("closed".to_owned()),
            Failure::Parts(parts) => Problem::Damaged(parts),
        }
    }
}

/// Rewrites parts of a store.
pub(super) struct Rewriter<'a> {
    pub(super) shared: &'a Shared,
    /// Part of the names of files being written; must differ from a concurrent seal's.
    pub(super) label: &'static str,
}

impl Rewriter<'_> {
    /// Creates a file for a part.
    pub(super) fn create(&self, kind: Kind) -> io::Result<DraftFile> {
        let dir = parts::folder(&self.shared.options.data_dir);
        DraftFile::create(&self.shared.disk, &dir, &format!("{}-{}", self.label, kind.word()))
    }

    /// Writes the rows of some parts of one kind that match a condition; `None` if none do.
    pub(super) fn rows(
        &self,
        kind: Kind,
        sources: &[Arc<Part>],
        condition: &str,
    ) -> Result<Option<RowWriter>, Problem> {
        self.write(kind, sources, condition, |condition| {
            let (names, order) = (column_names(kind), order(kind));
            format!(
                "SELECT {names} FROM {} WHERE {condition} ORDER BY {order}",
                from(sources)
            )
        })
    }

    /// Adds up roll-ups over quarters of days; `None` without rows.
    pub(super) fn quarters(&self, rollups: &[Arc<Part>]) -> Result<Option<RowWriter>, Problem> {
        self.write(Kind::Quarters, rollups, "true", |condition| {
            // The list of names begins with the time.
            let (names, order) = (column_names(Kind::Quarters), order(Kind::Quarters));
            format!(
                "SELECT quarter AS {names} FROM (
                    SELECT CAST(ts - ts % {QUARTER_S} AS UINTEGER) AS quarter, series_id, label_set, stack_id,
                        {sum_of_values} AS value,
                        {sum_of_samples} AS samples,
                        CAST(least(sum(windows), 65535) AS USMALLINT) AS windows
                    FROM {} WHERE {condition} GROUP BY quarter, series_id, label_set, stack_id)
                 ORDER BY {order}",
                from(rollups),
                sum_of_values = saturated_u64!("sum(value)"),
                sum_of_samples = saturated_u64!("sum(samples)"),
            )
        })
    }

    /// Writes the rows of queries, all of one kind, over these parts; `None` without rows.
    pub(super) fn queries(
        &self,
        kind: Kind,
        sources: &[Arc<Part>],
        queries: &[String],
    ) -> Result<Option<RowWriter>, Problem> {
        let mut writer = None;
        if !queries.is_empty() {
            verify(sources)?;
            self.copy(kind, &sums::sorted(kind, queries), &mut writer)?;
        }
        Ok(writer)
    }

    /// Writes sums of requests over quarters of an hour, and over quarters of a day: from existing sums, and from
    /// requests without any, with the windows they belong to.
    pub(super) fn request_sums(
        &self,
        summed: &[Arc<Part>],
        requests: &[Arc<Part>],
        windows: &[Arc<Part>],
    ) -> Result<[Option<RowWriter>; 2], Problem> {
        verify(summed)?;
        verify(requests)?;
        verify(windows)?;
        let mut writers = [None, None];
        for (kind, sources) in [(Kind::Sums, summed), (Kind::Requests, requests)] {
            if sources.is_empty() {
                continue;
            }
            for condition in self.chunks(kind, sources, "true")?.into_iter().flatten() {
                let sql = match kind {
                    Kind::Sums => sums::of_sums(&from(sources), &format!("r.{condition}")),
                    _ => sums::of_requests(&from(sources), &from_windows(windows), &format!("r.{condition}")),
                };
                for (kind, rows) in [Kind::Sums, Kind::DaySums].into_iter().zip(self.add_requests(&sql)?) {
                    let Some(rows) = rows else { continue };
                    let writer = &mut writers[usize::from(kind == Kind::DaySums)];
                    let writer = match writer {
                        Some(writer) => writer,
                        none => {
                            let schema = Arc::new(Schema::new(rows.fields().clone()));
                            none.insert(RowWriter::new(self.create(kind)?, schema)?)
                        }
                    };
                    writer.write(&rows)?;
                }
            }
        }
        Ok(writers)
    }

    /// Adds up requests over both units.
    fn add_requests(&self, sql: &str) -> Result<[Option<StructArray>; 2], Problem> {
        let added = self.shared.readers.read(|reader| {
            let mut sums = [RequestSums::new(QUARTER_OF_HOUR), RequestSums::new(QUARTER_OF_DAY)];
            reader.rows(sql, &[], |chunk| {
                let columns = Columns::new(chunk);
                sums.iter_mut().try_for_each(|sums| sums.add(&columns))
            })?;
            Ok(sums)
        })?;
        Ok(added.map(RequestSums::finish))
    }

    /// Writes the rows of a query; `sql` builds it from a condition that selects some of the rows.
    fn write(
        &self,
        kind: Kind,
        sources: &[Arc<Part>],
        condition: &str,
        sql: impl Fn(&str) -> String,
    ) -> Result<Option<RowWriter>, Problem> {
        let mut writer = None;
        if sources.is_empty() {
            return Ok(writer);
        }
        verify(sources)?;
        for group in self.chunks(kind, sources, condition)? {
            for chunk in group {
                self.copy(kind, &sql(&format!("{condition} AND {chunk}")), &mut writer)?;
            }
            if let Some(writer) = &mut writer {
                writer.begin_group()?;
            }
        }
        Ok(writer)
    }

    /// Conditions that together select every row once, in ascending order, as many rows at a time as can be sorted, in
    /// groups that are kept separate. Samples are grouped by quarter of the day, so that a range that begins or ends in
    /// the middle of an hour does not have to read the times of the whole day.
    fn chunks(&self, kind: Kind, sources: &[Arc<Part>], condition: &str) -> Result<Vec<Vec<String>>, Problem> {
        // Few enough to be sorted at once; and exemplars are not ordered by series.
        if matches!(kind, Kind::Windows | Kind::Exemplars | Kind::Totals | Kind::Runs) {
            return Ok(vec![vec!["true".to_owned()]]);
        }
        let quarter = match kind {
            Kind::Samples => format!("CAST(ts - ts % {QUARTER_S} AS UINTEGER)"),
            _ => "0::UINTEGER".to_owned(),
        };
        let sql = format!(
            "SELECT {quarter}, series_id, CAST(count(*) AS UBIGINT) FROM {} WHERE {condition}
             GROUP BY 1, 2 ORDER BY 1, 2",
            from(sources)
        );
        let counts = self.shared.readers.read(|reader| {
            let mut counts: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
            reader.rows(&sql, &[], |chunk| {
                let columns = Columns::new(chunk);
                let (quarter, series, count) = (columns.u32(0)?, columns.u64(1)?, columns.u64(2)?);
                for row in 0..columns.rows() {
                    counts.entry(quarter[row]).or_default().push((series[row], count[row]));
                }
                Ok(())
            })?;
            Ok(counts)
        })?;
        let group = |(from_s, counts): (u32, Vec<(u64, u64)>)| {
            let times = match kind {
                Kind::Samples => format!(" AND ts >= {from_s} AND ts < {}", i64::from(from_s) + QUARTER_S),
                _ => String::new(),
            };
            let ranges = series_ranges(&counts, most_rows(kind)).into_iter();
            ranges
                .map(|(first, last)| format!("series_id BETWEEN {first} AND {last}{times}"))
                .collect()
        };
        Ok(counts.into_iter().map(group).collect())
    }

    /// Appends the rows of a query.
    fn copy(&self, kind: Kind, sql: &str, writer: &mut Option<RowWriter>) -> Result<(), Problem> {
        let failed: RefCell<Option<io::Error>> = RefCell::new(None);
        let begun = Cell::new(false);
        let writer = RefCell::new(writer);
        let result = self.shared.readers.read(|reader| {
            // Rows are written once: a second attempt would repeat them.
            if begun.replace(true) {
                return Err(Failure::Cancelled);
            }
            reader.rows(sql, &[], |chunk| {
                let mut writer = writer.borrow_mut();
                let written = match &mut **writer {
                    Some(writer) => writer.write(chunk),
                    none => self
                        .create(kind)
                        .and_then(|file| RowWriter::new(file, Arc::new(Schema::new(chunk.fields().clone()))))
                        .and_then(|writer| none.insert(writer).write(chunk)),
                };
                written.map_err(|error| {
                    *failed.borrow_mut() = Some(error);
                    Failure::Cancelled
                })
            })
        });
        if let Some(error) = failed.into_inner() {
            return Err(Problem::Disk(error));
        }
        Ok(result?)
    }
}

/// How many rows of a kind are written at a time.
fn most_rows(kind: Kind) -> u64 {
    match kind {
        Kind::Sums | Kind::DaySums => sums::CHUNK_SUMS,
        Kind::Requests => sums::CHUNK_ROWS,
        _ => CHUNK_ROWS,
    }
}

fn verify(sources: &[Arc<Part>]) -> Result<(), Problem> {
    for part in sources {
        if !part.is_intact(false)? {
            return Err(Problem::Damaged(vec![part.clone()]));
        }
    }
    Ok(())
}

/// Windows as a table expression, even if there are none.
pub(super) fn from_windows(windows: &[Arc<Part>]) -> String {
    match windows.is_empty() {
        false => from(windows),
        true => {
            let typed = columns(Kind::Windows)
                .iter()
                .map(|(name, of)| format!("CAST(NULL AS {of}) AS {name}"));
            format!("(SELECT {} WHERE false)", typed.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Parts of one kind as a table expression.
pub(super) fn from(parts: &[Arc<Part>]) -> String {
    rows_of(parts.first().map_or(Kind::Samples, |part| part.name.kind), parts)
}

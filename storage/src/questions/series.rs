//! Which series a statement reads. A few are looked up first and listed one by one: comparing an identifier with some
//! numbers costs half as much as a join with another table, and row groups without them are skipped.

use crate::{
    questions::sql::Sql,
    readers::{Failure, Reader},
};

/// The most that are listed one by one; more are joined.
const FEW: usize = 64;

/// Series to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SeriesIn {
    /// These.
    Few(Vec<u64>),
    /// More; the statement has to select them.
    Many,
}

impl SeriesIn {
    /// Looks up what `select` selects.
    pub(super) fn look_up(reader: &Reader<'_>, select: impl FnOnce(&mut Sql)) -> Result<SeriesIn, Failure> {
        let mut ids = Vec::new();
        let mut sql = Sql::new("SELECT DISTINCT i.series_id FROM (");
        select(&mut sql);
        sql.push(") i LIMIT ").bind(FEW as u64 + 1);
        sql.run(reader, |columns| {
            ids.extend_from_slice(columns.u64(0)?);
            Ok(())
        })?;
        ids.sort_unstable();
        Ok(if ids.len() <= FEW {
            SeriesIn::Few(ids)
        } else {
            SeriesIn::Many
        })
    }

    /// True when empty.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, SeriesIn::Few(ids) if ids.is_empty())
    }

    /// Adds `column IN (...)`; `select` selects the series if there are many.
    pub(super) fn push(&self, sql: &mut Sql, column: &str, select: impl FnOnce(&mut Sql)) {
        sql.push(column).push(" IN (");
        match self {
            SeriesIn::Few(ids) => {
                for (at, id) in ids.iter().enumerate() {
                    if at > 0 {
                        sql.push(", ");
                    }
                    sql.bind(*id);
                }
            }
            SeriesIn::Many => select(sql),
        }
        sql.push(")");
    }
}

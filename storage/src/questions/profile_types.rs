//! Which profile types there are.

use crate::{
    hot::{
        Span,
        rows::{SERIES_REQUESTS, SERIES_WINDOWS},
    },
    parts::Kind,
    questions::{Question, View, selection::WorkloadFilter, sql::Sql},
    range::Range,
    readers::{Failure, Reader},
};

/// Which profile types some workloads sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileTypesQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// When.
    pub range: Range,
}

impl Question for ProfileTypesQuery {
    type Answer = Vec<String>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<String>, Failure> {
        profile_types(view.reader, view.span, &self.who)
    }
}

/// Profile types of workloads that reported windows in a span, sorted. A type that a workload no longer sends is still
/// listed for it.
fn profile_types(reader: &Reader<'_>, span: &Span, who: &WorkloadFilter) -> Result<Vec<String>, Failure> {
    let mut types = Vec::new();
    if span.is_empty() {
        return Ok(types);
    }
    let mut sql = Sql::new("SELECT DISTINCT d.profile_type FROM series d WHERE d.profile_type NOT IN (");
    sql.bind(SERIES_REQUESTS.to_owned())
        .push(", ")
        .bind(SERIES_WINDOWS.to_owned())
        .push(")");
    who.push(&mut sql);
    sql.push(" AND d.workload_id IN (SELECT workload_id FROM ")
        .hours(Kind::Windows, span)
        .push(" WHERE ");
    sql.within("ts", span).push(")");
    sql.run(reader, |columns| {
        let profile_type = columns.text(0)?;
        types.extend((0..columns.rows()).map(|row| profile_type.string(row)));
        Ok(())
    })?;
    types.sort_unstable();
    Ok(types)
}

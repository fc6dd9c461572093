//! How the totals of profiles are distributed in each step of time: many small ones, or few large ones?
//!
//! Guarantees: the unit counted is a window of a process, with the sum of its selected samples; buckets are the same
//! for all questions, so that heat maps can be compared: four for each doubling (a value is within 19 % of its bucket's
//! lower bound). A window without selected samples is not counted.

use crate::hot::saturated::saturated_i64;
use crate::{
    hot::Span,
    parts::Kind,
    questions::{
        Question, View,
        selected::{SelectedQuery, push_sample_filters, push_series},
        sql::Sql,
    },
    range::Range,
    readers::{Failure, Reader},
};

/// Buckets per doubling of the value.
const PER_DOUBLING: f64 = 4.0;
/// The bucket for zero.
const ZERO: i16 = -1;

/// A cell of a heat map: at least one window has its total in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeatCell {
    /// Start of the step, seconds since the Unix epoch.
    pub start_s: i64,
    /// Number of the bucket: -1 for totals of zero.
    pub bucket: i16,
    /// Windows of processes with such a total.
    pub windows: u64,
    /// Sum of their totals.
    pub value: i64,
}

impl HeatCell {
    /// The smallest value in a bucket.
    pub fn lower_bound(bucket: i16) -> f64 {
        match bucket {
            ZERO => 0.0,
            bucket => (f64::from(bucket) / PER_DOUBLING).exp2(),
        }
    }
}

fn statement(span: &Span, query: &SelectedQuery) -> Sql {
    let mut sql = Sql::new("SELECT CAST(t.ts - t.ts % ");
    sql.bind(query.step_s.max(1))
        .push(" AS UINTEGER), CAST(CASE WHEN t.value = 0 THEN ");
    sql.bind(ZERO).push(" ELSE floor(log2(t.value) * ").bind(PER_DOUBLING);
    sql.push(concat!(
        ") END AS BIGINT), CAST(count(*) AS UBIGINT), ",
        saturated_i64!("sum(t.value)"),
        " FROM (SELECT s.ts, s.series_id, sum(s.value) AS value FROM ",
    ));
    sql.hours(Kind::Samples, span).push(" s WHERE ").within("s.ts", span);
    sql.push(" AND s.series_id IN (");
    push_series(&mut sql, query);
    sql.push(")");
    push_sample_filters(&mut sql, query);
    sql.push(" GROUP BY 1, 2) t GROUP BY 1, 2");
    sql
}

/// How the totals of windows of processes are distributed in each step of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeatMapQuery {
    /// The selection; its labels and stacks are ignored.
    pub selected: SelectedQuery,
}

impl Question for HeatMapQuery {
    type Answer = Vec<HeatCell>;

    fn range(&self) -> Range {
        self.selected.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<HeatCell>, Failure> {
        heat_map(view.reader, view.span, &self.selected)
    }
}

/// Returns the non-empty cells, sorted by time and bucket. Only the profile type, filters, range and step of the query
/// are used.
fn heat_map(reader: &Reader<'_>, span: &Span, query: &SelectedQuery) -> Result<Vec<HeatCell>, Failure> {
    query.check()?;
    let mut cells = Vec::new();
    if span.is_empty() {
        return Ok(cells);
    }
    statement(span, query).run(reader, |columns| {
        let (start, bucket) = (columns.u32(0)?, columns.i64(1)?);
        let (windows, value) = (columns.u64(2)?, columns.i64(3)?);
        cells.extend((0..columns.rows()).map(|row| HeatCell {
            start_s: i64::from(start[row]),
            // There are only 64 doublings.
            bucket: i16::try_from(bucket[row]).unwrap_or(i16::MAX),
            windows: windows[row],
            value: value[row],
        }));
        Ok(())
    })?;
    cells.sort_unstable();
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        questions::selected::{Label, LabelFilter},
        range::Range,
    };

    #[test]
    fn bounds_rise_and_no_value_reaches_the_text_of_a_statement() {
        assert_eq!(HeatCell::lower_bound(-1), 0.0);
        assert_eq!(HeatCell::lower_bound(0), 1.0);
        assert_eq!(HeatCell::lower_bound(40), 1024.0);
        let span = Span {
            from_s: 0,
            to_s: 7200,
            tables: vec![(0, 0)],
            parts: Vec::new(),
        };
        let filter = |label| LabelFilter {
            label,
            values: vec!["') --".to_owned()],
            negated: false,
        };
        let filters = vec![filter(Label::Service), filter(Label::Route)];
        let statement = statement(&span, &SelectedQuery::new("x'; DROP", filters, Range::ALL));
        assert!(!statement.text().contains("--") && !statement.text().contains("DROP"));
        assert_eq!(statement.text().matches('?').count(), statement.parameter_count());
    }
}

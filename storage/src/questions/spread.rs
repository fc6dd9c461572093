//! Samples of windows that span several steps of a series: a profile of a minute, drawn every ten seconds.
//!
//! Guarantees: each step gets the part of a window that it covers, as if the samples were spread evenly over the
//! window, and the parts of a row add up to the row; so the last window of a range may extend into a step after its
//! end. Where all windows fit into their steps, as our own always do, nothing is spread and nothing costs more.
//!
//! Wrong on purpose: sums over whole hours do not record their windows, so in steps of whole hours a window counts
//! where it begins.

use crate::{
    hot::{Grain, Span},
    parts::Kind,
    questions::{series::SeriesIn, sql::Sql},
    readers::{Failure, Reader},
};

/// True when a window of the series in question spans more than one step.
pub(super) fn is_needed(
    reader: &Reader<'_>,
    span: &Span,
    step_s: u32,
    push_series: impl FnOnce(&mut Sql),
) -> Result<bool, Failure> {
    let mut sql = Sql::new("SELECT 1::UBIGINT FROM ");
    sql.hours(Kind::Windows, span)
        .push(" w WHERE w.has_profiles AND w.ts % ")
        .bind(step_s)
        .push(" + w.length > ")
        .bind(step_s)
        .push(" AND ")
        .within("w.ts", span)
        .push(" AND w.workload_id IN (SELECT e.workload_id FROM series e WHERE e.series_id IN (");
    push_series(&mut sql);
    sql.push(")) LIMIT 1");
    sql.finds_any(reader)
}

/// Adds the samples like [`Sql::samples`], each row once in every step that its window covers; `ts` is the start of the
/// step.
pub(super) fn push_samples(
    sql: &mut Sql,
    span: &Span,
    step_s: u32,
    series: &SeriesIn,
    push_series: impl FnOnce(&mut Sql),
) {
    sql.push("(SELECT x.series_id, x.label_set, x.stack_id, x.windows, CAST(x.start AS UINTEGER) AS ts");
    for column in ["value", "samples"] {
        let until = |instant: &str| format!("(x.{column}::HUGEINT * ({instant} - x.began)) // x.length");
        sql.push(", CAST(")
            .push(&until("least(x.began + x.length, x.start + x.step)"))
            .push(" - ")
            .push(&until("greatest(x.began, x.start)"))
            .push(" AS UBIGINT) AS ")
            .push(column);
    }
    sql.push(
        " FROM (SELECT y.*, unnest(range(y.began - y.began % y.step, y.began + y.length, y.step)) AS start FROM
            (SELECT t.series_id, t.label_set, t.stack_id, t.windows, t.value, t.samples, t.ts::BIGINT AS began,
                greatest(coalesce(w.length, 1), 1)::BIGINT AS length, ",
    )
    .bind(step_s)
    .push("::BIGINT AS step FROM ")
    .samples(span, Grain::Windows)
    .push(
        " t JOIN series e ON e.series_id = t.series_id LEFT JOIN
            (SELECT g.workload_id, g.component, g.ts, max(g.length) AS length FROM ",
    )
    .hours(Kind::Windows, span)
    .push(
        " g WHERE g.has_profiles GROUP BY 1, 2, 3) w
            ON w.workload_id = e.workload_id AND w.component = e.component AND w.ts = t.ts WHERE ",
    );
    series.push(sql, "t.series_id", push_series);
    sql.push(") y) x)");
}

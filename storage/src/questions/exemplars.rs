//! Samples that say which request they worked for, selected by trace, by span, or by process.
//!
//! Guarantees: the count and the sum of everything found are exact, whatever the limit on rows; names and identifiers
//! that come from outside are bound.
//!
//! Wrong on purpose: a window keeps a limited number per series (`max_exemplars_per_profile` of the collector), so what
//! is found is only part of what a trace used; the rest was counted when it was left out.

use emberline_model::{Component, Exemplar, Side, Workload};

use crate::hot::saturated::{saturated_i64, saturated_u64};
use crate::{
    error::QueryError,
    hot::Span,
    parts::Kind,
    questions::{
        Question, View,
        selected::{LabelFilter, MAX_SELECTED_VALUES, push_filters},
        sql::Sql,
    },
    range::Range,
    readers::{Failure, Reader},
};

/// Which exemplars; every condition must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemplarQuery {
    /// What is measured; any type if absent.
    pub profile_type: Option<String>,
    /// Whose.
    pub filters: Vec<LabelFilter>,
    /// In one of these traces; any when empty.
    pub trace_ids: Vec<[u8; 16]>,
    /// In one of these spans; any when empty.
    pub span_ids: Vec<u64>,
    /// Most rows, oldest first.
    pub limit: u32,
    /// When; by the start of the exemplar's window.
    pub range: Range,
}

impl ExemplarQuery {
    /// The exemplars of a range.
    pub fn new(range: Range, limit: u32) -> ExemplarQuery {
        ExemplarQuery {
            profile_type: None,
            filters: Vec::new(),
            trace_ids: Vec::new(),
            span_ids: Vec::new(),
            limit,
            range,
        }
    }
}

/// An exemplar with everything that is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemplarRow {
    /// When it was taken, nanoseconds since the Unix epoch; the start of its profile if the sender did not say.
    pub unix_ns: i64,
    /// Whose it is.
    pub workload: Workload,
    /// Which component's process.
    pub component: Component,
    /// What is measured.
    pub profile_type: String,
    /// The side it is labelled with.
    pub side: Option<Side>,
    /// The route it is labelled with; empty without a label.
    pub route: String,
    /// The stack.
    pub stack_id: u64,
    /// In the unit of the profile type.
    pub value: i64,
    /// The trace; zeros when only the span is known.
    pub trace_id: [u8; 16],
    /// The span; 0 when only the trace is known.
    pub span_id: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exemplars {
    /// Oldest first, up to the limit.
    pub rows: Vec<ExemplarRow>,
    /// How many there are regardless of the limit.
    pub found: u64,
    /// Sum of the values of all of them.
    pub value: i64,
    /// Number of further samples of the selected series in the range that were not kept, of any trace or span.
    pub cut: u64,
}

fn trace_halves(trace_id: &[u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(*trace_id);
    ((whole >> 64) as u64, whole as u64)
}

/// Adds the tables, and the conditions other than traces and spans.
fn push_selected(sql: &mut Sql, span: &Span, query: &ExemplarQuery) {
    sql.hours(Kind::Exemplars, span);
    sql.push(" e JOIN series d ON d.series_id = e.series_id JOIN label_sets l ON l.label_set = e.label_set WHERE ");
    sql.within("e.ts", span);
    sql.and_equals("d.profile_type", query.profile_type.as_ref());
    push_filters(sql, &query.filters, false);
    push_filters(sql, &query.filters, true);
}

/// The statement that answers a question; the span must contain at least one hour.
fn statement(span: &Span, query: &ExemplarQuery) -> Sql {
    let mut sql = Sql::new(concat!(
        "SELECT e.at_ns, d.namespace, d.service, d.version, d.instance, d.component, d.profile_type, l.side, l.route,
            e.stack_id, e.value, e.trace_high, e.trace_low, e.span_id, CAST(count(*) OVER () AS UBIGINT), ",
        saturated_i64!("sum(e.value) OVER ()"),
        " FROM ",
    ));
    push_selected(&mut sql, span, query);
    if !query.trace_ids.is_empty() {
        sql.push(" AND (false");
        for trace_id in &query.trace_ids {
            let (high, low) = trace_halves(trace_id);
            sql.push(" OR (e.trace_high = ").bind(high).push(" AND e.trace_low = ");
            sql.bind(low).push(")");
        }
        sql.push(")");
    }
    if !query.span_ids.is_empty() {
        sql.push(" AND e.span_id IN (");
        for (at, span_id) in query.span_ids.iter().enumerate() {
            if at > 0 {
                sql.push(", ");
            }
            sql.bind(*span_id);
        }
        sql.push(")");
    }
    // Every value that a row shows, so that the order does not depend on the engine.
    sql.push(" ORDER BY e.at_ns, e.trace_high, e.trace_low, e.span_id, e.series_id, e.stack_id, e.label_set, e.value");
    sql.push(" LIMIT ").bind(query.limit.max(1));
    sql
}

impl Question for ExemplarQuery {
    type Answer = Exemplars;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Exemplars, Failure> {
        exemplars(view.reader, view.span, self)
    }
}

/// Answers a question about exemplars.
pub(crate) fn exemplars(reader: &Reader<'_>, span: &Span, query: &ExemplarQuery) -> Result<Exemplars, Failure> {
    let filters: usize = query.filters.iter().map(|filter| filter.values.len()).sum();
    let values = filters + query.trace_ids.len() + query.span_ids.len();
    if values > MAX_SELECTED_VALUES {
        return Err(QueryError::TooLarge {
            message: format!("the query selects {values} values; the limit is {MAX_SELECTED_VALUES}"),
        }
        .into());
    }
    let mut answer = Exemplars::default();
    if span.is_empty() {
        return Ok(answer);
    }
    statement(span, query).run(reader, |columns| {
        let at = columns.u64(0)?;
        let workload = columns.workloads(1)?;
        let (component, profile_type) = (columns.u8(5)?, columns.text(6)?);
        let (side, route) = (columns.u8(7)?, columns.text(8)?);
        let (stack, value) = (columns.u64(9)?, columns.u64(10)?);
        let (high, low, span_id) = (columns.u64(11)?, columns.u64(12)?, columns.u64(13)?);
        let (found, sum) = (columns.u64(14)?, columns.i64(15)?);
        for row in 0..columns.rows() {
            (answer.found, answer.value) = (found[row], sum[row]);
            answer.rows.push(ExemplarRow {
                unix_ns: i64::try_from(at[row]).unwrap_or(i64::MAX),
                workload: workload.get(row),
                component: Component::from_code(u32::from(component[row])),
                profile_type: profile_type.string(row),
                side: Side::from_code(u32::from(side[row])),
                route: route.string(row),
                stack_id: stack[row],
                value: i64::try_from(value[row]).unwrap_or(i64::MAX),
                trace_id: Exemplar::trace_of(high[row], low[row]),
                span_id: span_id[row],
            });
        }
        Ok(())
    })?;
    let mut cut = Sql::new(concat!("SELECT ", saturated_u64!("coalesce(sum(e.cut), 0)"), " FROM "));
    push_selected(&mut cut, span, query);
    cut.run(reader, |columns| {
        answer.cut = columns.u64(0)?.first().copied().unwrap_or(0);
        Ok(())
    })?;
    Ok(answer)
}

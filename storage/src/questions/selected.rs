//! Sums of samples selected and grouped by labels: the basis of series, merges and selectors.
//!
//! Guarantee: names and values of labels that come from outside are bound; the text of the statement depends on which
//! labels are named and on how many values there are, never on a value.

use emberline_model::ProfileType;

use crate::hot::saturated::{saturated_i64, saturated_u64};
use crate::{
    error::QueryError,
    hot::{
        Grain, Span,
        hours::{HOUR_S, QUARTER_S},
    },
    questions::{
        Question, View,
        gauges::{self, MEAN, Weights},
        series::SeriesIn,
        spread,
        sql::{SUM_OF_SAMPLES, SUM_OF_VALUES, Sql},
    },
    range::Range,
    readers::{Failure, Reader},
};

/// A label that samples are stored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// Namespace of the service.
    Namespace,
    /// Name of the service.
    Service,
    /// Version of the service.
    Version,
    /// Name of the process, unique within its release.
    Instance,
    /// `application` or `proxy`.
    Component,
    /// `server`, `client`, or empty for samples that belong to no request.
    Side,
    /// Route template, or empty.
    Route,
}

impl Label {
    /// All of them.
    pub const ALL: [Label; 7] = [
        Label::Namespace,
        Label::Service,
        Label::Version,
        Label::Instance,
        Label::Component,
        Label::Side,
        Label::Route,
    ];

    /// The name used by selectors and answers.
    pub fn name(self) -> &'static str {
        match self {
            Label::Namespace => "namespace",
            Label::Service => "service",
            Label::Version => "version",
            Label::Instance => "instance",
            Label::Component => "component",
            Label::Side => "side",
            Label::Route => "route",
        }
    }

    /// True for labels of a sample, false for those of its process.
    fn is_of_sample(self) -> bool {
        matches!(self, Label::Side | Label::Route)
    }

    /// Its text in SQL, over `series d` and `label_sets l`.
    fn expression(self) -> &'static str {
        match self {
            Label::Namespace => "d.namespace",
            Label::Service => "d.service",
            Label::Version => "d.version",
            Label::Instance => "d.instance",
            Label::Component => "CASE d.component WHEN 2 THEN 'proxy' ELSE 'application' END",
            Label::Side => "CASE l.side WHEN 1 THEN 'client' WHEN 2 THEN 'server' ELSE '' END",
            Label::Route => "l.route",
        }
    }
}

/// Selects by one label; several filters must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub label: Label,
    /// Its values.
    pub values: Vec<String>,
    /// Selects what has none of the values, instead of one of them.
    pub negated: bool,
}

/// The most values in all filters of a question together; more are refused.
pub const MAX_SELECTED_VALUES: usize = 10_000;

/// Which samples to add up, and into which rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedQuery {
    /// What is measured.
    pub profile_type: String,
    /// Whose samples.
    pub filters: Vec<LabelFilter>,
    /// Separate rows for each combination of values of these.
    pub by: Vec<Label>,
    /// Separate rows for each step of this many seconds; steps begin at whole multiples, and a window that spans
    /// several is spread over them ([`spread`]). 0: one row for all.
    pub step_s: u32,
    /// Separate rows for each stack.
    pub by_stack: bool,
    /// The mean over the time of a row, added up over instances, instead of the sum: for gauges.
    pub mean: bool,
    /// Also count the windows, for an average over them; not together with `by_stack`.
    pub count_windows: bool,
    /// When.
    pub range: Range,
}

impl SelectedQuery {
    /// The sum of all samples of a type in a range; for a gauge, the mean.
    pub fn new(profile_type: &str, filters: Vec<LabelFilter>, range: Range) -> SelectedQuery {
        SelectedQuery {
            profile_type: profile_type.to_owned(),
            filters,
            by: Vec::new(),
            step_s: 0,
            by_stack: false,
            mean: ProfileType::is_gauge_text(profile_type),
            count_windows: false,
            range,
        }
    }
}

impl SelectedQuery {
    /// Refuses a question with too many values.
    pub(super) fn check(&self) -> Result<(), QueryError> {
        let values: usize = self.filters.iter().map(|f| f.values.len()).sum();
        if values > MAX_SELECTED_VALUES {
            return Err(QueryError::TooLarge {
                message: format!("the selector matches {values} values; the limit is {MAX_SELECTED_VALUES}"),
            });
        }
        Ok(())
    }
}

/// A sum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SelectedRow {
    /// Values of the requested labels, in the order of the question.
    pub labels: Vec<String>,
    /// Start of the step, seconds since the Unix epoch; 0 when all are added up.
    pub start_s: i64,
    /// The stack; 0 when all are added up.
    pub stack_id: u64,
    /// Sum of values (or mean, if requested), in the unit of the profile type.
    pub value: i64,
    /// Samples taken.
    pub samples: u64,
    /// Windows that had such samples; 0 unless requested. Where an hour is answered from its roll-up, the windows of
    /// its most frequent stack.
    pub windows: u64,
}

/// Adds `AND ... [NOT] IN (?, ...)` for the filters on a sample, or on its process.
pub(super) fn push_filters(sql: &mut Sql, filters: &[LabelFilter], of_sample: bool) {
    for filter in filters.iter().filter(|f| f.label.is_of_sample() == of_sample) {
        if filter.values.is_empty() {
            // Nothing is one of no values, and everything is none of them.
            if !filter.negated {
                sql.push(" AND false");
            }
            continue;
        }
        sql.push(" AND ").push(filter.label.expression());
        sql.push(if filter.negated { " NOT IN (" } else { " IN (" });
        for (at, value) in filter.values.iter().enumerate() {
            if at > 0 {
                sql.push(", ");
            }
            sql.bind(value.clone());
        }
        sql.push(")");
    }
}

/// Adds the series in question, as a query.
pub(super) fn push_series(sql: &mut Sql, query: &SelectedQuery) {
    sql.push("SELECT d.series_id FROM series d WHERE d.profile_type = ")
        .bind(query.profile_type.clone());
    push_filters(sql, &query.filters, false);
}

/// Adds ` AND ...` for the conditions on samples themselves.
pub(super) fn push_sample_filters(sql: &mut Sql, query: &SelectedQuery) {
    if query.filters.iter().any(|filter| filter.label.is_of_sample()) {
        sql.push(" AND s.label_set IN (SELECT l.label_set FROM label_sets l WHERE true");
        push_filters(sql, &query.filters, true);
        sql.push(")");
    }
}

/// Memory of a row until it is part of an answer, and of each of its labels, in bytes.
const ROW_BYTES: usize = 112;
const LABEL_BYTES: usize = 64;

/// Factors for the values of a series.
#[derive(Clone, Copy)]
enum Weighing<'a> {
    /// None: values are added up.
    Sum,
    /// The mean over the whole time.
    Mean(&'a Weights),
    /// The mean over each step, in which each series counts by its windows.
    MeanOfSteps,
}

/// Adds ` JOIN ... w` with the weight of each series and step.
fn push_weights_of_steps(sql: &mut Sql, span: &Span, query: &SelectedQuery) {
    sql.push(" JOIN (SELECT g.series_id, g.ts - g.ts % ")
        .bind(query.step_s)
        .push(" AS begins, 1.0::DOUBLE / sum(g.windows) AS weight FROM (");
    gauges::push_reports(sql, span, |sql| push_series(sql, query));
    sql.push(") g GROUP BY 1, 2) w ON w.series_id = s.series_id AND w.begins = s.ts - s.ts % ")
        .bind(query.step_s);
}

/// Windows are counted where sums are averaged over them: this takes a row per window, or per hour, first.
fn with_windows(query: &SelectedQuery, weighing: Weighing<'_>) -> bool {
    query.count_windows && !query.by_stack && matches!(weighing, Weighing::Sum)
}

/// How fine-grained the samples of a question must be.
fn grain(query: &SelectedQuery, weighing: Weighing<'_>) -> Grain {
    let by_instance =
        query.by.contains(&Label::Instance) || query.filters.iter().any(|filter| filter.label == Label::Instance);
    let with_windows = with_windows(query, weighing);
    // Roll-ups of CPU time do not say how many windows they cover.
    let windowless = with_windows && query.profile_type == ProfileType::CPU;
    if !matches!(weighing, Weighing::Sum) {
        gauges::GRAIN
    } else if by_instance || windowless || i64::from(query.step_s) % HOUR_S != 0 {
        Grain::Windows
    } else if with_windows || i64::from(query.step_s) % QUARTER_S != 0 {
        Grain::Hours
    } else {
        Grain::Quarters
    }
}

/// The statement that answers a question; the span must contain at least one hour.
fn statement(span: &Span, query: &SelectedQuery, series: &SeriesIn, weighing: Weighing<'_>, is_spread: bool) -> Sql {
    let with_windows = with_windows(query, weighing);
    let mut sql = Sql::new("SELECT ");
    match query.step_s {
        0 => sql.push("0::UINTEGER AS start"),
        step => sql
            .push("CAST(s.ts - s.ts % ")
            .bind(step)
            .push(" AS UINTEGER) AS start"),
    };
    sql.push(if query.by_stack { ", s.stack_id" } else { ", 0::UBIGINT" });
    // A name of its own: grouping by `stack_id` would mean the column.
    sql.push(" AS stack");
    for (at, label) in query.by.iter().enumerate() {
        sql.push(", ").push(label.expression()).push(&format!(" AS label_{at}"));
    }
    sql.push(", ").push(match weighing {
        Weighing::Sum => SUM_OF_VALUES,
        Weighing::Mean(_) | Weighing::MeanOfSteps => MEAN,
    });
    sql.push(" AS value, ").push(SUM_OF_SAMPLES).push(" AS samples");
    sql.push(if with_windows {
        ", s.ts, max(s.windows) AS windows FROM "
    } else {
        ", 0::UBIGINT AS windows FROM "
    });
    match is_spread {
        true => spread::push_samples(&mut sql, span, query.step_s, series, |sql| push_series(sql, query)),
        false => {
            sql.samples(span, grain(query, weighing));
        }
    }
    sql.push(" s");
    if query.by.iter().any(|label| !label.is_of_sample()) {
        sql.push(" JOIN series d ON d.series_id = s.series_id");
    }
    if query.by.iter().any(|label| label.is_of_sample()) {
        sql.push(" JOIN label_sets l ON l.label_set = s.label_set");
    }
    match weighing {
        Weighing::Sum => {}
        Weighing::Mean(weights) => weights.join(&mut sql),
        Weighing::MeanOfSteps => push_weights_of_steps(&mut sql, span, query),
    }
    sql.push(" WHERE ");
    series.push(&mut sql, "s.series_id", |sql| push_series(sql, query));
    push_sample_filters(&mut sql, query);
    let labels: String = (0..query.by.len()).map(|at| format!(", label_{at}")).collect();
    sql.push(" GROUP BY start, stack").push(&labels);
    if with_windows {
        sql.push(", s.ts");
        sql.wrap(
            &format!(
                "SELECT start, stack{labels}, {}, {}, CAST(sum(windows) AS UBIGINT) FROM (",
                saturated_i64!("sum(value)"),
                saturated_u64!("sum(samples)"),
            ),
            &format!(") GROUP BY start, stack{labels}"),
        );
    }
    sql
}

impl Question for SelectedQuery {
    type Answer = Vec<SelectedRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<SelectedRow>, Failure> {
        selected(view.reader, view.span, self)
    }
}

/// Answers a selection, sorted by labels, step and stack.
pub(crate) fn selected(reader: &Reader<'_>, span: &Span, query: &SelectedQuery) -> Result<Vec<SelectedRow>, Failure> {
    query.check()?;
    let mut rows = Vec::new();
    if span.is_empty() {
        return Ok(rows);
    }
    let weights;
    let weighing = match (query.mean, query.step_s) {
        (false, _) => Weighing::Sum,
        (true, 0) => {
            weights = gauges::weights(reader, span, |sql| push_series(sql, query))?;
            if weights.is_empty() {
                return Ok(rows);
            }
            Weighing::Mean(&weights)
        }
        (true, _) => Weighing::MeanOfSteps,
    };
    let series = SeriesIn::look_up(reader, |sql| push_series(sql, query))?;
    if series.is_empty() {
        return Ok(rows);
    }
    let can_be_spread = query.step_s > 0
        && matches!(weighing, Weighing::Sum)
        && !with_windows(query, weighing)
        && grain(query, weighing) == Grain::Windows;
    let is_spread = can_be_spread && spread::is_needed(reader, span, query.step_s, |sql| push_series(sql, query))?;
    statement(span, query, &series, weighing, is_spread).run(reader, |columns| {
        let (start, stack) = (columns.u32(0)?, columns.u64(1)?);
        let labels = (0..query.by.len())
            .map(|at| columns.text(at + 2))
            .collect::<Result<Vec<_>, _>>()?;
        let after = query.by.len() + 2;
        reader.hold(columns.rows() * (ROW_BYTES + LABEL_BYTES * labels.len()))?;
        let (value, samples, windows) = (columns.i64(after)?, columns.u64(after + 1)?, columns.u64(after + 2)?);
        for row in 0..columns.rows() {
            rows.push(SelectedRow {
                labels: labels.iter().map(|label| label.string(row)).collect(),
                start_s: i64::from(start[row]),
                stack_id: stack[row],
                value: value[row],
                samples: samples[row],
                windows: windows[row],
            });
        }
        Ok(())
    })?;
    rows.sort_unstable();
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter() -> impl Strategy<Value = LabelFilter> {
        let values = prop::collection::vec("\\PC{0,12}", 0..4);
        (0..Label::ALL.len(), values, any::<bool>()).prop_map(|(label, values, negated)| LabelFilter {
            label: Label::ALL[label],
            values,
            negated,
        })
    }

    proptest! {
        /// Questions that differ only in values have the same statement.
        #[test]
        fn no_value_reaches_the_text_of_a_statement(
            filters in prop::collection::vec(filter(), 0..6),
            profile_type in "\\PC{0,20}",
            by in prop::collection::vec(0..Label::ALL.len(), 0..3),
            step_s in 0u32..100,
            by_stack in any::<bool>(),
            mean in any::<bool>(),
            count_windows in any::<bool>(),
            series in prop::option::of(prop::collection::vec(any::<u64>(), 1..4)),
        ) {
            let series = series.map_or(SeriesIn::Many, SeriesIn::Few);
            let span = Span { from_s: 0, to_s: 7200, tables: vec![(0, 0), (1, 0)], parts: Vec::new() };
            let query = SelectedQuery {
                by: by.into_iter().map(|at| Label::ALL[at]).collect(),
                step_s,
                by_stack,
                mean,
                count_windows,
                ..SelectedQuery::new(&profile_type, filters, Range::ALL)
            };
            let plain = SelectedQuery {
                profile_type: "x".to_owned(),
                filters: query.filters.iter().map(|f| LabelFilter {
                    values: vec!["x".to_owned(); f.values.len()],
                    ..f.clone()
                }).collect(),
                ..query.clone()
            };
            let weights = Weights::default();
            let weighing = match (mean, step_s) {
                (false, _) => Weighing::Sum,
                (true, 0) => Weighing::Mean(&weights),
                (true, _) => Weighing::MeanOfSteps,
            };
            let is_spread = matches!(weighing, Weighing::Sum) && step_s > 0 && step_s % 2 == 0;
            let statement_of = |query| statement(&span, query, &series, weighing, is_spread);
            let (statement, same) = (statement_of(&query), statement_of(&plain));
            prop_assert_eq!(statement.text(), same.text());
            prop_assert_eq!(statement.text().matches('?').count(), statement.parameter_count());
        }
    }
}

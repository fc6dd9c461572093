//! Which stacks, and how much of each.

use emberline_model::{Component, ProfileType, Side, comparison::Per};

use crate::{
    hot::{Grain, Span, cut::Cut},
    questions::{
        Question, View,
        coverage::{Covered, JOIN_COVERED, SUM_OF_PARTS, push_start_of_step},
        gauges::{self, MEAN},
        selection::{NO_LABEL, WorkloadFilter, push_component},
        series::SeriesIn,
        sql::{SUM_OF_SAMPLES, SUM_OF_VALUES, Sql},
        sums::{self, Summed},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Which samples to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Whose CPU; `None` adds the proxy's to the application's.
    pub component: Option<Component>,
    /// What is measured, as in [`emberline_model::ProfileType`].
    pub profile_type: String,
    /// Only samples labelled with this side. `None`: all, labelled or not.
    pub side: Option<Side>,
    /// Only samples labelled with this route; [`NO_LABEL`] selects those without a label. `None`: all.
    pub route: Option<String>,
    /// Only the time that both signals cover: values of partly covered windows count in part, their samples whole.
    pub only_complete: bool,
    /// Which windows share their rows.
    pub step: Step,
    /// When.
    pub range: Range,
}

impl StackQuery {
    /// All samples of a type in a range.
    pub fn new(who: WorkloadFilter, profile_type: &str, range: Range) -> StackQuery {
        StackQuery {
            who,
            component: None,
            profile_type: profile_type.to_owned(),
            side: None,
            route: None,
            only_complete: false,
            step: Step::Range,
            range,
        }
    }
}

/// The sum of one stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StackRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are added up.
    pub window_start_s: i64,
    /// The stack.
    pub stack_id: u64,
    /// Sum of values, in the unit of the profile type; for a gauge, the mean over time, added up over instances, unless
    /// there is a row per window: then the sum.
    pub value: i64,
    /// Samples taken.
    pub samples: u64,
}

/// Sums of all requested stacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StackRows {
    /// Sorted by window and stack.
    pub rows: Vec<StackRow>,
    /// Sum of all values.
    pub value: i64,
    /// Sum of all samples.
    pub samples: u64,
}

/// Memory of a row until it is part of an answer, in bytes.
const ROW_BYTES: usize = 80;

/// How samples are selected by their label.
pub(super) enum Labels<'a> {
    /// As in the stack query.
    Exactly { side: Option<Side>, route: Option<&'a str> },
    /// A side, and samples without a label.
    SideOrNone(Side),
}

impl Labels<'_> {
    /// True when some label is not selected: comparing costs as much as adding up.
    fn leave_out_any(&self, reader: &Reader<'_>) -> Result<bool, Failure> {
        let Labels::SideOrNone(side) = self else {
            return Ok(true);
        };
        let mut sql = Sql::new("SELECT 1::UBIGINT FROM label_sets WHERE side <> 0 AND side <> ");
        sql.bind(side.code()).push(" LIMIT 1");
        sql.finds_any(reader)
    }

    /// Adds `AND column IN (...)`, unless everything is selected.
    pub(super) fn push(&self, sql: &mut Sql, column: &str) {
        let (side, route) = match self {
            Labels::Exactly {
                side: None,
                route: None,
            } => return,
            Labels::Exactly { side, route } => (*side, *route),
            Labels::SideOrNone(side) => {
                sql.push(" AND ")
                    .push(column)
                    .push(" IN (SELECT label_set FROM label_sets WHERE side = 0 OR side = ");
                sql.bind(side.code()).push(")");
                return;
            }
        };
        sql.push(" AND ")
            .push(column)
            .push(" IN (SELECT label_set FROM label_sets WHERE true");
        if route == Some(NO_LABEL) {
            sql.push(" AND side = 0 AND route = ''");
        } else {
            if let Some(side) = side {
                sql.push(" AND side = ").bind(side.code());
            }
            if let Some(route) = route {
                sql.push(" AND route = ").bind(route.to_owned());
            }
        }
        sql.push(")");
    }
}

impl Question for StackQuery {
    type Answer = StackRows;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<StackRows, Failure> {
        stacks(view.reader, view.span, self)
    }
}

/// Answers a stack query.
pub(crate) fn stacks(reader: &Reader<'_>, span: &Span, query: &StackQuery) -> Result<StackRows, Failure> {
    let labels = Labels::Exactly {
        side: query.side,
        route: query.route.as_deref(),
    };
    let covered = match query.only_complete && !span.is_empty() {
        true => Some(Covered::read(
            reader,
            span,
            &query.who,
            &query.profile_type,
            Per::Request,
        )?),
        false => None,
    };
    let mut answer = StackRows::default();
    each(reader, span, query, &labels, covered.as_ref(), None, 1, |rows| {
        reader.hold(rows.len() * ROW_BYTES)?;
        for row in rows {
            answer.value = answer.value.saturating_add(row.value);
            answer.samples = answer.samples.saturating_add(row.samples);
        }
        answer.rows.extend_from_slice(rows);
        Ok(())
    })?;
    answer.rows.sort_unstable();
    Ok(answer)
}

/// Like [`stacks`], but passes the rows on chunk by chunk, with the caller's choice of labels, and only what is covered
/// if `covered` is given; `cut` may then say which hours come from sums. Those are passed on as they are, for the
/// caller to add up: a stack has a row for each hour and label. Rows of a gauge are weighted so that a stack's rows,
/// added up and divided by `pieces`, give its mean.
pub(super) fn each(
    reader: &Reader<'_>,
    span: &Span,
    query: &StackQuery,
    labels: &Labels<'_>,
    covered: Option<&Covered>,
    cut: Option<&Cut>,
    pieces: usize,
    mut take: impl FnMut(&[StackRow]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if span.is_empty() {
        return Ok(());
    }
    let push_series = |sql: &mut Sql| {
        sql.push("SELECT d.series_id FROM series d WHERE d.profile_type = ")
            .bind(query.profile_type.clone());
        query.who.push(sql);
        push_component(sql, query.component);
    };
    let weights = match ProfileType::is_gauge_text(&query.profile_type) && query.step != Step::Window {
        true => Some(gauges::weights(reader, span, push_series)?.for_pieces(pieces)),
        false => None,
    };
    if weights.as_ref().is_some_and(gauges::Weights::is_empty) {
        return Ok(());
    }
    let series = SeriesIn::look_up(reader, push_series)?;
    if series.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("");
    let mut in_parts = false;
    let all = Cut::windows(span);
    let cut = cut.unwrap_or(&all);
    if let Some(covered) = covered {
        sql.push("WITH ");
        let times = sums::times_of_windows(span, cut, Summed::STACKS);
        in_parts = covered.push(&mut sql, query.component, &times);
        sql.push(" SELECT ");
        push_start_of_step(&mut sql, query.step);
    } else {
        sql.push("SELECT ").start_of_step("s.ts", query.step);
    }
    sql.push(", s.stack_id, ")
        .push(match weights {
            Some(_) => MEAN,
            None if in_parts => SUM_OF_PARTS,
            None => SUM_OF_VALUES,
        })
        .push(", ")
        .push(SUM_OF_SAMPLES)
        .push(" FROM ");
    let are_windows_told_apart = covered.is_some() || query.step != Step::Range || query.who.instance.is_some();
    let grain = match (&weights, are_windows_told_apart) {
        (Some(_), _) => gauges::GRAIN,
        (None, true) => Grain::Windows,
        (None, false) => Grain::Quarters,
    };
    match covered.is_some() && weights.is_none() {
        true => sql.samples_besides(span, cut, Summed::STACKS),
        false => sql.samples(span, grain),
    };
    sql.push(" s");
    if covered.is_some() {
        sql.push(" JOIN series d ON d.series_id = s.series_id")
            .push(JOIN_COVERED);
    }
    if let Some(weights) = &weights {
        weights.join(&mut sql);
    }
    sql.push(" WHERE ");
    series.push(&mut sql, "s.series_id", push_series);
    let leave_out = labels.leave_out_any(reader)?;
    if leave_out {
        labels.push(&mut sql, "s.label_set");
    }
    sql.push(" GROUP BY 1, 2");
    let mut chunk = Vec::new();
    sql.run(reader, |columns| {
        let (window, stack) = (columns.u32(0)?, columns.u64(1)?);
        let (value, samples) = (columns.i64(2)?, columns.u64(3)?);
        chunk.clear();
        chunk.extend((0..columns.rows()).map(|row| StackRow {
            window_start_s: i64::from(window[row]),
            stack_id: stack[row],
            value: value[row],
            samples: samples[row],
        }));
        take(&chunk)
    })?;
    let mut sql = Sql::new("SELECT s.ts, s.stack_id, s.value, s.samples FROM ");
    if !sql.sums_of_samples(span, cut, Summed::STACKS) {
        return Ok(());
    }
    sql.push(" s WHERE ");
    series.push(&mut sql, "s.series_id", push_series);
    if leave_out {
        labels.push(&mut sql, "s.label_set");
    }
    sql.run(reader, |columns| {
        let (ts, stack) = (columns.u32(0)?, columns.u64(1)?);
        let (value, samples) = (columns.u64(2)?, columns.u64(3)?);
        chunk.clear();
        chunk.extend((0..columns.rows()).map(|row| StackRow {
            window_start_s: i64::from(query.step.start_of(ts[row])),
            stack_id: stack[row],
            value: i64::try_from(value[row]).unwrap_or(i64::MAX),
            samples: samples[row],
        }));
        take(&chunk)
    })
}

//! How much was used by whom, regardless of stacks: CPU per release, route and window.

use std::collections::BTreeMap;

use emberline_model::{Component, ProfileType, Release, Side, comparison::Per};

use crate::{
    hot::{
        Grain, Span,
        cut::{Cut, QUARTER_OF_HOUR},
    },
    questions::{
        Question, View,
        coverage::{Classes, Covered, JOIN_COVERED, SUM_OF_PARTS, push_start_of_step},
        selection::{WorkloadFilter, push_component},
        sql::{SUM_OF_SAMPLES, SUM_OF_VALUES, Sql},
        sums::{self, Summed},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Which samples to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalsQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Whose CPU; `None`: both, in separate rows.
    pub component: Option<Component>,
    /// What is measured.
    pub profile_type: String,
    /// Only the time that both signals cover: values of partly covered windows count in part.
    pub only_complete: bool,
    /// Which windows share their rows.
    pub step: Step,
    /// Separate rows for each side and route.
    pub by_route: bool,
    /// When.
    pub range: Range,
}

/// A sum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are added up.
    pub window_start_s: i64,
    /// The release.
    pub release: Release,
    /// Whose CPU.
    pub component: Component,
    /// The side samples are labelled with; `None` without a label, and when routes are added up.
    pub side: Option<Side>,
    /// The route samples are labelled with; empty without a label, and when routes are added up.
    pub route: String,
    /// Sum of values, in the unit of the profile type.
    pub value: i64,
    /// Samples taken.
    pub samples: u64,
}

impl Question for TotalsQuery {
    type Answer = Vec<TotalRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<TotalRow>, Failure> {
        totals(view.reader, view.span, self)
    }
}

/// Answers a totals query.
pub(crate) fn totals(reader: &Reader<'_>, span: &Span, query: &TotalsQuery) -> Result<Vec<TotalRow>, Failure> {
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
    sums(reader, span, query, covered.as_ref())
}

/// Like [`totals`], of what is covered, if that is given.
pub(super) fn sums(
    reader: &Reader<'_>,
    span: &Span,
    query: &TotalsQuery,
    covered: Option<&Covered>,
) -> Result<Vec<TotalRow>, Failure> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Found::default();
    let of_instance = query.who.instance.is_some();
    if covered.is_none() && query.step == Step::Range && !of_instance {
        let all = statement(query, "s.ts", None, |sql| {
            sql.samples(span, Grain::Quarters);
        });
        all.add(reader, &mut found, |_| true)?;
        return Ok(found.rows());
    }
    let components = query
        .component
        .map_or(vec![Component::Application, Component::Proxy], |of| vec![of]);
    let classes = covered.map(|covered| covered.classes(&components, QUARTER_OF_HOUR));
    let obstacles = classes.as_ref().map(Classes::obstacles).unwrap_or_default();
    let is_summed = query.profile_type == ProfileType::CPU && !of_instance;
    let cut = match query.step.seconds().filter(|_| is_summed) {
        Some(step_s) => Cut::new(span, QUARTER_OF_HOUR, step_s, &obstacles),
        None => Cut::windows(span),
    };
    let times = sums::times_of_windows(span, &cut, Summed::CPU);
    statement(
        query,
        "s.ts",
        covered.map(|covered| (covered, times.as_slice())),
        |sql| {
            sql.samples_besides(span, &cut, Summed::CPU);
        },
    )
    .add(reader, &mut found, |_| true)?;
    let mut has_sums = false;
    let start = if covered.is_some() { "s.piece" } else { "s.ts" };
    let sums = statement(query, start, None, |sql| {
        has_sums = sql.sums_of_samples(span, &cut, Summed::CPU);
    });
    if has_sums {
        let release_of: BTreeMap<&Release, usize> = covered
            .iter()
            .flat_map(|covered| {
                covered
                    .marks
                    .releases
                    .iter()
                    .enumerate()
                    .map(|(at, release)| (release, at))
            })
            .collect();
        sums.add(reader, &mut found, |row| match &classes {
            None => true,
            Some(classes) => {
                let release = release_of.get(&row.key.1);
                release.is_some_and(|&at| classes.counts(at, row.key.2, row.ts, QUARTER_OF_HOUR))
            }
        })?;
    }
    Ok(found.rows())
}

/// Start, release, component, side and route.
type Key = (u32, Release, Component, u8, String);

/// A row of a statement.
struct Row {
    key: Key,
    /// For sums, the start of their unit.
    ts: u32,
}

/// Sums by their key.
#[derive(Default)]
struct Found(BTreeMap<Key, (i64, u64)>);

impl Found {
    fn rows(self) -> Vec<TotalRow> {
        let row = |((start, release, component, side, route), (value, samples)): (Key, (i64, u64))| TotalRow {
            window_start_s: i64::from(start),
            release,
            component,
            side: Side::from_code(u32::from(side)),
            route,
            value,
            samples,
        };
        let mut rows: Vec<TotalRow> = self.0.into_iter().map(row).collect();
        rows.sort_unstable();
        rows
    }
}

struct Statement(Sql);

/// Adds up the samples that `from` adds; if coverage is given, the shares of windows that count and begin in the given
/// times.
fn statement(
    query: &TotalsQuery,
    start: &str,
    covered: Option<(&Covered, &[std::ops::Range<u32>])>,
    from: impl FnOnce(&mut Sql),
) -> Statement {
    let mut sql = Sql::new("");
    let mut in_parts = false;
    if let Some((covered, times)) = covered {
        sql.push("WITH ");
        in_parts = covered.push(&mut sql, query.component, times);
        sql.push(" SELECT ");
        push_start_of_step(&mut sql, query.step);
    } else {
        sql.push("SELECT ").start_of_step(start, query.step);
    }
    sql.push(", d.namespace, d.service, d.version, d.component");
    sql.push(if query.by_route {
        ", l.side, l.route"
    } else {
        ", 0::UTINYINT, ''"
    });
    // Single windows are no longer needed.
    sql.push(if start == "s.ts" { ", 0::UINTEGER" } else { ", s.ts" });
    sql.push(", ")
        .push(if in_parts { SUM_OF_PARTS } else { SUM_OF_VALUES })
        .push(", ")
        .push(SUM_OF_SAMPLES)
        .push(" FROM ");
    from(&mut sql);
    sql.push(" s JOIN series d ON d.series_id = s.series_id");
    if query.by_route {
        sql.push(" JOIN label_sets l ON l.label_set = s.label_set");
    }
    if covered.is_some() {
        sql.push(JOIN_COVERED);
    }
    sql.push(" WHERE d.profile_type = ").bind(query.profile_type.clone());
    query.who.push(&mut sql);
    push_component(&mut sql, query.component);
    sql.push(" GROUP BY 1, 2, 3, 4, 5, 6, 7, 8");
    Statement(sql)
}

impl Statement {
    /// Runs it and adds the rows that count.
    fn add(&self, reader: &Reader<'_>, found: &mut Found, counts: impl Fn(&Row) -> bool) -> Result<(), Failure> {
        self.0.run(reader, |columns| {
            let window = columns.u32(0)?;
            let (namespace, service, version) = (columns.text(1)?, columns.text(2)?, columns.text(3)?);
            let (component, side, route) = (columns.u8(4)?, columns.u8(5)?, columns.text(6)?);
            let (ts, value, samples) = (columns.u32(7)?, columns.i64(8)?, columns.u64(9)?);
            for at in 0..columns.rows() {
                let release = Release {
                    namespace: namespace.string(at),
                    service: service.string(at),
                    version: version.string(at),
                };
                let component = Component::from_code(u32::from(component[at]));
                let row = Row {
                    key: (window[at], release, component, side[at], route.string(at)),
                    ts: ts[at],
                };
                if counts(&row) {
                    let sum = found.0.entry(row.key).or_default();
                    *sum = (sum.0.saturating_add(value[at]), sum.1.saturating_add(samples[at]));
                }
            }
            Ok(())
        })
    }
}

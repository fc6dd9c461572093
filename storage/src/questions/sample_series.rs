//! Which series had samples, and how many stacks.

use emberline_model::{Component, Side, Workload};

use crate::hot::saturated::saturated_u64;
use crate::{
    hot::{Grain, Span},
    questions::{Question, View, selected::Label, sql::Sql},
    range::Range,
    readers::{Failure, Reader},
};

/// All samples of one series with the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleSeries {
    /// Who; without an instance for hours of which only sums over all instances are kept.
    pub workload: Workload,
    /// Which component's process.
    pub component: Component,
    /// What is measured.
    pub profile_type: String,
    /// The side samples are labelled with.
    pub side: Option<Side>,
    /// The route samples are labelled with; empty without a label.
    pub route: String,
    /// First window, seconds since the Unix epoch.
    pub first_s: i64,
    /// Last window.
    pub last_s: i64,
    /// Rows stored.
    pub rows: u64,
    /// Samples taken.
    pub samples: u64,
}

impl SampleSeries {
    /// The value of a label.
    pub fn label(&self, label: Label) -> &str {
        match label {
            Label::Namespace => &self.workload.namespace,
            Label::Service => &self.workload.service,
            Label::Version => &self.workload.version,
            Label::Instance => &self.workload.instance,
            Label::Component => self.component.as_str(),
            Label::Side => self.side.map_or("", Side::as_str),
            Label::Route => &self.route,
        }
    }
}

/// Which series had samples, by their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleSeriesQuery {
    /// When.
    pub range: Range,
}

impl Question for SampleSeriesQuery {
    type Answer = Vec<SampleSeries>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<SampleSeries>, Failure> {
        sample_series(view.reader, view.span)
    }
}

/// How many distinct stacks each service had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackCountsQuery {
    /// When.
    pub range: Range,
}

/// How many distinct stacks a service had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StackCount {
    /// Namespace.
    pub namespace: String,
    /// Service name.
    pub service: String,
    /// Distinct stacks.
    pub stacks: u64,
}

impl Question for StackCountsQuery {
    type Answer = Vec<StackCount>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<StackCount>, Failure> {
        stack_counts(view.reader, view.span)
    }
}

/// Answers which series had samples, by their labels; sorted by profile type, workload and labels.
fn sample_series(reader: &Reader<'_>, span: &Span) -> Result<Vec<SampleSeries>, Failure> {
    let mut found = Vec::new();
    if span.is_empty() {
        return Ok(found);
    }
    let mut sql = Sql::new(concat!(
        "SELECT d.namespace, d.service, d.version, d.instance, d.component, d.profile_type, l.side, l.route, g.first,
            g.last, g.rows, g.samples FROM (SELECT s.series_id, s.label_set, min(s.ts) AS first, max(s.ts) AS last,
            CAST(count(*) AS UBIGINT) AS rows, ",
        saturated_u64!("sum(s.samples)"),
        " AS samples FROM ",
    ));
    sql.samples(span, Grain::Anything).push(
        " s GROUP BY 1, 2) g JOIN series d ON d.series_id = g.series_id JOIN label_sets l ON l.label_set = g.label_set",
    );
    sql.run(reader, |columns| {
        let workload = columns.workloads(0)?;
        let (component, profile_type) = (columns.u8(4)?, columns.text(5)?);
        let (side, route) = (columns.u8(6)?, columns.text(7)?);
        let (first, last) = (columns.u32(8)?, columns.u32(9)?);
        let (rows, samples) = (columns.u64(10)?, columns.u64(11)?);
        for row in 0..columns.rows() {
            found.push(SampleSeries {
                workload: workload.get(row),
                component: Component::from_code(u32::from(component[row])),
                profile_type: profile_type.string(row),
                side: Side::from_code(u32::from(side[row])),
                route: route.string(row),
                first_s: i64::from(first[row]),
                last_s: i64::from(last[row]),
                rows: rows[row],
                samples: samples[row],
            });
        }
        Ok(())
    })?;
    let key = |s: &SampleSeries| {
        (
            s.profile_type.clone(),
            s.workload.clone(),
            s.component,
            s.side,
            s.route.clone(),
        )
    };
    found.sort_by_cached_key(key);
    Ok(found)
}

/// Answers how many distinct stacks each service had.
fn stack_counts(reader: &Reader<'_>, span: &Span) -> Result<Vec<StackCount>, Failure> {
    let mut counts = Vec::new();
    if span.is_empty() {
        return Ok(counts);
    }
    let mut sql = Sql::new("SELECT d.namespace, d.service, CAST(count(DISTINCT s.stack_id) AS UBIGINT) FROM ");
    sql.samples(span, Grain::Anything)
        .push(" s JOIN series d ON d.series_id = s.series_id GROUP BY 1, 2");
    sql.run(reader, |columns| {
        let (namespace, service, stacks) = (columns.text(0)?, columns.text(1)?, columns.u64(2)?);
        counts.extend((0..columns.rows()).map(|row| StackCount {
            namespace: namespace.string(row),
            service: service.string(row),
            stacks: stacks[row],
        }));
        Ok(())
    })?;
    counts.sort_unstable();
    Ok(counts)
}

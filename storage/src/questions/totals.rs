//! How much was used by whom, without looking at stacks: CPU per release, route and window.

use emberline_model::{Component, Release, Side, comparison::Per};

use crate::{
    hot::{Grain, Span},
    questions::{
        coverage::{Covered, JOIN_COVERED, SUM_OF_PARTS, push_start_of_step},
        selection::{WorkloadFilter, push_component},
        sql::{SUM_OF_SAMPLES, SUM_OF_VALUES, Sql},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Which samples to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalsQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Whose CPU; `None`: both, in rows of their own.
    pub component: Option<Component>,
    /// What is measured.
    pub profile_type: String,
    /// Only the time that both signals cover: values of windows that lie in it in part count in part.
    pub only_complete: bool,
    /// Which windows share their rows.
    pub step: Step,
    /// Rows of their own for each side and route.
    pub by_route: bool,
    /// When.
    pub range: Range,
}

/// A sum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are added up.
    pub window_start_s: i64,
    /// Who.
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

/// The same of what is covered, if that is given.
pub(super) fn sums(
    reader: &Reader<'_>,
    span: &Span,
    query: &TotalsQuery,
    covered: Option<&Covered>,
) -> Result<Vec<TotalRow>, Failure> {
    let mut rows = Vec::new();
    if span.is_empty() {
        return Ok(rows);
    }
    let mut sql = Sql::new("");
    let mut in_parts = false;
    if let Some(covered) = covered {
        sql.push("WITH ");
        in_parts = covered.push(&mut sql, query.component);
        sql.push(" SELECT ");
        push_start_of_step(&mut sql, query.step);
    } else {
        sql.push("SELECT ").start_of_step("s.ts", query.step);
    }
    sql.push(", d.namespace, d.service, d.version, d.component");
    sql.push(if query.by_route {
        ", l.side, l.route"
    } else {
        ", 0::UTINYINT, ''"
    });
    sql.push(", ")
        .push(if in_parts { SUM_OF_PARTS } else { SUM_OF_VALUES })
        .push(", ")
        .push(SUM_OF_SAMPLES)
        .push(" FROM ");
    let grain = if covered.is_some() || query.step != Step::Range || query.who.instance.is_some() {
        Grain::Windows
    } else {
        Grain::Quarters
    };
    sql.samples(span, grain)
        .push(" s JOIN series d ON d.series_id = s.series_id");
    if query.by_route {
        sql.push(" JOIN label_sets l ON l.label_set = s.label_set");
    }
    if covered.is_some() {
        sql.push(JOIN_COVERED);
    }
    sql.push(" WHERE d.profile_type = ").bind(query.profile_type.clone());
    query.who.push(&mut sql);
    push_component(&mut sql, query.component);
    sql.push(" GROUP BY 1, 2, 3, 4, 5, 6, 7");
    sql.run(reader, |columns| {
        let window = columns.u32(0)?;
        let (namespace, service, version) = (columns.text(1)?, columns.text(2)?, columns.text(3)?);
        let (component, side, route) = (columns.u8(4)?, columns.u8(5)?, columns.text(6)?);
        let (value, samples) = (columns.i64(7)?, columns.u64(8)?);
        for row in 0..columns.rows() {
            rows.push(TotalRow {
                window_start_s: i64::from(window[row]),
                release: Release {
                    namespace: namespace.string(row),
                    service: service.string(row),
                    version: version.string(row),
                },
                component: Component::from_code(u32::from(component[row])),
                side: Side::from_code(u32::from(side[row])),
                route: route.string(row),
                value: value[row],
                samples: samples[row],
            });
        }
        Ok(())
    })?;
    rows.sort_unstable();
    Ok(rows)
}

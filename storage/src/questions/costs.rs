//! CPU and the requests it was spent on, by release, component and route.
//!
//! Guarantee: both are for the time that both signals of a release cover, which is determined once for the whole answer
//! and read from one state of the store.

use std::collections::BTreeMap;

use emberline_model::{Component, ProfileType, Release, Side, comparison::Per, coverage::Join};

use crate::{
    hot::Span,
    questions::{
        Question, View,
        coverage::Covered,
        requests::{self, Dividing, RequestQuery},
        selection::WorkloadFilter,
        totals::{self, TotalsQuery},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Whose costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Which windows share their rows.
    pub step: Step,
    /// When.
    pub range: Range,
}

/// What requests cost.
#[derive(Debug, Clone, PartialEq)]
pub struct CostRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are added up.
    pub window_start_s: i64,
    /// The release.
    pub release: Release,
    /// Whose CPU.
    pub component: Component,
    /// Route; `None` for CPU that belongs to no request. CPU of requests that were made, not served, is left out.
    pub route: Option<String>,
    /// CPU nanoseconds.
    pub cpu_ns: i64,
    /// Stack samples.
    pub samples: u64,
    /// Requests served in that time; a partly covered window contributes its share.
    pub requests: f64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    window_start_s: i64,
    release: Release,
    component: Component,
    route: Option<String>,
}

impl Question for CostQuery {
    type Answer = Vec<CostRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<CostRow>, Failure> {
        costs(view.reader, view.span, self)
    }
}

/// Answers a cost query, sorted by start, release, component and route.
pub(crate) fn costs(reader: &Reader<'_>, span: &Span, query: &CostQuery) -> Result<Vec<CostRow>, Failure> {
    let mut sums: BTreeMap<Key, (i64, u64, f64)> = BTreeMap::new();
    if span.is_empty() {
        return Ok(Vec::new());
    }
    reader.snapshot(|| {
        let covered = Covered::read(reader, span, &query.who, ProfileType::CPU, Per::Request)?;
        for component in [Component::Application, Component::Proxy] {
            let spent = TotalsQuery {
                who: query.who.clone(),
                component: Some(component),
                profile_type: ProfileType::CPU.to_owned(),
                only_complete: true,
                step: query.step,
                by_route: true,
                range: query.range,
            };
            for row in totals::sums(reader, span, &spent, Some(&covered))? {
                let route = match row.side {
                    Some(Side::Server) => Some(row.route),
                    Some(Side::Client) => continue,
                    None => None,
                };
                let key = Key {
                    window_start_s: row.window_start_s,
                    release: row.release,
                    component: row.component,
                    route,
                };
                let sum = sums.entry(key).or_default();
                (sum.0, sum.1) = (sum.0.saturating_add(row.value), sum.1.saturating_add(row.samples));
            }
            let served = RequestQuery {
                side: Some(Side::Server),
                dividing: Some(Dividing::cpu(component)),
                step: query.step,
                ..RequestQuery::new(query.who.clone(), query.range)
            };
            requests::each(reader, span, &served, Some(&covered), |columns, row, counts| {
                let text = |column| columns.text(column).map(|texts| texts.string(row));
                let key = Key {
                    window_start_s: i64::from(match query.step {
                        Step::Seconds(seconds) => Join::piece_of(&counts.window, seconds),
                        step => step.start_of(counts.window.start_s),
                    }),
                    release: Release {
                        namespace: text(1)?,
                        service: text(2)?,
                        version: text(3)?,
                    },
                    component,
                    route: Some(text(7)?),
                };
                sums.entry(key).or_default().2 += requests::count(columns, row)? as f64 * counts.share;
                Ok(())
            })?;
        }
        Ok(())
    })?;
    let row = |(key, (cpu_ns, samples, requests)): (Key, (i64, u64, f64))| CostRow {
        window_start_s: key.window_start_s,
        release: key.release,
        component: key.component,
        route: key.route,
        cpu_ns,
        samples,
        requests,
    };
    Ok(sums.into_iter().map(row).collect())
}

//! Rows of a span, from windows where its cut says so, otherwise from sums.
//!
//! Guarantee: a row counts once: sums are read only with the parts that they were made of present, and these parts only
//! for the times that sums do not answer. Tables have no sums.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use crate::{
    hot::{
        Span,
        cut::{self, Cut, HOUR, QUARTER_OF_DAY, QUARTER_OF_HOUR, Times, condition},
        hours::HOUR_S,
        schema::{column_names, columns, rows_of, table},
    },
    parts::{Kind, Part},
    questions::sql::Sql,
};

/// Which kinds answer for whole units of a kind of rows, and for whole quarters of days where those exist.
#[derive(Clone, Copy)]
pub(crate) struct Summed {
    of: Kind,
    units: Kind,
    quarters: Option<Kind>,
}

impl Summed {
    /// Requests over quarters of an hour.
    pub(crate) const REQUESTS: Summed = Summed {
        of: Kind::Requests,
        units: Kind::Sums,
        quarters: Some(Kind::DaySums),
    };
    /// CPU without stacks over quarters of an hour.
    pub(crate) const CPU: Summed = Summed {
        of: Kind::Samples,
        units: Kind::Totals,
        quarters: None,
    };
    /// Samples over hours.
    pub(crate) const STACKS: Summed = Summed {
        of: Kind::Samples,
        units: Kind::Rollup,
        quarters: Some(Kind::Quarters),
    };
}

/// Parts to read, by the condition that selects their rows.
type Picked = BTreeMap<String, Vec<Arc<Part>>>;

/// Parts of a span, by which of their times are read.
#[derive(Default)]
struct Sources {
    rows: Picked,
    units: Picked,
    quarters: Picked,
}

fn pick(picked: &mut Picked, part: &Arc<Part>, times: &[Range<u32>]) {
    if let Some(condition) = condition(times, &part.name.extent()) {
        picked.entry(condition).or_default().push(part.clone());
    }
}

fn sources(span: &Span, cut: &Cut, summed: Summed) -> Sources {
    let mut sources = Sources::default();
    let beside = |part: &Part, kind: Option<Kind>| kind.and_then(|kind| span.beside(part, kind));
    let mut by_units: Times = [cut.sums.as_slice(), &cut.quarters].concat();
    by_units.sort_unstable_by_key(|range| range.start);
    let mut by_rows: Times = [by_units.as_slice(), &cut.windows].concat();
    by_rows.sort_unstable_by_key(|range| range.start);
    for part in span.parts_of(summed.of) {
        let Some(units) = beside(part, Some(summed.units)) else {
            pick(&mut sources.rows, part, &by_rows);
            continue;
        };
        pick(&mut sources.rows, part, &cut.windows);
        match beside(part, summed.quarters) {
            Some(quarters) => {
                pick(&mut sources.units, units, &cut.sums);
                pick(&mut sources.quarters, quarters, &cut.quarters);
            }
            None => pick(&mut sources.units, units, &by_units),
        }
    }
    sources
}

/// The times in which windows read row by row may begin: those of the cut, and those that have no sums.
pub(super) fn times_of_windows(span: &Span, cut: &Cut, summed: Summed) -> Times {
    let without_sums = span
        .parts_of(summed.of)
        .filter(|part| span.beside(part, summed.units).is_none())
        .map(|part| part.name.extent());
    let hours = span.tables.iter().map(|&(hour, _)| hour..hour + 1).chain(without_sums);
    let seconds = |hours: Range<u32>| {
        let second = |hour: u32| hour.saturating_mul(HOUR);
        second(hours.start).max(span.from_s)..second(hours.end).min(span.to_s)
    };
    let mut times: Times = cut.windows.iter().cloned().chain(hours.map(seconds)).collect();
    times.sort_unstable_by_key(|range| (range.start, range.end));
    let mut apart = Times::new();
    for range in times.into_iter().filter(|range| range.start < range.end) {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

impl Sql {
    fn push_picked(&mut self, selects: &mut Vec<String>, kind: Kind, what: &str, picked: Picked) {
        for (condition, parts) in picked {
            selects.push(format!(
                "SELECT {what} FROM {} WHERE {condition}",
                rows_of(kind, &parts)
            ));
            self.reads(parts);
        }
    }

    fn push_tables(&self, selects: &mut Vec<String>, kind: Kind, what: &str, span: &Span, cut: &Cut) {
        let all: Times = {
            let mut all = [cut.quarters.as_slice(), &cut.sums, &cut.windows].concat();
            all.sort_unstable_by_key(|range| range.start);
            all
        };
        for &(hour, generation) in &span.tables {
            if let Some(condition) = condition(&all, &(hour..hour + 1)) {
                selects.push(format!(
                    "SELECT {what} FROM {} WHERE {condition}",
                    table(kind, hour, generation)
                ));
            }
        }
    }

    fn push_union(&mut self, selects: &[String], typed: &[(&str, &str)]) -> &mut Sql {
        if !selects.is_empty() {
            return self.push("(").push(&selects.join(" UNION ALL ")).push(")");
        }
        let typed: Vec<String> = typed
            .iter()
            .map(|(name, of)| format!("CAST(NULL AS {of}) AS {name}"))
            .collect();
        self.push("(SELECT ").push(&typed.join(", ")).push(" WHERE false)")
    }

    /// Adds requests as one table: single windows (`unit` 0), and sums over `unit` seconds. `piece` is where the
    /// middles of a sum's windows are, and where a single window begins.
    pub(crate) fn requests(&mut self, span: &Span, cut: &Cut) -> &mut Sql {
        let names = column_names(Kind::Requests);
        let mut selects = Vec::new();
        let of_windows = format!("{names}, ts AS piece, 0::UINTEGER AS unit");
        let of_sums = |unit_s: u32| format!("{names}, piece, {unit_s}::UINTEGER AS unit");
        self.push_tables(&mut selects, Kind::Requests, &of_windows, span, cut);
        let sources = sources(span, cut, Summed::REQUESTS);
        self.push_picked(&mut selects, Kind::Requests, &of_windows, sources.rows);
        self.push_picked(&mut selects, Kind::Sums, &of_sums(QUARTER_OF_HOUR), sources.units);
        self.push_picked(&mut selects, Kind::DaySums, &of_sums(QUARTER_OF_DAY), sources.quarters);
        let typed = [columns(Kind::Requests), &[("piece", "UINTEGER"), ("unit", "UINTEGER")]].concat();
        self.push_union(&selects, &typed)
    }

    /// Adds the samples of the times that sums do not answer, as one table.
    pub(crate) fn samples_besides(&mut self, span: &Span, cut: &Cut, summed: Summed) -> &mut Sql {
        let names = column_names(Kind::Samples);
        let mut selects = Vec::new();
        self.push_tables(&mut selects, Kind::Samples, &names, span, cut);
        let sources = sources(span, cut, summed);
        self.push_picked(&mut selects, Kind::Samples, &names, sources.rows);
        self.push_union(&selects, columns(Kind::Samples))
    }

    /// Adds the sums of the other times, as one table. False if there are none: then nothing is added.
    pub(crate) fn sums_of_samples(&mut self, span: &Span, cut: &Cut, summed: Summed) -> bool {
        let sources = sources(span, cut, summed);
        let names = column_names(summed.units);
        let mut selects = Vec::new();
        self.push_picked(&mut selects, summed.units, &names, sources.units);
        if let Some(kind) = summed.quarters {
            self.push_picked(&mut selects, kind, &names, sources.quarters);
        }
        if !selects.is_empty() {
            self.push_union(&selects, &[]);
        }
        !selects.is_empty()
    }

    /// Adds the windows of a span as one table of runs. Runs are cut to the windows that begin in the span.
    pub(crate) fn runs(&mut self, span: &Span) -> &mut Sql {
        const SIGNALS: &str = "has_requests, has_profiles, profile_types";
        let mut rows = Picked::new();
        let mut runs = Vec::new();
        let mut cut_runs = Vec::new();
        let times = cut::all(span);
        for part in span.parts_of(Kind::Windows) {
            let hours = part.name.extent();
            match span.beside(part, Kind::Runs) {
                None => pick(&mut rows, part, &times),
                Some(of_part) => {
                    let seconds = |hour: u32| i64::from(hour) * HOUR_S;
                    let is_whole =
                        i64::from(span.from_s) <= seconds(hours.start) && seconds(hours.end) <= i64::from(span.to_s);
                    if is_whole { &mut runs } else { &mut cut_runs }.push(of_part.clone());
                }
            }
        }
        let mut selects = Vec::new();
        let single = format!("ts, workload_id, component, length, 1::UINTEGER AS windows, {SIGNALS}");
        let all = Cut::windows(span);
        self.push_tables(&mut selects, Kind::Windows, &single, span, &all);
        self.push_picked(&mut selects, Kind::Windows, &single, rows);
        let names = column_names(Kind::Runs);
        if !runs.is_empty() {
            selects.push(format!("SELECT {names} FROM {}", rows_of(Kind::Runs, &runs)));
            self.reads(runs);
        }
        if !cut_runs.is_empty() {
            let (from_s, to_s) = (span.from_s, span.to_s);
            selects.push(format!(
                "SELECT CAST(ts + before * every AS UINTEGER) AS ts, workload_id, component, length,
                    CAST(within - before AS UINTEGER) AS windows, {SIGNALS}
                 FROM (SELECT *, greatest(length, 1)::BIGINT AS every,
                        (greatest({from_s} - ts::BIGINT, 0) + greatest(length, 1) - 1) // greatest(length, 1) AS before,
                        least(windows::BIGINT,
                            (greatest({to_s} - ts::BIGINT, 0) + greatest(length, 1) - 1) // greatest(length, 1)) AS within
                    FROM {}) WHERE before < within",
                rows_of(Kind::Runs, &cut_runs)
            ));
            self.reads(cut_runs);
        }
        self.push_union(&selects, columns(Kind::Runs))
    }
}

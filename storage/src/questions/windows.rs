//! Which windows were reported, and which of their signals arrived.

use std::collections::BTreeMap;

use emberline_model::{
    Component, ProfileStats, ProfileType, Release, Workload,
    comparison::Per,
    coverage::{Run, Stretch, Times},
};

use crate::hot::saturated::saturated_u64;
use crate::{
    hot::{Span, rows::SERIES_WINDOWS},
    parts::Kind,
    questions::{
        Question, View,
        coverage::Covered,
        marks::Starts,
        selection::{WorkloadFilter, push_component},
        sql::Sql,
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Which windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Reported by which component; `None`: both, in separate rows.
    pub component: Option<Component>,
    /// When.
    pub range: Range,
}

/// One window of one component of one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowMark {
    /// Start, seconds since the Unix epoch.
    pub window_start_s: i64,
    /// Length in seconds.
    pub length_s: u32,
    /// The workload.
    pub workload: Workload,
    /// Which component reported it.
    pub component: Component,
    /// Its requests arrived, even if there were none.
    pub has_requests: bool,
    /// Its profile arrived, even if it was empty.
    pub has_profiles: bool,
    /// How well it was sampled.
    pub stats: ProfileStats,
}

impl Question for WindowQuery {
    type Answer = Vec<WindowMark>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<WindowMark>, Failure> {
        windows(view.reader, view.span, self)
    }
}

/// Answers a window query, sorted by start, workload and component.
pub(crate) fn windows(reader: &Reader<'_>, span: &Span, query: &WindowQuery) -> Result<Vec<WindowMark>, Failure> {
    let mut marks = Vec::new();
    if span.is_empty() {
        return Ok(marks);
    }
    let mut sql = Sql::new(concat!(
        "SELECT w.ts, max(w.length), d.namespace, d.service, d.version, d.instance, w.component, bool_or(w.has_requests),
            bool_or(w.has_profiles), max(w.rate_hz), ",
        saturated_u64!("sum(w.dropped)"),
        ", ",
        saturated_u64!("sum(w.truncated)"),
        ", ",
        saturated_u64!("sum(w.cpu_ns)"),
        ", ",
        saturated_u64!("sum(w.overhead_ns)"),
        " FROM ",
    ));
    sql.hours(Kind::Windows, span)
        .push(" w JOIN series d ON d.workload_id = w.workload_id AND d.component = w.component WHERE ")
        .within("w.ts", span)
        .push(" AND d.profile_type = ")
        .bind(SERIES_WINDOWS.to_owned());
    query.who.push(&mut sql);
    push_component(&mut sql, query.component);
    sql.push(" GROUP BY 1, 3, 4, 5, 6, 7");
    sql.run(reader, |columns| {
        let (start, length) = (columns.u32(0)?, columns.u32(1)?);
        let workload = columns.workloads(2)?;
        let component = columns.u8(6)?;
        let (has_requests, has_profiles) = (columns.flag(7)?, columns.flag(8)?);
        let (rate_hz, dropped, truncated) = (columns.f64(9)?, columns.u64(10)?, columns.u64(11)?);
        let (cpu_ns, overhead_ns) = (columns.u64(12)?, columns.u64(13)?);
        for row in 0..columns.rows() {
            marks.push(WindowMark {
                window_start_s: i64::from(start[row]),
                length_s: length[row],
                workload: workload.get(row),
                component: Component::from_code(u32::from(component[row])),
                has_requests: has_requests.value(row),
                has_profiles: has_profiles.value(row),
                stats: ProfileStats {
                    rate_hz: rate_hz[row],
                    dropped: dropped[row],
                    truncated: truncated[row],
                    cpu_ns: cpu_ns[row],
                    overhead_ns: overhead_ns[row],
                },
            });
        }
        Ok(())
    })?;
    marks.sort_by(|a, b| {
        (a.window_start_s, &a.workload, a.component).cmp(&(b.window_start_s, &b.workload, b.component))
    });
    Ok(marks)
}

/// Whose windows to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Which windows share their rows.
    pub step: Step,
    /// When.
    pub range: Range,
}

/// What one release reported, all instances together: windows that start at the same second count as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are counted together.
    pub window_start_s: i64,
    /// Whose.
    pub release: Release,
    /// How many, whichever component reported them.
    pub windows: u64,
    /// Seconds that windows with requests cover, even if there were none.
    pub requests_s: u64,
    /// Of the application's CPU.
    pub application: Complete,
    /// Of a proxy's CPU.
    pub proxy: Complete,
}

/// The part of a component's CPU that can be divided by requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Complete {
    /// Windows with profiles that count, at least in part.
    pub windows: u64,
    /// Seconds covered by both signals.
    pub covered_s: u64,
}

impl Question for ReportQuery {
    type Answer = Vec<ReportRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<ReportRow>, Failure> {
        reports(view.reader, view.span, self)
    }
}

/// Answers a report query, sorted by start and release.
pub(crate) fn reports(reader: &Reader<'_>, span: &Span, query: &ReportQuery) -> Result<Vec<ReportRow>, Failure> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let covered = Covered::read(reader, span, &query.who, ProfileType::CPU, Per::Request)?;
    let mut counted: BTreeMap<(u32, usize), Counted> = BTreeMap::new();
    let marks = &covered.marks;
    for (of, are_requests) in [
        (&marks.requests, true),
        (&marks.profiles, false),
        (&marks.others, false),
    ] {
        for mark in of {
            let Some(release) = marks.release_of(mark.run.first.instance) else {
                continue;
            };
            each_step(mark.run, query.step, |start, run| {
                let counted = counted.entry((start, release)).or_default();
                counted.starts.add(&run);
                if are_requests {
                    counted.requests.push(run.whole());
                }
            });
        }
    }
    for component in [Component::Application, Component::Proxy] {
        for (run, _) in covered.profiles(component) {
            let Some(release) = marks.release_of(run.first.instance) else {
                continue;
            };
            each_step(run, query.step, |start, run| {
                let counted = counted.entry((start, release)).or_default();
                let at = usize::from(component == Component::Proxy);
                counted.complete[at].add(&run);
                counted.covered[at].extend(covered.times_of(component, &run.whole()));
            });
        }
    }
    let mut rows: Vec<ReportRow> = counted
        .into_iter()
        .map(|((start, release), counted)| {
            let [of_application, of_proxy] = counted.complete;
            let complete = |starts: Starts, covered: &[Times]| Complete {
                windows: starts.count(),
                covered_s: Times::any(covered).seconds(),
            };
            ReportRow {
                window_start_s: i64::from(start),
                release: covered.marks.releases[release].clone(),
                windows: counted.starts.count(),
                requests_s: Times::of(&counted.requests).seconds(),
                application: complete(of_application, &counted.covered[0]),
                proxy: complete(of_proxy, &counted.covered[1]),
            }
        })
        .collect();
    rows.sort_by(|a, b| (a.window_start_s, &a.release).cmp(&(b.window_start_s, &b.release)));
    Ok(rows)
}

/// What was found for one release in one step.
#[derive(Default)]
struct Counted {
    starts: Starts,
    requests: Vec<Stretch>,
    complete: [Starts; 2],
    covered: [Vec<Times>; 2],
}

/// Passes on the windows of a run by step.
fn each_step(run: Run, step: Step, mut each: impl FnMut(u32, Run)) {
    match step {
        Step::Range => each(0, run),
        Step::Window => run.windows().for_each(|window| each(window.start_s, window.into())),
        Step::Seconds(seconds) => run.pieces(seconds).for_each(|(start, run)| each(start, run)),
    }
}

/// How long windows of requests usually are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsualWindowQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// When.
    pub range: Range,
}

/// A length that nearly all windows of requests do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsualWindow {
    /// In seconds; 0 without any windows.
    pub length_s: u32,
}

impl Question for UsualWindowQuery {
    type Answer = UsualWindow;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<UsualWindow, Failure> {
        usual_window_s(view.reader, view.span, &self.who).map(|length_s| UsualWindow { length_s })
    }
}

/// A length that nearly all windows of requests of some workloads do not exceed; 0 without any.
fn usual_window_s(reader: &Reader<'_>, span: &Span, who: &WorkloadFilter) -> Result<u32, Failure> {
    let mut lengths: BTreeMap<u32, u64> = BTreeMap::new();
    if span.is_empty() {
        return Ok(0);
    }
    let mut sql = Sql::new("SELECT w.length, CAST(sum(w.windows) AS UBIGINT) FROM ");
    sql.runs(span)
        .push(" w WHERE w.has_requests AND w.workload_id IN (SELECT d.workload_id FROM series d WHERE true");
    who.push(&mut sql);
    sql.push(") GROUP BY 1");
    sql.run(reader, |columns| {
        lengths.extend(columns.u32(0)?.iter().copied().zip(columns.u64(1)?.iter().copied()));
        Ok(())
    })?;
    let enough = lengths.values().sum::<u64>() as f64 * 0.95;
    let mut seen = 0;
    let reached = |(_, windows): &(&u32, &u64)| {
        seen += **windows;
        seen as f64 >= enough
    };
    Ok(lengths.iter().find(reached).map_or(0, |(length, _)| *length))
}

//! How much of each window counts where CPU is divided by requests: the time that both signals of a release cover.
//!
//! Guarantees: what is joined is decided in [`emberline_model::coverage`], from the marks of windows alone, separately
//! for each release and component; a window counts as profiled only for the types of profiles that arrived, idle ones
//! included; a window of an hour whose samples are gone is never divided by its requests. Sums stand for windows only
//! where all of these count whole, or none counts ([`Classes`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use emberline_model::{
    Component, Side,
    comparison::Per,
    coverage::{Coverage, Join, Run, Stretch, Times},
};

use crate::{
    hot::{
        Span,
        cut::{self, Obstacles, QUARTER_OF_DAY},
        rows::SERIES_REQUESTS,
    },
    parts::Kind,
    questions::{
        marks::{Mark, Marks},
        selection::WorkloadFilter,
        sql::Sql,
    },
    range::Step,
    readers::{Failure, Reader},
};

/// The components whose CPU is kept separate.
const COMPONENTS: [Component; 2] = [Component::Application, Component::Proxy];

/// What counts of each window.
pub(super) struct Covered {
    pub(super) marks: Marks,
    /// By release and component of the CPU.
    joins: BTreeMap<(usize, u8), Join>,
    /// Releases whose applications and proxies both count requests.
    both: Vec<usize>,
}

impl Covered {
    /// Joins the windows of each release. Unless `per` is requests, there is nothing to join: all windows with profiles
    /// count.
    pub(super) fn read(
        reader: &Reader<'_>,
        span: &Span,
        who: &WorkloadFilter,
        profile_type: &str,
        per: Per,
    ) -> Result<Covered, Failure> {
        let marks = Marks::read(reader, span, who, profile_type)?;
        let [requests, profiles, others] =
            [&marks.requests, &marks.profiles, &marks.others].map(|of| marks.by_release(of));
        let mut joins = BTreeMap::new();
        let mut both = Vec::new();
        for release in 0..marks.releases.len() {
            let of = |by_release: &BTreeMap<usize, Vec<Mark>>, component: Option<Component>| -> Vec<Run> {
                let marks = by_release.get(&release).map_or(&[][..], Vec::as_slice);
                let of_component = |mark: &&Mark| component.is_none_or(|of| of.code() == mark.component);
                marks.iter().filter(of_component).map(|mark| mark.run).collect()
            };
            if ![&requests, &profiles, &others]
                .iter()
                .any(|marks| marks.contains_key(&release))
            {
                continue;
            }
            for component in COMPONENTS {
                let profiles = of(&profiles, Some(component));
                // A proxy's CPU is divided by the requests it carried itself, an application's by those it served,
                // whoever counted them.
                let requests = match component {
                    Component::Application => of(&requests, None),
                    Component::Proxy => of(&requests, Some(component)),
                };
                let join = match per {
                    Per::Request => Join::of_runs(&profiles, &requests),
                    Per::Second | Per::Total => Join::alone(&profiles),
                };
                joins.insert((release, component.code()), join);
            }
            let counts = |component: Component| !of(&requests, Some(component)).is_empty();
            if per == Per::Request && COMPONENTS.into_iter().all(counts) {
                both.push(release);
            }
        }
        let mut covered = Covered { marks, joins, both };
        if !covered.both.is_empty() {
            covered.read_preferred(reader, span, who)?;
        }
        Ok(covered)
    }

    /// Looks up which windows the application counted itself, where a proxy also counts.
    fn read_preferred(&mut self, reader: &Reader<'_>, span: &Span, who: &WorkloadFilter) -> Result<(), Failure> {
        let mut counted: BTreeMap<(usize, Side), Vec<Stretch>> = BTreeMap::new();
        for (side, window) in counted_by_application(reader, span, who, &self.marks)? {
            let release = self.marks.release_of(window.instance);
            if let Some(release) = release.filter(|of| self.both.contains(of)) {
                counted.entry((release, side)).or_default().push(window);
            }
        }
        for ((release, side), windows) in counted {
            if let Some(join) = self.joins.get_mut(&(release, Component::Application.code())) {
                join.prefer(side, &windows);
            }
        }
        Ok(())
    }

    /// The coverage of one component of the first release; none without any window.
    pub(super) fn coverage(&self, component: Component) -> Coverage {
        self.only_join(component)
            .map(|join| join.coverage().clone())
            .unwrap_or_default()
    }

    fn only_join(&self, component: Component) -> Option<&Join> {
        self.joins
            .iter()
            .find(|((_, of), _)| *of == component.code())
            .map(|(_, join)| join)
    }

    /// The windows with profiles of a component that count, and how much of each.
    pub(super) fn profiles(&self, component: Component) -> Vec<(Run, f64)> {
        let mut runs = Vec::new();
        for mark in self
            .marks
            .profiles
            .iter()
            .filter(|mark| mark.component == component.code())
        {
            let release = self.marks.release_of(mark.run.first.instance);
            if let Some(join) = release.and_then(|release| self.joins.get(&(release, component.code()))) {
                each_share(join, mark.run, |run, share| {
                    if share > 0.0 {
                        runs.push((run, share));
                    }
                });
            }
        }
        runs
    }

    /// Which units of `unit_s` seconds sums may answer, where the CPU of some components is divided.
    pub(super) fn classes(&self, components: &[Component], unit_s: u32) -> Classes {
        let mut classes = Classes {
            unit_s,
            by: BTreeMap::new(),
        };
        let signals = [(&self.marks.profiles, false), (&self.marks.requests, true)];
        for (mark, is_requests) in signals
            .into_iter()
            .flat_map(|(marks, of)| marks.iter().map(move |mark| (mark, of)))
        {
            let Some(release) = self.marks.release_of(mark.run.first.instance) else {
                continue;
            };
            for &component in components {
                let is_own = mark.component == component.code();
                let Some(join) = self.joins.get(&(release, component.code())) else {
                    continue;
                };
                let divides = is_requests && component == Component::Application;
                if !(is_own || divides) {
                    continue;
                }
                let of = classes.by.entry((release, component.code())).or_default();
                let mut note = |run: Run, counts: bool, fails: bool| {
                    for unit in run.first.start_s / unit_s..=run.last_start_s() / unit_s {
                        let class = of.entry(unit * unit_s).or_default();
                        class.counts |= counts;
                        class.fails |= fails;
                    }
                };
                // Of requests that a proxy carried and its application counted too, only some count.
                if is_requests && component == Component::Application && self.both.contains(&release) {
                    note(mark.run, true, true);
                } else {
                    each_share(join, mark.run, |run, share| note(run, share > 0.0, share < 1.0));
                }
            }
        }
        classes
    }

    /// The time of a window that is covered.
    pub(super) fn times_of(&self, component: Component, window: &Stretch) -> Option<Times> {
        let release = self.marks.release_of(window.instance)?;
        Some(self.joins.get(&(release, component.code()))?.times_of(window))
    }

    /// Length of a component's pieces of time in seconds ([`Join::piece_s`]).
    pub(super) fn piece_s(&self, component: Component) -> u32 {
        self.only_join(component).map_or(1, Join::piece_s)
    }

    /// The share of a window's requests, reported by `reporter`, that divides the CPU of a component; `None` if it is
    /// zero.
    pub(super) fn share_of_requests(
        &self,
        dividing: Component,
        window: &Stretch,
        reporter: u8,
        side: Side,
    ) -> Option<f64> {
        let release = self.marks.release_of(window.instance)?;
        let join = self.joins.get(&(release, dividing.code()))?;
        let is_own = reporter == Component::Application.code();
        let share = match dividing {
            Component::Proxy if is_own => 0.0,
            Component::Application if !is_own => join.share_besides(side, window),
            _ => join.share(window),
        };
        (share > 0.0).then_some(share)
    }

    /// Adds the table `covered` to a `WITH`: for each counting window with profiles that begins in `times` its `ts`,
    /// `workload_id`, `component`, the offset `half` of its middle, and the `share` that counts. Returns whether any
    /// counts only in part.
    pub(super) fn push(&self, sql: &mut Sql, component: Option<Component>, times: &[Range<u32>]) -> bool {
        let mut runs: Vec<Distances> = Vec::new();
        for of in COMPONENTS.into_iter().filter(|&of| component.is_none_or(|c| c == of)) {
            for (run, share) in self.profiles(of) {
                for run in times
                    .iter()
                    .filter_map(|times| run.beginning_within(times.start, times.end))
                {
                    let is_taken = runs.last_mut().is_some_and(|last| last.takes(&run, of.code(), share));
                    if !is_taken {
                        runs.push(Distances::of(&run, of.code(), share));
                    }
                }
            }
        }
        if runs.is_empty() {
            sql.push(
                "covered AS (SELECT 0::UBIGINT AS workload_id, 0::UTINYINT AS component, 0::UINTEGER AS half,
                    0::DOUBLE AS share, 0::UINTEGER AS ts WHERE false)",
            );
            return false;
        }
        // Passed as text, because the engine cannot bind lists.
        let column = |of: fn(&Distances) -> String| runs.iter().map(of).collect::<Vec<_>>().join(",");
        let columns: [(&str, &str, String); 7] = [
            ("workload_id", "UBIGINT", column(|run| run.workload.to_string())),
            ("component", "UTINYINT", column(|run| run.component.to_string())),
            ("first", "BIGINT", column(|run| run.first.to_string())),
            ("last", "BIGINT", column(|run| run.last.to_string())),
            ("every", "BIGINT", column(|run| run.every.max(1).to_string())),
            ("half", "UINTEGER", column(|run| (run.length / 2).to_string())),
            ("share", "DOUBLE", column(|run| format!("{:e}", run.share))),
        ];
        sql.push(
            "covered AS (SELECT workload_id, component, half, share, CAST(start AS UINTEGER) AS ts FROM
                (SELECT *, unnest(range(first, last + 1, every)) AS start FROM (SELECT ",
        );
        for (at, (name, of, values)) in columns.into_iter().enumerate() {
            sql.push(if at > 0 { ", " } else { "" })
                .push("unnest(CAST(string_split(")
                .bind(values)
                .push(", ',') AS ")
                .push(of)
                .push("[])) AS ")
                .push(name);
        }
        sql.push(")))");
        runs.iter().any(|run| run.share < 1.0)
    }
}

/// Windows of one workload and component at equal distances, with the same length and share.
struct Distances {
    workload: u64,
    component: u8,
    first: u32,
    last: u32,
    every: u32,
    length: u32,
    share: f64,
}

impl Distances {
    fn of(run: &Run, component: u8, share: f64) -> Distances {
        Distances {
            workload: run.first.instance,
            component,
            first: run.first.start_s,
            last: run.last_start_s(),
            every: if run.windows > 1 { run.first.length_s } else { 0 },
            length: run.first.length_s,
            share,
        }
    }

    /// Adds a window that continues the series.
    fn takes(&mut self, run: &Run, component: u8, share: f64) -> bool {
        let window = run.first;
        let every = window.start_s.saturating_sub(self.last);
        let is_next = run.windows == 1 && every > 0 && (self.every == 0 || every == self.every);
        let is_alike = (window.instance, component, window.length_s) == (self.workload, self.component, self.length);
        if !(is_next && is_alike && share.to_bits() == self.share.to_bits()) {
            return false;
        }
        (self.last, self.every) = (window.start_s, every);
        true
    }
}

/// Passes the windows of a run on with the share of each that counts: as one run if all of them count alike.
fn each_share(join: &Join, run: Run, mut each: impl FnMut(Run, f64)) {
    let share = join.share(&run.whole());
    if share == 0.0 || share == 1.0 {
        return each(run, share);
    }
    for window in run.windows() {
        each(Run::from(window), join.share(&window));
    }
}

/// About the windows that begin in a unit.
#[derive(Debug, Clone, Copy, Default)]
struct Class {
    /// Some count.
    counts: bool,
    /// Some do not count, or only in part.
    fails: bool,
}

/// Which units of time count: sums answer for those in which everything counts; where nothing counts, nothing is read.
pub(super) struct Classes {
    unit_s: u32,
    /// By release and component of the CPU, then by start.
    by: BTreeMap<(usize, u8), BTreeMap<u32, Class>>,
}

impl Classes {
    /// What sums cannot answer.
    pub(super) fn obstacles(&self) -> Obstacles {
        let mut obstacles = Obstacles::default();
        let mut counting: BTreeSet<u32> = BTreeSet::new();
        for units in self.by.values() {
            let mut quarters: BTreeMap<u32, Class> = BTreeMap::new();
            for (&start, class) in units {
                let quarter = quarters.entry(start - start % QUARTER_OF_DAY).or_default();
                quarter.counts |= class.counts;
                quarter.fails |= class.fails;
                if class.counts {
                    counting.insert(start);
                } else {
                    obstacles.left_out.insert(start);
                }
                if class.counts && class.fails {
                    obstacles.units.insert(start);
                }
            }
            let mixed = quarters.into_iter().filter(|(_, class)| class.counts && class.fails);
            obstacles.quarters.extend(mixed.map(|(start, _)| start));
        }
        obstacles.left_out.retain(|start| !counting.contains(start));
        obstacles
    }

    /// True when a sum over `length_s` from `start_s` on counts.
    pub(super) fn counts(&self, release: usize, component: Component, start_s: u32, length_s: u32) -> bool {
        let end_s = start_s.saturating_add(length_s.max(self.unit_s));
        let units = self.by.get(&(release, component.code()));
        units.is_some_and(|units| units.range(start_s..end_s).any(|(_, class)| class.counts))
    }
}

/// Adds the start that rows get, in statements that join `covered` as `c`: the start of the step that contains the
/// middle of the window.
pub(super) fn push_start_of_step(sql: &mut Sql, step: Step) {
    match step {
        Step::Window | Step::Range => sql.start_of_step("s.ts", step),
        Step::Seconds(_) => sql.start_of_step("(s.ts + c.half)", step),
    };
}

/// The join with `covered`, in statements over samples `s` of series `d`.
pub(super) const JOIN_COVERED: &str =
    " JOIN covered c ON c.ts = s.ts AND c.workload_id = d.workload_id AND c.component = d.component";

/// The sum of the shares of values that count.
pub(super) const SUM_OF_PARTS: &str =
    "CAST(least(round(sum(CAST(s.value AS DOUBLE) * c.share)), 9223372036854774784) AS BIGINT)";

/// Windows in which applications counted requests of a side themselves.
pub(super) fn counted_by_application(
    reader: &Reader<'_>,
    span: &Span,
    who: &WorkloadFilter,
    marks: &Marks,
) -> Result<Vec<(Side, Stretch)>, Failure> {
    let mut found = Vec::new();
    let component = Component::Application.code();
    let lengths = marks.lengths(&cut::all(span));
    let mut sql = Sql::new("SELECT DISTINCT r.ts, d.workload_id, r.side FROM ");
    sql.hours(Kind::Requests, span)
        .push(" r JOIN series d ON d.series_id = r.series_id WHERE ")
        .within("r.ts", span)
        .push(" AND d.profile_type = ")
        .bind(SERIES_REQUESTS.to_owned())
        .push(" AND d.component = ")
        .bind(component);
    who.push(&mut sql);
    sql.run(reader, |columns| {
        let (ts, workload, side) = (columns.u32(0)?, columns.u64(1)?, columns.u8(2)?);
        found.extend((0..columns.rows()).filter_map(|row| {
            let window = Stretch {
                instance: workload[row],
                start_s: ts[row],
                length_s: lengths.of(workload[row], component, ts[row]),
            };
            Some((Side::from_code(u32::from(side[row]))?, window))
        }));
        Ok(())
    })?;
    Ok(found)
}

//! How much of each window counts where CPU is divided by requests: the time that both signals of a release cover.
//!
//! Guarantees: what is joined is decided in [`emberline_model::coverage`], from the marks of windows alone, for each
//! release and component apart; a window counts as profiled only for the types of profiles that arrived, idle ones
//! included; a window of an hour whose samples are gone is never divided by its requests.

use std::collections::BTreeMap;

use emberline_model::{
    Component, Release, Side,
    comparison::Per,
    coverage::{Coverage, Join, Stretch, Times},
};

use crate::{
    hot::{
        Span,
        database::{REQUESTS, WINDOWS},
        hours::HOUR_S,
        rows::{SERIES_REQUESTS, type_id},
    },
    ids::IdMap,
    questions::{selection::WorkloadFilter, sql::Sql},
    range::Step,
    readers::{Failure, Reader},
};

/// One window of one component of one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) workload: u64,
    pub(super) component: u8,
    pub(super) ts: u32,
    /// Length in seconds as the requests signal says; 0 where it did not arrive.
    pub(super) requests_s: u32,
    /// The same of the profile type asked for.
    pub(super) profiles_s: u32,
}

impl Mark {
    pub(super) fn of_requests(&self) -> Option<Stretch> {
        self.stretch(self.requests_s)
    }

    pub(super) fn of_profiles(&self) -> Option<Stretch> {
        self.stretch(self.profiles_s)
    }

    fn stretch(&self, length_s: u32) -> Option<Stretch> {
        (length_s > 0).then_some(Stretch {
            instance: self.workload,
            start_s: self.ts,
            length_s,
        })
    }
}

/// Marks of all windows of some workloads in a span, by workload, component and start.
pub(super) struct Marks {
    /// Of which releases they are.
    pub(super) releases: Vec<Release>,
    /// Index into `releases`, by workload.
    of: IdMap<usize>,
    pub(super) marks: Vec<Mark>,
}

impl Marks {
    /// Reads them; `profile_type` is what a window must have had to count as profiled.
    pub(super) fn read(
        reader: &Reader<'_>,
        span: &Span,
        who: &WorkloadFilter,
        profile_type: &str,
    ) -> Result<Marks, Failure> {
        let mut answer = Marks {
            releases: Vec::new(),
            of: IdMap::default(),
            marks: Vec::new(),
        };
        answer.read_names(reader, who)?;
        let gone = span.hours_without_samples();
        let is_gone = |ts: u32| gone.iter().any(|hours| hours.contains(&(ts / HOUR_S as u32)));
        let mut sql = Sql::new(
            "SELECT w.ts, w.workload_id, w.component,
                coalesce(max(w.length) FILTER (w.has_requests), 0)::UINTEGER,
                coalesce(max(w.length) FILTER (w.has_profiles AND (w.profile_types IS NULL OR len(w.profile_types) = 0
                    OR list_contains(w.profile_types, ",
        );
        sql.bind(type_id(profile_type))
            .push("))), 0)::UINTEGER FROM ")
            .hours(WINDOWS, span)
            .push(" w WHERE ")
            .within("w.ts", span)
            .push(" AND w.workload_id IN (SELECT d.workload_id FROM series d WHERE true");
        who.push(&mut sql);
        sql.push(") GROUP BY 1, 2, 3");
        sql.run(reader, |columns| {
            let (ts, workload, component) = (columns.u32(0)?, columns.u64(1)?, columns.u8(2)?);
            let (requests, profiles) = (columns.u32(3)?, columns.u32(4)?);
            answer.marks.extend((0..columns.rows()).map(|row| Mark {
                workload: workload[row],
                component: component[row],
                ts: ts[row],
                requests_s: requests[row],
                profiles_s: if is_gone(ts[row]) { 0 } else { profiles[row] },
            }));
            Ok(())
        })?;
        answer
            .marks
            .sort_unstable_by_key(|mark| (mark.workload, mark.component, mark.ts));
        Ok(answer)
    }

    fn read_names(&mut self, reader: &Reader<'_>, who: &WorkloadFilter) -> Result<(), Failure> {
        let mut known: BTreeMap<Release, usize> = BTreeMap::new();
        let mut sql =
            Sql::new("SELECT DISTINCT d.workload_id, d.namespace, d.service, d.version FROM series d WHERE true");
        who.push(&mut sql);
        sql.run(reader, |columns| {
            let workload = columns.u64(0)?;
            let (namespace, service, version) = (columns.text(1)?, columns.text(2)?, columns.text(3)?);
            for (row, &id) in workload.iter().enumerate() {
                let release = Release {
                    namespace: namespace.string(row),
                    service: service.string(row),
                    version: version.string(row),
                };
                let next = known.len();
                self.of.insert(id, *known.entry(release).or_insert(next));
            }
            Ok(())
        })?;
        let mut releases: Vec<(usize, Release)> = known.into_iter().map(|(release, at)| (at, release)).collect();
        releases.sort_unstable_by_key(|(at, _)| *at);
        self.releases = releases.into_iter().map(|(_, release)| release).collect();
        Ok(())
    }

    /// Which of the releases a workload is an instance of.
    pub(super) fn release_of(&self, workload: u64) -> Option<usize> {
        self.of.get(&workload).copied()
    }

    /// How long the requests of a window cover; 0 for a window that is not known.
    pub(super) fn requests_s(&self, workload: u64, component: u8, ts: u32) -> u32 {
        let at = |mark: &Mark| (mark.workload, mark.component, mark.ts);
        let found = self.marks.binary_search_by_key(&(workload, component, ts), at);
        found.map_or(0, |at| self.marks[at].requests_s)
    }
}

/// Both components whose CPU is told apart.
const COMPONENTS: [Component; 2] = [Component::Application, Component::Proxy];

/// What counts of each window.
pub(super) struct Covered {
    pub(super) marks: Marks,
    /// By release and component of the CPU.
    joins: BTreeMap<(usize, u8), Join>,
}

impl Covered {
    /// Joins the windows of each release. `per` other than requests needs none: all windows of profiles count.
    pub(super) fn read(
        reader: &Reader<'_>,
        span: &Span,
        who: &WorkloadFilter,
        profile_type: &str,
        per: Per,
    ) -> Result<Covered, Failure> {
        let marks = Marks::read(reader, span, who, profile_type)?;
        let mut by_release: BTreeMap<usize, Vec<&Mark>> = BTreeMap::new();
        for mark in &marks.marks {
            if let Some(release) = marks.release_of(mark.workload) {
                by_release.entry(release).or_default().push(mark);
            }
        }
        let mut joins = BTreeMap::new();
        let mut both = Vec::new();
        for (&release, of_release) in &by_release {
            let of = |component: Component| {
                let component = component.code();
                of_release.iter().filter(move |mark| mark.component == component)
            };
            for component in COMPONENTS {
                let profiles: Vec<Stretch> = of(component).filter_map(|mark| mark.of_profiles()).collect();
                // A proxy's CPU is divided by the requests it carried itself, an application's by those it served,
                // whoever counted them.
                let requests: Vec<Stretch> = match component {
                    Component::Application => of_release.iter().filter_map(|mark| mark.of_requests()).collect(),
                    Component::Proxy => of(component).filter_map(|mark| mark.of_requests()).collect(),
                };
                let join = match per {
                    Per::Request => Join::new(&profiles, &requests),
                    Per::Second | Per::Total => Join::alone(&profiles),
                };
                joins.insert((release, component.code()), join);
            }
            let counts = |component: Component| of(component).any(|mark| mark.requests_s > 0);
            if per == Per::Request && COMPONENTS.iter().all(|&component| counts(component)) {
                both.push(release);
            }
        }
        let mut covered = Covered { marks, joins };
        if !both.is_empty() {
            covered.read_preferred(reader, span, who, &both)?;
        }
        Ok(covered)
    }

    /// Looks up which windows the application counted itself, where a proxy counts beside it.
    fn read_preferred(
        &mut self,
        reader: &Reader<'_>,
        span: &Span,
        who: &WorkloadFilter,
        both: &[usize],
    ) -> Result<(), Failure> {
        let mut counted: BTreeMap<(usize, Side), Vec<Stretch>> = BTreeMap::new();
        for (side, window) in counted_by_application(reader, span, who, &self.marks)? {
            if let Some(release) = self.marks.release_of(window.instance).filter(|of| both.contains(of)) {
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

    /// How much is covered of the first release and one component; nothing without any window.
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
    pub(super) fn profiles(&self, component: Component) -> impl Iterator<Item = (Stretch, f64)> {
        let marks = self
            .marks
            .marks
            .iter()
            .filter(move |mark| mark.component == component.code());
        marks.filter_map(move |mark| {
            let join = self
                .joins
                .get(&(self.marks.release_of(mark.workload)?, component.code()))?;
            let window = mark.of_profiles()?;
            let share = join.share(&window);
            (share > 0.0).then_some((window, share))
        })
    }

    /// The time of a window that is covered.
    pub(super) fn times_of(&self, component: Component, window: &Stretch) -> Option<Times> {
        let release = self.marks.release_of(window.instance)?;
        Some(self.joins.get(&(release, component.code()))?.times_of(window))
    }

    /// Seconds of a piece of time of a component ([`Join::piece_s`]).
    pub(super) fn piece_s(&self, component: Component) -> u32 {
        self.only_join(component).map_or(1, Join::piece_s)
    }

    /// How much counts of requests that a component reported in a window, to divide the CPU of a component, and where
    /// the middle of the window lies.
    pub(super) fn share_of_requests(
        &self,
        dividing: Component,
        (workload, reporter, ts): (u64, u8, u32),
        side: Side,
    ) -> Option<(Stretch, f64)> {
        let join = self.joins.get(&(self.marks.release_of(workload)?, dividing.code()))?;
        let window = Stretch {
            instance: workload,
            start_s: ts,
            length_s: self.marks.requests_s(workload, reporter, ts),
        };
        let is_own = reporter == Component::Application.code();
        let share = match dividing {
            Component::Proxy if is_own => 0.0,
            Component::Application if !is_own => join.share_besides(side, &window),
            _ => join.share(&window),
        };
        (share > 0.0).then_some((window, share))
    }

    /// Adds the table `covered` to a `WITH`: of each window with profiles that counts its `ts`, `workload_id`, `component`,
    /// the distance `half` of its middle, and the `share` that counts. Says whether any counts in part only.
    pub(super) fn push(&self, sql: &mut Sql, component: Option<Component>) -> bool {
        let mut runs: Vec<Run> = Vec::new();
        for of in COMPONENTS.into_iter().filter(|&of| component.is_none_or(|c| c == of)) {
            for (window, share) in self.profiles(of) {
                let is_taken = runs.last_mut().is_some_and(|run| run.takes(&window, of.code(), share));
                if !is_taken {
                    runs.push(Run::of(&window, of.code(), share));
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
        // They travel as texts, because the engine binds no lists.
        let column = |of: fn(&Run) -> String| runs.iter().map(of).collect::<Vec<_>>().join(",");
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

/// Windows of one workload and component at equal distances, of one length and share.
struct Run {
    workload: u64,
    component: u8,
    first: u32,
    last: u32,
    every: u32,
    length: u32,
    share: f64,
}

impl Run {
    fn of(window: &Stretch, component: u8, share: f64) -> Run {
        Run {
            workload: window.instance,
            component,
            first: window.start_s,
            last: window.start_s,
            every: 0,
            length: window.length_s,
            share,
        }
    }

    /// Takes a window in that continues the run.
    fn takes(&mut self, window: &Stretch, component: u8, share: f64) -> bool {
        let every = window.start_s.saturating_sub(self.last);
        let is_next = every > 0 && (self.every == 0 || every == self.every);
        let is_alike = (window.instance, component, window.length_s) == (self.workload, self.component, self.length);
        if !(is_next && is_alike && share.to_bits() == self.share.to_bits()) {
            return false;
        }
        (self.last, self.every) = (window.start_s, every);
        true
    }
}

/// Adds what rows say as their start, in statements that join `covered` as `c`: that of the step in which the middle of the window
/// lies.
pub(super) fn push_start_of_step(sql: &mut Sql, step: Step) {
    match step {
        Step::Window | Step::Range => sql.start_of_step("s.ts", step),
        Step::Seconds(_) => sql.start_of_step("(s.ts + c.half)", step),
    };
}

/// The join with `covered`, in statements about samples `s` of series `d`.
pub(super) const JOIN_COVERED: &str =
    " JOIN covered c ON c.ts = s.ts AND c.workload_id = d.workload_id AND c.component = d.component";

/// The sum of the parts of values that count.
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
    let mut sql = Sql::new("SELECT DISTINCT r.ts, d.workload_id, r.side FROM ");
    sql.hours(REQUESTS, span)
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
                length_s: marks.requests_s(workload[row], component, ts[row]),
            };
            Some((Side::from_code(u32::from(side[row]))?, window))
        }));
        Ok(())
    })?;
    Ok(found)
}

//! Which windows there are, and which signals each had: as runs of windows, whether they are stored as runs or one by
//! one.
//!
//! Guarantees: a window is there once for each signal, however often it was reported; of a process's windows that begin
//! together, the longest counts; a window of an hour whose samples are gone had no profiles.

use std::{collections::BTreeMap, ops::Range};

use emberline_model::{
    Release,
    coverage::{Run, Stretch},
};

use crate::{
    hot::{Span, hours::HOUR_S, rows::type_id},
    ids::IdMap,
    questions::{selection::WorkloadFilter, sql::Sql},
    readers::{Failure, Reader},
};

/// Windows of one signal of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) component: u8,
    /// The windows of one workload.
    pub(super) run: Run,
}

impl Mark {
    fn process(&self) -> (u64, u8) {
        (self.run.first.instance, self.component)
    }

    /// Position among windows of one length.
    fn phase(&self) -> (u32, u32) {
        let Stretch { start_s, length_s, .. } = self.run.first;
        (length_s, start_s % length_s.max(1))
    }

    /// Absorbs a mark that overlaps with it or follows it.
    fn takes(&mut self, next: &Mark) -> bool {
        let end_s = u64::from(self.run.first.start_s) + u64::from(self.run.whole().length_s);
        let (start_s, length_s) = (next.run.first.start_s, next.run.first.length_s);
        let is_next = self.process() == next.process()
            && self.phase() == next.phase()
            && length_s > 0
            && u64::from(start_s) <= end_s;
        if is_next {
            let before = (start_s - self.run.first.start_s) / length_s;
            self.run.windows = self.run.windows.max(before.saturating_add(next.run.windows));
        }
        is_next
    }
}

/// Every window once: of a process's windows that begin together, the longest.
fn joined(mut marks: Vec<Mark>) -> Vec<Mark> {
    marks.sort_unstable_by_key(|mark| (mark.process(), mark.phase(), mark.run.first.start_s));
    let mut joined: Vec<Mark> = Vec::new();
    for mark in marks {
        let is_taken = joined.last_mut().is_some_and(|last| last.takes(&mark));
        if !is_taken {
            joined.push(mark);
        }
    }
    let of_process = joined.chunk_by(|a, b| a.process() == b.process());
    of_process.flat_map(told_apart).collect()
}

/// The same for one process, whose windows may have different lengths.
fn told_apart(marks: &[Mark]) -> Vec<Mark> {
    let mut by_start = marks.to_vec();
    by_start.sort_unstable_by_key(|mark| mark.run.first.start_s);
    // The last start of each length so far: a long run may extend over several short ones.
    let mut last_starts: BTreeMap<u32, u32> = BTreeMap::new();
    let overlap = by_start.iter().any(|mark| {
        let (length_s, start_s) = (mark.phase().0, mark.run.first.start_s);
        let meets = last_starts
            .iter()
            .any(|(&other, &last)| other != length_s && start_s <= last);
        let last = last_starts.entry(length_s).or_default();
        *last = (*last).max(mark.run.last_start_s());
        meets
    });
    if !overlap {
        return by_start;
    }
    let mut longest: BTreeMap<u32, Mark> = BTreeMap::new();
    for mark in marks {
        for window in mark.run.windows() {
            let of_start = Mark {
                run: window.into(),
                ..*mark
            };
            let known = longest.entry(window.start_s).or_insert(of_start);
            if known.run.first.length_s < window.length_s {
                *known = of_start;
            }
        }
    }
    let mut apart: Vec<Mark> = Vec::new();
    for mark in longest.into_values() {
        let follows = |last: &mut Mark| {
            last.phase().0 == mark.phase().0
                && last.run.last_start_s().saturating_add(mark.phase().0) == mark.run.first.start_s
                && last.takes(&mark)
        };
        if !apart.last_mut().is_some_and(follows) {
            apart.push(mark);
        }
    }
    apart
}

/// Marks of all windows of some workloads in a span.
pub(super) struct Marks {
    /// Their releases.
    pub(super) releases: Vec<Release>,
    /// Index into `releases`, by workload.
    of: IdMap<usize>,
    /// Windows whose requests arrived.
    pub(super) requests: Vec<Mark>,
    /// Windows that had profiles of the type asked for.
    pub(super) profiles: Vec<Mark>,
    /// Windows that had neither.
    pub(super) others: Vec<Mark>,
}

impl Marks {
    /// Reads the marks; `profile_type` is the type that a window must have had to count as profiled.
    pub(super) fn read(
        reader: &Reader<'_>,
        span: &Span,
        who: &WorkloadFilter,
        profile_type: &str,
    ) -> Result<Marks, Failure> {
        let mut answer = Marks {
            releases: Vec::new(),
            of: IdMap::default(),
            requests: Vec::new(),
            profiles: Vec::new(),
            others: Vec::new(),
        };
        answer.read_names(reader, who)?;
        let gone = span.hours_without_samples();
        let is_gone = |ts: u32| gone.iter().any(|hours| hours.contains(&(ts / HOUR_S as u32)));
        let mut sql = Sql::new(
            "SELECT w.ts, w.workload_id, w.component, w.windows, w.length, w.has_requests,
                w.has_profiles AND (w.profile_types IS NULL OR len(w.profile_types) = 0
                    OR list_contains(w.profile_types, ",
        );
        sql.bind(type_id(profile_type))
            .push(")) FROM ")
            .runs(span)
            .push(" w WHERE w.workload_id IN (SELECT d.workload_id FROM series d WHERE true");
        who.push(&mut sql);
        sql.push(")");
        sql.run(reader, |columns| {
            let (ts, workload, component) = (columns.u32(0)?, columns.u64(1)?, columns.u8(2)?);
            let (windows, length) = (columns.u32(3)?, columns.u32(4)?);
            let (has_requests, has_profiles) = (columns.flag(5)?, columns.flag(6)?);
            for row in 0..columns.rows() {
                let first = Stretch {
                    instance: workload[row],
                    start_s: ts[row],
                    length_s: length[row],
                };
                let mark = Mark {
                    component: component[row],
                    run: Run {
                        first,
                        windows: windows[row],
                    },
                };
                let has_requests = has_requests.value(row) && length[row] > 0;
                let has_profiles = has_profiles.value(row) && length[row] > 0 && !is_gone(ts[row]);
                if has_requests {
                    answer.requests.push(mark);
                }
                if has_profiles {
                    answer.profiles.push(mark);
                }
                if !has_requests && !has_profiles {
                    answer.others.push(mark);
                }
            }
            Ok(())
        })?;
        for marks in [&mut answer.requests, &mut answer.profiles, &mut answer.others] {
            *marks = joined(std::mem::take(marks));
        }
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

    /// The release that a workload is an instance of.
    pub(super) fn release_of(&self, workload: u64) -> Option<usize> {
        self.of.get(&workload).copied()
    }

    /// Marks by their release.
    pub(super) fn by_release(&self, marks: &[Mark]) -> BTreeMap<usize, Vec<Mark>> {
        let mut by_release: BTreeMap<usize, Vec<Mark>> = BTreeMap::new();
        for mark in marks {
            if let Some(release) = self.release_of(mark.run.first.instance) {
                by_release.entry(release).or_default().push(*mark);
            }
        }
        by_release
    }

    /// The lengths of windows with requests that begin in `times`.
    pub(super) fn lengths(&self, times: &[Range<u32>]) -> Lengths {
        let mut lengths = Vec::new();
        for mark in &self.requests {
            for run in times
                .iter()
                .filter_map(|of| mark.run.beginning_within(of.start, of.end))
            {
                lengths.extend(
                    run.windows()
                        .map(|w| (w.instance, mark.component, w.start_s, w.length_s)),
                );
            }
        }
        lengths.sort_unstable();
        Lengths(lengths)
    }
}

/// Lengths of single windows.
#[derive(Default)]
pub(super) struct Lengths(Vec<(u64, u8, u32, u32)>);

impl Lengths {
    /// The time that the requests of a window cover; 0 for an unknown window.
    pub(super) fn of(&self, workload: u64, component: u8, ts: u32) -> u32 {
        let behind = self
            .0
            .partition_point(|&(w, c, t, _)| (w, c, t) <= (workload, component, ts));
        let found = behind.checked_sub(1).map(|at| self.0[at]);
        found
            .filter(|&(w, c, t, _)| (w, c, t) == (workload, component, ts))
            .map_or(0, |found| found.3)
    }
}

/// Distinct starts of windows.
#[derive(Debug, Default)]
pub(super) struct Starts(Vec<Mark>);

impl Starts {
    /// Adds the starts of a run of any process.
    pub(super) fn add(&mut self, run: &Run) {
        let mut run = *run;
        run.first.instance = 0;
        self.0.push(Mark { component: 0, run });
    }

    /// How many there are.
    pub(super) fn count(self) -> u64 {
        joined(self.0).iter().map(|mark| u64::from(mark.run.windows)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_that_reaches_over_a_short_one_meets_the_next() {
        let mark = |start_s, length_s, windows| Mark {
            component: 1,
            run: Run {
                first: Stretch {
                    instance: 0,
                    start_s,
                    length_s,
                },
                windows,
            },
        };
        // Windows of both lengths begin at 202.
        let told = joined(vec![mark(172, 10, 4), mark(23, 60, 1), mark(22, 60, 4)]);
        let starts: Vec<u32> = told
            .iter()
            .flat_map(|mark| mark.run.windows())
            .map(|w| w.start_s)
            .collect();
        assert_eq!(starts.len(), 8, "{starts:?}");
    }

    proptest! {
        /// Whether windows come one by one or in overlapping runs, each start is there once, and its longest window
        /// counts.
        #[test]
        fn windows_are_told_once(
            runs in prop::collection::vec((0u64..2, 0u32..200, prop_oneof![Just(10u32), Just(15), Just(60)], 1u32..9), 0..9),
        ) {
            let mark = |&(instance, start_s, length_s, windows): &(u64, u32, u32, u32)| Mark {
                component: 1,
                run: Run { first: Stretch { instance, start_s, length_s }, windows },
            };
            let marks: Vec<Mark> = runs.iter().map(mark).collect();
            let mut expected: BTreeMap<(u64, u32), u32> = BTreeMap::new();
            for window in marks.iter().flat_map(|mark| mark.run.windows()) {
                let longest = expected.entry((window.instance, window.start_s)).or_default();
                *longest = (*longest).max(window.length_s);
            }
            let mut starts = Starts::default();
            marks.iter().for_each(|mark| starts.add(&mark.run));
            let different: BTreeSet<u32> = expected.keys().map(|(_, start)| *start).collect();
            prop_assert_eq!(starts.count(), different.len() as u64);
            let told: Vec<Stretch> = joined(marks).iter().flat_map(|mark| mark.run.windows()).collect();
            prop_assert_eq!(told.len(), expected.len());
            let told: BTreeMap<(u64, u32), u32> = told.iter().map(|w| ((w.instance, w.start_s), w.length_s)).collect();
            prop_assert_eq!(told, expected);
        }
    }
}

//! Dividing two signals: which time both of them cover, and how much of each window is in it. Pure.
//!
//! CPU may be divided by requests only over time that both signals cover. A window states its start and its length, but
//! not how its content is distributed: a partly covered window counts in part, as if it were evenly distributed.
//!
//! Whose windows are joined: an instance that reports both signals is joined with itself, and what other instances of
//! its release report alone is left out, since it would divide the requests of all by the CPU of some. If no instance
//! reports both, because profiler and telemetry name instances differently, the release is joined as a whole: the CPU
//! of all its profiles with all its requests.
//!
//! Guarantees: windows of both signals that begin and end together count fully, to the request; a window never counts
//! more than once; each belongs to one slice of time ([`Join::piece_of`]), so that slices share no noise and their
//! differences can be judged.
//!
//! Wrong on purpose: several processes that report under one name are one instance, covered while any of them reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::workload::Side;

/// One window of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Reporting instance: any number that is unique per instance.
    pub instance: u64,
    /// Start, seconds since the Unix epoch.
    pub start_s: u32,
    /// Length in seconds.
    pub length_s: u32,
}

impl Stretch {
    fn range(&self) -> (u64, u64) {
        (
            u64::from(self.start_s),
            u64::from(self.start_s) + u64::from(self.length_s),
        )
    }

    /// The second at its midpoint.
    pub fn middle_s(&self) -> u32 {
        self.start_s.saturating_add(self.length_s / 2)
    }
}

/// Consecutive windows of one signal and instance, without gaps and of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first of them.
    pub first: Stretch,
    /// How many.
    pub windows: u32,
}

impl Run {
    /// The time they cover.
    pub fn whole(&self) -> Stretch {
        Stretch {
            length_s: self.first.length_s.saturating_mul(self.windows),
            ..self.first
        }
    }

    /// Start of the last one.
    pub fn last_start_s(&self) -> u32 {
        let behind = self.windows.saturating_sub(1).saturating_mul(self.first.length_s);
        self.first.start_s.saturating_add(behind)
    }

    /// One by one.
    pub fn windows(self) -> impl Iterator<Item = Stretch> {
        (0..self.windows).map(move |n| self.after(n).first)
    }

    /// Windows in the same slice of time ([`Join::piece_of`]), with its start. A length of 0 means one second.
    pub fn pieces(self, piece_s: u32) -> impl Iterator<Item = (u32, Run)> {
        let piece_s = piece_s.max(1);
        let mut rest = self;
        std::iter::from_fn(move || {
            if rest.windows == 0 {
                return None;
            }
            let start = Join::piece_of(&rest.first, piece_s);
            let left_s = (u64::from(start) + u64::from(piece_s)).saturating_sub(u64::from(rest.first.middle_s()));
            let fit = left_s.div_ceil(u64::from(rest.first.length_s.max(1)));
            let windows = u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, rest.windows);
            let piece = Run { windows, ..rest };
            rest = rest.after(windows);
            Some((start, piece))
        })
    }

    /// The windows that start in a half-open range of seconds; `None` if there are none.
    pub fn beginning_within(self, from_s: u32, to_s: u32) -> Option<Run> {
        let length_s = self.first.length_s.max(1);
        let before = from_s.saturating_sub(self.first.start_s).div_ceil(length_s);
        let within = to_s
            .saturating_sub(self.first.start_s)
            .div_ceil(length_s)
            .min(self.windows);
        (before < within).then(|| Run {
            windows: within - before,
            ..self.after(before)
        })
    }

    fn after(self, windows: u32) -> Run {
        let start_s = self
            .first
            .start_s
            .saturating_add(self.first.length_s.saturating_mul(windows));
        Run {
            first: Stretch { start_s, ..self.first },
            windows: self.windows.saturating_sub(windows),
        }
    }
}

impl From<Stretch> for Run {
    fn from(first: Stretch) -> Run {
        Run { first, windows: 1 }
    }
}

/// Stretches of time that neither overlap nor touch, ascending; half open, seconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times(Vec<(u64, u64)>);

impl Times {
    /// The union of some windows.
    pub fn of<'a>(windows: impl IntoIterator<Item = &'a Stretch>) -> Times {
        let mut ranges: Vec<(u64, u64)> = windows.into_iter().map(Stretch::range).collect();
        ranges.sort_unstable();
        Times::union(ranges)
    }

    fn union(sorted: Vec<(u64, u64)>) -> Times {
        let mut times: Vec<(u64, u64)> = Vec::new();
        for (from, to) in sorted.into_iter().filter(|(from, to)| from < to) {
            match times.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => times.push((from, to)),
            }
        }
        Times(times)
    }

    /// Intersection of both.
    pub fn and(&self, other: &Times) -> Times {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut times = Vec::new();
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let (from, to) = (x.0.max(y.0), x.1.min(y.1));
            if from < to {
                times.push((from, to));
            }
            let next = if x.1 <= y.1 { &mut a } else { &mut b };
            next.next();
        }
        Times(times)
    }

    /// Union of several.
    pub fn any<'a>(all: impl IntoIterator<Item = &'a Times>) -> Times {
        let mut ranges: Vec<(u64, u64)> = all.into_iter().flat_map(|times| times.0.iter().copied()).collect();
        ranges.sort_unstable();
        Times::union(ranges)
    }

    /// Seconds in all.
    pub fn seconds(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    /// True when empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when they contain a second.
    pub fn has(&self, second: u32) -> bool {
        self.overlap((u64::from(second), u64::from(second) + 1)) > 0
    }

    fn overlap(&self, (from, to): (u64, u64)) -> u64 {
        let first = self.0.partition_point(|range| range.1 <= from);
        let within = self.0[first..].iter().take_while(|range| range.0 < to);
        within.map(|range| range.1.min(to) - range.0.max(from)).sum()
    }

    fn within(&self, (from, to): (u64, u64)) -> Times {
        let first = self.0.partition_point(|range| range.1 <= from);
        let within = self.0[first..].iter().take_while(|range| range.0 < to);
        Times(within.map(|range| (range.0.max(from), range.1.min(to))).collect())
    }

    /// Seconds of a window that they cover.
    pub fn seconds_of(&self, window: &Stretch) -> u64 {
        self.overlap(window.range())
    }
}

/// How windows were joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JoinedBy {
    /// Each instance that reports both signals is joined with itself.
    #[default]
    Instance,
    /// The release is joined as a whole, because none of its instances reports both.
    Release,
}

/// Why costs cannot be divided by requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// No requests signal arrived.
    Requests,
    /// No profile of the type arrived.
    Profiles,
    /// Neither arrived.
    Both,
    /// Both arrived, but never for the same time.
    SameTime,
}

/// How much of a range the two signals cover.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Coverage {
    /// Seconds covered by both; costs per request are based on them.
    pub covered_s: u64,
    /// Seconds covered by profiles of the type.
    pub profiles_s: u64,
    /// Seconds covered by requests.
    pub requests_s: u64,
    /// Instances that sent profiles.
    pub profiled_instances: u64,
    /// Instances that reported requests.
    pub counted_instances: u64,
    /// How windows were joined.
    pub joined_by: JoinedBy,
    /// Why costs cannot be divided by requests; null if they can.
    pub missing: Option<Missing>,
}

/// The windows of one release, joined.
#[derive(Debug, Clone, Default)]
pub struct Join {
    by: JoinedBy,
    units: Vec<Times>,
    /// What the application counted itself, per unit: as a client, as a server.
    preferred: Vec<[Times; 2]>,
    of: BTreeMap<u64, usize>,
    coverage: Coverage,
    lengths: (u32, u32),
}

impl Join {
    /// Joins the profiles of a release with its requests.
    pub fn new(profiles: &[Stretch], requests: &[Stretch]) -> Join {
        let runs = |windows: &[Stretch]| windows.iter().copied().map(Run::from).collect::<Vec<_>>();
        Join::of_runs(&runs(profiles), &runs(requests))
    }

    /// Like `new`, for runs of windows.
    pub fn of_runs(profiles: &[Run], requests: &[Run]) -> Join {
        let (profiled, counted) = (by_instance(profiles), by_instance(requests));
        let both: Vec<u64> = profiled
            .keys()
            .filter(|instance| counted.contains_key(instance))
            .copied()
            .collect();
        let (spent, served) = (Times::any(profiled.values()), Times::any(counted.values()));
        let mut join = Join {
            lengths: (usual(profiles), usual(requests)),
            ..Join::default()
        };
        if both.is_empty() {
            join.by = JoinedBy::Release;
            join.units.push(spent.and(&served));
            join.of
                .extend(profiled.keys().chain(counted.keys()).map(|&instance| (instance, 0)));
        } else {
            for instance in both {
                join.of.insert(instance, join.units.len());
                join.units.push(profiled[&instance].and(&counted[&instance]));
            }
        }
        join.preferred = vec![Default::default(); join.units.len()];
        join.coverage = Coverage {
            covered_s: Times::any(&join.units).seconds(),
            profiles_s: spent.seconds(),
            requests_s: served.seconds(),
            profiled_instances: profiled.len() as u64,
            counted_instances: counted.len() as u64,
            joined_by: join.by,
            missing: None,
        };
        join.coverage.missing = match (spent.is_empty(), served.is_empty()) {
            (true, true) => Some(Missing::Both),
            (true, false) => Some(Missing::Profiles),
            (false, true) => Some(Missing::Requests),
            (false, false) if join.coverage.covered_s == 0 => Some(Missing::SameTime),
            (false, false) => None,
        };
        join
    }

    /// Profiles only, for costs that are not divided by requests: every window counts fully.
    pub fn alone(profiles: &[Run]) -> Join {
        let mut join = Join {
            lengths: (usual(profiles), 0),
            ..Join::default()
        };
        for (instance, times) in by_instance(profiles) {
            join.of.insert(instance, join.units.len());
            join.units.push(times);
        }
        join.preferred = vec![Default::default(); join.units.len()];
        join
    }

    /// Marks requests counted by both application and proxy, so they count once ([`Join::share_besides`]).
    pub fn prefer(&mut self, side: Side, counted_by_application: &[Stretch]) {
        let runs: Vec<Run> = counted_by_application.iter().copied().map(Run::from).collect();
        for (instance, times) in by_instance(&runs) {
            if let Some(&unit) = self.of.get(&instance) {
                let preferred = &mut self.preferred[unit][usize::from(side == Side::Server)];
                *preferred = Times::any([&*preferred, &times]);
            }
        }
    }

    /// Share of a window that counts: 0 to 1, exactly 0 or 1 if it is not or fully covered.
    pub fn share(&self, window: &Stretch) -> f64 {
        let Some(&unit) = self.of.get(&window.instance) else {
            return 0.0;
        };
        part(self.units[unit].seconds_of(window), window)
    }

    /// The covered part of a window.
    pub fn times_of(&self, window: &Stretch) -> Times {
        let unit = self.of.get(&window.instance).map(|&unit| &self.units[unit]);
        unit.map(|times| times.within(window.range())).unwrap_or_default()
    }

    /// The same for requests counted by a proxy, excluding the time in which its application counted them too.
    pub fn share_besides(&self, side: Side, window: &Stretch) -> f64 {
        let Some(&unit) = self.of.get(&window.instance) else {
            return 0.0;
        };
        let preferred = &self.preferred[unit][usize::from(side == Side::Server)];
        let twice = match preferred.is_empty() {
            true => 0,
            false => self.units[unit].and(preferred).seconds_of(window),
        };
        part(self.units[unit].seconds_of(window).saturating_sub(twice), window)
    }

    /// How much is covered.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Length of a slice of time in seconds that contains equal amounts of both signals: at least the longer window,
    /// and a multiple of both if there is one that is not much longer.
    pub fn piece_s(&self) -> u32 {
        const LENGTHS_S: [u32; 12] = [10, 15, 20, 30, 60, 90, 120, 180, 300, 600, 900, 1_800];
        let longest = self.lengths.0.max(self.lengths.1).max(1);
        let fits = |&&piece: &&u32| {
            [self.lengths.0, self.lengths.1]
                .iter()
                .all(|&length| length == 0 || piece % length == 0)
        };
        let near = LENGTHS_S
            .iter()
            .filter(|&&piece| piece >= longest && piece <= longest.saturating_mul(4));
        near.clone()
            .find(fits)
            .or_else(|| LENGTHS_S.iter().find(|&&piece| piece >= longest.saturating_mul(4)))
            .copied()
            .unwrap_or_else(|| longest.saturating_mul(2))
    }

    /// Start of the slice that contains a window's midpoint.
    pub fn piece_of(window: &Stretch, piece_s: u32) -> u32 {
        window.middle_s() - window.middle_s() % piece_s.max(1)
    }
}

fn part(seconds: u64, window: &Stretch) -> f64 {
    match window.length_s {
        0 => 0.0,
        length if seconds >= u64::from(length) => 1.0,
        length => seconds as f64 / f64::from(length),
    }
}

fn by_instance(runs: &[Run]) -> BTreeMap<u64, Times> {
    let mut ranges: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for run in runs {
        ranges.entry(run.first.instance).or_default().push(run.whole().range());
    }
    let union = |(instance, mut ranges): (u64, Vec<(u64, u64)>)| {
        ranges.sort_unstable();
        (instance, Times::union(ranges))
    };
    ranges.into_iter().map(union).collect()
}

/// The length that most windows do not exceed. 0 without windows.
fn usual(runs: &[Run]) -> u32 {
    let mut lengths: BTreeMap<u32, u64> = BTreeMap::new();
    for run in runs {
        *lengths.entry(run.first.length_s).or_default() += u64::from(run.windows);
    }
    let at = lengths.values().sum::<u64>() * 3 / 4;
    let mut seen = 0;
    let reached = |(_, windows): &(&u32, &u64)| {
        seen += **windows;
        seen > at
    };
    lengths.iter().find(reached).map_or(0, |(length, _)| *length)
}

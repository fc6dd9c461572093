//! The watches over two releases from one end: one per unit, fed with each window once.
//!
//! Guarantees: pure. What stands after some windows does not depend on how many were fed at a time, as long as what is
//! [`stale`](PairWatch::stale) is fed again from the beginning: a caller that is judged alone from now on, and windows of which more
//! came later. Feeding again may stop after any piece, and goes on from there.
//!
//! One file because what is fed for the first time and what is fed again is one state, and must come to the same. Its tests, a
//! third of it, compare the two.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{Release, time::WINDOW_S};
use emberline_storage::ServiceName;

use super::{
    VerdictConfig,
    units::{Served, Settings, Unit, UnitWatch, Window},
};

/// Seconds after which nobody looks whether a window got more requests.
const LATE_S: i64 = 180;

/// Requests of both releases.
pub(super) type Rows = [Vec<Served>; 2];

/// All watches over two releases.
#[derive(Debug, Clone)]
pub(super) struct PairWatch {
    /// The first second that was fed, and the end of what was.
    begin: i64,
    fed: i64,
    /// Seconds of a window: of the longer of both releases.
    step: i64,
    /// The only routes; `None`: all.
    routes: Option<BTreeSet<String>>,
    settings: Settings,
    /// Requests of callers: to the baseline, and to the candidate.
    callers: BTreeMap<Unit, [u64; 2]>,
    /// Callers that are judged alone.
    apart: BTreeSet<Unit>,
    units: BTreeMap<Unit, UnitWatch>,
    /// Routes that have to be fed again, and up to where they were.
    stale: BTreeMap<String, i64>,
    /// Units for which there was no room.
    left_out: usize,
}

impl PairWatch {
    /// A watch that begins at a second or, where windows are longer than ours, a little before.
    pub(super) fn new(begin: i64, step: i64, routes: Option<BTreeSet<String>>, settings: Settings) -> PairWatch {
        let step = step.max(WINDOW_S);
        let begin = begin - begin.rem_euclid(step);
        PairWatch {
            begin,
            fed: begin,
            step,
            routes,
            settings,
            callers: BTreeMap::new(),
            apart: BTreeSet::new(),
            units: BTreeMap::new(),
            stale: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Whether this is the watch that begins then, holds windows so long and has these routes.
    pub(super) fn serves(&self, begin: i64, step: i64, routes: Option<&BTreeSet<String>>) -> bool {
        let has_routes = match (&self.routes, routes) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(wanted)) => wanted.is_subset(own),
        };
        has_routes && self.step >= step && self.begin == begin - begin.rem_euclid(self.step)
    }

    /// Keeps these routes only.
    pub(super) fn narrow(&mut self, routes: Option<BTreeSet<String>>) {
        if let Some(routes) = &routes {
            self.callers.retain(|caller, _| routes.contains(&caller.route));
            self.apart.retain(|caller| routes.contains(&caller.route));
            self.units.retain(|unit, _| routes.contains(&unit.route));
            self.stale.retain(|route, _| routes.contains(route));
        }
        self.routes = routes;
    }

    pub(super) fn begin(&self) -> i64 {
        self.begin
    }

    pub(super) fn fed(&self) -> i64 {
        self.fed
    }

    pub(super) fn step(&self) -> i64 {
        self.step
    }

    /// The only route, if there is one.
    pub(super) fn only_route(&self) -> Option<&str> {
        let routes = self.routes.as_ref().filter(|routes| routes.len() == 1)?;
        routes.first().map(String::as_str)
    }

    /// The end of the windows that are whole at a second. Windows that are longer than ours begin anywhere, and lie where their
    /// middles do.
    pub(super) fn whole_until(&self, to: i64) -> i64 {
        let to = if self.step > WINDOW_S { to - self.step / 2 } else { to };
        to - to.rem_euclid(self.step)
    }

    fn recognised(&self) -> usize {
        usize::try_from((LATE_S / self.step).max(1)).unwrap_or(1)
    }

    /// From where rows are needed to go on: what was fed lately is looked at once more.
    pub(super) fn needed_from(&self) -> i64 {
        let late = i64::try_from(self.recognised()).unwrap_or(1) * self.step;
        (self.fed - late).max(self.begin)
    }

    pub(super) fn watches(&self) -> usize {
        self.units.len()
    }

    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(super) fn units(&self) -> impl Iterator<Item = (&Unit, &UnitWatch)> {
        self.units.iter()
    }

    /// Services that called.
    pub(super) fn callers(&self) -> Vec<ServiceName> {
        let sources = self.callers.keys().filter_map(|caller| caller.source.as_ref());
        let names: BTreeSet<ServiceName> = sources
            .map(|source| ServiceName {
                namespace: source.namespace.clone(),
                service: source.service.clone(),
            })
            .collect();
        names.into_iter().collect()
    }

    /// Callers on a route that are judged alone.
    pub(super) fn apart(&self, route: &str) -> Vec<Release> {
        let of_route = self.apart.iter().filter(|caller| caller.route == route);
        of_route.filter_map(|caller| caller.source.clone()).collect()
    }

    /// Feeds the windows from where it stands to `to`; `rows` are those from `needed_from` on, and there is room for so many more
    /// watches.
    pub(super) fn take(&mut self, rows: &Rows, to: i64, room: usize, config: &VerdictConfig) {
        let from = self.fed;
        self.fed = to;
        for route in self.feed(rows, from, to, None, room, config) {
            self.forget(route);
        }
    }

    /// A route that has to be fed again up to where the others stand, and from which second on.
    pub(super) fn stale(&self) -> Option<(&str, i64)> {
        self.stale
            .first_key_value()
            .map(|(route, from)| (route.as_str(), *from))
    }

    /// Feeds a stale route with its windows from where it stands to `to`.
    pub(super) fn feed_again(&mut self, route: &str, rows: &Rows, to: i64, room: usize, config: &VerdictConfig) {
        let Some(&from) = self.stale.get(route) else {
            return;
        };
        if !self.feed(rows, from, to, Some(route), room, config).is_empty() {
            self.forget(route.to_owned());
        } else if to < self.fed {
            self.stale.insert(route.to_owned(), to);
        } else {
            self.stale.remove(route);
        }
    }

    /// Forgets a route, which is fed again from the beginning.
    fn forget(&mut self, route: String) {
        self.callers.retain(|caller, _| caller.route != route);
        self.units.retain(|unit, _| unit.route != route);
        self.stale.insert(route, self.begin);
    }

    /// Returns the routes that have to be fed again.
    fn feed(
        &mut self,
        rows: &Rows,
        from: i64,
        to: i64,
        route: Option<&str>,
        mut room: usize,
        config: &VerdictConfig,
    ) -> BTreeSet<String> {
        let mut stale = BTreeSet::new();
        let is_fed = |of: &str| match route {
            Some(route) => route == of,
            None => !self.stale.contains_key(of),
        };
        let is_wanted = |of: &str| is_fed(of) && self.routes.as_ref().is_none_or(|routes| routes.contains(of));
        let mut by_caller: BTreeMap<Unit, BTreeMap<i64, Window>> = BTreeMap::new();
        for (rows, is_candidate) in rows.iter().zip([false, true]) {
            for served in rows.iter().filter(|served| is_wanted(&served.route)) {
                let caller = Unit {
                    route: served.route.clone(),
                    source: served.source.clone(),
                };
                let windows = by_caller.entry(caller).or_default();
                windows.entry(served.window).or_default().add(served, is_candidate);
            }
        }
        for (caller, windows) in &by_caller {
            let requests = self.callers.entry(caller.clone()).or_default();
            for window in windows.range(from..).map(|(_, window)| window) {
                requests[0] += window.baseline.count();
                requests[1] += window.candidate.count();
            }
            let is_enough = requests.iter().all(|side| *side >= config.min_source_requests);
            // Until now it was judged with others: that is undone.
            if caller.source.is_some() && is_enough && self.apart.insert(caller.clone()) && from > self.begin {
                stale.insert(caller.route.clone());
            }
        }
        let mut by_unit: BTreeMap<Unit, BTreeMap<i64, Window>> = BTreeMap::new();
        for (mut unit, windows) in by_caller {
            if !self.apart.contains(&unit) {
                unit.source = None;
            }
            let sum = by_unit.entry(unit).or_default();
            for (start, window) in windows {
                sum.entry(start).or_default().merge(&window);
            }
        }
        for unit in by_unit.keys().filter(|unit| !stale.contains(&unit.route)) {
            if self.units.contains_key(unit) {
                continue;
            }
            if room == 0 {
                self.left_out += 1;
                continue;
            }
            room -= 1;
            let watch = UnitWatch::new(&self.settings, self.recognised());
            self.units.insert(unit.clone(), watch);
        }
        let (none, empty) = (BTreeMap::new(), Window::default());
        for (unit, watch) in &mut self.units {
            if stale.contains(&unit.route) || !is_fed(&unit.route) {
                continue;
            }
            let windows = by_unit.get(unit).unwrap_or(&none);
            let fed = (1..).map(|back| (back, from - back * self.step));
            let mut known =
                fed.take_while(|(back, start)| *start >= self.begin && back * self.step <= LATE_S.max(self.step));
            // A route that is fed again has nothing before.
            if route.is_none() && known.any(|(back, start)| watch.differs(back as usize, windows.get(&start))) {
                stale.insert(unit.route.clone());
                continue;
            }
            let mut start = from;
            while start < to {
                watch.push(start, windows.get(&start).unwrap_or(&empty), config);
                start += self.step;
            }
            watch.end(to, config);
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use emberline_analysis::{alert_state::AlertPhase, latency::LatencyOutcome};
    use emberline_model::{Histogram, Side};
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::units::Judged;

    fn release(service: &str) -> Release {
        Release {
            service: service.into(),
            version: "1".into(),
            ..Release::default()
        }
    }

    fn served(window: i64, source: Option<&str>, ms: u64, requests: u64) -> Served {
        let mut duration = Histogram::new();
        (0..requests).for_each(|n| duration.record_ns(ms * 1_000_000 + n * 1_000));
        Served {
            window,
            source: source.map(release),
            route: "/a".into(),
            warming: false,
            error: false,
            duration,
        }
    }

    fn between(rows: &Rows, from: i64, to: i64) -> Rows {
        let of = |rows: &Vec<Served>| {
            rows.iter()
                .filter(|row| (from..to).contains(&row.window))
                .cloned()
                .collect()
        };
        [of(&rows[0]), of(&rows[1])]
    }

    /// Feeds rows as the runner does.
    fn feed(watch: &mut PairWatch, rows: &Rows, to: i64, config: &VerdictConfig) {
        let from = watch.needed_from();
        watch.take(&between(rows, from, to), to, 1_000, config);
        while again(watch, rows, i64::MAX, config) {}
    }

    /// Feeds so many seconds of a stale route again; false when there is none.
    fn again(watch: &mut PairWatch, rows: &Rows, seconds: i64, config: &VerdictConfig) -> bool {
        let Some((route, from)) = watch.stale().map(|(route, from)| (route.to_owned(), from)) else {
            return false;
        };
        let to = watch.fed().min(from.saturating_add(seconds));
        watch.feed_again(&route, &between(rows, from, to), to, 1_000, config);
        true
    }

    fn fresh(config: &VerdictConfig) -> PairWatch {
        PairWatch::new(0, 10, None, Settings::of(config, Side::Server))
    }

    fn said(watch: &PairWatch) -> Vec<(Unit, Option<i64>, AlertPhase, u64)> {
        let one = |(unit, of): (&Unit, &UnitWatch)| {
            let judged: Option<Judged> = of.slow(unit);
            let verdict = judged.as_ref().map(|judged| &judged.verdict);
            (
                unit.clone(),
                verdict.and_then(|verdict| verdict.fired_at_window),
                judged
                    .as_ref()
                    .map_or(AlertPhase::Inactive, |judged| judged.state.phase),
                of.windows_used(),
            )
        };
        watch.units().map(one).collect()
    }

    #[test]
    fn small_callers_are_judged_together() {
        let baseline = vec![
            served(0, Some("big"), 1, 30),
            served(0, Some("small"), 1, 30),
            served(0, None, 1, 5),
        ];
        let candidate = vec![served(0, Some("big"), 1, 30), served(0, Some("small"), 1, 3)];
        let config = VerdictConfig::default();
        let mut watch = fresh(&config);
        feed(&mut watch, &[baseline, candidate], 10, &config);
        let sources = watch
            .units()
            .map(|(unit, _)| unit.source.as_ref().map(|s| s.service.as_str()));
        assert_eq!(sources.collect::<Vec<_>>(), [None, Some("big")]);
        assert_eq!(watch.apart("/a"), [release("big")]);
    }

    fn windows(ms: u64, from: i64, to: i64) -> Vec<Served> {
        (from..to).map(|n| served(n * 10, Some("big"), ms, 50)).collect()
    }

    #[test]
    fn a_slower_candidate_fires_and_resolves_when_it_is_gone() {
        let config = VerdictConfig::default();
        let judged = |to: i64| {
            let mut watch = fresh(&config);
            feed(&mut watch, &[windows(2, 0, to), windows(8, 10, 20)], to * 10, &config);
            let (unit, of) = watch.units().next().unwrap();
            of.slow(unit).unwrap()
        };
        let fires = judged(20);
        assert_eq!(fires.verdict.outcome, LatencyOutcome::Slower);
        assert_eq!(fires.state.phase, AlertPhase::Firing);
        assert_eq!(judged(45).state.phase, AlertPhase::Firing);
        assert_eq!(judged(51).state.phase, AlertPhase::Resolved);
        assert_eq!(judged(51).verdict.fired_at_window, fires.verdict.fired_at_window);
    }

    /// A slowdown that is over for an hour is forgotten, and the next one is found as the first was.
    #[test]
    fn what_is_over_is_forgotten_after_an_hour_and_the_next_is_found() {
        let config = VerdictConfig::default();
        let mut candidate = windows(8, 10, 60);
        candidate.extend(windows(2, 60, 500));
        candidate.extend(windows(8, 500, 560));
        let rows = [windows(2, 0, 560), candidate];
        let mut watch = fresh(&config);
        let mut fired = BTreeSet::new();
        let mut gone = false;
        for to in 1..=560 {
            feed(&mut watch, &rows, to * 10, &config);
            let at = said(&watch).into_iter().find_map(|of| of.1);
            fired.extend(at);
            gone |= to > 460 && to < 500 && at.is_none();
        }
        let fired: Vec<i64> = fired.into_iter().collect();
        assert!(gone && fired.len() == 2, "{fired:?}");
        assert!(
            (100..400).contains(&fired[0]) && (5_000..5_600).contains(&fired[1]),
            "{fired:?}"
        );
    }

    #[test]
    fn windows_that_got_more_requests_are_fed_again() {
        let config = VerdictConfig::default();
        let rows = [windows(2, 0, 40), windows(8, 10, 40)];
        // The newest ten windows of the candidate come a minute late.
        let mut late = rows.clone();
        late[1].retain(|row| row.window < 300);
        let (mut watch, mut other) = (fresh(&config), fresh(&config));
        feed(&mut watch, &late, 400, &config);
        feed(&mut watch, &rows, 410, &config);
        feed(&mut other, &rows, 410, &config);
        assert_eq!(said(&watch), said(&other));
        // Without a second look they would be lost.
        let mut lost = fresh(&config);
        feed(&mut lost, &late, 410, &config);
        assert_ne!(said(&lost), said(&other));
    }

    /// A query that failed leaves a route half fed: it is known as stale, the others are not, and it goes on where it stood.
    #[test]
    fn a_route_that_was_being_fed_again_goes_on_where_it_stopped() {
        let config = VerdictConfig::default();
        let other = |row: Served| Served {
            route: "/b".into(),
            ..row
        };
        let rows = [windows(2, 0, 60), windows(8, 10, 60)]
            .map(|of| [of.clone(), of.into_iter().map(other).collect()].concat());
        // Of one route the newest windows come late.
        let mut late = rows.clone();
        late[1].retain(|row| row.window < 300 || row.route == "/b");
        let (mut watch, mut whole) = (fresh(&config), fresh(&config));
        feed(&mut watch, &late, 400, &config);
        feed(&mut whole, &rows, 500, &config);
        let b = |watch: &PairWatch| said(watch).into_iter().find(|of| of.0.route == "/b");
        let from = watch.needed_from();
        watch.take(&between(&rows, from, 410), 410, 1_000, &config);
        assert_eq!(watch.stale(), Some(("/a", 0)));
        let before = b(&watch);
        assert!(again(&mut watch, &rows, 200, &config));
        assert_eq!(watch.stale(), Some(("/a", 200)), "a piece was fed, then a query fails");
        assert_eq!(b(&watch), before);
        while again(&mut watch, &rows, 100, &config) {}
        feed(&mut watch, &rows, 500, &config);
        assert_eq!(said(&watch), said(&whole));
        assert_eq!(said(&watch).len(), 2);
    }

    #[test]
    fn there_are_no_more_watches_than_there_is_room_for() {
        let config = VerdictConfig::default();
        let mut rows: Rows = [Vec::new(), Vec::new()];
        for route in 0..20 {
            rows[0].push(Served {
                route: format!("/{route}"),
                ..served(0, None, 1, 5)
            });
        }
        let mut watch = fresh(&config);
        watch.take(&rows, 10, 7, &config);
        assert_eq!((watch.watches(), watch.left_out()), (7, 13));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// One window at a time, several, or all at once, with callers that come to be judged alone on the way: the same is said.
        #[test]
        fn what_is_said_does_not_depend_on_how_many_windows_are_fed_at_a_time(
            rows in prop::collection::vec((0i64..60, prop::option::of("[abc]"), "[xy]", 1u64..12, any::<bool>(), 1u64..9), 0..400),
            at_a_time in 1i64..25,
            again_at_a_time in 1i64..25,
        ) {
            let row = |(window, source, route, count, _, ms): &(i64, Option<String>, String, u64, bool, u64)| Served {
                route: route.clone(), ..served(*window * 10, source.as_deref(), *ms, *count)
            };
            let rows: Rows = [false, true].map(|side| rows.iter().filter(|r| r.4 == side).map(row).collect());
            let config = VerdictConfig::default();
            let (mut once, mut often) = (fresh(&config), fresh(&config));
            feed(&mut once, &rows, 600, &config);
            let mut to = 0;
            while to < 60 {
                to = (to + at_a_time).min(60);
                let from = often.needed_from();
                often.take(&between(&rows, from, to * 10), to * 10, 1_000, &config);
                while again(&mut often, &rows, again_at_a_time * 10, &config) {}
            }
            prop_assert_eq!(said(&once), said(&often));
        }

        #[test]
        fn every_request_is_in_exactly_one_unit(
            rows in prop::collection::vec((0i64..5, prop::option::of("[ab]"), "[xy]", 1u64..30, any::<bool>()), 0..40),
        ) {
            let row = |(window, source, route, count, _): &(i64, Option<String>, String, u64, bool)| Served {
                route: route.clone(), ..served(*window * 10, source.as_deref(), 1, *count)
            };
            let rows: Rows = [false, true].map(|side| rows.iter().filter(|r| r.4 == side).map(row).collect());
            let config = VerdictConfig::default();
            let mut watch = fresh(&config);
            feed(&mut watch, &rows, 50, &config);
            let fed = |side: usize| watch.units().map(|(_, of)| of.requests()[side]).sum::<u64>();
            let sum = |served: &[Served]| served.iter().map(|s| s.duration.count()).sum::<u64>();
            prop_assert_eq!([fed(0), fed(1)], [sum(&rows[0]), sum(&rows[1])]);
        }
    }
}

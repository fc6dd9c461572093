//! Units of judgement: one caller (or all small ones together), one route, two releases.
//!
//! Guarantees: pure. A caller that could carry a verdict alone is judged alone, so that a shift of traffic between
//! callers is no slowdown; every request belongs to exactly one unit.

use std::collections::BTreeMap;

use emberline_analysis::{
    alert_state::{AlertState, Observation, observations},
    errors::{ErrorVerdict, ErrorWindow, Failures, judge_errors},
    latency::{LatencyOutcome, LatencyVerdict, LatencyWindow},
    latency_watch::judge_warm_latency,
};
use emberline_model::{Histogram, Release, time::WINDOW_S};

use super::VerdictConfig;

/// Requests of one window that a release served for one caller.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Served {
    pub(super) window: i64,
    /// `None` for a caller that did not introduce itself.
    pub(super) source: Option<Release>,
    pub(super) route: String,
    /// By instances that were warming up.
    pub(super) warming: bool,
    /// They failed.
    pub(super) error: bool,
    pub(super) duration: Histogram,
}

/// Requests of both releases from one caller on one route, by window.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Unit {
    /// `None` when several or unknown callers are judged together.
    pub(super) source: Option<Release>,
    pub(super) route: String,
    pub(super) baseline: BTreeMap<i64, Histogram>,
    pub(super) candidate: BTreeMap<i64, Histogram>,
    /// Of instances of the candidate that were warming up. Those of the baseline are left out: they are no measure.
    pub(super) warming: BTreeMap<i64, Histogram>,
    /// All requests to the baseline and to the candidate, and those that failed.
    pub(super) failures: [BTreeMap<i64, Failures>; 2],
}

/// A unit with what is said of it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) unit: Unit,
    pub(super) verdict: LatencyVerdict,
    pub(super) state: AlertState,
}

/// Sorts the requests of both releases into units.
pub(super) fn build(baseline: Vec<Served>, candidate: Vec<Served>, min_source_requests: u64) -> Vec<Unit> {
    let mut by_caller: BTreeMap<(String, Option<Release>), Unit> = BTreeMap::new();
    for (served, is_candidate) in baseline
        .into_iter()
        .map(|s| (s, false))
        .chain(candidate.into_iter().map(|s| (s, true)))
    {
        let unit = by_caller
            .entry((served.route.clone(), served.source.clone()))
            .or_insert_with(|| Unit {
                source: served.source,
                route: served.route,
                ..Unit::default()
            });
        let failures = unit.failures[usize::from(is_candidate)]
            .entry(served.window)
            .or_default();
        let count = served.duration.count();
        failures.requests += count;
        failures.errors += if served.error { count } else { 0 };
        let windows = match (is_candidate, served.warming) {
            (true, false) => &mut unit.candidate,
            (true, true) => &mut unit.warming,
            (false, false) => &mut unit.baseline,
            (false, true) => continue,
        };
        windows.entry(served.window).or_default().merge(&served.duration);
    }
    let mut units = Vec::new();
    let mut together: BTreeMap<String, Unit> = BTreeMap::new();
    for unit in by_caller.into_values() {
        let enough = |windows: &BTreeMap<i64, Histogram>| requests(windows) >= min_source_requests;
        if unit.source.is_some() && enough(&unit.baseline) && enough(&unit.candidate) {
            units.push(unit);
            continue;
        }
        let pool = together.entry(unit.route.clone()).or_insert_with(|| Unit {
            route: unit.route.clone(),
            ..Unit::default()
        });
        for (into, from) in [
            (&mut pool.baseline, unit.baseline),
            (&mut pool.candidate, unit.candidate),
            (&mut pool.warming, unit.warming),
        ] {
            for (window, duration) in from {
                into.entry(window).or_default().merge(&duration);
            }
        }
        for (into, from) in pool.failures.iter_mut().zip(unit.failures) {
            for (window, failures) in from {
                let all = into.entry(window).or_default();
                all.requests += failures.requests;
                all.errors += failures.errors;
            }
        }
    }
    units.extend(together.into_values());
    units
}

/// Requests in some windows.
pub(super) fn requests(windows: &BTreeMap<i64, Histogram>) -> u64 {
    windows.values().map(Histogram::count).sum()
}

/// Judges a unit on the windows before `to` (exclusive); `None` while there is nothing to compare.
pub(super) fn judge(unit: Unit, to: i64, config: &VerdictConfig) -> Option<Judged> {
    let first = *unit.candidate.keys().chain(unit.warming.keys()).min()?;
    if unit.baseline.is_empty() {
        return None;
    }
    let windows = |histograms: &BTreeMap<i64, Histogram>| -> Vec<LatencyWindow> {
        histograms
            .iter()
            .map(|(&start, h)| LatencyWindow {
                start,
                histogram: h.clone(),
            })
            .collect()
    };
    let (baseline, candidate) = (windows(&unit.baseline), windows(&unit.candidate));
    let verdict = judge_warm_latency(&baseline, &candidate, &windows(&unit.warming), &config.latency);
    let stated_at = verdict
        .fired_at_window
        .filter(|_| verdict.outcome == LatencyOutcome::Slower);
    let state = replay(observations(&verdict), stated_at, first, to, config);
    Some(Judged { unit, verdict, state })
}

/// Judges a unit's failures on the windows before `to` (exclusive); `None` while nobody fails.
pub(super) fn judge_failures(unit: &Unit, to: i64, config: &VerdictConfig) -> Option<(ErrorVerdict, AlertState)> {
    let [baseline, candidate] = &unit.failures;
    let first = *candidate.keys().next()?;
    if baseline.is_empty() || candidate.values().all(|failures| failures.errors == 0) {
        return None;
    }
    let windows = |of: &BTreeMap<i64, Failures>| -> Vec<ErrorWindow> {
        of.iter()
            .map(|(&start, failures)| ErrorWindow {
                start,
                requests: failures.requests,
                errors: failures.errors,
            })
            .collect()
    };
    let verdict = judge_errors(&windows(baseline), &windows(candidate), &config.errors);
    let stated_at = verdict.fired_at_window;
    let seen = verdict.judged.iter().map(|judged| Observation {
        window: judged.window,
        stated: stated_at.is_some_and(|at| judged.window >= at),
        exceeding: Some(judged.exceeding),
        warming: false,
    });
    let state = replay(seen, stated_at, first, to, config);
    Some((verdict, state))
}

/// Steps the alert's state through every window, those without requests included.
fn replay(
    all_seen: impl Iterator<Item = Observation>,
    stated_at: Option<i64>,
    first: i64,
    to: i64,
    config: &VerdictConfig,
) -> AlertState {
    let mut judged: BTreeMap<i64, Observation> = BTreeMap::new();
    for seen in all_seen {
        // What warm instances show goes before what new ones do.
        if !seen.warming || !judged.contains_key(&seen.window) {
            judged.insert(seen.window, seen);
        }
    }
    let mut state = AlertState::default();
    let mut window = first;
    while window < to {
        let unseen = Observation {
            window,
            stated: stated_at.is_some_and(|at| window >= at),
            exceeding: None,
            warming: false,
        };
        state = state.step(judged.get(&window).copied().unwrap_or(unseen), &config.alert);
        window += WINDOW_S;
    }
    state
}

#[cfg(test)]
mod tests {
    use emberline_analysis::alert_state::AlertPhase;
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn small_callers_are_judged_together() {
        let baseline = vec![
            served(0, Some("big"), 1, 30),
            served(0, Some("small"), 1, 30),
            served(0, None, 1, 5),
        ];
        let candidate = vec![served(0, Some("big"), 1, 30), served(0, Some("small"), 1, 3)];
        let units = build(baseline, candidate, 20);
        let names: Vec<_> = units
            .iter()
            .map(|u| u.source.as_ref().map(|s| s.service.as_str()))
            .collect();
        assert_eq!(names, [Some("big"), None]);
        assert_eq!((requests(&units[1].baseline), requests(&units[1].candidate)), (35, 3));
    }

    #[test]
    fn a_slower_candidate_fires_and_resolves_when_it_is_gone() {
        let windows = |ms: u64, from: i64, to: i64| {
            (from..to)
                .map(|n| served(n * 10, Some("big"), ms, 50))
                .collect::<Vec<_>>()
        };
        let config = VerdictConfig::default();
        let judged = |to: i64, slow_until: i64| {
            let units = build(windows(2, 0, to), windows(8, 10, slow_until), 20);
            assert_eq!(units.len(), 1);
            judge(units.into_iter().next().unwrap(), to * 10, &config).unwrap()
        };
        let fires = judged(20, 20);
        assert_eq!(fires.verdict.outcome, LatencyOutcome::Slower);
        assert_eq!(fires.state.phase, AlertPhase::Firing);
        assert_eq!(judged(45, 20).state.phase, AlertPhase::Firing);
        assert_eq!(judged(51, 20).state.phase, AlertPhase::Resolved);
        assert_eq!(judged(51, 20).verdict.fired_at_window, fires.verdict.fired_at_window);
    }

    proptest! {
        #[test]
        fn every_request_is_in_exactly_one_unit(
            rows in prop::collection::vec((0i64..5, prop::option::of("[ab]"), "[xy]", 1u64..30, any::<bool>()), 0..40),
        ) {
            let row = |(window, source, route, count, _): &(i64, Option<String>, String, u64, bool)| Served {
                route: route.clone(), ..served(*window, source.as_deref(), 1, *count)
            };
            let baseline: Vec<_> = rows.iter().filter(|r| r.4).map(row).collect();
            let candidate: Vec<_> = rows.iter().filter(|r| !r.4).map(row).collect();
            let sum = |served: &[Served]| served.iter().map(|s| s.duration.count()).sum::<u64>();
            let sums = (sum(&baseline), sum(&candidate));
            let units = build(baseline, candidate, 20);
            prop_assert_eq!(units.iter().map(|u| requests(&u.baseline)).sum::<u64>(), sums.0);
            prop_assert_eq!(units.iter().map(|u| requests(&u.candidate)).sum::<u64>(), sums.1);
        }
    }
}

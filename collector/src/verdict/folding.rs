//! One alert per cause: callers that see the same slowdown, and callers that are slow because of it, are listed below it. What
//! callers wait longer is no alert of its own where the release takes longer (`evidence`).
//!
//! Guarantees: pure; nothing that is slow disappears: it is an alert or it is named in the list of one.
//!
//! Wrong on purpose: which route of a caller makes a call is not recorded, so calls per request are those of the whole
//! caller; a rare route that calls much is judged by the average.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use emberline_analysis::{
    alert_state::{AlertPhase, AlertState},
    errors::ErrorVerdict,
    fold::{Call, SlowUnit, fold_slowdowns},
};
use emberline_model::{Release, Side, alert::Alert, id, time::WINDOW_S};

use super::units::{Judged, Unit};

/// Kind of an alert about latency.
pub(super) const LATENCY: &str = "latency";
/// Kind of an alert about what callers wait for a release that is not slower itself.
pub(crate) const CLIENT_LATENCY: &str = "client_latency";
/// Kind of an alert about failures.
pub(crate) const ERRORS: &str = "errors";

/// A route of a service that got slower, as one end of its edges measures it.
#[derive(Debug, Clone)]
pub(super) struct Slow {
    pub(super) side: Side,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) baseline: String,
    pub(super) candidate: String,
    pub(super) judged: Judged,
    /// What this explains besides itself.
    pub(super) folded: Vec<String>,
}

/// What an alert is about: two releases and a route. Which caller saw it first may change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlertKey {
    kind: String,
    namespace: String,
    service: String,
    baseline: String,
    candidate: String,
    route: String,
}

/// A route of a service that fails more often.
#[derive(Debug, Clone)]
pub(super) struct Failing {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) baseline: String,
    pub(super) candidate: String,
    pub(super) unit: Unit,
    /// Callers on the route that are judged alone, if this one is all the others.
    pub(super) apart: Vec<Release>,
    pub(super) verdict: ErrorVerdict,
    pub(super) state: AlertState,
    /// The last window that was judged.
    pub(super) newest: Option<i64>,
}

impl Failing {
    /// The windows since it began, up to `most` windows after its verdict; `[from, to)` in seconds since the Unix epoch.
    pub(super) fn range(&self, to: i64, most: u32) -> Option<(i64, i64)> {
        let started = self.verdict.fired_at_window?;
        let since = self.verdict.since_window.unwrap_or(started);
        let end = to.min(started + WINDOW_S * (i64::from(most) + 1));
        Some((since, end.max(since + WINDOW_S)))
    }

    pub(super) fn release(&self, version: &str) -> Release {
        Release {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            version: version.to_owned(),
        }
    }

    pub(super) fn key(&self) -> AlertKey {
        AlertKey {
            kind: ERRORS.to_owned(),
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            baseline: self.baseline.clone(),
            candidate: self.candidate.clone(),
            route: self.unit.route.clone(),
        }
    }

    /// Content hash of what the alert is about.
    pub(super) fn id(&self) -> u64 {
        let source = self.unit.source.as_ref().map(ToString::to_string).unwrap_or_default();
        id::key(
            "alert-errors",
            &[
                &self.namespace,
                &self.service,
                &self.baseline,
                &self.candidate,
                &self.unit.route,
                &source,
            ],
        )
    }
}

/// Keeps one entry per route and two releases, as [`one_per_route`] does.
pub(super) fn one_failing_per_route(failing: Vec<Failing>) -> Vec<Failing> {
    let mut routes: BTreeMap<AlertKey, Failing> = BTreeMap::new();
    let rank = |one: &Failing| {
        let over = one.state.phase == AlertPhase::Resolved;
        (
            over,
            one.verdict.fired_at_window,
            one.unit.source.is_none(),
            one.unit.source.clone(),
        )
    };
    for one in failing {
        match routes.entry(one.key()) {
            Entry::Vacant(place) => drop(place.insert(one)),
            Entry::Occupied(mut place) if rank(&one) < rank(place.get()) => drop(place.insert(one)),
            Entry::Occupied(_) => {}
        }
    }
    routes.into_values().collect()
}

impl AlertKey {
    pub(crate) fn of(alert: &Alert) -> AlertKey {
        AlertKey {
            kind: alert.kind.clone(),
            namespace: alert.namespace.clone(),
            service: alert.service.clone(),
            baseline: alert.baseline.clone(),
            candidate: alert.candidate.clone(),
            route: alert.route.clone(),
        }
    }
}

impl Slow {
    /// Whether it is not over.
    pub(super) fn is_active(&self) -> bool {
        self.judged.state.phase != AlertPhase::Resolved
    }

    /// Kind of its alert.
    pub(super) fn kind(&self) -> &'static str {
        match self.side {
            Side::Server => LATENCY,
            Side::Client => CLIENT_LATENCY,
        }
    }

    pub(super) fn key(&self) -> AlertKey {
        AlertKey {
            kind: self.kind().to_owned(),
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            baseline: self.baseline.clone(),
            candidate: self.candidate.clone(),
            route: self.judged.unit.route.clone(),
        }
    }

    pub(super) fn release(&self, version: &str) -> Release {
        Release {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            version: version.to_owned(),
        }
    }

    /// Content hash of what the alert is about.
    pub(super) fn id(&self) -> u64 {
        let source = self
            .judged
            .unit
            .source
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let of = match self.side {
            Side::Server => "alert",
            Side::Client => "alert-client",
        };
        id::key(
            of,
            &[
                &self.namespace,
                &self.service,
                &self.baseline,
                &self.candidate,
                &self.judged.unit.route,
                &source,
            ],
        )
    }
}

/// Requests by window, as far as folding asks for them.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Served by a release.
    served: HashMap<Release, BTreeMap<i64, u64>>,
    /// Served by a release on a route for a caller.
    calls: HashMap<(Release, String, Release), BTreeMap<i64, u64>>,
}

impl Traffic {
    pub(super) fn add(&mut self, server: &Release, route: &str, source: Option<&Release>, window: i64, requests: u64) {
        *self
            .served
            .entry(server.clone())
            .or_default()
            .entry(window)
            .or_default() += requests;
        if let Some(source) = source {
            let edge = (server.clone(), route.to_owned(), source.clone());
            *self.calls.entry(edge).or_default().entry(window).or_default() += requests;
        }
    }

    /// Calls that each request of the caller makes, over the windows in which both are known.
    fn calls_per_request(&self, caller: &Release, callee: &Release, route: &str) -> f64 {
        let key = (callee.clone(), route.to_owned(), caller.clone());
        let (Some(served), Some(calls)) = (self.served.get(caller), self.calls.get(&key)) else {
            return 0.0;
        };
        let from = served.keys().next().max(calls.keys().next());
        let since = |counts: &BTreeMap<i64, u64>| -> u64 {
            counts
                .iter()
                .filter(|(window, _)| Some(*window) >= from)
                .map(|(_, n)| n)
                .sum()
        };
        match since(served) {
            0 => 0.0,
            requests => since(calls) as f64 / requests as f64,
        }
    }
}

/// Keeps one entry per route and two releases: the caller for which it was stated first, unless that one is over and another is not.
pub(super) fn one_per_route(slow: Vec<Slow>) -> Vec<Slow> {
    let mut routes: BTreeMap<AlertKey, Vec<Slow>> = BTreeMap::new();
    for one in slow {
        routes.entry(one.key()).or_default().push(one);
    }
    let rank = |one: &Slow| {
        let source = one.judged.unit.source.clone();
        let over = one.judged.state.phase == AlertPhase::Resolved;
        (over, one.judged.verdict.fired_at_window, source.is_none(), source)
    };
    routes
        .into_values()
        .filter_map(|mut same| {
            same.sort_by_key(rank);
            let mut same = same.into_iter();
            let mut first = same.next()?;
            first.folded.extend(
                same.filter(|one| one.judged.state.phase != AlertPhase::Resolved)
                    .map(|one| {
                        let source = one
                            .judged
                            .unit
                            .source
                            .as_ref()
                            .map_or("other callers".to_owned(), ToString::to_string);
                        format!("{} seen by {source}", one.judged.unit.route)
                    }),
            );
            Some(first)
        })
        .collect()
}

/// Moves callers whose slowdown is explained by a callee into the callee's list.
pub(super) fn fold_callers(slow: Vec<Slow>, traffic: &Traffic) -> Vec<Slow> {
    let active = |one: &&Slow| one.is_active();
    let shift = |one: &Slow| one.judged.verdict.mean_shift_seconds.unwrap_or(0.0);
    let units: Vec<_> = slow
        .iter()
        .filter(active)
        .map(|one| SlowUnit {
            id: one.id(),
            mean_shift_seconds: shift(one),
        })
        .collect();
    let mut calls = Vec::new();
    // Who only waits longer is not slow itself.
    for caller in slow.iter().filter(active).filter(|one| one.side == Side::Server) {
        for callee in slow.iter().filter(active) {
            let calls_per_request = traffic.calls_per_request(
                &caller.release(&caller.candidate),
                &callee.release(&callee.candidate),
                &callee.judged.unit.route,
            );
            if calls_per_request > 0.0 {
                calls.push(Call {
                    caller: caller.id(),
                    callee: callee.id(),
                    calls_per_request,
                });
            }
        }
    }
    let folded = fold_slowdowns(&units, &calls);
    let mut lists: HashMap<u64, Vec<String>> = HashMap::new();
    let (mut kept, mut explained) = (Vec::new(), Vec::new());
    for one in slow {
        match folded.iter().find(|f| f.id == one.id() && f.root != f.id) {
            Some(fold) => explained.push((fold.root, fold.explained, one)),
            None => kept.push(one),
        }
    }
    for (root, share, one) in explained {
        let percent = (share * 100.0).min(100.0);
        let mut text = vec![format!(
            "{} on {} ({percent:.0} % explained)",
            one.release(&one.candidate),
            one.judged.unit.route
        )];
        text.extend(one.folded);
        lists.entry(root).or_default().extend(text);
    }
    for one in &mut kept {
        one.folded.extend(lists.remove(&one.id()).unwrap_or_default());
    }
    kept
}

#[cfg(test)]
mod tests {
    use emberline_model::Histogram;

    use super::*;
    use crate::verdict::{
        VerdictConfig,
        units::{Served, Settings},
        watching::PairWatch,
    };

    fn release(service: &str, version: &str) -> Release {
        Release {
            namespace: String::new(),
            service: service.into(),
            version: version.into(),
        }
    }

    fn slow(service: &str, source: Option<&Release>, growth_ms: u64, first_slow: i64) -> Slow {
        let windows = |from: i64, ms: u64| {
            let served = move |n: i64| {
                let mut duration = Histogram::new();
                (0..50)
                    .for_each(|i| duration.record_ns((2 + if n >= first_slow { ms } else { 0 }) * 1_000_000 + i * 100));
                duration
            };
            (from..40).map(move |n| Served {
                window: n * 10,
                source: source.cloned(),
                route: "/r".into(),
                warming: false,
                error: false,
                duration: served(n),
            })
        };
        let config = VerdictConfig::default();
        let mut watch = PairWatch::new(0, 10, None, Settings::of(&config, Side::Server));
        let rows = [windows(0, 0).collect(), windows(5, growth_ms).collect()];
        watch.take(&rows, 400, 10, &config);
        let (unit, judged) = watch.units().next().unwrap();
        Slow {
            side: Side::Server,
            namespace: String::new(),
            service: service.into(),
            baseline: "1".into(),
            candidate: "2".into(),
            judged: judged.slow(unit).unwrap(),
            folded: Vec::new(),
        }
    }

    #[test]
    fn callers_that_see_the_same_route_are_one_alert() {
        let sources = [Some(release("b", "1")), Some(release("a", "1")), None];
        let late = slow("shop", Some(&release("0", "1")), 5, 12);
        let mut all: Vec<_> = sources.iter().map(|s| slow("shop", s.as_ref(), 5, 0)).collect();
        all.push(late);
        let kept = one_per_route(all);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].judged.unit.source, Some(release("a", "1")));
        assert_eq!(
            kept[0].folded,
            ["/r seen by b@1", "/r seen by other callers", "/r seen by 0@1"]
        );
    }

    #[test]
    fn a_caller_is_folded_into_the_callee_that_explains_it() {
        let (caller, callee) = (
            slow("front", None, 4, 0),
            slow("cart", Some(&release("front", "2")), 4, 0),
        );
        let mut traffic = Traffic::default();
        for window in 5..40 {
            traffic.add(&release("front", "2"), "/r", None, window * 10, 50);
            traffic.add(
                &release("cart", "2"),
                "/r",
                Some(&release("front", "2")),
                window * 10,
                50,
            );
        }
        let kept = fold_callers(vec![caller.clone(), callee.clone()], &traffic);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].service, "cart");
        assert_eq!(kept[0].folded, ["front@2 on /r (100 % explained)"]);
        // So it is when only callers see why.
        let seen = Slow {
            side: Side::Client,
            ..callee.clone()
        };
        let kept = fold_callers(vec![caller.clone(), seen.clone()], &traffic);
        assert_eq!((kept.len(), kept[0].kind()), (1, CLIENT_LATENCY));
        assert_eq!(kept[0].folded, ["front@2 on /r (100 % explained)"]);
        assert_ne!((seen.id(), seen.key()), (callee.id(), callee.key()));
        // Without calls between them both stand.
        assert_eq!(fold_callers(vec![caller, callee], &Traffic::default()).len(), 2);
    }
}

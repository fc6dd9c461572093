//! Units of judgement: one caller (or all small ones together), one route, two releases; and the watch over each.
//!
//! Guarantees: pure, and what a watch says depends on the windows alone that it was fed, in their order, and not on how many at a
//! time. A caller that could carry a verdict alone is judged alone, so that a shift of traffic between callers is no slowdown; every
//! request belongs to exactly one unit.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use emberline_analysis::{
    alert_state::{AlertPhase, AlertState, Observation},
    errors::{ErrorConfig, ErrorVerdict, ErrorWatch, Failures},
    latency::{JudgedWindow, LatencyConfig, LatencyVerdict},
    latency_watch::LatencyWatch,
};
use emberline_model::{Histogram, Release, Side, time::WINDOW_S};

use super::VerdictConfig;

/// What is over for so many seconds is forgotten, and evidence is gathered anew.
const ANEW_S: i64 = 3600;

/// Requests of one window that a release served for one caller, as one of both measured them.
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

/// A caller on a route; `None` for several or unknown callers that are judged together.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit {
    pub(super) route: String,
    pub(super) source: Option<Release>,
}

/// Requests of both releases from one unit in one window.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Window {
    pub(super) baseline: Histogram,
    pub(super) candidate: Histogram,
    /// To instances of the candidate that were warming up. Those of the baseline are left out: they are no measure.
    pub(super) warming: Histogram,
    /// All requests to the baseline and to the candidate, and those that failed.
    pub(super) failures: [Failures; 2],
}

impl Window {
    pub(super) fn add(&mut self, served: &Served, is_candidate: bool) {
        let count = served.duration.count();
        let failures = &mut self.failures[usize::from(is_candidate)];
        failures.requests += count;
        failures.errors += if served.error { count } else { 0 };
        match (is_candidate, served.warming) {
            (true, false) => self.candidate.merge(&served.duration),
            (true, true) => self.warming.merge(&served.duration),
            (false, false) => self.baseline.merge(&served.duration),
            (false, true) => {}
        }
    }

    /// Adds those of another caller.
    pub(super) fn merge(&mut self, other: &Window) {
        self.baseline.merge(&other.baseline);
        self.candidate.merge(&other.candidate);
        self.warming.merge(&other.warming);
        for (side, other) in self.failures.iter_mut().zip(other.failures) {
            side.requests += other.requests;
            side.errors += other.errors;
        }
    }

    /// What tells whether more came later; 0 for a window without requests.
    fn print(&self) -> u32 {
        let counts = [self.baseline.count(), self.candidate.count(), self.warming.count()];
        let failures = self.failures.map(|side| (side.requests, side.errors));
        if failures.iter().all(|side| side.0 == 0) {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        (counts, failures).hash(&mut hasher);
        hasher.finish() as u32 | 1
    }
}

/// A unit with what is said of it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) unit: Unit,
    pub(super) verdict: LatencyVerdict,
    pub(super) state: AlertState,
    /// The last window that was judged.
    pub(super) newest: Option<i64>,
}

/// The settings of all watches, once.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    latency: Arc<LatencyConfig>,
    /// `None` for the callers' end: failures are judged where they happen.
    errors: Option<Arc<ErrorConfig>>,
}

impl Settings {
    /// Those of watches from one end.
    pub(super) fn of(config: &VerdictConfig, side: Side) -> Settings {
        Settings {
            latency: Arc::new(config.latency.clone()),
            errors: (side == Side::Server).then(|| Arc::new(config.errors.clone())),
        }
    }
}

/// An alert's state, stepped through each window of ten seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Stepped {
    state: AlertState,
    /// The window that is stepped next; `None` before the candidate served.
    next: Option<i64>,
    /// The last window that was judged.
    newest: Option<i64>,
}

impl Stepped {
    /// Steps the windows before `to`, in which nothing was judged.
    fn unseen_until(&mut self, to: i64, stated_at: Option<i64>, config: &VerdictConfig) {
        while let Some(window) = self.next.filter(|&window| window < to) {
            self.step(window, None, stated_at, config);
        }
    }

    fn step(&mut self, window: i64, judged: Option<&JudgedWindow>, stated_at: Option<i64>, config: &VerdictConfig) {
        let seen = Observation {
            window,
            stated: stated_at.is_some_and(|at| window >= at),
            exceeding: judged.map(|judged| judged.exceeding),
            warming: judged.is_some_and(|judged| judged.warming),
        };
        self.state = self.state.step(seen, &config.alert);
        self.next = Some(window + WINDOW_S);
        if judged.is_some() {
            self.newest = Some(window);
        }
    }

    /// Whether what was stated is over for so long that it is forgotten.
    fn is_over(&self, window: i64) -> bool {
        let changed_at = self.state.changed_at.unwrap_or(window);
        self.state.phase == AlertPhase::Resolved && window - changed_at >= ANEW_S
    }
}

/// What one window showed; what warm instances showed goes before what new ones did.
fn shown(judged: &[JudgedWindow], window: i64) -> Option<&JudgedWindow> {
    let of_window = judged.iter().filter(|judged| judged.window == window);
    of_window.min_by_key(|judged| judged.warming)
}

/// The watch over one unit.
#[derive(Debug, Clone)]
pub(super) struct UnitWatch {
    latency: LatencyWatch,
    slow: Stepped,
    errors: Option<Box<(ErrorWatch, Stepped)>>,
    has_baseline: bool,
    /// What the newest windows held, newest last, one entry per step.
    prints: VecDeque<u32>,
    #[cfg(test)]
    requests: [u64; 2],
}

impl UnitWatch {
    /// A watch without windows; so many of the newest can be recognised.
    pub(super) fn new(settings: &Settings, recognised: usize) -> UnitWatch {
        UnitWatch {
            latency: LatencyWatch::new(Arc::clone(&settings.latency)),
            slow: Stepped::default(),
            errors: settings
                .errors
                .as_ref()
                .map(|config| Box::new((ErrorWatch::new(Arc::clone(config)), Stepped::default()))),
            has_baseline: false,
            prints: VecDeque::from(vec![0; recognised]),
            #[cfg(test)]
            requests: [0; 2],
        }
    }

    /// Adds the next window, which may be empty.
    pub(super) fn push(&mut self, start: i64, window: &Window, config: &VerdictConfig) {
        self.prints.pop_front();
        self.prints.push_back(window.print());
        self.end(start, config);
        self.forget_what_is_over(start);
        let Window {
            baseline,
            candidate,
            warming,
            failures,
        } = window;
        #[cfg(test)]
        for (sum, side) in self.requests.iter_mut().zip(failures) {
            *sum += side.requests;
        }
        if baseline.count() + candidate.count() + warming.count() > 0 {
            self.has_baseline |= baseline.count() > 0;
            if candidate.count() + warming.count() > 0 {
                self.slow.next.get_or_insert(start);
            }
            self.latency.push_warming(start, baseline, candidate, warming);
            let judged = self.latency.take_judged();
            if self.slow.next.is_some() {
                self.slow
                    .step(start, shown(&judged, start), self.latency.stated_at(), config);
            }
        }
        if let Some((errors, failing)) = self.errors.as_deref_mut()
            && failures.iter().any(|side| side.requests > 0)
        {
            if failures[1].requests > 0 {
                failing.next.get_or_insert(start);
            }
            errors.push(start, failures[0], failures[1]);
            let judged = errors.take_judged();
            if failing.next.is_some() {
                failing.step(start, shown(&judged, start), errors.stated_at(), config);
            }
        }
    }

    /// Everything before `to` was pushed.
    pub(super) fn end(&mut self, to: i64, config: &VerdictConfig) {
        self.slow.unseen_until(to, self.latency.stated_at(), config);
        if let Some((errors, failing)) = self.errors.as_deref_mut() {
            failing.unseen_until(to, errors.stated_at(), config);
        }
    }

    fn forget_what_is_over(&mut self, window: i64) {
        if self.slow.is_over(window) {
            self.latency.begin_anew();
            self.slow.state = AlertState::default();
        }
        if let Some((errors, failing)) = self.errors.as_deref_mut()
            && failing.is_over(window)
        {
            errors.begin_anew();
            failing.state = AlertState::default();
        }
    }

    /// True when a window, `back` steps before the next, held something else when it was pushed.
    pub(super) fn differs(&self, back: usize, window: Option<&Window>) -> bool {
        let known = self.prints.len().checked_sub(back).and_then(|at| self.prints.get(at));
        known.is_some_and(|print| *print != window.map_or(0, Window::print))
    }

    /// Requests to the baseline and to the candidate so far.
    #[cfg(test)]
    pub(super) fn requests(&self) -> [u64; 2] {
        self.requests
    }

    /// Windows in the verdict on latency.
    pub(super) fn windows_used(&self) -> u64 {
        self.latency.windows_used()
    }

    /// What is said of latency, once a slowdown was stated.
    pub(super) fn slow(&self, unit: &Unit) -> Option<Judged> {
        (self.has_baseline && self.latency.stated_at().is_some()).then(|| Judged {
            unit: unit.clone(),
            verdict: self.latency.verdict(),
            state: self.slow.state,
            newest: self.slow.newest,
        })
    }

    /// What is said of failures, once more of them were stated: verdict, state and the last window that was judged.
    pub(super) fn failing(&self) -> Option<(ErrorVerdict, AlertState, Option<i64>)> {
        let (errors, failing) = self.errors.as_deref()?;
        errors.stated_at()?;
        Some((errors.verdict(), failing.state, failing.newest))
    }
}

//! The state of an alert: a state machine over judged windows.
//!
//! Guarantees: pure; the state after some windows depends on those windows alone, so a restart that replays them ends
//! in the same state. The evidence never takes back a verdict ([`crate::latency`]); this machine does: a slowdown that
//! disappears while suspected never fires, and one that ends is resolved.
//!
//! ```text
//! inactive <-> pending -verdict-> suspected -still there-> firing <-> recovering -> resolved -again-> suspected
//!                                 suspected -went away--------------------------> resolved
//! ```
//!
//! Wrong on purpose: a window counts as exceeding or quiet by a plain majority against the threshold, without
//! significance, so a single one means little; only runs of windows change the state.

use emberline_model::alert::AlertStatus;

use crate::latency::{LatencyOutcome, LatencyVerdict};

/// Number of windows that each transition takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertConfig {
    /// Windows with the regression after the verdict, not necessarily consecutive, before a suspected alert fires.
    pub confirm_windows: u32,
    /// Consecutive quiet windows before a suspected alert is dropped or a firing one starts recovering.
    pub quiet_windows: u32,
    /// Consecutive quiet windows before a recovering alert is resolved.
    pub resolve_windows: u32,
    /// Consecutive windows with the regression before a resolved alert becomes suspected again.
    pub again_windows: u32,
    /// Windows without requests before an alert is resolved because its release is gone.
    pub gone_windows: u32,
}

impl Default for AlertConfig {
    fn default() -> AlertConfig {
        AlertConfig {
            confirm_windows: 3,
            quiet_windows: 3,
            resolve_windows: 12,
            again_windows: 6,
            gone_windows: 30,
        }
    }
}

/// What one window showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Start of the window, seconds since the Unix epoch.
    pub window: i64,
    /// A verdict was reached by this window.
    pub stated: bool,
    /// Whether the window still shows the regression; `None` if it could not be judged.
    pub exceeding: Option<bool>,
    /// It contains instances that were warming up and is not evidence.
    pub warming: bool,
}

/// Phases of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AlertPhase {
    /// Nothing to see.
    #[default]
    Inactive,
    /// The latest window shows the regression; no verdict yet.
    Pending,
    /// There is a verdict; it may still disappear.
    Suspected,
    /// Stated and confirmed.
    Firing,
    /// The latest windows are quiet.
    Recovering,
    /// Over.
    Resolved,
}

impl AlertPhase {
    /// The status to display; `None` if there is nothing to display.
    pub fn status(self) -> Option<AlertStatus> {
        match self {
            AlertPhase::Inactive | AlertPhase::Pending => None,
            AlertPhase::Suspected => Some(AlertStatus::Suspected),
            AlertPhase::Firing => Some(AlertStatus::Firing),
            AlertPhase::Recovering => Some(AlertStatus::Recovering),
            AlertPhase::Resolved => Some(AlertStatus::Resolved),
        }
    }
}

/// The state with its run lengths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AlertState {
    /// Where the alert stands.
    pub phase: AlertPhase,
    /// Window of the latest phase change.
    pub changed_at: Option<i64>,
    /// Whether it ever fired: a resolved alert that never fired disappeared on its own.
    pub has_fired: bool,
    exceeding_run: u32,
    quiet_run: u32,
    silent_run: u32,
    confirmed: u32,
    /// Exceeding windows of warming instances, with no quiet window since.
    warm_run: u32,
}

impl AlertState {
    /// The state after all windows of a verdict, in order.
    pub fn replay(verdict: &LatencyVerdict, config: &AlertConfig) -> AlertState {
        observations(verdict).fold(AlertState::default(), |state, seen| state.step(seen, config))
    }

    /// The state after one more window.
    pub fn step(mut self, seen: Observation, config: &AlertConfig) -> AlertState {
        if seen.warming && !matches!(self.phase, AlertPhase::Inactive | AlertPhase::Pending) {
            // New instances of a release that has already been judged are not silence, but are no evidence yet.
            return self;
        }
        match (seen.exceeding, seen.warming) {
            (Some(true), true) => self.warm_run += 1,
            (Some(false), _) => self.warm_run = 0,
            _ => {}
        }
        match seen.exceeding {
            Some(true) => (self.exceeding_run, self.quiet_run, self.silent_run) = (self.exceeding_run + 1, 0, 0),
            Some(false) => (self.exceeding_run, self.quiet_run, self.silent_run) = (0, self.quiet_run + 1, 0),
            None => self.silent_run += 1,
        }
        if self.phase == AlertPhase::Suspected && seen.exceeding == Some(true) {
            self.confirmed += 1;
        }
        let next = self.next_phase(seen, config);
        if next != self.phase {
            self.phase = next;
            self.changed_at = Some(seen.window);
            self.confirmed = 0;
            if next == AlertPhase::Resolved {
                // What recurs has to be seen again.
                self.exceeding_run = 0;
            }
            self.has_fired |= next == AlertPhase::Firing;
        }
        self
    }

    fn next_phase(&self, seen: Observation, config: &AlertConfig) -> AlertPhase {
        use AlertPhase::{Firing, Inactive, Pending, Recovering, Resolved, Suspected};
        let gone = self.silent_run >= config.gone_windows;
        // A regression seen without interruption since the release appeared, first during warm-up and then as evidence,
        // needs no confirmation.
        let after_verdict = if self.warm_run >= config.confirm_windows {
            Firing
        } else {
            Suspected
        };
        match self.phase {
            Inactive | Pending if seen.stated => after_verdict,
            Inactive | Pending if seen.exceeding == Some(true) => Pending,
            Inactive => Inactive,
            Pending if seen.exceeding == Some(false) || gone => Inactive,
            Pending => Pending,
            Suspected | Firing | Recovering if gone => Resolved,
            Suspected if self.quiet_run >= config.quiet_windows => Resolved,
            Suspected if self.confirmed >= config.confirm_windows => Firing,
            Suspected => Suspected,
            Firing if self.quiet_run >= config.quiet_windows => Recovering,
            Firing => Firing,
            Recovering if self.quiet_run >= config.resolve_windows => Resolved,
            Recovering if self.exceeding_run >= 2 => Firing,
            Recovering => Recovering,
            Resolved if seen.stated && self.exceeding_run >= config.again_windows => Suspected,
            Resolved => Resolved,
        }
    }
}

/// What each judged window of a verdict showed. Windows that could not be judged are omitted; a caller that knows about
/// them steps them itself with `exceeding: None`.
pub fn observations(verdict: &LatencyVerdict) -> impl Iterator<Item = Observation> + '_ {
    let slower = verdict.outcome == LatencyOutcome::Slower;
    let stated_at = verdict.fired_at_window.filter(|_| slower);
    verdict.judged.iter().map(move |judged| Observation {
        window: judged.window,
        stated: stated_at.is_some_and(|at| judged.window >= at),
        exceeding: Some(judged.exceeding),
        warming: judged.warming,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter per window: `.` quiet, `x` exceeding, `V` exceeding with a verdict from then on, ` ` nothing; `w`
    /// exceeding and `q` quiet while instances warm up.
    fn phases(windows: &str) -> Vec<AlertPhase> {
        let (mut state, mut stated) = (AlertState::default(), false);
        let mut phases = Vec::new();
        for (at, letter) in windows.chars().enumerate() {
            stated |= letter == 'V';
            let exceeding = match letter {
                '.' | 'q' => Some(false),
                ' ' => None,
                _ => Some(true),
            };
            state = state.step(
                Observation {
                    window: at as i64 * 10,
                    stated,
                    exceeding,
                    warming: letter == 'w' || letter == 'q',
                },
                &AlertConfig::default(),
            );
            if phases.last() != Some(&state.phase) {
                phases.push(state.phase);
            }
        }
        phases
    }

    #[test]
    fn a_lasting_slowdown_fires_recovers_and_resolves() {
        use AlertPhase::*;
        assert_eq!(
            phases("..x.xVxx.x....x.xx............."),
            [
                Inactive, Pending, Inactive, Pending, Suspected, Firing, Recovering, Firing, Recovering, Resolved
            ]
        );
    }

    #[test]
    fn a_burst_that_goes_away_never_fires() {
        use AlertPhase::*;
        assert_eq!(phases("xVx...................x.x.x.x"), [Pending, Suspected, Resolved]);
        assert_eq!(
            phases("xVx...xxxxxxxxxx"),
            [Pending, Suspected, Resolved, Suspected, Firing]
        );
    }

    #[test]
    fn an_alert_suspected_again_must_be_confirmed_again() {
        use AlertPhase::*;
        assert_eq!(phases("xVx...xxxxxxxx"), [Pending, Suspected, Resolved, Suspected]);
    }

    #[test]
    fn what_shows_from_the_warm_up_on_needs_no_confirmation() {
        use AlertPhase::*;
        assert_eq!(phases("qwwwxV"), [Inactive, Pending, Firing]);
        assert_eq!(phases("wwwqxV"), [Pending, Inactive, Pending, Suspected]);
        assert_eq!(phases("wwwx.xV"), [Pending, Inactive, Pending, Suspected]);
        // New instances are no evidence about a release that has been judged.
        assert_eq!(phases("xVxxxqqqqqqqqqqqqqqqq"), [Pending, Suspected, Firing]);
        assert_eq!(phases("xVwwwwwwwwww"), [Pending, Suspected]);
    }

    #[test]
    fn a_release_that_is_gone_resolves() {
        use AlertPhase::*;
        assert_eq!(
            phases(&format!("xVxxx{}", " ".repeat(30))),
            [Pending, Suspected, Firing, Resolved]
        );
        assert_eq!(
            phases(&format!("xVxxx{}", " ".repeat(29))),
            [Pending, Suspected, Firing]
        );
    }

    #[test]
    fn a_release_that_is_gone_stays_resolved() {
        use AlertPhase::*;
        assert_eq!(
            phases(&format!("xVxxxxxxxxxx{}", " ".repeat(90))),
            [Pending, Suspected, Firing, Resolved]
        );
    }
}

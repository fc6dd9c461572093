//! Whether an endpoint is fit for requests, shared by all workers.
//!
//! Guarantees: a successful request costs only atomic loads; an endpoint that refused a connection is avoided for
//! [`AVOIDED`] while another one is available, until its next success; an ejected one gets a single request when its
//! time is over, and either comes back with its success or stays out.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::counters::{Gauge, InUse};

/// How long an endpoint that refused a connection is avoided. Short, because it may be back at once; long enough that
/// an address family without a route costs next to nothing.
const AVOIDED: Duration = Duration::from_secs(5);
/// After this long without a result, another request may try an endpoint whose ejection is over.
const PROBATION: Duration = Duration::from_secs(1);

/// The phase of an endpoint's ejection.
const IN: u8 = 0;
const OUT: u8 = 1;
const ON_PROBATION: u8 = 2;

/// What is known about an endpoint. Times are milliseconds after `since`.
#[derive(Debug)]
pub(crate) struct Health {
    since: Instant,
    /// 0 if it is not avoided.
    avoided_until: AtomicU64,
    phase: AtomicU8,
    /// End of an ejection, or of the wait for a request on probation.
    out_until: AtomicU64,
    errors: AtomicU32,
    ejection: Mutex<Ejections>,
    /// The result of health checks.
    is_unhealthy: AtomicBool,
    checks: Mutex<Run>,
}

/// Consecutive checks that contradict the current result.
#[derive(Debug, Default)]
struct Run {
    length: u32,
    /// Counts it as unhealthy while held.
    counted: Option<InUse>,
}

#[derive(Debug, Default)]
struct Ejections {
    /// Consecutive ejections.
    count: u32,
    back_since: u64,
    /// Counts it as ejected while held.
    counted: Option<InUse>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            since: Instant::now(),
            avoided_until: AtomicU64::new(0),
            phase: AtomicU8::new(IN),
            out_until: AtomicU64::new(0),
            errors: AtomicU32::new(0),
            ejection: Mutex::default(),
            is_unhealthy: AtomicBool::new(false),
            checks: Mutex::default(),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Health {
    fn now(&self) -> u64 {
        milliseconds(self.since.elapsed())
    }

    /// Whether requests may go there, as far as is known.
    pub(super) fn is_fit(&self) -> bool {
        let is_over = |until: u64| until == 0 || until <= self.now();
        !self.is_unhealthy.load(Ordering::Relaxed)
            && is_over(self.avoided_until.load(Ordering::Relaxed))
            && (self.phase.load(Ordering::Relaxed) == IN || is_over(self.out_until.load(Ordering::Relaxed)))
    }

    /// Called when a request goes there.
    pub(super) fn chosen(&self) {
        if self.phase.load(Ordering::Relaxed) != IN {
            self.begin_probation();
        }
    }

    /// When its time is over, one request goes there, and for a while no other.
    fn begin_probation(&self) {
        let now = self.now();
        if self.out_until.load(Ordering::Relaxed) <= now {
            self.out_until.store(now + milliseconds(PROBATION), Ordering::Relaxed);
            self.phase.store(ON_PROBATION, Ordering::Relaxed);
        }
    }

    /// It refused a connection.
    pub(super) fn refused(&self) {
        let until = self.now() + milliseconds(AVOIDED);
        self.avoided_until.store(until, Ordering::Relaxed);
    }

    /// It responded, or accepted a connection. True if that ends its ejection.
    pub(super) fn succeeded(&self) -> bool {
        if self.avoided_until.load(Ordering::Relaxed) != 0 {
            self.avoided_until.store(0, Ordering::Relaxed);
        }
        if self.errors.load(Ordering::Relaxed) != 0 {
            self.errors.store(0, Ordering::Relaxed);
        }
        self.phase.load(Ordering::Relaxed) == ON_PROBATION && self.come_back()
    }

    fn come_back(&self) -> bool {
        let mut ejection = self.ejection.lock();
        ejection.back_since = self.now();
        ejection.counted = None;
        self.phase.swap(IN, Ordering::Relaxed) == ON_PROBATION
    }

    /// Counts an error; true if `most` in a row, or one on probation, call for an ejection.
    pub(super) fn is_outlier_after_error(&self, most: u32) -> bool {
        let errors = self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        match self.phase.load(Ordering::Relaxed) {
            IN => errors >= most,
            phase => phase == ON_PROBATION,
        }
    }

    /// Whether it is ejected or on probation.
    pub(super) fn is_ejected(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != IN
    }

    /// Ejects it for `base` times the number of its consecutive ejections, at most `most`; returns for how long.
    pub(super) fn eject(&self, base: Duration, most: Duration, counted: InUse) -> Duration {
        let mut ejection = self.ejection.lock();
        let now = self.now();
        let has_lasted = !self.is_ejected() && now.saturating_sub(ejection.back_since) > milliseconds(most);
        ejection.count = if has_lasted { 1 } else { ejection.count + 1 };
        let time = base.saturating_mul(ejection.count).min(most);
        ejection.counted = Some(counted);
        self.errors.store(0, Ordering::Relaxed);
        self.out_until.store(now + milliseconds(time), Ordering::Relaxed);
        self.phase.store(OUT, Ordering::Relaxed);
        time
    }

    /// A health check passed. True if `enough` in a row make it healthy again.
    pub(super) fn check_passed(&self, enough: u32) -> bool {
        let mut run = self.checks.lock();
        let turns = self.is_unhealthy.load(Ordering::Relaxed) && run.length + 1 >= enough;
        if turns {
            self.is_unhealthy.store(false, Ordering::Relaxed);
            run.counted = None;
        }
        run.length = match self.is_unhealthy.load(Ordering::Relaxed) {
            true => run.length + 1,
            false => 0,
        };
        turns
    }

    /// A health check failed. True if `enough` in a row make it unhealthy.
    pub(super) fn check_failed(&self, enough: u32, unhealthy: &Gauge) -> bool {
        let mut run = self.checks.lock();
        let turns = !self.is_unhealthy.load(Ordering::Relaxed) && run.length + 1 >= enough;
        if turns {
            self.is_unhealthy.store(true, Ordering::Relaxed);
            run.counted = Some(unhealthy.one());
        }
        run.length = match self.is_unhealthy.load(Ordering::Relaxed) {
            true => 0,
            false => run.length + 1,
        };
        turns
    }

    /// It is no longer checked.
    pub(super) fn forget_checks(&self) {
        *self.checks.lock() = Run::default();
        self.is_unhealthy.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checks_in_a_row_change_what_is_known() {
        let (health, unhealthy) = (Health::default(), Gauge::default());
        let fail = || health.check_failed(3, &unhealthy);
        let pass = || health.check_passed(2);
        assert!(!fail() && !fail() && !pass() && !fail() && !fail() && health.is_fit());
        assert!(fail() && !health.is_fit() && unhealthy.get() == 1);
        assert!(!fail() && !pass() && !fail() && !pass() && !health.is_fit());
        assert!(pass() && health.is_fit() && unhealthy.get() == 0);
        assert!(!fail() && !fail() && fail());
        health.forget_checks();
        assert!(health.is_fit() && unhealthy.get() == 0);
    }
}

//! Starting, stopping, and the handle.
//!
//! Guarantee: at most one profiler runs in a process; a refused start changes nothing; after a stop no timer is armed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::aggregate::{self, Aggregator, Limits};
use super::drainer::{self, Shared};
use super::handler::{self, Owner};
use super::timer::Timer;
use super::{clock, fork, lock, modules, registry, selftest};
use crate::config::{self, Config, StartError};
use crate::window::{Stats, Window};

static RUNNING: AtomicBool = AtomicBool::new(false);

/// A running sampler. Dropping it stops it like [`Profiler::stop`].
pub struct Profiler {
    shared: Arc<Shared>,
    drainer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Profiler")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// Starts sampling: all threads that are registered now or later.
///
/// # Errors
///
/// See [`StartError`]. The process is unharmed in every case.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the profiler keeps the configuration; an owned one reads better"
)]
pub fn start(config: Config) -> Result<Profiler, StartError> {
    config.validate()?;
    if config::kill_switch_is_off() {
        return Err(StartError::Disabled);
    }
    if fork::in_child() {
        return Err(StartError::Forked);
    }
    if RUNNING.swap(true, Ordering::SeqCst) {
        return Err(StartError::AlreadyRunning);
    }
    let result = start_once(&config);
    if result.is_err() {
        RUNNING.store(false, Ordering::SeqCst);
    }
    result
}

fn start_once(config: &Config) -> Result<Profiler, StartError> {
    check_timers()?;
    fork::watch();
    handler::configure(config.max_frames, modules::program_around(handler::address_in_text()));
    match handler::owner().map_err(StartError::Signal)? {
        Owner::Ours => {}
        Owner::Nobody => handler::install().map_err(StartError::Signal)?,
        Owner::Other => return Err(StartError::SignalOwned),
    }
    let mut aggregator = Aggregator::new(Limits {
        stacks: config.max_stacks,
        labels: config.max_labels,
    });
    aggregator.discard();
    let config = Config {
        ring_words: config.ring_words.next_power_of_two(),
        ..config.clone()
    };
    let shared = Arc::new(Shared::new(config, aggregator, selftest::frame_pointers_work()));
    let drainer = drainer::spawn(Arc::clone(&shared)).map_err(StartError::Thread)?;
    handler::set_sampling(true);
    shared.apply(&lock(&shared.rate));
    Ok(Profiler {
        shared,
        drainer: Some(drainer),
    })
}

/// Whether the kernel supports CPU timers at all. Running out of timers is counted later, and does not prevent a start.
fn check_timers() -> Result<(), StartError> {
    match Timer::new(clock::own_tid(), std::ptr::null_mut()) {
        Err(error) if error.raw_os_error() != Some(libc::EAGAIN) => Err(StartError::Timers(error)),
        _ => Ok(()),
    }
}

impl Profiler {
    /// Everything sampled since the last call, or since the start. Blocks other callers and the drainer meanwhile, but
    /// never a sampled thread. Empty in a forked child.
    pub fn take_window(&self) -> Window {
        if fork::in_child() {
            return aggregate::empty_window(1_000_000_000 / u64::from(self.shared.config.hz));
        }
        let period_ns = lock(&self.shared.rate).period_ns();
        let mut window = lock(&self.shared.aggregator).take_window(period_ns);
        let live = lock(&self.shared.aggregator).totals().live_threads;
        window.stats.unregistered_threads = unregistered_threads(live);
        window
    }

    /// Disarms all timers and ends the drainer; samples not taken are lost. The signal handler stays and ignores
    /// everything. The sampler can be started again afterwards.
    pub fn stop(self) {
        drop(self);
    }

    /// Arms or disarms all timers; CPU time while disarmed is in no window.
    pub fn set_enabled(&self, enabled: bool) {
        if fork::in_child() {
            return;
        }
        let mut rate = lock(&self.shared.rate);
        rate.enabled = enabled;
        self.shared.apply(&rate);
    }

    /// Changes the rate, for example for a closer look of half a minute. The CPU budget starts over.
    ///
    /// # Errors
    ///
    /// [`StartError::InvalidConfig`] if `hz` is out of range.
    pub fn set_rate(&self, hz: u32) -> Result<(), StartError> {
        config::check_hz(hz)?;
        if fork::in_child() {
            return Err(StartError::Forked);
        }
        let mut rate = lock(&self.shared.rate);
        rate.hz = hz;
        rate.budget.reset();
        self.shared.apply(&rate);
        Ok(())
    }

    /// The current state and the sums since the start, up to the last drain. All zero in a forked child.
    pub fn stats(&self) -> Stats {
        if fork::in_child() {
            return Stats::default();
        }
        let (timers_refused, threads_without_timer) = registry::refusals();
        let rate = lock(&self.shared.rate);
        let aggregator = lock(&self.shared.aggregator);
        let totals = aggregator.totals();
        Stats {
            frame_pointers: self.shared.frame_pointers,
            enabled: rate.sampling(),
            handler_replaced: rate.handler_replaced,
            configured_hz: rate.hz,
            effective_hz: 1e9 / rate.period_ns() as f64,
            rate_halvings: rate.halvings,
            rate_doublings: rate.doublings,
            threads: totals.live_threads,
            unregistered_threads: unregistered_threads(totals.live_threads),
            threads_without_timer,
            timers_refused,
            foreign_signals: handler::foreign_signals(),
            weight: totals.weight,
            captured: totals.captured,
            dropped: totals.dropped,
            truncated: totals.truncated,
            handler_ns: totals.handler_ns,
            overhead_ns: totals.overhead_ns,
            delivery_ns: aggregator.delivery_ns(),
        }
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let drainer = self.drainer.take();
        if fork::in_child() {
            // The drainer does not exist in the child: joining it would never end.
            std::mem::forget(drainer);
            return;
        }
        self.shared.ask_to_stop();
        if let Some(drainer) = drainer {
            // If the drainer panicked, nothing can be done about it now.
            let _ = drainer.join();
        }
        registry::set_sampling(None);
        handler::set_sampling(false);
        RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Threads of the process that are neither registered nor the drainer.
fn unregistered_threads(registered: u32) -> u32 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let all = u32::try_from(tasks.count()).unwrap_or(u32::MAX);
    all.saturating_sub(registered).saturating_sub(1)
}

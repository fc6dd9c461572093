//! The background thread: drains rings, enforces the CPU budget, retries refused timers, and monitors the ownership of
//! the signal.
//!
//! Guarantee: it is not sampled, receives no signals of the host, and ends when asked. It wakes every half second, or
//! more often if rings are small for the rate.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

use super::aggregate::Aggregator;
use super::budget::{Budget, Step};
use super::handler::{self, Owner};
use super::slot::Sampling;
use super::{clock, lock, probe, registry};
use crate::config::Config;

const LONGEST_INTERVAL: Duration = Duration::from_millis(500);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);
const CONTROL_INTERVAL: Duration = Duration::from_secs(1);
/// The kernel delivers at most one CPU-timer signal per tick, and no common kernel has more ticks per second.
const MOST_SIGNALS_PER_SECOND: u32 = 1_000;
const STACK_SIZE: usize = 256 * 1024;

/// What the handle and the drainer share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) frame_pointers: bool,
    pub(super) rate: Mutex<Rate>,
    pub(super) aggregator: Mutex<Aggregator>,
    stopping: Mutex<bool>,
    wake: Condvar,
}

/// The current rate, and why.
pub(super) struct Rate {
    pub(super) hz: u32,
    pub(super) enabled: bool,
    pub(super) handler_replaced: bool,
    pub(super) budget: Budget,
    pub(super) halvings: u64,
    pub(super) doublings: u64,
}

impl Rate {
    pub(super) fn period_ns(&self) -> u64 {
        self.budget.period_ns(self.hz)
    }

    pub(super) fn sampling(&self) -> bool {
        self.enabled && !self.handler_replaced
    }
}

impl Shared {
    pub(super) fn new(config: Config, aggregator: Aggregator, frame_pointers: bool) -> Self {
        let rate = Rate {
            hz: config.hz,
            enabled: true,
            handler_replaced: false,
            budget: Budget::new(config.cpu_budget),
            halvings: 0,
            doublings: 0,
        };
        Self {
            config,
            frame_pointers,
            rate: Mutex::new(rate),
            aggregator: Mutex::new(aggregator),
            stopping: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// Makes the timers of all threads match the rate.
    pub(super) fn apply(&self, rate: &Rate) {
        let sampling = rate.sampling().then(|| Sampling {
            period_ns: rate.period_ns(),
            ring_words: self.config.ring_words,
        });
        registry::set_sampling(sampling);
    }

    pub(super) fn ask_to_stop(&self) {
        *lock(&self.stopping) = true;
        self.wake.notify_all();
    }

    /// Sleeps until the next drain; `true` if asked to stop.
    fn wait(&self, interval: Duration) -> bool {
        let stopping = lock(&self.stopping);
        let waited = self.wake.wait_timeout_while(stopping, interval, |stopping| !*stopping);
        *waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// Half the time in which the deepest stacks would fill a ring.
    fn interval(&self, hz: u32) -> Duration {
        let words_per_second = f64::from(hz.min(MOST_SIGNALS_PER_SECOND)) * (self.config.max_frames + 3) as f64;
        Duration::from_secs_f64(self.config.ring_words as f64 / words_per_second / 2.0)
            .clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
    }

    /// The once-a-second work: budget, refused timers, ownership.
    fn control(&self, overhead_ns: u64, process_ns: u64, elapsed: Duration) {
        let mut rate = lock(&self.rate);
        if matches!(handler::owner(), Ok(Owner::Nobody | Owner::Other)) {
            // Our timers would trigger the other handler, or kill the process.
            rate.handler_replaced = true;
        }
        let hz = rate.hz;
        match rate.budget.observe(overhead_ns, process_ns, elapsed, hz) {
            Some(Step::Halved) => rate.halvings += 1,
            Some(Step::Doubled) => rate.doublings += 1,
            None => {}
        }
        self.apply(&rate);
    }
}

/// Starts the drainer.
pub(super) fn spawn(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    // Blocked before the start, so that no signal of the host ever reaches the thread.
    let before = block_signals();
    let drainer = thread::Builder::new()
        .name("profiler-drain".into())
        .stack_size(STACK_SIZE)
        .spawn(move || run(&shared));
    set_signal_mask(&before);
    drainer
}

fn run(shared: &Shared) {
    lock(&shared.aggregator).set_delivery_ns(measure_delivery_ns());
    let mut own_cpu_ns = clock::own_thread_cpu_ns();
    let mut control_at = Instant::now();
    let mut process_ns = clock::process_cpu_ns();
    let mut overhead_ns = 0;
    loop {
        let hz = lock(&shared.rate).hz;
        if shared.wait(shared.interval(hz)) {
            return;
        }
        let overhead_now = {
            let mut aggregator = lock(&shared.aggregator);
            aggregator.drain();
            let now = clock::own_thread_cpu_ns();
            aggregator.add_overhead(now.saturating_sub(own_cpu_ns));
            own_cpu_ns = now;
            aggregator.totals().overhead_ns
        };
        let elapsed = control_at.elapsed();
        if elapsed < CONTROL_INTERVAL {
            continue;
        }
        let process_now = clock::process_cpu_ns();
        shared.control(
            overhead_now.saturating_sub(overhead_ns),
            process_now.saturating_sub(process_ns),
            elapsed,
        );
        (control_at, process_ns, overhead_ns) = (Instant::now(), process_now, overhead_now);
    }
}

/// CPU time of one signal whose handler does nothing, on this thread.
fn measure_delivery_ns() -> u64 {
    const SIGNALS: u64 = 32;
    let tid = clock::own_tid();
    let mut best = u64::MAX;
    for _ in 0..3 {
        let before = clock::own_thread_cpu_ns();
        for _ in 0..SIGNALS {
            // A failure only makes the result smaller.
            let _ = probe::send(tid, handler::calibration_cookie());
        }
        best = best.min(clock::own_thread_cpu_ns().saturating_sub(before) / SIGNALS);
    }
    best
}

/// Blocks all signals except `SIGPROF` on this thread; returns the previous mask.
fn block_signals() -> libc::sigset_t {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    let mut before = all;
    // SAFETY: write to and read the local variables.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::sigdelset(&raw mut all, libc::SIGPROF);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    before
}

fn set_signal_mask(mask: &libc::sigset_t) {
    // SAFETY: reads the given mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

//! What the profiler keeps for one thread. Slots are never freed, only reused, so a late signal finds valid memory.
//!
//! Guarantee: CPU time is counted exactly while a timer is armed, and the last samples of an ended thread are drained
//! before its slot serves another. The kernel notices expiries only at ticks during which the thread runs, which can
//! take long on a busy machine; what it has not noticed when a timer is changed goes into the thread's next sample, and
//! when a timer is removed, it is reported as unattributed. So no due expiry is ever lost.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use super::altstack::AlternateStack;
use super::arch::Range;
use super::ring::Ring;
use super::timer::Timer;
use super::{clock, lock};
use crate::words::ThreadWords;

/// The low bits of a slot's address are zero; in its cookie, they hold the phase.
const PHASE_MASK: usize = align_of::<ThreadSlot>() - 1;

/// How threads are currently sampled.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    pub(super) period_ns: u64,
    pub(super) ring_words: usize,
}

/// The state of one thread.
///
/// The address of a slot, with the number of the timer's phase in the low bits, is the cookie of its signals.
#[repr(align(64))]
pub(super) struct ThreadSlot {
    /// Created when the slot is first armed; its size is fixed for the life of the process.
    pub(super) ring: OnceLock<Ring>,
    pub(super) alternate_stack: OnceLock<AlternateStack>,
    stack_low: AtomicUsize,
    stack_high: AtomicUsize,
    period_ns: AtomicU64,
    /// Signals that the handler has worked on, over the slot's lifetime.
    pub(super) signals: AtomicU64,
    /// Cycles spent in the handler, over the slot's lifetime.
    pub(super) cycles: AtomicU64,
    /// Incremented when a timer is removed. A signal of an earlier phase can arrive late, if the thread was preempted
    /// before its handler; its expiries have been written off by then.
    phase: AtomicUsize,
    /// Timer expiries seen by the handler in their phase, over the slot's lifetime.
    ticks: AtomicU64,
    /// Expiries that the thread's next sample has to stand for in addition to its own, and their nanoseconds.
    carried_ticks: AtomicU64,
    carried_ns: AtomicU64,
    control: Mutex<Control>,
}

/// The part of a slot that the handler never touches.
struct Control {
    tid: libc::pid_t,
    life: Life,
    timer: Option<Timer>,
    /// The reading of the thread's CPU clock up to which `cpu_ns` is counted.
    cpu_mark_ns: u64,
    /// CPU time under an armed timer that has not been taken yet.
    cpu_ns: u64,
    /// Expiries that were due, since the slot was attached.
    due: u64,
    /// Of those, how many were carried over or reported as unattributed.
    written_off: u64,
    /// `ticks` when the slot was attached.
    ticks_before: u64,
    /// Not taken yet.
    unattributed_ns: u64,
    seen: Counters,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Live,
    /// The thread has ended; its ring may still hold samples.
    Ended,
}

/// Lifetime sums of a slot, or the difference between two such readings.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) signals: u64,
    pub(super) cycles: u64,
    pub(super) dropped: u64,
    pub(super) dropped_weight: u64,
}

/// What happened in a slot since the last report.
pub(super) struct Report {
    pub(super) cpu_ns: u64,
    pub(super) unattributed_ns: u64,
    pub(super) counters: Counters,
    pub(super) life: Life,
}

impl ThreadSlot {
    /// The slot of the thread to which `words` belongs. Async-signal-safe.
    #[inline]
    pub(super) fn of(words: &ThreadWords) -> Option<&'static ThreadSlot> {
        let slot = words.slot.load(Ordering::Relaxed).cast::<ThreadSlot>();
        // SAFETY: only the registry stores a pointer there, to a slot that is never freed.
        unsafe { slot.as_ref() }
    }

    pub(super) fn new() -> Self {
        Self {
            ring: OnceLock::new(),
            alternate_stack: OnceLock::new(),
            stack_low: AtomicUsize::new(0),
            stack_high: AtomicUsize::new(0),
            period_ns: AtomicU64::new(0),
            signals: AtomicU64::new(0),
            cycles: AtomicU64::new(0),
            phase: AtomicUsize::new(0),
            ticks: AtomicU64::new(0),
            carried_ticks: AtomicU64::new(0),
            carried_ns: AtomicU64::new(0),
            control: Mutex::new(Control {
                tid: 0,
                life: Life::Ended,
                timer: None,
                cpu_mark_ns: 0,
                cpu_ns: 0,
                due: 0,
                written_off: 0,
                ticks_before: 0,
                unattributed_ns: 0,
                seen: Counters::default(),
            }),
        }
    }

    /// The stack of the thread, for its own handler.
    pub(super) fn stack(&self) -> Range {
        Range {
            low: self.stack_low.load(Ordering::Relaxed),
            high: self.stack_high.load(Ordering::Relaxed),
        }
    }

    /// Assigns the slot to the calling thread.
    pub(super) fn attach(&self, tid: libc::pid_t, stack: Range) {
        self.stack_low.store(stack.low, Ordering::Relaxed);
        self.stack_high.store(stack.high, Ordering::Relaxed);
        let mut control = lock(&self.control);
        control.tid = tid;
        control.life = Life::Live;
        (control.due, control.written_off) = (0, 0);
        control.ticks_before = self.ticks.load(Ordering::Relaxed);
    }

    /// The low bits that signals of the current timer carry.
    fn phase_bits(&self) -> usize {
        self.phase.load(Ordering::Relaxed) & PHASE_MASK
    }

    /// Whether a signal with this value belongs to this slot, in any phase. For the handler.
    #[inline]
    pub(super) fn owns(&self, cookie: usize) -> bool {
        cookie & !PHASE_MASK == std::ptr::from_ref(self) as usize
    }

    /// Counts `ticks` expiries of the timer with this cookie. Returns the weight and the CPU nanoseconds that the
    /// sample stands for. For the handler.
    #[inline]
    pub(super) fn count_ticks(&self, cookie: usize, ticks: u64) -> (u64, u64) {
        let mut weight = 0;
        let mut cpu_ns = 0;
        if cookie & PHASE_MASK == self.phase_bits() {
            // Only this thread writes it, so a plain sum is exact.
            self.ticks
                .store(self.ticks.load(Ordering::Relaxed) + ticks, Ordering::Relaxed);
            weight = ticks;
            cpu_ns = ticks * self.period_ns.load(Ordering::Relaxed);
        }
        if self.carried_ticks.load(Ordering::Relaxed) != 0 {
            let (carried_ticks, carried_ns) = self.take_carried();
            weight += carried_ticks;
            cpu_ns += carried_ns;
        }
        (weight, cpu_ns)
    }

    fn take_carried(&self) -> (u64, u64) {
        (
            self.carried_ticks.swap(0, Ordering::Relaxed),
            self.carried_ns.swap(0, Ordering::Relaxed),
        )
    }

    /// Starts sampling the thread, from any thread. Does nothing if it is already sampled this way, or has ended.
    pub(super) fn arm(&'static self, sampling: Sampling) -> io::Result<()> {
        let mut control = lock(&self.control);
        if control.life == Life::Ended {
            return Ok(());
        }
        if control.timer.is_some() {
            if self.period_ns.load(Ordering::Relaxed) == sampling.period_ns {
                return Ok(());
            }
            let (ticks, nanoseconds) = self.close_phase(&mut control);
            self.carried_ns.fetch_add(nanoseconds, Ordering::Relaxed);
            self.carried_ticks.fetch_add(ticks, Ordering::Relaxed);
        }
        self.ring.get_or_init(|| Ring::new(sampling.ring_words));
        self.period_ns.store(sampling.period_ns, Ordering::Relaxed);
        let cookie = std::ptr::from_ref(self).cast_mut().cast::<libc::c_void>();
        let mut timer = Timer::new(control.tid, cookie.wrapping_byte_add(self.phase_bits()))?;
        let Some(now_ns) = clock::thread_cpu_ns(control.tid) else {
            control.life = Life::Ended;
            return Ok(());
        };
        timer.arm(now_ns, sampling.period_ns)?;
        control.cpu_mark_ns = now_ns;
        control.timer = Some(timer);
        Ok(())
    }

    /// Stops sampling the thread, from any thread.
    pub(super) fn disarm(&self) {
        self.take_timer_away(&mut lock(&self.control));
    }

    /// Marks the thread as ended. Called by that thread, after its handler can no longer find the slot.
    pub(super) fn detach(&self) {
        let mut control = lock(&self.control);
        self.take_timer_away(&mut control);
        control.life = Life::Ended;
    }

    fn take_timer_away(&self, control: &mut Control) {
        let (_, owed_ns) = self.close_phase(control);
        let (_, carried_ns) = self.take_carried();
        control.unattributed_ns += owed_ns + carried_ns;
    }

    /// Deletes the timer and counts CPU time up to now. Returns the due expiries that no handler saw, and their
    /// nanoseconds, once.
    fn close_phase(&self, control: &mut Control) -> (u64, u64) {
        let Some(timer) = control.timer.take() else {
            return (0, 0);
        };
        let schedule = timer.delete();
        self.phase.fetch_add(1, Ordering::SeqCst);
        if !control.settle() {
            return (0, 0);
        }
        control.due += schedule.due(control.cpu_mark_ns);
        let seen = self.ticks.load(Ordering::SeqCst) - control.ticks_before;
        let owed = control.due.saturating_sub(seen + control.written_off);
        control.written_off += owed;
        (owed, owed * schedule.period_ns)
    }

    /// Whether the thread is alive but could not be given a timer.
    pub(super) fn lacks_timer(&self) -> bool {
        let control = lock(&self.control);
        control.life == Life::Live && control.timer.is_none()
    }

    /// What happened since the last report. If it says that the thread has ended, nothing will be added to its ring any
    /// more.
    pub(super) fn report(&self) -> Report {
        let mut control = lock(&self.control);
        if control.timer.is_some() {
            control.settle();
        }
        // After the lock: a thread that ended before it adds nothing more.
        let (dropped, dropped_weight) = self.ring.get().map_or((0, 0), Ring::dropped);
        let now = Counters {
            signals: self.signals.load(Ordering::Relaxed),
            cycles: self.cycles.load(Ordering::Relaxed),
            dropped,
            dropped_weight,
        };
        let seen = std::mem::replace(&mut control.seen, now);
        Report {
            cpu_ns: std::mem::take(&mut control.cpu_ns),
            unattributed_ns: std::mem::take(&mut control.unattributed_ns),
            counters: Counters {
                signals: now.signals - seen.signals,
                cycles: now.cycles - seen.cycles,
                dropped: now.dropped - seen.dropped,
                dropped_weight: now.dropped_weight - seen.dropped_weight,
            },
            life: control.life,
        }
    }
}

impl Control {
    /// Counts CPU time up to now; the thread must have been sampled since the last call. `false` if it is gone.
    fn settle(&mut self) -> bool {
        let Some(now) = clock::thread_cpu_ns(self.tid) else {
            // The thread ended without running its destructors.
            self.timer = None;
            self.life = Life::Ended;
            return false;
        };
        self.cpu_ns += now.saturating_sub(self.cpu_mark_ns);
        self.cpu_mark_ns = now;
        true
    }
}

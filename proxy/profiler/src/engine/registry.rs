//! Which threads take part: registration, the end of a thread, and reuse of slots.
//!
//! Guarantee: registration happens once per thread and costs nothing afterwards; a thread that ends returns its timer
//! first. Wrong on purpose: threads register even while no profiler runs (a slot without ring or timer, some 300
//! bytes), so that a later start can arm them from outside.

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use super::arch::Range;
use super::slot::{Sampling, ThreadSlot};
use super::{altstack, clock, fork, lock};
use crate::words::{Registration, ThreadWords, WORDS};

struct Registry {
    /// Slots of threads that are alive, or ended but not drained yet.
    slots: Vec<&'static ThreadSlot>,
    free: Vec<&'static ThreadSlot>,
    sampling: Option<Sampling>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    slots: Vec::new(),
    free: Vec::new(),
    sampling: None,
});

/// How often the kernel refused a timer.
static TIMERS_REFUSED: AtomicU64 = AtomicU64::new(0);

/// Runs at the end of each registered thread.
struct ExitGuard;

thread_local! {
    static EXIT_GUARD: ExitGuard = const { ExitGuard };
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if !fork::in_child() {
            WORDS.with(unregister);
        }
    }
}

/// Makes the calling thread known to the profiler, which samples it whenever it runs, until the thread ends.
///
/// Idempotent, and cheap when repeated. A thread's first labelled poll or [`scope`](crate::scope) calls it, so only
/// threads without labelled work need to.
pub fn register_thread() {
    WORDS.with(|words| {
        if words.registration.get() == Registration::Done {
            return;
        }
        words.registration.set(Registration::Done);
        // Destructors of other thread-locals may run labelled code after ours has run: too late to register.
        if fork::in_child() || EXIT_GUARD.try_with(|_| ()).is_err() {
            return;
        }
        fork::watch();
        register(words);
    });
}

fn register(words: &ThreadWords) {
    // Without bounds, only the leaf of each stack can be kept.
    let stack = current_stack().unwrap_or(Range::EMPTY);
    let mut registry = lock(&REGISTRY);
    let slot = registry
        .free
        .pop()
        .unwrap_or_else(|| Box::leak(Box::new(ThreadSlot::new())));
    slot.attach(clock::own_tid(), stack);
    registry.slots.push(slot);
    altstack::ensure(&slot.alternate_stack);
    words
        .slot
        .store(ptr::from_ref(slot).cast_mut().cast(), Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if let Some(sampling) = registry.sampling {
        arm(slot, sampling);
    }
}

fn unregister(words: &ThreadWords) {
    let Some(slot) = ThreadSlot::of(words) else { return };
    words.slot.store(ptr::null_mut(), Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    slot.detach();
    altstack::remove(&slot.alternate_stack);
}

fn arm(slot: &'static ThreadSlot, sampling: Sampling) {
    if slot.arm(sampling).is_err() {
        TIMERS_REFUSED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The stack of the calling thread, according to the C library.
pub(super) fn current_stack() -> Option<Range> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks about the calling thread; writes to the local variable.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) } != 0 {
        return None;
    }
    let mut low = ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attributes were initialised above; writes to the local variables.
    let result = unsafe { libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size) };
    // SAFETY: the attributes were initialised above and are not used again.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    let low = low as usize;
    (result == 0).then(|| Range {
        low,
        high: low.saturating_add(size),
    })
}

/// Sets how all threads are sampled from now on; `None` stops. Repeating a setting retries threads whose timer was
/// refused.
pub(super) fn set_sampling(sampling: Option<Sampling>) {
    let mut registry = lock(&REGISTRY);
    registry.sampling = sampling;
    for slot in registry.slots.iter().copied() {
        match sampling {
            Some(sampling) => arm(slot, sampling),
            None => slot.disarm(),
        }
    }
}

/// Slots of all threads that are alive, or ended but not drained yet.
pub(super) fn slots() -> Vec<&'static ThreadSlot> {
    lock(&REGISTRY).slots.clone()
}

/// Makes the slot of an ended and drained thread available to the next that registers.
pub(super) fn release(slot: &'static ThreadSlot) {
    let mut registry = lock(&REGISTRY);
    if let Some(index) = registry.slots.iter().position(|known| ptr::eq(*known, slot)) {
        registry.slots.swap_remove(index);
        registry.free.push(slot);
    }
}

/// Timers that the kernel refused, and registered threads without one although sampling is on.
pub(super) fn refusals() -> (u64, u32) {
    let registry = lock(&REGISTRY);
    let without = match registry.sampling {
        Some(_) => registry.slots.iter().filter(|slot| slot.lacks_timer()).count(),
        None => 0,
    };
    (
        TIMERS_REFUSED.load(Ordering::Relaxed),
        u32::try_from(without).unwrap_or(u32::MAX),
    )
}

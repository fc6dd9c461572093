//! The signal handler, and the ownership of `SIGPROF`.
//!
//! Guarantee: installed at most once and never removed (a signal after a removal would kill the process); never
//! replaces another handler; its work is bounded, allocates nothing, takes no lock, makes no system call, cannot panic
//! and preserves `errno`. A signal counts as ours only if it carries the address of the interrupted thread's own slot;
//! all others are counted and ignored.

use std::io;
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::arch::{self, Range};
use super::ring::{OFF_STACK, TRUNCATED};
use super::slot::ThreadSlot;
use super::walk::{self, Program};
use crate::words::WORDS;

static SAMPLING: AtomicBool = AtomicBool::new(false);
static MAX_FRAMES: AtomicUsize = AtomicUsize::new(0);
static TEXT_LOW: AtomicUsize = AtomicUsize::new(0);
static TEXT_HIGH: AtomicUsize = AtomicUsize::new(0);
static VDSO_LOW: AtomicUsize = AtomicUsize::new(0);
static VDSO_HIGH: AtomicUsize = AtomicUsize::new(0);
static FOREIGN: AtomicU64 = AtomicU64::new(0);

/// Its address marks signals sent to measure the cost of delivery.
static CALIBRATION: u8 = 0;

/// The kernel's `siginfo_t` for signals from timers and queues on 64-bit machines (linux/asm-generic/siginfo.h).
#[repr(C)]
pub(super) struct SignalInfo {
    pub(super) signal: i32,
    pub(super) error: i32,
    pub(super) code: i32,
    pub(super) padding: i32,
    pub(super) timer_or_pid: i32,
    /// Expiries since the last delivery for a timer; the user id for a queued signal.
    pub(super) overrun_or_uid: i32,
    pub(super) value: usize,
    pub(super) rest: [u64; 12],
}

const _: () = assert!(size_of::<SignalInfo>() == size_of::<libc::siginfo_t>());

/// What the handler needs to know about the program.
pub(super) fn configure(max_frames: usize, program: Program) {
    MAX_FRAMES.store(max_frames, Ordering::Relaxed);
    TEXT_LOW.store(program.text.low, Ordering::Relaxed);
    TEXT_HIGH.store(program.text.high, Ordering::Relaxed);
    VDSO_LOW.store(program.vdso.low, Ordering::Relaxed);
    VDSO_HIGH.store(program.vdso.high, Ordering::Relaxed);
}

/// Both ranges never change after the first start: they are the program's own.
fn program() -> Program {
    Program {
        text: Range {
            low: TEXT_LOW.load(Ordering::Relaxed),
            high: TEXT_HIGH.load(Ordering::Relaxed),
        },
        vdso: Range {
            low: VDSO_LOW.load(Ordering::Relaxed),
            high: VDSO_HIGH.load(Ordering::Relaxed),
        },
    }
}

/// Makes the handler sample, or only ignore.
pub(super) fn set_sampling(on: bool) {
    SAMPLING.store(on, Ordering::SeqCst);
}

/// Signals seen that were not ours.
pub(super) fn foreign_signals() -> u64 {
    FOREIGN.load(Ordering::Relaxed)
}

/// The cookie of signals that the handler returns from at once.
pub(super) fn calibration_cookie() -> usize {
    &raw const CALIBRATION as usize
}

/// An address in this program's text.
pub(super) fn address_in_text() -> usize {
    on_sigprof as *const () as usize
}

/// Who handles `SIGPROF`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Nobody,
    Ours,
    Other,
}

pub(super) fn owner() -> io::Result<Owner> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: changes nothing; writes to the local variable.
    if unsafe { libc::sigaction(libc::SIGPROF, ptr::null(), &raw mut current) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match current.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => Owner::Nobody,
        handler if handler == address_in_text() => Owner::Ours,
        _ => Owner::Other,
    })
}

/// Installs the handler. The caller has checked that nobody owns the signal.
pub(super) fn install() -> io::Result<()> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = address_in_text();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // Other handlers wait until ours is done, but a crash must not be hidden.
    // SAFETY: writes to the local variable.
    unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        for crash in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGABRT,
        ] {
            libc::sigdelset(&raw mut action.sa_mask, crash);
        }
    }
    // SAFETY: the handler lives as long as the program and may run on any thread at any time: see its own argument.
    if unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_sigprof(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: points to this thread's `errno` for as long as the thread lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    if !info.is_null() && !context.is_null() {
        // SAFETY: with SA_SIGINFO the kernel gives both, valid until the handler returns.
        unsafe { on_signal(&*info.cast(), context.cast()) };
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// # Safety
///
/// `context` must be the one that the kernel passed to the running handler of this thread.
#[inline]
unsafe fn on_signal(info: &SignalInfo, context: *const libc::ucontext_t) {
    let from_timer = info.code == libc::SI_TIMER;
    if !from_timer && info.code != libc::SI_QUEUE {
        FOREIGN.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if info.value == calibration_cookie() {
        return;
    }
    // A thread-local without initialiser and destructor: a plain memory access.
    WORDS.with(|words| {
        let Some(slot) = ThreadSlot::of(words) else {
            if !from_timer {
                FOREIGN.fetch_add(1, Ordering::Relaxed);
            }
            return;
        };
        if !slot.owns(info.value) {
            FOREIGN.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(ring) = slot.ring.get() else { return };
        if !SAMPLING.load(Ordering::Relaxed) {
            return;
        }
        let began = arch::cycles();
        // A requested sample stands for no CPU time.
        let (weight, cpu_ns) = if from_timer {
            slot.count_ticks(info.value, 1 + info.overrun_or_uid.max(0) as u64)
        } else {
            (0, 0)
        };
        let max_frames = MAX_FRAMES.load(Ordering::Relaxed) as u64;
        let program = program();
        let mut flags = 0;
        let mut record = ring.begin();
        // SAFETY: the kernel's context; the bounds are those of this thread, which the handler interrupts; words
        // between its stack pointer and the top of its stack are in use and therefore mapped; the code ranges are never
        // unloaded.
        let on_stack = unsafe {
            let registers = arch::interrupted(context);
            walk::walk(registers, slot.stack(), program, |address| {
                if record.frames() == max_frames {
                    flags |= TRUNCATED;
                    return false;
                }
                record.push(address as u64)
            })
        };
        if !on_stack {
            flags |= OFF_STACK;
        }
        record.commit(words.label(), flags, weight, cpu_ns);
        // Only this thread writes these, so a plain sum is exact.
        slot.signals
            .store(slot.signals.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let spent = arch::cycles().saturating_sub(began);
        slot.cycles
            .store(slot.cycles.load(Ordering::Relaxed) + spent, Ordering::Relaxed);
    });
}

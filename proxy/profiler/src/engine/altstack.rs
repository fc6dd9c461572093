//! An alternate signal stack for threads that have none, so that a sample near the end of a small stack does not
//! overflow it. Threads of Rust's standard library have their own, which is left alone.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::OnceLock;

const SIZE: usize = 64 * 1024;

/// `getauxval` key of the smallest signal frame (linux/auxvec.h); processors with wide registers need more than the C
/// library's constants.
const AT_MINSIGSTKSZ: libc::c_ulong = 51;

/// Memory for the alternate stack of one slot; it is kept and reused with the slot.
pub(super) struct AlternateStack(Box<[UnsafeCell<u8>]>);

// SAFETY: no Rust code reads or writes the memory; only its address is used.
unsafe impl Sync for AlternateStack {}

impl AlternateStack {
    fn new() -> Self {
        // SAFETY: only reads a value.
        let smallest_frame = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
        Self((0..SIZE.max(2 * smallest_frame)).map(|_| UnsafeCell::new(0)).collect())
    }
}

fn current() -> libc::stack_t {
    let mut stack = libc::stack_t {
        ss_sp: ptr::null_mut(),
        ss_flags: 0,
        ss_size: 0,
    };
    // SAFETY: writes to the local variable.
    unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) };
    stack
}

/// Gives the calling thread an alternate stack if it has none. `kept` must live as long as the thread, or until
/// [`remove`].
pub(super) fn ensure(kept: &'static OnceLock<AlternateStack>) {
    if current().ss_flags & libc::SS_DISABLE == 0 {
        return;
    }
    let memory = kept.get_or_init(AlternateStack::new);
    let stack = libc::stack_t {
        ss_sp: memory.0.as_ptr().cast_mut().cast(),
        ss_flags: 0,
        ss_size: memory.0.len(),
    };
    // SAFETY: the memory is never freed, has no other use, and is given to one thread at a time: the owner of the slot.
    // The kernel writes to it only while a handler runs.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

/// Removes the alternate stack again if it is ours; another thread may use the slot next.
pub(super) fn remove(kept: &OnceLock<AlternateStack>) {
    let Some(memory) = kept.get() else { return };
    if !ptr::eq(current().ss_sp.cast_const(), memory.0.as_ptr().cast()) {
        return;
    }
    let none = libc::stack_t {
        ss_sp: ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: we are not running on it: the caller is ordinary code.
    unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
}

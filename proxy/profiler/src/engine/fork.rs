//! Forked children: they have the memory of the profiler but neither its timers nor its threads, and locks may be held
//! by threads that do not exist there. So in a child everything is switched off, without taking a lock.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handler;

static IN_CHILD: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

// The `libc` crate has no declaration for Linux; POSIX.1-2017, pthread_atfork.
unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

unsafe extern "C" fn in_new_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
    handler::set_sampling(false);
}

/// Makes later forks detectable. Registered before the first slot exists, so no child can have slots without knowing.
pub(super) fn watch() {
    WATCH.call_once(|| {
        // SAFETY: the function lives as long as the program and only stores to atomics.
        // It fails only for lack of memory; then a child would at worst read stale windows of its parent.
        unsafe { pthread_atfork(None, None, Some(in_new_child)) };
    });
}

/// Whether this process was forked from one that used the profiler.
pub(super) fn in_child() -> bool {
    IN_CHILD.load(Ordering::Relaxed)
}

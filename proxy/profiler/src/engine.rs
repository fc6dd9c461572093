//! The sampler itself, for Linux.
//!
//! ```text
//! register ─▶ slot: stack bounds, ring, timer on the thread's CPU clock          (slot, registry, timer)
//! SIGPROF  ─▶ instruction and frame pointer ─▶ walk inside the bounds ─▶ ring    (handler, walk, arch, ring)
//! drainer  ─▶ intern stacks, resolve modules, sum up; CPU budget                 (drainer, aggregate, modules, budget)
//! host     ─▶ take_window                                                        (profiler)
//! ```
//!
//! Locks, in the order in which they may be taken: rate, aggregator, registry, one slot's control. The signal handler
//! takes none of them.

mod aggregate;
mod altstack;
mod arch;
mod budget;
mod clock;
mod drainer;
mod fork;
mod handler;
mod modules;
mod probe;
mod profiler;
mod registry;
mod ring;
mod selftest;
mod slot;
mod timer;
mod walk;

pub use probe::{SampleProbe, probe_current_thread};
pub use profiler::{Profiler, start};
pub use registry::register_thread;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ignores poisoning: everything behind our locks is counters and lists that stay usable after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

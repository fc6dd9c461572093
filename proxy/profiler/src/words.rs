//! The words of a thread that its signal handler reads.
//!
//! Guarantee: touching them is a plain memory access at every moment of the thread's life. Only [`crate::label`]
//! changes the label that samples are attributed to, and only the engine's registry changes the slot.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Whether the thread has registered with the profiler.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Registration {
    /// Not yet.
    None,
    /// Yes, or it was tried and is impossible.
    Done,
}

/// The words of one thread that its own signal handler reads. Const-initialised and without a destructor, so that
/// touching them is a plain memory access at every moment of the thread's life.
pub(crate) struct ThreadWords {
    pub(crate) label: AtomicU32,
    /// The cell of the [`TaskLabel`](crate::TaskLabel) that `label` mirrors, or null. Only valid to read while the poll
    /// that set it is on this thread's call stack.
    pub(crate) source: Cell<*const AtomicU32>,
    /// Number of the innermost section, unique on this thread.
    pub(crate) section: Cell<u64>,
    pub(crate) last_section: Cell<u64>,
    pub(crate) registration: Cell<Registration>,
    /// The thread's slot in the engine, null while it has none.
    pub(crate) slot: AtomicPtr<()>,
}

thread_local! {
    pub(crate) static WORDS: ThreadWords = const {
        ThreadWords {
            label: AtomicU32::new(0),
            source: Cell::new(ptr::null()),
            section: Cell::new(0),
            last_section: Cell::new(0),
            registration: Cell::new(Registration::None),
            slot: AtomicPtr::new(ptr::null_mut()),
        }
    };
}

impl ThreadWords {
    pub(crate) fn label(&self) -> u32 {
        self.label.load(Ordering::Relaxed)
    }

    /// Stores a label that changed inside the poll that mirrors `source`.
    pub(crate) fn follow(&self, source: *const AtomicU32, label: u32) {
        if ptr::eq(self.source.get(), source) {
            self.label.store(label, Ordering::Relaxed);
        }
    }
}

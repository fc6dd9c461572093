//! The current-label word of a thread.
//!
//! Guarantee: the signal handler reads the label of the innermost labelled section running on the thread; a section
//! that ends, even by a panic, restores what was before it. Setting and restoring costs a few nanoseconds, allocates
//! nothing and needs no running profiler. Wrong on purpose: [`ScopeGuard`]s not dropped in reverse order of creation
//! leave a stale label until the enclosing poll ends.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use crate::words::{Registration, ThreadWords, WORDS};

/// What a sample is attributed to: a number chosen by the host. The profiler does not interpret it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Label(u32);

impl Label {
    /// No label.
    pub const NONE: Self = Self(0);
    /// Stands for all labels over [`Config::max_labels`](crate::Config::max_labels) in one window. Reserved.
    pub const OVERFLOW: Self = Self(u32::MAX);

    /// A label with the host's number; 0 is [`Label::NONE`].
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The host's number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl ThreadWords {
    fn enter(&self, label: u32, source: *const AtomicU32) -> Before {
        if self.registration.get() == Registration::None {
            crate::engine::register_thread();
        }
        let section = self.last_section.get() + 1;
        self.last_section.set(section);
        let before = Before {
            label: self.label(),
            source: self.source.get(),
            section: self.section.get(),
        };
        self.section.set(section);
        self.source.set(source);
        self.label.store(label, Ordering::Relaxed);
        // The compiler must not move the labelled work above the store, which this thread's handler reads.
        compiler_fence(Ordering::SeqCst);
        before
    }

    /// # Safety
    ///
    /// The section that was current when `before` was made must still be running on this thread: then the poll that
    /// owns `before.source` has not returned, and its cell is alive.
    unsafe fn restore(&self, before: &Before) {
        compiler_fence(Ordering::SeqCst);
        let label = if before.source.is_null() {
            before.label
        } else {
            // The cell may have been set while the inner section hid it.
            // SAFETY: the caller says that the poll that holds this cell alive has not returned.
            unsafe { &*before.source }.load(Ordering::Relaxed)
        };
        self.label.store(label, Ordering::Relaxed);
        self.source.set(before.source);
        self.section.set(before.section);
    }
}

/// The state that a section hides.
struct Before {
    label: u32,
    source: *const AtomicU32,
    section: u64,
}

/// A labelled section for the duration of one poll. Private to the crate, and only ever a local variable of a `poll`,
/// so such sections end in reverse order.
pub(crate) struct PollSection {
    before: Before,
}

impl PollSection {
    /// Enters a section; `source` is null, or a cell that lives at least until this section is dropped.
    pub(crate) fn enter(label: u32, source: *const AtomicU32) -> Self {
        Self {
            before: WORDS.with(|words| words.enter(label, source)),
        }
    }
}

impl Drop for PollSection {
    fn drop(&mut self) {
        WORDS.with(|words| {
            // SAFETY: this section is a local variable of a poll, so whatever enclosed it at the start still does:
            // enclosing polls have not returned.
            unsafe { words.restore(&self.before) }
        });
    }
}

/// A labelled section of synchronous code; ends when dropped. Not `Send`: it belongs to one thread.
#[must_use = "the label ends when the guard is dropped; bind it to a name"]
pub struct ScopeGuard {
    before: Before,
    section: u64,
    _of_one_thread: PhantomData<*const ()>,
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        WORDS.with(|words| {
            // A guard that outlived an enclosing section must not restore what that section has ended.
            if words.section.get() != self.section {
                return;
            }
            // SAFETY: section numbers are unique on the thread, and the end of an enclosing section makes another
            // number current. Ours is current, so the section that enclosed it is still running.
            unsafe { words.restore(&self.before) }
        });
    }
}

/// Attributes the CPU time of this thread to `label` until the guard is dropped. Registers the thread.
///
/// Drop guards in reverse order of creation, as blocks of code do automatically. For asynchronous code use
/// [`Labeled`](crate::Labeled): a guard held over an `.await` makes the future not `Send`.
pub fn scope(label: Label) -> ScopeGuard {
    WORDS.with(|words| {
        let before = words.enter(label.get(), ptr::null());
        ScopeGuard {
            before,
            section: words.section.get(),
            _of_one_thread: PhantomData,
        }
    })
}

/// The label that a sample taken now on this thread would carry.
#[must_use]
pub fn current_label() -> Label {
    Label(WORDS.with(ThreadWords::label))
}

//! Callers of several kinds that go on while something changes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::support::*;

/// What they have seen, until they are told to stop.
pub(super) struct Load<const KINDS: usize> {
    ends: AtomicBool,
    /// By kind.
    answered: [AtomicUsize; KINDS],
}

impl<const KINDS: usize> Default for Load<KINDS> {
    fn default() -> Self {
        Load {
            ends: AtomicBool::new(false),
            answered: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }
}

impl<const KINDS: usize> Load<KINDS> {
    pub(super) fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
    }

    pub(super) fn count(&self, kind: usize) {
        self.answered[kind].fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn counts(&self) -> [usize; KINDS] {
        std::array::from_fn(|kind| self.answered[kind].load(Ordering::SeqCst))
    }

    /// Waits until each of so many kinds has had some more answers.
    pub(super) async fn moves(&self, kinds: usize) {
        let before = self.counts();
        eventually("all kinds of callers are answered", || {
            let now = self.counts();
            (0..kinds).all(|kind| now[kind] >= before[kind] + 2)
        })
        .await;
    }
}

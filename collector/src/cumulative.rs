//! What is remembered of counters that grow from the start of a process, so that only their growth is stored: stacks of
//! profiles, and buckets of histograms ([`crate::ingest`] `growing`).
//!
//! Guarantees: all that is remembered stays under a limit, and what one process has under another; what does not fit is
//! left out and counted, and the moment before it stays remembered, so that a later look that fits counts what was missed.
//! What is remembered changes only when the growth is on disk. Who is forgotten leaves the time of its last look behind
//! ([`Senders::forgotten_unix_ns`]).
//!
//! Wrong on purpose: it is kept in memory, so a restart of this server loses what was counted since the last look.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use emberline_model::{
    Profile, ProfileType, Workload,
    foreign::cumulative::{self, Baseline},
    otlp::Streams,
};
use parking_lot::Mutex;

/// What a look at a process saw.
pub(crate) trait Base {
    /// Stacks, or buckets.
    fn rows(&self) -> usize;

    /// When it was, nanoseconds since the Unix epoch by the clock of the process.
    fn taken_unix_ns(&self) -> u64;
}

impl Base for Baseline {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn taken_unix_ns(&self) -> u64 {
        u64::try_from(self.taken_unix_ns()).unwrap_or(0)
    }
}

impl Base for Streams {
    fn rows(&self) -> usize {
        self.buckets()
    }

    fn taken_unix_ns(&self) -> u64 {
        self.newest_unix_ns()
    }
}

/// Bounds of what is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Stacks, or buckets, of all processes together.
    pub(crate) rows: usize,
    /// Stacks of one profile, or buckets of one process.
    pub(crate) rows_per_profile: usize,
    /// Processes that push their counters.
    pub(crate) senders: usize,
}

/// Counts the rows that are remembered.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    used: AtomicUsize,
}

/// The last look at a process; gives its share of the budget back when it is forgotten.
#[derive(Debug)]
pub(crate) struct Remembered<B: Base = Baseline> {
    baseline: B,
    budget: Arc<Budget>,
}

impl<B: Base> Remembered<B> {
    /// What was seen.
    pub(crate) fn seen(&self) -> &B {
        &self.baseline
    }
}

impl<B: Base> Drop for Remembered<B> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.baseline.rows(), Ordering::Relaxed);
    }
}

/// How a look compares with the one before.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// To be remembered once the profiles are stored; `None` when the look before stays.
    pub(crate) next: Option<Remembered>,
    /// When the look before was.
    pub(crate) since_unix_ns: Option<i64>,
    /// The process is another one.
    pub(crate) restarted: bool,
    /// Samples that were left out, with the reason.
    pub(crate) left_out: Vec<(&'static str, u64)>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Arc<Budget> {
        Arc::new(Budget {
            bounds,
            used: AtomicUsize::new(0),
        })
    }

    /// Rows that are remembered now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Rows that one profile or process may have.
    pub(crate) fn rows_per_profile(&self) -> usize {
        self.bounds.rows_per_profile
    }

    /// A place for what a look saw; `None` when there is no room for it.
    pub(crate) fn remember<B: Base>(self: &Arc<Budget>, baseline: B) -> Option<Remembered<B>> {
        let rows = baseline.rows();
        let added = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(rows).filter(|used| *used <= self.bounds.rows)
        });
        added.ok()?;
        Some(Remembered {
            baseline,
            budget: Arc::clone(self),
        })
    }

    /// Replaces the values of the chosen profiles by what they grew since the last look.
    pub(crate) fn look(
        self: &Arc<Budget>,
        last: Option<&Remembered>,
        profiles: &mut Vec<Profile>,
        now_unix_ns: i64,
        chosen: impl Fn(&ProfileType) -> bool,
    ) -> Look {
        let counters = profiles.iter().filter(|profile| chosen(&profile.profile_type));
        let samples = counters.map(|profile| profile.samples.len() as u64).sum();
        let leave_out = |profiles: &mut Vec<Profile>, reason| {
            profiles.retain(|profile| !chosen(&profile.profile_type));
            Look {
                left_out: vec![(reason, samples)],
                ..Look::default()
            }
        };
        let last = last.map(|last| &last.baseline);
        if last.is_some_and(|last| last.taken_unix_ns() > now_unix_ns) {
            return leave_out(profiles, "cumulative_out_of_order");
        }
        let limit = self.bounds.rows_per_profile;
        let Ok(difference) = cumulative::difference(last, profiles, now_unix_ns, limit, &chosen) else {
            return leave_out(profiles, "max_cumulative_rows_per_profile");
        };
        let Some(next) = self.remember(difference.baseline) else {
            return leave_out(profiles, "max_cumulative_rows");
        };
        Look {
            next: Some(next),
            since_unix_ns: difference.since_unix_ns,
            restarted: difference.restarted,
            left_out: Vec::new(),
        }
    }
}

/// One look at a process while its file is read: the last look goes in, the new one comes out.
#[derive(Debug, Clone)]
pub(crate) struct Looking {
    budget: Arc<Budget>,
    last: Option<Arc<Remembered>>,
    looked: Arc<Mutex<Look>>,
}

impl Looking {
    pub(crate) fn new(budget: &Arc<Budget>, last: Option<Arc<Remembered>>) -> Looking {
        Looking {
            budget: Arc::clone(budget),
            last,
            looked: Arc::default(),
        }
    }

    /// [`Budget::look`]; says when the look before was, and which samples were left out.
    pub(crate) fn look(
        &self,
        profiles: &mut Vec<Profile>,
        now_unix_ns: i64,
        chosen: impl Fn(&ProfileType) -> bool,
    ) -> (Option<i64>, Vec<(&'static str, u64)>) {
        let mut look = self.budget.look(self.last.as_deref(), profiles, now_unix_ns, chosen);
        let seen = (look.since_unix_ns, std::mem::take(&mut look.left_out));
        *self.looked.lock() = look;
        seen
    }

    /// What is to be remembered now that the growth is on disk, and whether the process is a new one.
    pub(crate) fn stored(self) -> (Option<Arc<Remembered>>, bool) {
        let look = std::mem::take(&mut *self.looked.lock());
        (look.next.map(Arc::new).or(self.last), look.restarted)
    }
}

/// Place of what a sender pushed last; held while its next push is taken in, so that two pushes never use one base.
pub(crate) type Slot<B = Baseline> = Arc<tokio::sync::Mutex<Option<Arc<Remembered<B>>>>>;

/// What those who push their counters pushed last.
pub(crate) struct Senders<B: Base = Baseline> {
    pub(crate) budget: Arc<Budget>,
    slots: Mutex<Slots<B>>,
    forgotten_unix_ns: AtomicU64,
}

struct Slots<B: Base> {
    uses: u64,
    /// By process and kind of counters; with the number of the last use.
    slots: HashMap<(Workload, String), (u64, Slot<B>)>,
}

impl<B: Base> Senders<B> {
    pub(crate) fn new(budget: Arc<Budget>) -> Senders<B> {
        let slots = Slots {
            uses: 0,
            slots: HashMap::new(),
        };
        Senders {
            budget,
            slots: Mutex::new(slots),
            forgotten_unix_ns: AtomicU64::new(0),
        }
    }

    /// The place of a process and a kind of counters. When there are too many, the one used longest ago is forgotten, and
    /// its next push begins anew; one that is in use is not.
    pub(crate) fn slot(&self, workload: &Workload, kind: &str) -> Slot<B> {
        let mut slots = self.slots.lock();
        let Slots { uses, slots } = &mut *slots;
        *uses += 1;
        let key = (workload.clone(), kind.to_owned());
        if !slots.contains_key(&key) && slots.len() >= self.budget.bounds.senders.max(1) {
            let free = slots.iter().filter(|(_, (_, slot))| Arc::strong_count(slot) == 1);
            let oldest = free.min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            if let Some((_, slot)) = oldest.and_then(|key| slots.remove(&key)) {
                self.forget(&slot);
            }
        }
        let (used, slot) = slots.entry(key).or_default();
        *used = *uses;
        Arc::clone(slot)
    }

    /// Forgets those whose last look was before an instant.
    pub(crate) fn forget_before(&self, unix_ns: u64) {
        self.slots.lock().slots.retain(|_, (_, slot)| {
            let taken = |last: &Arc<Remembered<B>>| last.seen().taken_unix_ns();
            let is_old = || {
                let last = slot.try_lock().ok()?;
                Some(last.as_ref().is_none_or(|last| taken(last) < unix_ns))
            };
            let goes = Arc::strong_count(slot) == 1 && is_old() == Some(true);
            if goes {
                self.forget(slot);
            }
            !goes
        });
    }

    fn forget(&self, slot: &Slot<B>) {
        // Nobody else has it, so it is not locked.
        if let Ok(last) = slot.try_lock()
            && let Some(last) = last.as_ref()
        {
            self.forgot(last.seen().taken_unix_ns());
        }
    }

    /// Something of which the last look was then is forgotten.
    pub(crate) fn forgot(&self, unix_ns: u64) {
        self.forgotten_unix_ns.fetch_max(unix_ns, Ordering::Relaxed);
    }

    /// The newest look of all that was forgotten: what began later and is not known was never seen.
    pub(crate) fn forgotten_unix_ns(&self) -> u64 {
        self.forgotten_unix_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use emberline_model::{LabelSet, foreign::cumulative::is_cumulative, profile_builder::ProfileBuilder};

    use super::*;

    fn profiles(stacks: usize, value: i64) -> Vec<Profile> {
        let kind = ProfileType::from_parts("mutex", "delay", "nanoseconds", "contentions", "count");
        let mut builder = ProfileBuilder::new(kind, 1);
        for stack in 0..stacks {
            let frame = builder.frame(&format!("f{stack}"), "", 0);
            builder.add(vec![frame], &LabelSet::none(), value, 1);
        }
        vec![builder.finish()]
    }

    fn bounds(rows: usize, rows_per_profile: usize) -> Bounds {
        Bounds {
            rows,
            rows_per_profile,
            senders: 2,
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_look_before_stays() {
        let budget = Budget::new(bounds(10, 6));
        let look = |last: Option<&Remembered>, stacks, value, at| {
            let mut profiles = profiles(stacks, value);
            let look = budget.look(last, &mut profiles, at, is_cumulative);
            (look, profiles.iter().map(Profile::total).sum::<i64>())
        };
        let (first, total) = look(None, 4, 10, 1);
        assert_eq!((total, budget.used()), (0, 4));
        let first = first.next.unwrap();
        let (too_many, total) = look(Some(&first), 7, 20, 2);
        assert!(too_many.next.is_none());
        assert_eq!(
            (too_many.left_out, total),
            (vec![("max_cumulative_rows_per_profile", 7)], 0)
        );
        let other = look(None, 5, 1, 2).0.next.unwrap();
        let (too_many, _) = look(Some(&first), 4, 20, 2);
        assert_eq!(too_many.left_out, [("max_cumulative_rows", 4)]);
        drop(other);
        let (early, _) = look(Some(&first), 4, 20, 0);
        assert_eq!(early.left_out, [("cumulative_out_of_order", 4)]);
        let (second, total) = look(Some(&first), 4, 20, 3);
        assert_eq!((total, second.since_unix_ns, second.restarted), (40, Some(1), false));
        drop((first, second));
        assert_eq!(budget.used(), 0, "what is forgotten is given back");
    }

    #[test]
    fn the_sender_that_was_used_longest_ago_is_forgotten() {
        let senders: Senders = Senders::new(Budget::new(bounds(10, 10)));
        let who = |instance: &str| Workload {
            instance: instance.to_owned(),
            ..Workload::default()
        };
        let places = |name: &str| Arc::downgrade(&senders.slot(&who(name), ""));
        let (a, b) = (places("a"), places("b"));
        assert!(std::sync::Weak::ptr_eq(&a, &places("a")));
        places("c");
        assert!(std::sync::Weak::ptr_eq(&a, &places("a")));
        assert!(!std::sync::Weak::ptr_eq(&b, &places("b")));
        // One that is in use stays.
        let used = senders.slot(&who("b"), "");
        places("d");
        places("e");
        assert!(Arc::ptr_eq(&used, &senders.slot(&who("b"), "")));
        assert_eq!(senders.forgotten_unix_ns(), 0, "nothing was seen of them");
    }
}

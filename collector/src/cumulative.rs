//! What is remembered of counters that grow from the start of a process, so that only their growth is stored.
//!
//! Guarantees: all that is remembered stays under `max_cumulative_rows`, and what one profile has under
//! `max_cumulative_rows_per_profile`; a profile that does not fit is left out and counted, and the moment before it stays
//! remembered, so that a later one that fits counts what was missed. What is remembered changes only when the growth is on
//! disk.
//!
//! Wrong on purpose: it is kept in memory, so a restart of this server loses what was counted since the last look.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use emberline_model::{
    Profile, ProfileType, Workload,
    foreign::cumulative::{self, Baseline},
};
use parking_lot::Mutex;

/// Bounds of what is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Stacks of all processes together.
    pub(crate) rows: usize,
    /// Stacks of one profile.
    pub(crate) rows_per_profile: usize,
    /// Processes that push their counters.
    pub(crate) senders: usize,
}

/// Counts the stacks that are remembered.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    used: AtomicUsize,
}

/// The last look at a process; gives its share of the budget back when it is forgotten.
#[derive(Debug)]
pub(crate) struct Remembered {
    baseline: Baseline,
    budget: Arc<Budget>,
}

impl Drop for Remembered {
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

    /// Stacks that are remembered now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn remember(self: &Arc<Budget>, baseline: Baseline) -> Option<Remembered> {
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
pub(crate) type Slot = Arc<tokio::sync::Mutex<Option<Arc<Remembered>>>>;

/// What those who push their counters pushed last.
pub(crate) struct Senders {
    pub(crate) budget: Arc<Budget>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    uses: u64,
    /// By process and kind of profile; with the number of the last use.
    slots: HashMap<(Workload, String), (u64, Slot)>,
}

impl Senders {
    pub(crate) fn new(budget: Arc<Budget>) -> Senders {
        Senders {
            budget,
            slots: Mutex::default(),
        }
    }

    /// The place of a process and a kind of profile. When there are too many, the one used longest ago is forgotten, and
    /// its next push begins anew.
    pub(crate) fn slot(&self, workload: &Workload, kind: &str) -> Slot {
        let mut slots = self.slots.lock();
        let Slots { uses, slots } = &mut *slots;
        *uses += 1;
        let key = (workload.clone(), kind.to_owned());
        if !slots.contains_key(&key) && slots.len() >= self.budget.bounds.senders.max(1) {
            let oldest = slots.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                slots.remove(&oldest);
            }
        }
        let (used, slot) = slots.entry(key).or_default();
        *used = *uses;
        Arc::clone(slot)
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
        let senders = Senders::new(Budget::new(bounds(10, 10)));
        let who = |instance: &str| Workload {
            instance: instance.to_owned(),
            ..Workload::default()
        };
        let (a, b) = (senders.slot(&who("a"), ""), senders.slot(&who("b"), ""));
        assert!(Arc::ptr_eq(&a, &senders.slot(&who("a"), "")));
        senders.slot(&who("c"), "");
        assert!(Arc::ptr_eq(&a, &senders.slot(&who("a"), "")));
        assert!(!Arc::ptr_eq(&b, &senders.slot(&who("b"), "")));
    }
}

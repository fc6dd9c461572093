//! Previous values of counters that grow from the start of a process, so that only their increase is stored: stacks of
//! profiles, and buckets of histograms ([`crate::ingest`] `growing`).
//!
//! Guarantees: everything kept stays within a limit, and so does each process; slots and rows are divided among the
//! senders ([`crate::ingest`] `shares`), so that nobody loses values to another's made-up processes. What does not fit
//! is dropped and counted, and the values before it are kept, so that a later snapshot that fits counts what was
//! missed. Values are replaced only once the increase is on disk. A process that is forgotten leaves the time of its
//! last snapshot ([`Senders::forgotten_unix_ns`]).
//!
//! Wrong on purpose: values are kept in memory, so a restart of this server loses what was counted since the last
//! snapshot.
//!
//! One file because the slots of processes and their rows are assigned and taken back together, under one lock. What is
//! kept of a profile or a histogram is defined in the model (`formats/cumulative`, `otlp/streams`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use emberline_model::{
    Profile, ProfileType, Workload,
    formats::cumulative::{self, Baseline},
    id,
    otlp::Streams,
};
use parking_lot::Mutex;

use crate::ingest::{
    sender::SenderKey,
    shares::{Holder, Shares},
};

/// Services whose forgotten processes are tracked separately; those of further ones count for all.
const MOST_FORGETFUL: usize = 10_000;

/// A snapshot of a process's counters.
pub(crate) trait Base {
    /// Stacks, or buckets.
    fn rows(&self) -> usize;

    /// When it was taken, nanoseconds since the Unix epoch by the process's clock.
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

/// Limits of what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Stacks, or buckets, of all processes together.
    pub(crate) rows: usize,
    /// Stacks of one profile, or buckets of one process.
    pub(crate) rows_per_profile: usize,
    /// Processes that push their counters.
    pub(crate) senders: usize,
}

/// Counts the rows that are kept.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    /// For each sender that has any.
    by_sender: BTreeMap<SenderKey, usize>,
}

/// The last snapshot of a process; dropping it returns its share of the budget.
#[derive(Debug)]
pub(crate) struct Remembered<B: Base = Baseline> {
    baseline: B,
    sender: SenderKey,
    budget: Arc<Budget>,
}

impl<B: Base> Remembered<B> {
    /// The snapshot.
    pub(crate) fn seen(&self) -> &B {
        &self.baseline
    }
}

impl<B: Base> Drop for Remembered<B> {
    fn drop(&mut self) {
        self.budget.give_back(self.sender, self.baseline.rows());
    }
}

/// How a snapshot compares with the previous one.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// To be kept once the profiles are stored; `None` if the previous one stays.
    pub(crate) next: Option<Remembered>,
    /// When the previous one was taken.
    pub(crate) since_unix_ns: Option<i64>,
    /// The process was restarted.
    pub(crate) restarted: bool,
    /// Samples dropped, with the reason.
    pub(crate) left_out: Vec<(&'static str, u64)>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Arc<Budget> {
        Arc::new(Budget {
            bounds,
            used: Mutex::default(),
        })
    }

    /// Rows currently kept.
    pub(crate) fn used(&self) -> usize {
        self.used.lock().all
    }

    /// Rows that one profile or process may have.
    pub(crate) fn rows_per_profile(&self) -> usize {
        self.bounds.rows_per_profile
    }

    /// Reserves room for a snapshot, or returns it if there is none.
    fn remember<B: Base>(self: &Arc<Budget>, sender: SenderKey, baseline: B) -> Result<Remembered<B>, B> {
        let rows = baseline.rows();
        let mut used = self.used.lock();
        if used.all.saturating_add(rows) > self.bounds.rows {
            return Err(baseline);
        }
        used.all += rows;
        if rows > 0 {
            *used.by_sender.entry(sender).or_default() += rows;
        }
        Ok(Remembered {
            baseline,
            sender,
            budget: Arc::clone(self),
        })
    }

    fn give_back(&self, sender: SenderKey, rows: usize) {
        let mut used = self.used.lock();
        used.all -= rows;
        if let Some(of_sender) = used.by_sender.get_mut(&sender) {
            *of_sender -= rows;
            if *of_sender == 0 {
                used.by_sender.remove(&sender);
            }
        }
    }

    /// The sender that has to make room for a sender's rows: the one with the most, if they fit into the sender's
    /// share.
    fn above_share(&self, sender: SenderKey, rows: usize) -> Option<SenderKey> {
        let used = self.used.lock();
        let of_sender = used.by_sender.get(&sender);
        let senders = used.by_sender.len() + usize::from(of_sender.is_none());
        let share = self.bounds.rows / senders;
        if of_sender.copied().unwrap_or(0).saturating_add(rows) > share {
            return None;
        }
        let above = used.by_sender.iter().filter(|(_, rows)| **rows > share);
        above.max_by_key(|(_, rows)| **rows).map(|(sender, _)| *sender)
    }
}

/// One snapshot of a process while its file is read: takes the previous one, yields the new one.
#[derive(Clone)]
pub(crate) struct Looking {
    senders: Arc<Senders>,
    sender: SenderKey,
    last: Option<Arc<Remembered>>,
    looked: Arc<Mutex<Look>>,
}

impl Looking {
    pub(crate) fn new(senders: &Arc<Senders>, sender: SenderKey, last: Option<Arc<Remembered>>) -> Looking {
        Looking {
            senders: Arc::clone(senders),
            sender,
            last,
            looked: Arc::default(),
        }
    }

    /// [`Senders::look`]; returns when the previous snapshot was taken, and which samples were dropped.
    pub(crate) fn look(
        &self,
        profiles: &mut Vec<Profile>,
        now_unix_ns: i64,
        chosen: impl Fn(&ProfileType) -> bool,
    ) -> (Option<i64>, Vec<(&'static str, u64)>) {
        let last = self.last.as_deref();
        let mut look = self.senders.look(self.sender, last, profiles, now_unix_ns, chosen);
        let seen = (look.since_unix_ns, std::mem::take(&mut look.left_out));
        *self.looked.lock() = look;
        seen
    }

    /// What to keep now that the increase is on disk, and whether the process was restarted.
    pub(crate) fn stored(self) -> (Option<Arc<Remembered>>, bool) {
        let look = std::mem::take(&mut *self.looked.lock());
        (look.next.map(Arc::new).or(self.last), look.restarted)
    }
}

/// The last push of a sender; locked during its next push, so that two pushes never use the same base.
pub(crate) type Slot<B = Baseline> = Arc<tokio::sync::Mutex<Option<Arc<Remembered<B>>>>>;

/// A process and the kind of its counters.
type Pushed = (Workload, String);

/// The last pushes of processes that push their counters.
pub(crate) struct Senders<B: Base = Baseline> {
    pub(crate) budget: Arc<Budget>,
    slots: Mutex<Slots<B>>,
    forgotten: Mutex<Forgotten>,
}

struct Slots<B: Base> {
    shares: Shares<Pushed>,
    slots: HashMap<Pushed, Slot<B>>,
}

/// The newest snapshot of anything forgotten, nanoseconds since the Unix epoch.
#[derive(Default)]
struct Forgotten {
    /// By service: what one forgets is no reason to doubt another's counts.
    by_service: HashMap<u64, u64>,
    others: u64,
}

fn service_of(workload: &Workload) -> u64 {
    id::key("service", &[&workload.namespace, &workload.service])
}

fn is_in_use<B: Base>(slots: &HashMap<Pushed, Slot<B>>, pushed: &Pushed) -> bool {
    slots.get(pushed).is_some_and(|slot| Arc::strong_count(slot) > 1)
}

impl<B: Base> Senders<B> {
    pub(crate) fn new(bounds: Bounds) -> Arc<Senders<B>> {
        Arc::new(Senders {
            slots: Mutex::new(Slots {
                shares: Shares::new(bounds.senders),
                slots: HashMap::new(),
            }),
            budget: Budget::new(bounds),
            forgotten: Mutex::default(),
        })
    }

    /// The slot of a process and a kind of counters, if its sender can have one. A process that has to make room starts
    /// again with its next push; one in use does not make room.
    pub(crate) fn slot(&self, sender: SenderKey, workload: &Workload, kind: &str, now_s: i64) -> Option<Slot<B>> {
        let mut slots = self.slots.lock();
        let Slots { shares, slots } = &mut *slots;
        let pushed = (workload.clone(), kind.to_owned());
        let group = service_of(workload);
        let holder = Holder { sender, group };
        let admission = shares.admit_unless(&pushed, holder, now_s, |key| is_in_use(slots, key));
        for gone in admission.gone {
            self.forget(&gone, slots.remove(&gone));
        }
        let place = || Arc::clone(slots.entry(pushed).or_default());
        admission.admitted.then(place)
    }

    /// Reserves room for a snapshot; senders above their share make room for senders below.
    pub(crate) fn remember(&self, sender: SenderKey, baseline: B) -> Option<Remembered<B>> {
        let mut baseline = baseline;
        loop {
            baseline = match self.budget.remember(sender, baseline) {
                Ok(remembered) => return Some(remembered),
                Err(baseline) => baseline,
            };
            let largest = self.budget.above_share(sender, baseline.rows())?;
            let mut slots = self.slots.lock();
            let Slots { shares, slots } = &mut *slots;
            let gone = shares.give_up(largest, |key| is_in_use(slots, key))?;
            self.forget(&gone, slots.remove(&gone));
        }
    }

    /// Forgets processes whose last snapshot is older.
    pub(crate) fn forget_before(&self, unix_ns: u64) {
        let mut slots = self.slots.lock();
        let Slots { shares, slots } = &mut *slots;
        slots.retain(|pushed, slot| {
            let taken = |last: &Arc<Remembered<B>>| last.seen().taken_unix_ns();
            let is_old = || {
                let last = slot.try_lock().ok()?;
                Some(last.as_ref().is_none_or(|last| taken(last) < unix_ns))
            };
            let goes = Arc::strong_count(slot) == 1 && is_old() == Some(true);
            if goes {
                self.forget(pushed, Some(Arc::clone(slot)));
                shares.remove(pushed);
            }
            !goes
        });
    }

    fn forget(&self, pushed: &Pushed, slot: Option<Slot<B>>) {
        // Nobody else holds it, so it is not locked.
        if let Some(slot) = slot
            && let Ok(last) = slot.try_lock()
            && let Some(last) = last.as_ref()
        {
            self.forgot(&pushed.0, last.seen().taken_unix_ns());
        }
    }

    /// Records that something of a process with a snapshot at that time was forgotten.
    pub(crate) fn forgot(&self, workload: &Workload, unix_ns: u64) {
        if unix_ns == 0 {
            return;
        }
        let mut forgotten = self.forgotten.lock();
        if forgotten.by_service.len() >= MOST_FORGETFUL {
            let newest = forgotten.by_service.drain().map(|(_, unix_ns)| unix_ns).max();
            forgotten.others = forgotten.others.max(newest.unwrap_or(0));
        }
        let newest = forgotten.by_service.entry(service_of(workload)).or_default();
        *newest = (*newest).max(unix_ns);
    }

    /// The newest snapshot forgotten for a service: streams that began later and are unknown were never seen.
    pub(crate) fn forgotten_unix_ns(&self, workload: &Workload) -> u64 {
        let forgotten = self.forgotten.lock();
        let of_service = forgotten.by_service.get(&service_of(workload)).copied();
        of_service.unwrap_or(0).max(forgotten.others)
    }
}

impl Senders {
    /// Replaces the values of the chosen profiles by their increase since the last snapshot.
    pub(crate) fn look(
        &self,
        sender: SenderKey,
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
        let limit = self.budget.rows_per_profile();
        let Ok(difference) = cumulative::difference(last, profiles, now_unix_ns, limit, &chosen) else {
            return leave_out(profiles, "max_cumulative_rows_per_profile");
        };
        let Some(next) = self.remember(sender, difference.baseline) else {
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

#[cfg(test)]
mod tests {
    use emberline_model::{LabelSet, formats::cumulative::is_cumulative, profile_builder::ProfileBuilder};

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

    const NOBODY: SenderKey = SenderKey::Unknown;

    fn senders(rows: usize, rows_per_profile: usize) -> Arc<Senders> {
        Senders::new(Bounds {
            rows,
            rows_per_profile,
            senders: 4,
        })
    }

    fn who(instance: &str) -> Workload {
        Workload {
            instance: instance.to_owned(),
            ..Workload::default()
        }
    }

    fn address(last: u8) -> SenderKey {
        SenderKey::of_address(std::net::IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_look_before_stays() {
        let senders = senders(10, 6);
        let look = |last: Option<&Remembered>, stacks, value, at| {
            let mut profiles = profiles(stacks, value);
            let look = senders.look(NOBODY, last, &mut profiles, at, is_cumulative);
            (look, profiles.iter().map(Profile::total).sum::<i64>())
        };
        let (first, total) = look(None, 4, 10, 1);
        assert_eq!((total, senders.budget.used()), (0, 4));
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
        assert_eq!(senders.budget.used(), 0, "what is forgotten is given back");
    }

    #[test]
    fn made_up_processes_of_one_sender_do_not_make_another_forget() {
        let senders = senders(10, 10);
        let place = |sender, name: &str| senders.slot(sender, &who(name), "", 0);
        let known = place(address(1), "known").unwrap();
        drop(known);
        for n in 0..20 {
            place(address(2), &format!("made up {n}"));
        }
        assert!(place(address(2), "another").is_none(), "it holds its share");
        let slots = senders.slots.lock();
        assert!(slots.slots.contains_key(&(who("known"), String::new())));
        assert_eq!((slots.slots.len(), slots.shares.len()), (4, 4));
        drop(slots);
        // A slot in use is not taken away.
        let used: Vec<_> = (0..3)
            .map(|n| place(address(2), &format!("made up {n}")).unwrap())
            .collect();
        assert!(place(address(3), "new").is_none());
        drop(used);
        assert!(place(address(3), "new").is_some());
        assert_eq!(senders.forgotten_unix_ns(&who("x")), 0, "nothing was seen of them");
    }

    #[test]
    fn rows_of_a_sender_with_more_than_its_share_make_room() {
        let senders = senders(10, 10);
        let push = |sender, name: &str, stacks, at| {
            let slot = senders.slot(sender, &who(name), "", 0).unwrap();
            let mut profiles = profiles(stacks, 1);
            let look = senders.look(sender, None, &mut profiles, at, is_cumulative);
            let fits = look.next.is_some();
            *slot.try_lock().unwrap() = look.next.map(Arc::new);
            fits
        };
        assert!(push(address(2), "a", 4, 7) && push(address(2), "b", 6, 8));
        assert!(!push(address(2), "c", 1, 9), "all of it is its own");
        assert!(push(address(1), "known", 5, 9));
        assert_eq!(senders.budget.used(), 5);
        assert!(push(address(2), "d", 5, 9), "there is room again");
        assert!(!push(address(1), "more", 1, 9), "more than its share");
        assert!(senders.forgotten_unix_ns(&who("a")) >= 7);
        let other = Workload {
            service: "other".to_owned(),
            ..Workload::default()
        };
        assert_eq!(
            senders.forgotten_unix_ns(&other),
            0,
            "no reason to doubt what others count"
        );
    }
}

//! A table of names chosen by strangers: bounded, divided among those who fill it, and forgetful.
//!
//! Every entry is held by a sender, and within it by a group (a service, a release). While there is room, everyone gets
//! it. When the table is full:
//!
//! - A sender that holds less than its share (the size divided by the number of senders) takes a slot from one that
//!   holds more; one that has its share is refused. The same applies to groups within a sender.
//! - Entries seen in only one window are evicted first, those of the sender with the most of them; then the longest
//!   unused. An entry that has lasted two windows is not evicted for one that has not, unless its holder is above its
//!   share.
//! - Entries unused for an hour make room; those seen in only one window, after ten minutes.
//!
//! Guarantees, held by property tests: the size is bounded; a sender below its share is never refused, and loses
//! nothing to others, whatever they do; the same calls give the same table. A slot changes hands only from more to
//! less, so nothing is pushed to and fro, and the number of made-up names admitted is limited.
//!
//! Wrong on purpose: a share is small if there are very many senders; a sender with many addresses has many shares.
//!
//! One file because the table and its order of eviction are one structure, whose parts are only right together. More
//! than a third of it is the property tests that verify this.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use super::sender::SenderKey;

/// An entry used this long after it was first seen has lasted, in seconds: its sender has returned with another window.
const LASTED_AFTER_S: i64 = 10;
/// An entry that lasted makes room after being unused for this long, in seconds.
const IDLE_S: i64 = 3_600;
/// The same for one that did not last.
const IDLE_YOUNG_S: i64 = 600;
/// Full tables are swept at most this often, in seconds.
const SWEEP_EVERY_S: i64 = 30;
/// Precision of the last use, in seconds.
const EXACT_S: i64 = 5;
/// An entry that its holder did not use for this long passes to another sender that uses it, in seconds.
const HANDOVER_S: i64 = 60;

/// Who holds an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) sender: SenderKey,
    /// A service, or a release of one.
    pub(crate) group: u64,
}

/// An entry and its holder, to be kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lasting<'t, K> {
    pub(crate) key: &'t K,
    pub(crate) holder: Holder,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    holder: Holder,
    first_s: i64,
    last_s: i64,
    lasted: bool,
}

/// Entries of a group by their last use.
#[derive(Debug, PartialEq)]
struct Group<K> {
    young: BTreeSet<(i64, K)>,
    lasted: BTreeSet<(i64, K)>,
}

impl<K: Ord> Group<K> {
    fn len(&self) -> usize {
        self.young.len() + self.lasted.len()
    }

    fn of(&mut self, lasted: bool) -> &mut BTreeSet<(i64, K)> {
        if lasted { &mut self.lasted } else { &mut self.young }
    }
}

/// What the senders hold.
type Ranks<K> = BTreeMap<SenderKey, Held<K>>;

/// What a sender holds.
#[derive(Debug, PartialEq)]
struct Held<K> {
    entries: usize,
    young: usize,
    groups: BTreeMap<u64, Group<K>>,
}

/// The result for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission<K> {
    /// It is in the table.
    pub(crate) admitted: bool,
    /// Names evicted.
    pub(crate) gone: Vec<K>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    limit: usize,
    entries: HashMap<K, Entry>,
    /// The entries by holder and last use. Built when the table is full and a slot is needed: most tables are small and
    /// never are, and it takes five times an entry's own size.
    ranks: Option<Ranks<K>>,
    swept_s: i64,
    /// The set of lasting entries has changed since [`Shares::take_changed`].
    changed: bool,
}

impl<K: Ord + Hash + Clone> Shares<K> {
    pub(crate) fn new(limit: usize) -> Shares<K> {
        Shares {
            limit: limit.max(1),
            entries: HashMap::new(),
            ranks: None,
            swept_s: i64::MIN,
            changed: false,
        }
    }

    /// True if the name is known or gets a slot.
    pub(crate) fn admit(&mut self, key: &K, holder: Holder, now_s: i64) -> Admission<K> {
        self.admit_unless(key, holder, now_s, |_| false)
    }

    /// The same; entries that are `pinned` stay.
    pub(crate) fn admit_unless(
        &mut self,
        key: &K,
        holder: Holder,
        now_s: i64,
        pinned: impl Fn(&K) -> bool,
    ) -> Admission<K> {
        let mut gone = Vec::new();
        if self.touch(key, holder, now_s) {
            return Admission { admitted: true, gone };
        }
        if self.entries.len() >= self.limit && now_s.saturating_sub(self.swept_s) >= SWEEP_EVERY_S {
            self.swept_s = now_s;
            gone = self.sweep(now_s, &pinned);
        }
        while self.entries.len() >= self.limit {
            let Some(victim) = self.victim(holder, &pinned) else {
                return Admission { admitted: false, gone };
            };
            self.remove(&victim);
            gone.push(victim);
        }
        let entry = Entry {
            holder,
            first_s: now_s,
            last_s: now_s,
            lasted: false,
        };
        self.insert(key.clone(), entry);
        Admission { admitted: true, gone }
    }

    /// Inserts what was known before a restart, if there is room.
    pub(crate) fn restore(&mut self, key: K, holder: Holder, now_s: i64) -> bool {
        let fits = self.entries.len() < self.limit && !self.entries.contains_key(&key);
        if fits {
            let entry = Entry {
                holder,
                first_s: now_s,
                last_s: now_s,
                lasted: true,
            };
            self.insert(key, entry);
        }
        fits
    }

    /// Removes a name.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.changed |= entry.lasted;
        self.unlist(key, &entry);
        true
    }

    /// Removes a sender's least valuable entry.
    pub(crate) fn give_up(&mut self, sender: SenderKey, pinned: impl Fn(&K) -> bool) -> Option<K> {
        let key = self.ranks().get(&sender)?.least(&pinned)?;
        self.remove(&key);
        Some(key)
    }

    /// Forgets entries that have been unused for long.
    pub(crate) fn sweep(&mut self, now_s: i64, pinned: impl Fn(&K) -> bool) -> Vec<K> {
        let is_idle = |entry: &Entry| {
            let idle_s = if entry.lasted { IDLE_S } else { IDLE_YOUNG_S };
            now_s.saturating_sub(entry.last_s) >= idle_s
        };
        let idle = self
            .entries
            .iter()
            .filter(|(key, entry)| is_idle(entry) && !pinned(key));
        let mut idle: Vec<K> = idle.map(|(key, _)| key.clone()).collect();
        idle.sort_unstable();
        for key in &idle {
            self.remove(key);
        }
        if self.entries.len() <= self.limit / 2 {
            self.ranks = None;
        }
        idle
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The senders that hold the most, and how much.
    pub(crate) fn largest(&self, most: usize) -> Vec<(SenderKey, usize)> {
        let mut entries: BTreeMap<SenderKey, usize> = BTreeMap::new();
        for entry in self.entries.values() {
            *entries.entry(entry.holder.sender).or_default() += 1;
        }
        let mut senders: Vec<_> = entries.into_iter().collect();
        senders.sort_by_key(|(key, entries)| (std::cmp::Reverse(*entries), *key));
        senders.truncate(most);
        senders
    }

    /// Entries that lasted.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = Lasting<'_, K>> {
        let lasted = self.entries.iter().filter(|(_, entry)| entry.lasted);
        lasted.map(|(key, entry)| Lasting {
            key,
            holder: entry.holder,
        })
    }

    /// True once after the set of lasting entries changed.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Records the use of a known name.
    fn touch(&mut self, key: &K, holder: Holder, now_s: i64) -> bool {
        let Some(entry) = self.entries.get(key) else {
            return false;
        };
        let lasted = entry.lasted || now_s.saturating_sub(entry.first_s) >= LASTED_AFTER_S;
        let unused_s = now_s.saturating_sub(entry.last_s);
        let is_held = entry.holder.sender == holder.sender;
        if lasted == entry.lasted && (unused_s < EXACT_S || (!is_held && unused_s < HANDOVER_S)) {
            return true;
        }
        let before = *entry;
        let goes_over = !is_held && unused_s >= HANDOVER_S;
        let after = Entry {
            holder: if goes_over { holder } else { before.holder },
            // Only its holder keeps it in use; otherwise a stranger could keep it in the holder's share forever.
            last_s: if is_held || goes_over {
                now_s.max(before.last_s)
            } else {
                before.last_s
            },
            lasted,
            ..before
        };
        self.changed |= lasted != before.lasted || (lasted && goes_over);
        self.unlist(key, &before);
        self.insert(key.clone(), after);
        true
    }

    fn insert(&mut self, key: K, entry: Entry) {
        if let Some(ranks) = &mut self.ranks {
            list(ranks, &key, &entry);
        }
        self.entries.insert(key, entry);
    }

    fn unlist(&mut self, key: &K, entry: &Entry) {
        let Some(ranks) = &mut self.ranks else { return };
        let Some(held) = ranks.get_mut(&entry.holder.sender) else {
            return;
        };
        held.entries -= 1;
        held.young -= usize::from(!entry.lasted);
        if let Some(group) = held.groups.get_mut(&entry.holder.group) {
            group.of(entry.lasted).remove(&(entry.last_s, key.clone()));
            if group.len() == 0 {
                held.groups.remove(&entry.holder.group);
            }
        }
        if held.entries == 0 {
            ranks.remove(&entry.holder.sender);
        }
    }

    fn ranks(&mut self) -> &Ranks<K> {
        self.ranks.get_or_insert_with(|| {
            let mut ranks = BTreeMap::new();
            for (key, entry) in &self.entries {
                list(&mut ranks, key, entry);
            }
            ranks
        })
    }

    /// The entry that a newcomer replaces in a full table, if it may.
    fn victim(&mut self, newcomer: Holder, pinned: impl Fn(&K) -> bool) -> Option<K> {
        let limit = self.limit;
        let senders = self.ranks();
        let own = senders.get(&newcomer.sender);
        let share = limit / (senders.len() + usize::from(own.is_none()));
        if own.map_or(0, |own| own.entries) < share {
            let above = senders.values().filter(|held| held.entries > share);
            return above.max_by_key(|held| (held.young, held.entries))?.least(&pinned);
        }
        let own = own?;
        let group = own.groups.get(&newcomer.group);
        let share = own.entries / (own.groups.len() + usize::from(group.is_none()));
        if group.map_or(0, Group::len) >= share {
            return None;
        }
        own.least_above(share, &pinned)
    }
}

fn list<K: Ord + Clone>(ranks: &mut Ranks<K>, key: &K, entry: &Entry) {
    let held = ranks.entry(entry.holder.sender).or_insert_with(|| Held {
        entries: 0,
        young: 0,
        groups: BTreeMap::new(),
    });
    held.entries += 1;
    held.young += usize::from(!entry.lasted);
    let group = held.groups.entry(entry.holder.group).or_insert_with(|| Group {
        young: BTreeSet::new(),
        lasted: BTreeSet::new(),
    });
    group.of(entry.lasted).insert((entry.last_s, key.clone()));
}

impl<K: Ord + Clone> Held<K> {
    /// The least valuable entry.
    fn least(&self, pinned: impl Fn(&K) -> bool) -> Option<K> {
        // The largest group holds no less than the mean.
        let mean = self.entries.div_ceil(self.groups.len().max(1));
        self.least_above(mean.saturating_sub(1), pinned)
    }

    /// The same among groups that hold more than `share`.
    fn least_above(&self, share: usize, pinned: impl Fn(&K) -> bool) -> Option<K> {
        let above = self.groups.values().filter(|group| group.len() > share);
        let group = above.max_by_key(|group| (group.young.len(), group.len()))?;
        let mut oldest = group.young.iter().chain(&group.lasted);
        oldest.find(|(_, key)| !pinned(key)).map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn holder(sender: u8, group: u64) -> Holder {
        Holder {
            sender: SenderKey::Address(IpAddr::from([10, 0, 0, sender])),
            group,
        }
    }

    #[test]
    fn a_newcomer_takes_from_the_sender_with_the_most_that_did_not_last() {
        let mut table = Shares::new(10);
        for name in 0..4u32 {
            assert!(table.admit(&name, holder(1, 0), 0).admitted);
            assert!(table.admit(&name, holder(1, 0), 10).admitted);
        }
        for name in 100..200 {
            let admitted = table.admit(&name, holder(2, 0), 20).admitted;
            assert_eq!(admitted, name < 106, "{name}");
        }
        let newcomer = table.admit(&300, holder(3, 0), 21);
        assert!(newcomer.admitted);
        assert_eq!(newcomer.gone, [100], "the one of most that was unused for longest");
        for name in 0..4 {
            let known = table.admit(&name, holder(1, 0), 30);
            assert!(known.admitted && known.gone.is_empty());
        }
    }

    #[test]
    fn services_behind_one_address_have_shares_of_it() {
        let mut table = Shares::new(10);
        for name in 0..30u32 {
            table.admit(&name, holder(1, 7), 0);
        }
        assert!(!table.admit(&30, holder(1, 7), 1).admitted);
        for name in 40..50 {
            assert_eq!(table.admit(&name, holder(1, 8), 1).admitted, name < 45, "{name}");
        }
    }

    #[test]
    fn what_is_not_used_makes_room_and_what_is_stays() {
        let mut table = Shares::new(3);
        for name in [1u32, 2] {
            table.admit(&name, holder(1, 0), 0);
            table.admit(&name, holder(1, 0), 10);
        }
        table.admit(&3, holder(1, 0), 10);
        assert!(!table.admit(&4, holder(1, 0), 600).admitted, "not idle for long enough");
        let fourth = table.admit(&4, holder(1, 0), 640);
        assert_eq!((fourth.admitted, fourth.gone), (true, vec![3]));
        table.admit(&1, holder(1, 0), 3_000);
        let fifth = table.admit(&5, holder(1, 0), 3_700);
        assert_eq!((fifth.admitted, fifth.gone), (true, vec![2, 4]));
    }

    #[test]
    fn an_entry_goes_over_when_its_holder_is_silent() {
        let mut table = Shares::new(4);
        table.admit(&1u32, holder(1, 0), 0);
        table.admit(&1, holder(2, 0), 30);
        assert_eq!(table.largest(9), [(holder(1, 0).sender, 1)]);
        table.admit(&1, holder(2, 0), 61);
        assert_eq!(table.largest(9), [(holder(2, 0).sender, 1)]);
    }

    #[test]
    fn what_lasted_is_restored_once() {
        let mut table = Shares::new(2);
        table.admit(&1u32, holder(1, 0), 0);
        assert!(!table.take_changed(), "one window is no reason to write anything");
        table.admit(&1, holder(1, 0), 10);
        assert!(table.take_changed() && !table.take_changed());
        let kept: Vec<_> = table.lasting().map(|lasting| (*lasting.key, lasting.holder)).collect();
        let mut anew = Shares::new(1);
        for (key, holder) in kept {
            assert!(anew.restore(key, holder, 99));
            assert!(!anew.restore(key, holder, 99));
        }
        assert!(!anew.restore(2, holder(1, 0), 99), "no more than there is room for");
        assert_eq!(anew.lasting().count(), 1);
    }

    /// A call: sender, group, name, seconds since the previous call.
    fn calls() -> impl Strategy<Value = Vec<(u8, u64, u32, i64)>> {
        let skewed = prop_oneof![3 => Just(0u8), 2 => 1u8..5];
        prop::collection::vec(
            (skewed, 0u64..3, 0u32..60, prop_oneof![9 => 0i64..4, 1 => 0i64..700]),
            1..400,
        )
    }

    proptest! {
        #[test]
        fn a_sender_gets_its_share_whatever_others_do(calls in calls(), limit in 1usize..30) {
            let mut table = Shares::new(limit);
            let mut now_s = 0;
            for (sender, group, name, passed_s) in calls {
                now_s += passed_s;
                let by = holder(sender, group);
                // Each sender uses names of its own: using another's name takes nothing from it.
                let key = (sender, name);
                let before: BTreeMap<SenderKey, usize> = table.largest(usize::MAX).into_iter().collect();
                let senders = before.len() + usize::from(!before.contains_key(&by.sender));
                let share = limit / senders;
                let held = before.get(&by.sender).copied().unwrap_or(0);
                let swept = table.swept_s;
                let admission = table.admit(&key, by, now_s);
                prop_assert!(admission.admitted || held >= share, "{held} of {share} were refused");
                prop_assert!(table.len() <= limit);
                if table.swept_s == swept {
                    let after: BTreeMap<SenderKey, usize> = table.largest(usize::MAX).into_iter().collect();
                    for (other, had) in &before {
                        let has = after.get(other).copied().unwrap_or(0);
                        prop_assert!(*other == by.sender || has >= *had || has >= share, "{other} had {had}, has {has} of {share}");
                    }
                }
            }
        }

        #[test]
        fn a_group_gets_its_share_of_its_sender(calls in calls(), limit in 1usize..30) {
            let mut table = Shares::new(limit);
            for (_, group, name, _) in calls {
                let by = holder(0, group);
                let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
                table.entries.values().for_each(|entry| *sizes.entry(entry.holder.group).or_default() += 1);
                let share = table.len() / (sizes.len() + usize::from(!sizes.contains_key(&group))).max(1);
                let is_full = table.len() == limit;
                let admitted = table.admit(&(group, name), by, 0).admitted;
                let had = sizes.get(&group).copied().unwrap_or(0);
                prop_assert!(admitted || (is_full && had >= share));
            }
        }

        #[test]
        fn ranks_agree_and_the_same_calls_give_the_same_table(calls in calls(), limit in 1usize..30) {
            let run = || {
                let mut table = Shares::new(limit);
                let mut now_s = 0;
                let mut answers = Vec::new();
                for (sender, group, name, passed_s) in &calls {
                    now_s += passed_s;
                    answers.push(table.admit(name, holder(*sender, *group), now_s));
                    if name % 7 == 0 {
                        table.remove(&(name / 2));
                    }
                }
                (table, answers)
            };
            let ((mut table, first), (_, second)) = (run(), run());
            prop_assert_eq!(first, second);
            // The ranks kept since the table was full equal those built now.
            let kept = table.ranks.take();
            let made = table.ranks();
            prop_assert!(kept.is_none_or(|kept| kept == *made));
            let held: usize = made.values().map(|held| held.entries).sum();
            prop_assert_eq!(held, table.entries.len());
        }
    }
}

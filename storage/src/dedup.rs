//! Which batches were stored already: per (sender, epoch, signal) the highest sequence and the gaps below it.
//!
//! Guarantee: an inserted sequence is never reported as new while its sender is remembered. When a sender leaves more
//! than [`MAX_GAPS`] holes, the lowest one is forgotten, and sequences below it are reported as forgotten: refused,
//! neither lost silently nor counted twice. Wrong on purpose: a sender not heard of for the whole horizon is forgotten,
//! and its very old batches would count as new.

use std::collections::{BTreeMap, HashMap};

use emberline_model::{BatchId, Signal};
use prost::Message;

/// Separate holes remembered per sender.
pub(crate) const MAX_GAPS: usize = 1024;

/// Senders remembered; beyond this, those silent for longest are dropped.
const MAX_SENDERS: usize = 100_000;

/// What is known of a batch id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not stored yet.
    New,
    /// Stored.
    Stored,
    /// Too far behind to tell.
    Forgotten,
}

/// All senders.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Dedup {
    senders: HashMap<Key, Progress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    sender: String,
    epoch: u64,
    signal: Signal,
}

impl Key {
    fn of(id: &BatchId) -> Key {
        Key {
            sender: id.sender.clone(),
            epoch: id.epoch,
            signal: id.signal,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    /// The highest sequence stored.
    high: u64,
    /// Nothing is known any more of sequences below this one.
    floor: u64,
    /// Missing sequences below `high`, as first → last.
    gaps: BTreeMap<u64, u64>,
    /// Seconds since the Unix epoch.
    last_heard_s: u32,
}

impl Progress {
    /// The hole that contains a sequence.
    fn gap_of(&self, sequence: u64) -> Option<(u64, u64)> {
        let (&first, &last) = self.gaps.range(..=sequence).next_back()?;
        (sequence <= last).then_some((first, last))
    }

    fn seen(&self, sequence: u64) -> Seen {
        if sequence > self.high || self.gap_of(sequence).is_some() {
            Seen::New
        } else if sequence < self.floor {
            Seen::Forgotten
        } else {
            Seen::Stored
        }
    }

    fn insert(&mut self, sequence: u64) {
        if sequence > self.high {
            if sequence > self.high + 1 {
                self.gaps.insert(self.high + 1, sequence - 1);
            }
            self.high = sequence;
        } else if let Some((first, last)) = self.gap_of(sequence) {
            self.gaps.remove(&first);
            if first < sequence {
                self.gaps.insert(first, sequence - 1);
            }
            if sequence < last {
                self.gaps.insert(sequence + 1, last);
            }
        }
        while self.gaps.len() > MAX_GAPS {
            if let Some((_, last)) = self.gaps.pop_first() {
                self.floor = last + 1;
            }
        }
    }
}

impl Dedup {
    /// What is known of a batch.
    pub(crate) fn seen(&self, id: &BatchId) -> Seen {
        match self.senders.get(&Key::of(id)) {
            None => Seen::New,
            Some(progress) => progress.seen(id.sequence),
        }
    }

    /// Remembers a batch as stored.
    pub(crate) fn insert(&mut self, id: &BatchId, heard_s: u32) {
        // Sequences start at 1, so a sender first heard of with a higher one has a hole below that can still be filled.
        let progress = self.senders.entry(Key::of(id)).or_default();
        progress.insert(id.sequence);
        progress.last_heard_s = progress.last_heard_s.max(heard_s);
        if self.senders.len() > MAX_SENDERS {
            self.forget_longest_silent();
        }
    }

    /// Forgets senders not heard of since a time in seconds.
    pub(crate) fn expire(&mut self, before_s: u32) {
        self.senders.retain(|_, progress| progress.last_heard_s >= before_s);
    }

    fn forget_longest_silent(&mut self) {
        let mut heard: Vec<u32> = self.senders.values().map(|p| p.last_heard_s).collect();
        heard.sort_unstable();
        let before = heard[heard.len() / 10].saturating_add(1);
        let mut left = heard.len() / 10 + 1;
        self.senders.retain(|_, progress| {
            let goes = progress.last_heard_s < before && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }

    /// Encodes the senders together with the number of the last batch covered.
    pub(crate) fn encode(&self, through_lsn: u64) -> Vec<u8> {
        let senders = self
            .senders
            .iter()
            .map(|(key, progress)| StoredSender {
                sender: key.sender.clone(),
                epoch: key.epoch,
                signal: key.signal.code(),
                high: progress.high,
                floor: progress.floor,
                gaps: progress.gaps.iter().flat_map(|(&first, &last)| [first, last]).collect(),
                last_heard_s: progress.last_heard_s,
            })
            .collect();
        Checkpoint { through_lsn, senders }.encode_to_vec()
    }

    /// The reverse of [`Dedup::encode`]: the number covered and the senders; `None` for other bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, Dedup)> {
        let checkpoint = Checkpoint::decode(bytes).ok()?;
        let mut senders = HashMap::with_capacity(checkpoint.senders.len());
        for stored in checkpoint.senders {
            let key = Key {
                sender: stored.sender,
                epoch: stored.epoch,
                signal: Signal::from_code(stored.signal)?,
            };
            if !are_gaps_below(&stored.gaps, stored.high) {
                return None;
            }
            let gaps = stored.gaps.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let progress = Progress {
                high: stored.high,
                floor: stored.floor,
                gaps,
                last_heard_s: stored.last_heard_s,
            };
            senders.insert(key, progress);
        }
        Some((checkpoint.through_lsn, Dedup { senders }))
    }
}

/// True if the pairs of first and last rise below the highest stored sequence: otherwise a batch could be both stored
/// and missing.
fn are_gaps_below(numbers: &[u64], high: u64) -> bool {
    let are_pairs = numbers.len().is_multiple_of(2) && numbers.chunks_exact(2).all(|pair| pair[0] <= pair[1]);
    let rise = numbers.chunks_exact(2).zip(numbers.chunks_exact(2).skip(1));
    are_pairs && rise.into_iter().all(|(a, b)| a[1] < b[0]) && numbers.last().is_none_or(|&last| last < high)
}

#[derive(Clone, PartialEq, Message)]
struct Checkpoint {
    #[prost(uint64, tag = "1")]
    through_lsn: u64,
    #[prost(message, repeated, tag = "2")]
    senders: Vec<StoredSender>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredSender {
    #[prost(string, tag = "1")]
    sender: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint32, tag = "3")]
    signal: u32,
    #[prost(uint64, tag = "4")]
    high: u64,
    #[prost(uint64, tag = "5")]
    floor: u64,
    #[prost(uint64, repeated, tag = "6")]
    gaps: Vec<u64>,
    #[prost(uint32, tag = "7")]
    last_heard_s: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    fn id(sequence: u64) -> BatchId {
        BatchId {
            sender: "demo/cart".into(),
            epoch: 1,
            sequence,
            signal: Signal::Requests,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(sequences in prop::collection::vec(1u64..60, 0..80)) {
            let (mut dedup, mut set) = (Dedup::default(), HashSet::new());
            for &sequence in &sequences {
                prop_assert_eq!(dedup.seen(&id(sequence)) == Seen::Stored, set.contains(&sequence));
                dedup.insert(&id(sequence), 5);
                set.insert(sequence);
            }
            let (through, decoded) = Dedup::decode(&dedup.encode(9)).unwrap();
            prop_assert_eq!(through, 9);
            prop_assert_eq!(&decoded, &dedup);
            for sequence in 1..70 {
                let expected = if set.contains(&sequence) { Seen::Stored } else { Seen::New };
                prop_assert_eq!(decoded.seen(&id(sequence)), expected);
            }
        }
    }

    #[test]
    fn epochs_and_signals_count_apart() {
        let mut dedup = Dedup::default();
        dedup.insert(&id(3), 5);
        assert_eq!(dedup.seen(&BatchId { epoch: 2, ..id(3) }), Seen::New);
        assert_eq!(
            dedup.seen(&BatchId {
                signal: Signal::Profiles,
                ..id(3)
            }),
            Seen::New
        );
    }

    #[test]
    fn too_many_holes_are_forgotten_not_miscounted() {
        let mut dedup = Dedup::default();
        for n in 0..MAX_GAPS as u64 + 10 {
            dedup.insert(&id(2 + 2 * n), 5);
        }
        assert_eq!(dedup.seen(&id(1)), Seen::Forgotten);
        assert_eq!(dedup.seen(&id(2)), Seen::Forgotten);
        assert_eq!(dedup.seen(&id(21)), Seen::New);
        assert_eq!(dedup.seen(&id(22)), Seen::Stored);
    }

    #[test]
    fn silent_senders_expire_and_their_number_is_bounded() {
        let mut dedup = Dedup::default();
        dedup.insert(&id(1), 5);
        dedup.expire(5);
        assert_eq!(dedup.seen(&id(1)), Seen::Stored);
        dedup.expire(6);
        assert_eq!(dedup.seen(&id(1)), Seen::New);
        for epoch in 0..MAX_SENDERS as u64 + 1 {
            dedup.insert(&BatchId { epoch, ..id(1) }, epoch as u32);
        }
        assert!(dedup.senders.len() <= MAX_SENDERS);
        assert_eq!(
            dedup.seen(&BatchId {
                epoch: MAX_SENDERS as u64,
                ..id(1)
            }),
            Seen::Stored
        );
    }
}

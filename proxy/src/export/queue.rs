//! Encoded batches waiting for the collector, in memory, or on disk where there is a spool.
//!
//! Guarantees: never more bytes than the limit of either; first in, first out; when room is needed, the oldest profiles
//! are dropped first and requests last, because lost counts cannot be made up for, while later profiles can stand in for
//! lost ones. The batch being sent stays in the queue until it is settled, and is never dropped to make room.

use std::collections::VecDeque;

use emberline_model::{BatchId, Signal};

use super::{batch::QueuedBatch, spool::Spooled};

/// Bytes charged for a batch in memory: its body and its slot in the queue.
fn cost(batch: &QueuedBatch) -> u64 {
    (batch.body.len() + batch.id.sender.len() + size_of::<Held>()) as u64
}

/// Where a batch is kept.
#[derive(Debug)]
pub(super) enum Held {
    Memory(QueuedBatch),
    Disk(Spooled),
}

impl Held {
    pub(super) fn id(&self) -> &BatchId {
        match self {
            Held::Memory(batch) => &batch.id,
            Held::Disk(spooled) => &spooled.id,
        }
    }

    fn cost(&self) -> u64 {
        match self {
            Held::Memory(batch) => cost(batch),
            Held::Disk(spooled) => spooled.cost(),
        }
    }

    fn is_on_disk(&self) -> bool {
        matches!(self, Held::Disk(_))
    }
}

/// Bytes of one kind of storage.
#[derive(Debug, Default)]
struct Room {
    used: u64,
    limit: u64,
}

/// The queue. It does no locking and no input or output of its own.
#[derive(Debug)]
pub(super) struct BatchQueue {
    waiting: VecDeque<Held>,
    in_flight: Option<Held>,
    memory: Room,
    disk: Room,
}

impl BatchQueue {
    /// An empty queue that holds at most so many bytes in memory and on disk.
    pub(super) fn new(memory_bytes: u64, disk_bytes: u64) -> BatchQueue {
        let room = |limit| Room { used: 0, limit };
        BatchQueue {
            waiting: VecDeque::new(),
            in_flight: None,
            memory: room(memory_bytes),
            disk: room(disk_bytes),
        }
    }

    fn room(&mut self, is_on_disk: bool) -> &mut Room {
        if is_on_disk { &mut self.disk } else { &mut self.memory }
    }

    /// Appends a batch. Returns what was dropped for it: possibly the batch itself, if it does not fit.
    #[must_use = "what was dropped has to be counted, and its file removed"]
    pub(super) fn push(&mut self, batch: Held) -> Vec<Held> {
        self.add(batch, VecDeque::push_back)
    }

    /// Puts a batch in front of all others: one that an earlier process left.
    #[must_use = "what was dropped has to be counted, and its file removed"]
    pub(super) fn push_front(&mut self, batch: Held) -> Vec<Held> {
        self.add(batch, VecDeque::push_front)
    }

    fn add(&mut self, batch: Held, place: impl FnOnce(&mut VecDeque<Held>, Held)) -> Vec<Held> {
        let is_on_disk = batch.is_on_disk();
        self.room(is_on_disk).used += batch.cost();
        place(&mut self.waiting, batch);
        let mut dropped = Vec::new();
        while self.room(is_on_disk).used > self.room(is_on_disk).limit {
            let here = |held: &Held| held.is_on_disk() == is_on_disk;
            let is_profiles = |held: &Held| here(held) && held.id().signal == Signal::Profiles;
            let oldest = self.waiting.iter().position(is_profiles);
            let oldest = oldest.or_else(|| self.waiting.iter().position(here));
            let Some(victim) = oldest.and_then(|at| self.waiting.remove(at)) else {
                break;
            };
            self.room(is_on_disk).used -= victim.cost();
            dropped.push(victim);
        }
        dropped
    }

    /// The batch to send now: the one already started and not settled, or else the oldest.
    pub(super) fn begin(&mut self) -> Option<&Held> {
        if self.in_flight.is_none() {
            self.in_flight = self.waiting.pop_front();
        }
        self.in_flight.as_ref()
    }

    /// Removes the batch given out by [`BatchQueue::begin`], whatever its outcome.
    pub(super) fn settle(&mut self) -> Option<Held> {
        let batch = self.in_flight.take()?;
        self.room(batch.is_on_disk()).used -= batch.cost();
        Some(batch)
    }

    /// Batches inside, including the one being sent.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.in_flight.is_some())
    }

    /// Those of them that are on disk.
    pub(super) fn on_disk(&self) -> usize {
        let all = self.waiting.iter().chain(&self.in_flight);
        all.filter(|held| held.is_on_disk()).count()
    }

    /// True when nothing waits and nothing is being sent.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes charged for the batches in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.used
    }

    /// Bytes charged for the batches on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn batch(sequence: u64, signal: Signal, size: usize) -> QueuedBatch {
        let id = BatchId {
            sender: "s".into(),
            epoch: 1,
            sequence,
            signal,
        };
        QueuedBatch {
            id,
            body: Bytes::from(vec![0; size]),
        }
    }

    fn numbers(batches: &[Held]) -> Vec<(u64, Signal)> {
        batches.iter().map(|b| (b.id().sequence, b.id().signal)).collect()
    }

    fn push(queue: &mut BatchQueue, batch: QueuedBatch) -> Vec<Held> {
        queue.push(Held::Memory(batch))
    }

    #[test]
    fn the_oldest_profiles_go_first_and_requests_last() {
        let one = cost(&batch(1, Signal::Requests, 1000));
        let mut queue = BatchQueue::new(4 * one, 0);
        for sequence in 1..=2 {
            assert!(push(&mut queue, batch(sequence, Signal::Requests, 1000)).is_empty());
            assert!(push(&mut queue, batch(sequence, Signal::Profiles, 1000)).is_empty());
        }
        assert_eq!(
            numbers(&push(&mut queue, batch(3, Signal::Requests, 1000))),
            [(1, Signal::Profiles)]
        );
        assert_eq!(
            numbers(&push(&mut queue, batch(4, Signal::Requests, 1000))),
            [(2, Signal::Profiles)]
        );
        assert_eq!(
            numbers(&push(&mut queue, batch(5, Signal::Requests, 1000))),
            [(1, Signal::Requests)]
        );
        assert_eq!(
            numbers(&push(&mut queue, batch(3, Signal::Profiles, 1000))),
            [(3, Signal::Profiles)]
        );
        assert_eq!(queue.begin().map(|b| b.id().sequence), Some(2));
    }

    #[test]
    fn the_batch_in_flight_is_not_dropped_for_room() {
        let one = cost(&batch(1, Signal::Requests, 1000));
        let mut queue = BatchQueue::new(one, 0);
        assert!(push(&mut queue, batch(1, Signal::Requests, 1000)).is_empty());
        assert_eq!(queue.begin().map(|b| b.id().sequence), Some(1));
        assert_eq!(
            numbers(&push(&mut queue, batch(2, Signal::Requests, 1000))),
            [(2, Signal::Requests)]
        );
        assert_eq!(queue.begin().map(|b| b.id().sequence), Some(1));
        queue.settle();
        assert!(queue.is_empty());
        assert_eq!(queue.memory_bytes(), 0);
    }

    proptest! {
        #[test]
        fn bytes_stay_below_the_limit_and_nothing_vanishes_uncounted(
            pushes in prop::collection::vec((any::<bool>(), 0usize..2000, any::<bool>()), 1..60),
            limit in 0u64..6000,
        ) {
            let mut queue = BatchQueue::new(limit, 0);
            let (mut dropped, mut settled) = (0, 0);
            for (sequence, (requests, size, settle)) in pushes.iter().enumerate() {
                let signal = if *requests { Signal::Requests } else { Signal::Profiles };
                dropped += push(&mut queue, batch(sequence as u64, signal, *size)).len();
                prop_assert!(queue.memory_bytes() <= limit);
                if *settle && queue.begin().is_some() {
                    queue.settle();
                    settled += 1;
                }
            }
            prop_assert_eq!(dropped + settled + queue.len(), pushes.len());
        }
    }
}

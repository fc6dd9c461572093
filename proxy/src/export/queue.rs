//! Encoded batches waiting for the collector, in memory.
//!
//! Guarantees: never more bytes than its limit; first in, first out; when room is needed, the oldest profiles are
//! dropped first and requests last, because lost counts cannot be made up for, while later profiles can stand in for
//! lost ones. The batch being sent stays in the queue until it is settled, and is never dropped to make room.

use std::collections::VecDeque;

use bytes::Bytes;
use emberline_model::{BatchId, Signal};

/// A batch ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedBatch {
    /// The same on every attempt.
    pub id: BatchId,
    /// The encoded request.
    pub body: Bytes,
}

impl QueuedBatch {
    /// Bytes charged for it: its body and its slot in the queue.
    fn cost(&self) -> usize {
        self.body.len() + self.id.sender.len() + size_of::<QueuedBatch>()
    }
}

/// The queue. It does no locking of its own.
#[derive(Debug)]
pub struct BatchQueue {
    waiting: VecDeque<QueuedBatch>,
    in_flight: Option<QueuedBatch>,
    bytes: usize,
    limit_bytes: usize,
}

impl BatchQueue {
    /// An empty queue that holds at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> BatchQueue {
        BatchQueue {
            waiting: VecDeque::new(),
            in_flight: None,
            bytes: 0,
            limit_bytes,
        }
    }

    /// Appends a batch. Returns what was dropped for it: possibly the batch itself, if it does not fit.
    #[must_use = "what was dropped has to be counted"]
    pub fn push(&mut self, batch: QueuedBatch) -> Vec<QueuedBatch> {
        self.bytes += batch.cost();
        self.waiting.push_back(batch);
        let mut dropped = Vec::new();
        while self.bytes > self.limit_bytes {
            let oldest_profiles = self.waiting.iter().position(|b| b.id.signal == Signal::Profiles);
            let Some(victim) = self.waiting.remove(oldest_profiles.unwrap_or(0)) else {
                break;
            };
            self.bytes -= victim.cost();
            dropped.push(victim);
        }
        dropped
    }

    /// The batch to send now: the one already started and not settled, or else the oldest.
    pub fn begin(&mut self) -> Option<&QueuedBatch> {
        if self.in_flight.is_none() {
            self.in_flight = self.waiting.pop_front();
        }
        self.in_flight.as_ref()
    }

    /// Removes the batch given out by [`BatchQueue::begin`], whatever its outcome.
    pub fn settle(&mut self) {
        if let Some(batch) = self.in_flight.take() {
            self.bytes -= batch.cost();
        }
    }

    /// Batches inside, including the one being sent.
    pub fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.in_flight.is_some())
    }

    /// True when nothing waits and nothing is being sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes charged for the batches inside.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn numbers(batches: &[QueuedBatch]) -> Vec<(u64, Signal)> {
        batches.iter().map(|b| (b.id.sequence, b.id.signal)).collect()
    }

    #[test]
    fn the_oldest_profiles_go_first_and_requests_last() {
        let one = batch(1, Signal::Requests, 1000).cost();
        let mut queue = BatchQueue::new(4 * one);
        for sequence in 1..=2 {
            assert!(queue.push(batch(sequence, Signal::Requests, 1000)).is_empty());
            assert!(queue.push(batch(sequence, Signal::Profiles, 1000)).is_empty());
        }
        assert_eq!(
            numbers(&queue.push(batch(3, Signal::Requests, 1000))),
            [(1, Signal::Profiles)]
        );
        assert_eq!(
            numbers(&queue.push(batch(4, Signal::Requests, 1000))),
            [(2, Signal::Profiles)]
        );
        assert_eq!(
            numbers(&queue.push(batch(5, Signal::Requests, 1000))),
            [(1, Signal::Requests)]
        );
        assert_eq!(
            numbers(&queue.push(batch(3, Signal::Profiles, 1000))),
            [(3, Signal::Profiles)]
        );
        assert_eq!(queue.begin().map(|b| b.id.sequence), Some(2));
    }

    #[test]
    fn the_batch_in_flight_is_not_dropped_for_room() {
        let one = batch(1, Signal::Requests, 1000).cost();
        let mut queue = BatchQueue::new(one);
        assert!(queue.push(batch(1, Signal::Requests, 1000)).is_empty());
        assert_eq!(queue.begin().map(|b| b.id.sequence), Some(1));
        assert_eq!(
            numbers(&queue.push(batch(2, Signal::Requests, 1000))),
            [(2, Signal::Requests)]
        );
        assert_eq!(queue.begin().map(|b| b.id.sequence), Some(1));
        queue.settle();
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    proptest! {
        #[test]
        fn bytes_stay_below_the_limit_and_nothing_vanishes_uncounted(
            pushes in prop::collection::vec((any::<bool>(), 0usize..2000, any::<bool>()), 1..60),
            limit in 0usize..6000,
        ) {
            let mut queue = BatchQueue::new(limit);
            let (mut dropped, mut settled) = (0, 0);
            for (sequence, (requests, size, settle)) in pushes.iter().enumerate() {
                let signal = if *requests { Signal::Requests } else { Signal::Profiles };
                dropped += queue.push(batch(sequence as u64, signal, *size)).len();
                prop_assert!(queue.bytes() <= limit);
                if *settle && queue.begin().is_some() {
                    queue.settle();
                    settled += 1;
                }
            }
            prop_assert_eq!(dropped + settled + queue.len(), pushes.len());
        }
    }
}

//! The ring of one thread: its signal handler writes, the drainer reads.
//!
//! Guarantee: one writer and one reader, no locks, no waiting; a record is seen completely or not at all; a record that
//! does not fit is dropped and counted, and never overwrites another. All code here is safe Rust on atomics, and the
//! writer's side cannot panic.
//!
//! A record is: a header word (frames, flags, label), the weight, the CPU nanoseconds, the frames.

use std::sync::atomic::{AtomicU64, Ordering};

const HEADER_WORDS: u64 = 3;

/// The stack was deeper than the frames kept.
pub(super) const TRUNCATED: u16 = 1;
/// The thread was not running on its own stack.
pub(super) const OFF_STACK: u16 = 2;

pub(super) struct Ring {
    words: Box<[AtomicU64]>,
    /// Words ever written; only the writer stores it.
    head: AtomicU64,
    /// Words ever read; only the reader stores it.
    tail: AtomicU64,
    dropped: AtomicU64,
    dropped_weight: AtomicU64,
}

/// A record as the reader sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) label: u32,
    pub(super) flags: u16,
    pub(super) weight: u64,
    pub(super) cpu_ns: u64,
    /// Leaf first; all but the first are return addresses.
    pub(super) frames: &'a [u64],
}

impl Ring {
    /// A ring of at least `words` words, rounded up to a power of two.
    pub(super) fn new(words: usize) -> Self {
        let capacity = words.max(8).next_power_of_two();
        Self {
            words: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            dropped_weight: AtomicU64::new(0),
        }
    }

    fn store(&self, position: u64, word: u64) {
        if let Some(cell) = self.words.get(position as usize & (self.words.len() - 1)) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    fn load(&self, position: u64) -> u64 {
        self.words
            .get(position as usize & (self.words.len() - 1))
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Begins a record. Only for the writer.
    pub(super) fn begin(&self) -> RecordWriter<'_> {
        let start = self.head.load(Ordering::Relaxed);
        RecordWriter {
            ring: self,
            start,
            next: start + HEADER_WORDS,
            // Acquire: what the reader has released may be overwritten.
            limit: self.tail.load(Ordering::Acquire) + self.words.len() as u64,
            overflowed: false,
        }
    }

    /// Passes every complete record to `each`. Only for the reader. `scratch` is reused between calls.
    pub(super) fn drain(&self, scratch: &mut Vec<u64>, mut each: impl FnMut(Record<'_>)) {
        let head = self.head.load(Ordering::Acquire);
        let mut position = self.tail.load(Ordering::Relaxed);
        while position + HEADER_WORDS <= head {
            let header = self.load(position);
            let frames = (header & 0xFFFF).min(head - position - HEADER_WORDS);
            scratch.clear();
            scratch.extend((0..frames).map(|index| self.load(position + HEADER_WORDS + index)));
            each(Record {
                label: (header >> 32) as u32,
                flags: (header >> 16) as u16,
                weight: self.load(position + 1),
                cpu_ns: self.load(position + 2),
                frames: scratch,
            });
            position += HEADER_WORDS + frames;
            // Release after each record, to make room for the writer as soon as possible.
            self.tail.store(position, Ordering::Release);
        }
    }

    /// Records dropped over the ring's lifetime, and their weight.
    pub(super) fn dropped(&self) -> (u64, u64) {
        (
            self.dropped.load(Ordering::Relaxed),
            self.dropped_weight.load(Ordering::Relaxed),
        )
    }
}

/// A record being written. Unless committed, it leaves no trace.
pub(super) struct RecordWriter<'a> {
    ring: &'a Ring,
    start: u64,
    next: u64,
    limit: u64,
    overflowed: bool,
}

impl RecordWriter<'_> {
    /// Adds a frame; `false` if the ring is full, in which case the record will be dropped.
    #[inline]
    pub(super) fn push(&mut self, address: u64) -> bool {
        if self.next >= self.limit {
            self.overflowed = true;
            return false;
        }
        self.ring.store(self.next, address);
        self.next += 1;
        true
    }

    /// Frames so far.
    #[inline]
    pub(super) fn frames(&self) -> u64 {
        self.next - self.start - HEADER_WORDS
    }

    /// Publishes the record, or drops and counts it if it did not fit.
    #[inline]
    pub(super) fn commit(self, label: u32, flags: u16, weight: u64, cpu_ns: u64) {
        if self.overflowed || self.next > self.limit {
            // Only this thread writes these, so a plain sum is exact.
            let dropped = &self.ring.dropped;
            dropped.store(dropped.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            let dropped_weight = &self.ring.dropped_weight;
            dropped_weight.store(dropped_weight.load(Ordering::Relaxed) + weight, Ordering::Relaxed);
            return;
        }
        let header = self.frames() | u64::from(flags) << 16 | u64::from(label) << 32;
        self.ring.store(self.start, header);
        self.ring.store(self.start + 1, weight);
        self.ring.store(self.start + 2, cpu_ns);
        self.ring.head.store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (u32, u16, u64, u64, Vec<u64>);

    fn write(ring: &Ring, record: &Owned) {
        let mut writer = ring.begin();
        for frame in &record.4 {
            if !writer.push(*frame) {
                break;
            }
        }
        writer.commit(record.0, record.1, record.2, record.3);
    }

    fn read(ring: &Ring) -> Vec<Owned> {
        let mut records = Vec::new();
        ring.drain(&mut Vec::new(), |record| {
            records.push((
                record.label,
                record.flags,
                record.weight,
                record.cpu_ns,
                record.frames.to_vec(),
            ));
        });
        records
    }

    fn record() -> impl Strategy<Value = Owned> {
        (
            any::<u32>(),
            any::<u16>(),
            0_u64..100,
            any::<u64>(),
            prop::collection::vec(any::<u64>(), 0..20),
        )
    }

    proptest! {
        /// Each record comes out once, in order and unchanged, or is counted as dropped, with its weight.
        #[test]
        fn records_come_out_whole_or_are_counted(batches in prop::collection::vec(prop::collection::vec(record(), 0..12), 1..12)) {
            let ring = Ring::new(64);
            let (mut written, mut seen, mut lost_weight) = (0_u64, 0_u64, 0_u64);
            for batch in &batches {
                for item in batch {
                    write(&ring, item);
                    written += 1;
                }
                let out = read(&ring);
                seen += out.len() as u64;
                lost_weight += batch.iter().map(|item| item.2).sum::<u64>() - out.iter().map(|item| item.2).sum::<u64>();
                let mut rest = batch.iter();
                for item in &out {
                    prop_assert!(rest.any(|wrote| wrote == item), "a record that was never written: {item:?}");
                }
            }
            prop_assert_eq!(ring.dropped(), (written - seen, lost_weight));
        }
    }

    #[test]
    fn a_full_ring_keeps_what_it_has() {
        let ring = Ring::new(8);
        write(&ring, &(1, 0, 1, 9, vec![11, 12, 13]));
        write(&ring, &(2, 0, 5, 9, vec![21]));
        assert_eq!(read(&ring), [(1, 0, 1, 9, vec![11, 12, 13])]);
        assert_eq!(ring.dropped(), (1, 5));
        write(&ring, &(3, TRUNCATED, 1, 9, vec![31, 32, 33, 34, 35]));
        assert_eq!(read(&ring), [(3, TRUNCATED, 1, 9, vec![31, 32, 33, 34, 35])]);
    }

    #[test]
    fn a_reader_on_another_thread_sees_only_whole_records() {
        let ring = Ring::new(256);
        std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut seen = 0_u64;
                let mut scratch = Vec::new();
                while seen < 10_000 {
                    ring.drain(&mut scratch, |record| {
                        assert_eq!(record.frames.len() as u64, record.weight);
                        assert!(record.frames.iter().all(|frame| *frame == record.cpu_ns));
                        seen += 1;
                    });
                    std::thread::yield_now();
                }
            });
            let mut number = 0;
            while !reader.is_finished() {
                number += 1;
                let length = number % 30;
                write(&ring, &(0, 0, length, number, vec![number; length as usize]));
                if number % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            reader.join().unwrap();
        });
    }
}

//! Histograms of stretches of time in a few bytes each, because ten thousand watches keep a hundred of them.
//!
//! Guarantees: counts come back as they went in. The smallest and the largest duration become the edges of their buckets, and the
//! sum is that of the buckets' middles, at most 1.1 % off.
//!
//! One file because what is written and how it is read and added up is one format: each part of it is half of another. A third of
//! it is tests and the sums.

use emberline_model::histogram::{Histogram, MAX_INDEX, MIN_INDEX, bucket_lower, bucket_upper};

/// Records in order of time: a number of a stretch, a mark, and one or two histograms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    bytes: Vec<u8>,
    /// Number of the first record, whose distance to one before it means nothing.
    front: i64,
    back: i64,
    records: u32,
    /// What first buckets are counted from.
    origin: i16,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Of the stretch of time.
    pub(crate) number: i64,
    /// What its writer noted.
    pub(crate) mark: u8,
    histograms: Reader<'a>,
}

impl Log {
    /// Adds a record; numbers must increase.
    pub(crate) fn push(&mut self, number: i64, mark: u8, histograms: &[&Histogram]) {
        if self.records == 0 {
            self.front = number;
            self.back = number;
            let first = histograms.iter().find_map(|histogram| histogram.buckets().first());
            self.origin = first.map_or(0, |first| first.0);
        }
        let mut record = Writer::default();
        record.number((number - self.back).max(0) as u64, 0);
        record.number(u64::from(mark), MARK_BITS);
        histograms
            .iter()
            .for_each(|histogram| record.histogram(histogram, self.origin));
        let record = record.finish();
        let mut head = Vec::with_capacity(2);
        write_length(&mut head, record.len());
        // Doubling would leave up to half of it empty.
        self.bytes.reserve_exact(head.len() + record.len());
        self.bytes.extend(head);
        self.bytes.extend(record);
        self.back = number;
        self.records += 1;
    }

    /// All records, oldest first.
    pub(crate) fn iter(&self) -> Records<'_> {
        Records {
            bytes: &self.bytes,
            number: self.front,
            is_first: true,
            origin: self.origin,
        }
    }

    /// Number of the oldest record.
    pub(crate) fn front(&self) -> Option<i64> {
        (self.records > 0).then_some(self.front)
    }

    /// Drops the oldest record.
    pub(crate) fn pop_front(&mut self) {
        let mut records = self.iter();
        records.next();
        let rest = records.bytes.len();
        let next = records.next().map(|record| record.number);
        self.bytes.drain(..self.bytes.len() - rest);
        self.front = next.unwrap_or(self.front);
        self.records = self.records.saturating_sub(1);
    }

    /// Drops the records from a number on.
    pub(crate) fn truncate(&mut self, number: i64) {
        let mut records = self.iter();
        let (mut kept, mut rest, mut back) = (0, records.bytes.len(), self.front);
        while let Some(record) = records.next()
            && record.number < number
        {
            (kept, rest, back) = (kept + 1, records.bytes.len(), record.number);
        }
        self.bytes.truncate(self.bytes.len() - rest);
        (self.records, self.back) = (kept, back);
    }

    /// Its histograms as one, the first of two.
    pub(crate) fn merged(&self) -> Histogram {
        let mut all = Histogram::new();
        self.iter().for_each(|record| all.merge(&record.histogram()));
        all
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Reads records.
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    number: i64,
    is_first: bool,
    origin: i16,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.bytes.is_empty() {
            return None;
        }
        let length = read_length(&mut self.bytes);
        let (record, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        let mut reader = Reader {
            bytes: record,
            bit: 0,
            origin: self.origin,
        };
        let step = reader.number(0) as i64;
        self.number += if self.is_first { 0 } else { step };
        self.is_first = false;
        Some(Record {
            number: self.number,
            mark: reader.number(MARK_BITS) as u8,
            histograms: reader,
        })
    }
}

impl Record<'_> {
    /// Its histogram, the first of two.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut reader = self.histograms;
        reader.histogram()
    }

    /// Both histograms.
    pub(crate) fn pair(&self) -> [Histogram; 2] {
        let mut reader = self.histograms;
        [reader.histogram(), reader.histogram()]
    }

    /// Adds its histogram, the first of two, to a sum.
    pub(crate) fn add_to(&self, sum: &mut Sum) {
        sum.read(self.histograms);
    }
}

/// Low bits of a mark, of the number of buckets, and of the first bucket's distance from the log's origin.
const MARK_BITS: u32 = 2;
const SIZE_BITS: u32 = 4;
const FIRST_BITS: u32 = 4;
/// Most low bits of distances and of counts, and the bits that say how many they are.
const MOST_LOW: u32 = 15;
const LOW_BITS: u32 = 4;
/// A number whose upper part is as large is written in full.
const FULL: u64 = 16;
/// Bits that say how many a number in full has.
const WIDTH_BITS: u32 = 6;

/// Writes numbers as Rice codes: the upper part as so many ones and a zero, then so many low bits as suit what is written. The lowest
/// bits come first.
///
/// Source: Rice and Plaunt, "Adaptive variable-length coding for efficient compression of spacecraft television data", IEEE Trans. Commun.
/// Technol. 19 (1971).
#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
    /// Bits that fill no byte yet, and how many.
    open: u64,
    bits: u32,
}

impl Writer {
    /// Writes the lowest bits of a number, 32 at most.
    fn put(&mut self, number: u64, bits: u32) {
        self.open |= number << self.bits;
        self.bits += bits;
        while self.bits >= 8 {
            self.bytes.push(self.open as u8);
            self.open >>= 8;
            self.bits -= 8;
        }
    }

    fn number(&mut self, number: u64, low: u32) {
        let upper = number >> low;
        if upper < FULL {
            self.put((1 << upper) - 1, upper as u32 + 1);
            self.put(number & ((1 << low) - 1), low);
            return;
        }
        let width = (64 - number.leading_zeros()).min(MOST_WIDTH);
        let number = number.min((1 << MOST_WIDTH) - 1);
        self.put((1 << FULL) - 1, FULL as u32);
        self.put(u64::from(width), WIDTH_BITS);
        self.put(number & 0xffff_ffff, width.min(32));
        self.put(number >> 32, width.saturating_sub(32));
    }

    fn histogram(&mut self, histogram: &Histogram, origin: i16) {
        let buckets = histogram.buckets();
        self.number(histogram.zero_count(), 0);
        self.number(buckets.len() as u64, SIZE_BITS);
        let Some(&(first, _)) = buckets.first() else {
            return;
        };
        // Distances to both sides of the origin, in turn.
        let distance = i64::from(first) - i64::from(origin);
        self.number((distance << 1 ^ distance >> 63).cast_unsigned(), FIRST_BITS);
        let gaps = || {
            buckets
                .windows(2)
                .map(|pair| u64::from(pair[1].0.abs_diff(pair[0].0)) - 1)
        };
        let counts = || buckets.iter().map(|bucket| bucket.1.saturating_sub(1));
        let (of_gaps, of_counts) = (best_low(gaps), best_low(counts));
        self.put(u64::from(of_gaps), LOW_BITS);
        self.put(u64::from(of_counts), LOW_BITS);
        self.number(counts().next().unwrap_or(0), of_counts);
        for (gap, count) in gaps().zip(counts().skip(1)) {
            self.number(gap, of_gaps);
            self.number(count, of_counts);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.bits > 0 {
            self.bytes.push(self.open as u8);
        }
        self.bytes
    }
}

/// Bits of the largest number that is written; what is larger becomes that.
const MOST_WIDTH: u32 = 56;

/// The number of low bits with which numbers take the fewest bits.
fn best_low<I: Iterator<Item = u64>>(numbers: impl Fn() -> I) -> u32 {
    let cost = |low: u32| {
        numbers().map(|number| (number >> low).min(4 * FULL)).sum::<u64>() + u64::from(low) * numbers().count() as u64
    };
    let mut best = 0;
    // The cost falls, and then it grows.
    while best < MOST_LOW && cost(best + 1) < cost(best) {
        best += 1;
    }
    best
}

#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    /// The next bit.
    bit: usize,
    origin: i16,
}

impl Reader<'_> {
    /// The next bits, 57 at least; zeros after the end.
    fn peek(&self) -> u64 {
        let from = self.bytes.get(self.bit / 8..).unwrap_or_default();
        let next = match from.first_chunk::<8>() {
            Some(eight) => *eight,
            None => {
                let mut eight = [0; 8];
                eight[..from.len()].copy_from_slice(from);
                eight
            }
        };
        u64::from_le_bytes(next) >> (self.bit % 8)
    }

    /// So many bits, 56 at most.
    fn take(&mut self, bits: u32) -> u64 {
        let taken = self.peek() & ((1 << bits) - 1);
        self.bit += bits as usize;
        taken
    }

    fn number(&mut self, low: u32) -> u64 {
        let next = self.peek();
        let upper = next.trailing_ones();
        if u64::from(upper) < FULL {
            // Ones, a zero and low bits are 31 at most.
            self.bit += (upper + 1 + low) as usize;
            return u64::from(upper) << low | next >> (upper + 1) & ((1 << low) - 1);
        }
        self.bit += FULL as usize;
        let width = self.take(WIDTH_BITS) as u32;
        self.take(width.min(MOST_WIDTH))
    }

    /// Tells each bucket; returns how many zeros there are.
    fn buckets(&mut self, mut each: impl FnMut(i16, u64)) -> u64 {
        let (zeros, buckets) = (self.number(0), self.number(SIZE_BITS));
        if buckets == 0 {
            return zeros;
        }
        let distance = self.number(FIRST_BITS);
        let distance = (distance >> 1).cast_signed() ^ -(distance & 1).cast_signed();
        let mut index = i64::from(self.origin) + distance;
        let (of_gaps, of_counts) = (self.take(LOW_BITS) as u32, self.take(LOW_BITS) as u32);
        for nth in 0..buckets {
            if nth > 0 {
                index += self.number(of_gaps).cast_signed() + 1;
            }
            let count = self.number(of_counts) + 1;
            each(index.clamp(i64::from(MIN_INDEX), i64::from(MAX_INDEX)) as i16, count);
        }
        zeros
    }

    fn histogram(&mut self) -> Histogram {
        let (mut buckets, mut sum) = (Vec::new(), 0.0);
        let zeros = self.buckets(|index, count| {
            buckets.push((index, count));
            sum += count as f64 * middle(index);
        });
        let least = match (zeros, buckets.first()) {
            (0, Some(first)) => bucket_lower(first.0),
            _ => 0.0,
        };
        let most = buckets.last().map_or(0.0, |last| bucket_upper(last.0));
        Histogram::from_parts(zeros, sum, least, most, buckets)
    }
}

fn middle(index: i16) -> f64 {
    0.5 * (bucket_lower(index) + bucket_upper(index))
}

/// Seven bits a byte, the lowest first; the last byte is below 128 (LEB128).
fn write_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 128 {
        to.push((length % 128) as u8 | 128);
        length /= 128;
    }
    to.push(length as u8);
}

fn read_length(from: &mut &[u8]) -> usize {
    let (mut length, mut shift) = (0, 0);
    while let Some((&byte, rest)) = from.split_first() {
        *from = rest;
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 || shift > 56 {
            break;
        }
    }
    length
}

const BUCKETS: usize = (MAX_INDEX - MIN_INDEX) as usize + 1;

/// Many histograms added up.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    counts: Vec<u64>,
    zeros: u64,
    count: u64,
    sum: f64,
    range: (f64, f64),
}

impl Sum {
    pub(crate) fn new() -> Sum {
        Sum {
            counts: vec![0; BUCKETS],
            zeros: 0,
            count: 0,
            sum: 0.0,
            range: (f64::INFINITY, 0.0),
        }
    }

    fn read(&mut self, mut from: Reader<'_>) {
        let counts = &mut self.counts;
        let (mut count, mut sum, mut ends) = (0, 0.0, (MAX_INDEX + 1, MIN_INDEX - 1));
        let zeros = from.buckets(|index, n| {
            counts[usize::from(index.abs_diff(MIN_INDEX))] += n;
            count += n;
            ends = (ends.0.min(index), ends.1.max(index));
            sum += n as f64 * middle(index);
        });
        self.zeros += zeros;
        self.count += count + zeros;
        self.sum += sum;
        if count > 0 {
            self.widen(bucket_lower(ends.0), bucket_upper(ends.1));
        }
        if zeros > 0 {
            self.widen(0.0, 0.0);
        }
    }

    fn widen(&mut self, least: f64, most: f64) {
        self.range = (self.range.0.min(least), self.range.1.max(most));
    }

    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for &(index, n) in histogram.buckets() {
            self.counts[usize::from(index.abs_diff(MIN_INDEX))] += n;
        }
        self.zeros += histogram.zero_count();
        self.count += histogram.count();
        self.sum += histogram.sum();
        if histogram.count() > 0 {
            self.widen(histogram.min(), histogram.max());
        }
    }

    pub(crate) fn histogram(&self) -> Histogram {
        let least = if self.count == 0 { 0.0 } else { self.range.0 };
        let buckets = (MIN_INDEX..).zip(&self.counts).filter(|(_, n)| **n > 0);
        Histogram::from_parts(
            self.zeros,
            self.sum,
            least,
            self.range.1,
            buckets.map(|(at, &n)| (at, n)),
        )
    }

    /// The bucket at whose upper edge a quantile lies, one below all for zeros; `None` without requests.
    pub(crate) fn bucket_of(&self, quantile: f64) -> Option<i16> {
        let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = self.zeros;
        if self.count > 0 && seen >= rank {
            return Some(MIN_INDEX - 1);
        }
        (MIN_INDEX..).zip(&self.counts).find_map(|(index, n)| {
            seen += n;
            (seen >= rank && *n > 0).then_some(index)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(seed: u64) -> Histogram {
        let mut histogram = Histogram::new();
        for nth in 0..seed * 7 % 50 {
            let ns = (seed * 31 + nth * nth * 917) % 1_000_003 * if nth % 9 == 4 { 0 } else { 100_000 };
            (0..1 + nth % 3 * 90).for_each(|_| histogram.record_ns(ns));
        }
        histogram
    }

    fn counts(histogram: &Histogram) -> (u64, &[(i16, u64)]) {
        (histogram.zero_count(), histogram.buckets())
    }

    /// Records come and go at both ends, with gaps between them: what is read is what was written.
    #[test]
    fn what_is_read_is_what_was_written() {
        let (mut log, mut all) = (Log::default(), Vec::new());
        for at in 0..200u64 {
            let (b, c) = (histogram(at), histogram(at + 1000));
            let number = -50 + (at + at / 7 * 300) as i64;
            log.push(number, (at % 5) as u8, &[&b, &c]);
            all.push((number, (at % 5) as u8, b, c));
            if at % 3 == 1 {
                log.pop_front();
                all.remove(0);
            }
            if at % 41 == 40 {
                log.truncate(number - 1);
                all.retain(|record| record.0 < number - 1);
            }
            assert_eq!(log.front(), all.first().map(|record| record.0));
            assert_eq!(log.iter().count(), all.len());
            let mut sums = [Sum::new(), Sum::new()];
            let mut expected = [Histogram::new(), Histogram::new()];
            for (record, (number, mark, b, c)) in log.iter().zip(&all) {
                assert_eq!((record.number, record.mark), (*number, *mark));
                let [read_b, read_c] = record.pair();
                assert_eq!((counts(&read_b), counts(&read_c)), (counts(b), counts(c)));
                assert!((read_b.sum() - b.sum()).abs() <= 0.0109 * b.sum());
                assert!(b.count() == 0 || (read_b.min() <= b.min() + 1e-12 && read_b.max() >= b.max() - 1e-9));
                record.add_to(&mut sums[0]);
                sums[1].add(&read_c);
                expected[0].merge(b);
                expected[1].merge(c);
            }
            assert_eq!(counts(&log.merged()), counts(&expected[0]));
            for (sum, expected) in sums.iter().zip(&expected) {
                assert_eq!(counts(&sum.histogram()), counts(expected));
                for q in [0.01, 0.5, 0.9, 1.0] {
                    let rank = (q * expected.count() as f64).ceil() as u64;
                    let of_rank = expected.bucket_at_rank(rank).unwrap_or(MIN_INDEX - 1);
                    assert_eq!(sum.bucket_of(q), (expected.count() > 0).then_some(of_rank));
                }
            }
        }
        assert!(all.len() > 50);
    }
}

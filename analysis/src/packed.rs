//! Histograms of stretches of time in a few bytes each, because ten thousand watches keep a hundred of them.
//!
//! Guarantees: counts come back as they went in. The smallest and the largest duration become the edges of their buckets, and the
//! sum is that of the buckets' middles, at most 1.1 % off.

use emberline_model::histogram::{Histogram, MAX_INDEX, MIN_INDEX, bucket_lower, bucket_upper};

/// Records in order of time: a number of a stretch, a mark, and one or two histograms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    bytes: Vec<u8>,
    /// Number of the first record, whose distance to one before it means nothing.
    front: i64,
    back: i64,
    records: u32,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Of the stretch of time.
    pub(crate) number: i64,
    /// What its writer noted.
    pub(crate) mark: u8,
    bytes: &'a [u8],
}

impl Log {
    /// Adds a record; numbers must increase.
    pub(crate) fn push(&mut self, number: i64, mark: u8, histograms: &[&Histogram]) {
        let mut record = Writer {
            bytes: vec![mark],
            is_half: false,
        };
        histograms.iter().for_each(|histogram| record.histogram(histogram));
        let record = record.bytes;
        if self.records == 0 {
            self.front = number;
            self.back = number;
        }
        let mut head = Vec::with_capacity(4);
        write_number(&mut head, (number - self.back).max(0) as u64);
        write_number(&mut head, record.len() as u64);
        // Doubling would leave up to half of it empty.
        self.bytes.reserve_exact(
            if self.bytes.capacity() - self.bytes.len() < head.len() + record.len() {
                head.len() + record.len() + self.bytes.len() / 16
            } else {
                0
            },
        );
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
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.bytes.is_empty() {
            return None;
        }
        let step = read_number(&mut self.bytes) as i64;
        let length = read_number(&mut self.bytes) as usize;
        let (record, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        self.number += if self.is_first { 0 } else { step };
        self.is_first = false;
        let (&mark, bytes) = record.split_first()?;
        Some(Record {
            number: self.number,
            mark,
            bytes,
        })
    }
}

impl Record<'_> {
    fn reader(&self) -> Reader<'_> {
        Reader {
            bytes: self.bytes,
            is_half: false,
        }
    }

    /// Its histogram, the first of two.
    pub(crate) fn histogram(&self) -> Histogram {
        self.reader().histogram()
    }

    /// Both histograms.
    pub(crate) fn pair(&self) -> [Histogram; 2] {
        let mut reader = self.reader();
        [reader.histogram(), reader.histogram()]
    }

    /// Adds its histogram, the first of two, to a sum.
    pub(crate) fn add_to(&self, sum: &mut Sum) {
        sum.read(self.reader());
    }
}

/// Writes numbers in digits of three bits, the lowest first, each half a byte with a bit that says whether another follows: most
/// are small.
#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
    is_half: bool,
}

impl Writer {
    fn digit(&mut self, digit: u8) {
        match self.bytes.last_mut() {
            Some(last) if self.is_half => *last |= digit << 4,
            _ => self.bytes.push(digit),
        }
        self.is_half = !self.is_half;
    }

    fn number(&mut self, mut number: u64) {
        while number >= 8 {
            self.digit((number % 8) as u8 | 8);
            number /= 8;
        }
        self.digit(number as u8);
    }

    fn histogram(&mut self, histogram: &Histogram) {
        self.number(histogram.zero_count());
        self.number(histogram.buckets().len() as u64);
        let mut next = MIN_INDEX;
        for &(index, count) in histogram.buckets() {
            // On a quiet route most buckets hold one request.
            self.number(u64::from(index.abs_diff(next)) << 1 | u64::from(count > 1));
            if count > 1 {
                self.number(count - 2);
            }
            next = index + 1;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    is_half: bool,
}

impl Reader<'_> {
    fn digit(&mut self) -> u8 {
        let Some((&byte, rest)) = self.bytes.split_first() else {
            return 0;
        };
        if self.is_half {
            self.bytes = rest;
        }
        let digit = if self.is_half { byte >> 4 } else { byte & 15 };
        self.is_half = !self.is_half;
        digit
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let digit = self.digit();
            number |= u64::from(digit & 7) << shift;
            shift += 3;
            if digit < 8 || shift > 60 {
                return number;
            }
        }
    }

    /// Tells each bucket; returns how many zeros there are.
    fn buckets(&mut self, mut each: impl FnMut(i16, u64)) -> u64 {
        let (zeros, buckets) = (self.number(), self.number());
        let mut next = MIN_INDEX;
        for _ in 0..buckets {
            let step = self.number();
            let count = if step & 1 == 1 { self.number() + 2 } else { 1 };
            let index = next.saturating_add((step >> 1) as i16).min(MAX_INDEX);
            each(index, count);
            next = index + 1;
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
fn write_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        to.push((number % 128) as u8 | 128);
        number /= 128;
    }
    to.push(number as u8);
}

fn read_number(from: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((&byte, rest)) = from.split_first() {
        *from = rest;
        number |= u64::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 || shift > 63 {
            break;
        }
    }
    number
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

//! Histograms per (series, status, error): the contents of a window and of the totals.
//!
//! Guarantees: adding costs one hash lookup and one array increment; a table never holds more than its limit of cells
//! plus a few for each route; merging adds counts, so it loses nothing, in any order.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use emberline_model::histogram::{self, Histogram};

use super::{RequestRecord, SeriesId, open::OpenCount};

/// A hash map keyed by integers of our own making.
pub(super) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// Hashes one 64-bit integer by a folded multiplication. The keys are ids issued by this process, so nobody can choose
/// them to collide.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Identifies a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CellKey {
    pub(super) series: SeriesId,
    pub(super) status: u16,
    pub(super) error: bool,
}

impl CellKey {
    fn packed(self) -> u64 {
        (self.series.bits() << 17) | (u64::from(self.status) << 1) | u64::from(self.error)
    }

    fn unpacked(packed: u64) -> CellKey {
        CellKey {
            series: SeriesId::from_bits(packed >> 17),
            status: (packed >> 1) as u16,
            error: packed & 1 == 1,
        }
    }

    /// The key under which it counts once the table is full: what its series folds into, with the status reduced to its
    /// class, so that there are few such cells however many statuses a peer makes up.
    fn folded(self, fold: impl FnOnce(SeriesId) -> SeriesId) -> CellKey {
        CellKey {
            series: fold(self.series),
            status: self.series.protocol().status_kind().class(self.status),
            error: self.error,
        }
    }
}

/// One series of requests with one outcome.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    zero_count: u64,
    sum_ns: u128,
    /// Time beyond the latencies.
    pub(super) streaming_ns: u128,
    min_ns: u64,
    max_ns: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// Still open when the window ended.
    pub(super) open: u64,
    /// Bucket index of `counts[0]`.
    base: i16,
    counts: Vec<u64>,
    touched: bool,
    /// Start in seconds of the last window merged into it.
    last: i64,
}

/// Counts are allocated by whole octaves: latencies of one route cluster, so growing is rare.
const GROWTH: i16 = 32;

impl Cell {
    fn add(&mut self, record: &RequestRecord) {
        self.note_range(record.duration_ns, record.duration_ns);
        self.sum_ns += u128::from(record.duration_ns);
        self.streaming_ns += u128::from(record.streaming_ns);
        self.request_bytes = self.request_bytes.saturating_add(record.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(record.response_bytes);
        if record.duration_ns == 0 {
            self.zero_count += 1;
            return;
        }
        self.count_bucket(histogram::bucket_index(record.duration_ns as f64 / 1e9), 1);
    }

    fn note_range(&mut self, min_ns: u64, max_ns: u64) {
        if !self.touched {
            self.touched = true;
            self.min_ns = min_ns;
            self.max_ns = max_ns;
            return;
        }
        self.min_ns = self.min_ns.min(min_ns);
        self.max_ns = self.max_ns.max(max_ns);
    }

    fn count_bucket(&mut self, index: i16, n: u64) {
        let at = index.wrapping_sub(self.base) as usize;
        if index >= self.base
            && let Some(count) = self.counts.get_mut(at)
        {
            *count += n;
            return;
        }
        self.grow(index);
        self.counts[(index - self.base) as usize] += n;
    }

    #[cold]
    fn grow(&mut self, index: i16) {
        let octave = index.div_euclid(GROWTH) * GROWTH;
        if self.counts.is_empty() {
            self.base = octave;
            self.counts.resize(GROWTH as usize, 0);
            return;
        }
        if octave < self.base {
            let more = (self.base - octave) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.base = octave;
            return;
        }
        self.counts.resize((octave + GROWTH - self.base) as usize, 0);
    }

    fn merge(&mut self, other: &Cell) {
        self.last = self.last.max(other.last);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.open += other.open;
        if !other.touched {
            return;
        }
        self.note_range(other.min_ns, other.max_ns);
        self.streaming_ns += other.streaming_ns;
        self.zero_count += other.zero_count;
        self.sum_ns += other.sum_ns;
        for (index, n) in (other.base..).zip(&other.counts) {
            if *n > 0 {
                self.count_bucket(index, *n);
            }
        }
    }

    /// The durations as the model's histogram.
    pub(super) fn histogram(&self) -> Histogram {
        let seconds = |ns: u64| ns as f64 / 1e9;
        Histogram::from_parts(
            self.zero_count,
            self.sum_ns as f64 / 1e9,
            seconds(self.min_ns),
            seconds(self.max_ns),
            (self.base..).zip(self.counts.iter().copied()),
        )
    }
}

/// Cells by key, with a limit.
#[derive(Debug)]
pub(super) struct Cells {
    by_key: IdMap<u32>,
    cells: Vec<(u64, Cell)>,
    limit: usize,
}

impl Cells {
    pub(super) fn new(limit: usize) -> Cells {
        Cells {
            by_key: IdMap::default(),
            cells: Vec::new(),
            limit,
        }
    }

    pub(super) fn empty_like(&self) -> Cells {
        Cells::new(self.limit)
    }

    /// Without a limit, for what is assembled from limited tables.
    pub(super) fn unlimited() -> Cells {
        Cells::new(usize::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn cell(&mut self, key: CellKey, fold: impl FnOnce(SeriesId) -> SeriesId) -> &mut Cell {
        let mut packed = key.packed();
        let mut at = self.by_key.get(&packed).copied();
        if at.is_none() && self.cells.len() >= self.limit {
            packed = key.folded(fold).packed();
            at = self.by_key.get(&packed).copied();
        }
        let at = at.unwrap_or_else(|| {
            let next = self.cells.len() as u32;
            self.by_key.insert(packed, next);
            self.cells.push((packed, Cell::default()));
            next
        });
        &mut self.cells[at as usize].1
    }

    /// Counts a request; `fold` gives the series to count it under when there is no room.
    pub(super) fn add(&mut self, record: &RequestRecord, fold: impl FnOnce(SeriesId) -> SeriesId) {
        let key = CellKey {
            series: record.series,
            status: record.status,
            error: record.error,
        };
        self.cell(key, fold).add(record);
    }

    /// Adds what is still open, and the bytes it has moved so far.
    pub(super) fn add_open(
        &mut self,
        series: SeriesId,
        status: u16,
        count: OpenCount,
        fold: impl FnOnce(SeriesId) -> SeriesId,
    ) {
        let key = CellKey {
            series,
            status,
            error: false,
        };
        let cell = self.cell(key, fold);
        cell.open += count.open;
        cell.request_bytes = cell.request_bytes.saturating_add(count.moved.request);
        cell.response_bytes = cell.response_bytes.saturating_add(count.moved.response);
    }

    /// Adds the counts of another table.
    pub(super) fn merge(&mut self, other: &Cells, fold: impl Fn(SeriesId) -> SeriesId) {
        for (packed, cell) in &other.cells {
            self.cell(CellKey::unpacked(*packed), &fold).merge(cell);
        }
    }

    /// Records the window that the cells belong to.
    pub(super) fn stamp(&mut self, window: i64) {
        for (_, cell) in &mut self.cells {
            cell.last = window;
        }
    }

    /// The last window of each series.
    pub(super) fn note_last(&self, into: &mut HashMap<SeriesId, i64>) {
        for (packed, cell) in &self.cells {
            let last = into.entry(CellKey::unpacked(*packed).series).or_insert(cell.last);
            *last = cell.last.max(*last);
        }
    }

    /// The same counts under other series; `None` if `name` changes none of them.
    pub(super) fn renamed(&self, name: impl Fn(SeriesId) -> SeriesId) -> Option<Cells> {
        let renamed = |packed: u64| {
            let key = CellKey::unpacked(packed);
            let series = name(key.series);
            (series != key.series).then_some(CellKey { series, ..key })
        };
        if !self.cells.iter().any(|(packed, _)| renamed(*packed).is_some()) {
            return None;
        }
        let mut cells = Cells::new(self.limit);
        for (packed, cell) in &self.cells {
            let key = renamed(*packed).unwrap_or(CellKey::unpacked(*packed));
            cells.cell(key, |series| series).merge(cell);
        }
        Some(cells)
    }

    /// The cells, sorted by key so that equal contents give equal batches.
    pub(super) fn sorted(&self) -> Vec<(CellKey, &Cell)> {
        let mut sorted: Vec<_> = self.cells.iter().map(|(packed, cell)| (*packed, cell)).collect();
        sorted.sort_unstable_by_key(|(packed, _)| *packed);
        sorted
            .into_iter()
            .map(|(packed, cell)| (CellKey::unpacked(packed), cell))
            .collect()
    }
}

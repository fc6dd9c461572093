//! One thread's share of the telemetry: its current window, its finished ones and its totals.
//!
//! Guarantee: the clock is read while the shard is locked, both by records and by cuts, so as long as the clock does
//! not step, a record that comes after a cut is never counted into the window that was cut. After a step back by less
//! than a window, counting continues in the current window; after a larger one, the older window is started again.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicI64, Ordering},
};

use emberline_model::{
    Side,
    time::{Clock, WINDOW_SECONDS, window_start},
};
use parking_lot::Mutex;

use super::{
    Cut, Label, RequestRecord, ResponseFlags, SeriesId, TelemetryOptions,
    cells::{Cells, IdMap},
    open::OpenTable,
};

const WINDOW_NS: i64 = WINDOW_SECONDS as i64 * 1_000_000_000;

/// Requests of one window, as one shard saw them.
#[derive(Debug)]
pub(super) struct Window {
    /// First nanosecond of the window.
    start_ns: i64,
    /// First nanosecond after it.
    end_ns: i64,
    pub(super) cells: Cells,
}

impl Window {
    fn at(now_ns: i64, cells: Cells) -> Window {
        let start_ns = window_start(now_ns.div_euclid(1_000_000_000)).saturating_mul(1_000_000_000);
        Window {
            start_ns,
            end_ns: start_ns.saturating_add(WINDOW_NS),
            cells,
        }
    }

    /// Start in seconds since the Unix epoch.
    pub(super) fn start_unix_s(&self) -> i64 {
        self.start_ns / 1_000_000_000
    }
}

/// A shard has cache lines of its own, so that threads do not slow each other.
#[repr(align(128))]
pub(super) struct Shard {
    in_flight: [AtomicI64; 2],
    pub(super) open: OpenTable,
    pub(super) state: Mutex<ShardState>,
}

pub(super) struct ShardState {
    /// Labels that this shard has met, by packed key.
    pub(super) labels: IdMap<Label>,
    /// Series that this shard has met, by packed key.
    pub(super) series: IdMap<SeriesId>,
    /// What those series fold into, by their bits.
    pub(super) folds: IdMap<SeriesId>,
    pub(super) current: Window,
    finished: Vec<Window>,
    windows_kept: usize,
    /// Everything before `current`.
    pub(super) totals: Cells,
    pub(super) windows_lost: u64,
    pub(super) upstream_count: u64,
    pub(super) upstream_ns: u128,
    pub(super) flags: [u64; ResponseFlags::ALL.len()],
}

impl Shard {
    pub(super) fn new(options: &TelemetryOptions, now_ns: i64) -> Shard {
        let state = ShardState {
            labels: IdMap::default(),
            series: IdMap::default(),
            folds: IdMap::default(),
            current: Window::at(now_ns, Cells::new(options.max_series)),
            finished: Vec::new(),
            windows_kept: options.windows_kept,
            totals: Cells::new(options.max_series),
            windows_lost: 0,
            upstream_count: 0,
            upstream_ns: 0,
            flags: [0; ResponseFlags::ALL.len()],
        };
        Shard {
            in_flight: [AtomicI64::new(0), AtomicI64::new(0)],
            open: OpenTable::default(),
            state: Mutex::new(state),
        }
    }

    /// Counts a request. Returns whether it was the first of a window.
    pub(super) fn record(&self, clock: &dyn Clock, record: &RequestRecord) -> bool {
        let mut state = self.state.lock();
        let rolled = state.roll(clock.now_unix_ns());
        let ShardState { current, folds, .. } = &mut *state;
        current.cells.add(record, |series| folded(folds, series));
        if let Some(upstream_ns) = record.upstream_ns {
            state.upstream_count += 1;
            state.upstream_ns += u128::from(upstream_ns);
        }
        if !record.flags.is_empty() {
            state.count_flags(record.flags);
        }
        rolled
    }

    /// The last window of each series.
    pub(super) fn note_last(&self, into: &mut HashMap<SeriesId, i64>) {
        let mut state = self.state.lock();
        let running = state.current.start_unix_s();
        state.current.cells.stamp(running);
        state.current.cells.note_last(into);
        state.totals.note_last(into);
    }

    /// Drops cached numbers, and moves counts to the series that `name` gives instead.
    pub(super) fn rename(&self, name: impl Fn(SeriesId) -> SeriesId) {
        let mut state = self.state.lock();
        state.labels.clear();
        state.series.clear();
        state.folds.clear();
        if let Some(cells) = state.totals.renamed(&name) {
            state.totals = cells;
        }
        if let Some(cells) = state.current.cells.renamed(&name) {
            state.current.cells = cells;
        }
    }

    /// Takes the finished windows; with [`Cut::All`], also what the current one holds so far.
    pub(super) fn take(&self, clock: &dyn Clock, cut: Cut) -> Vec<Window> {
        let mut state = self.state.lock();
        let now_ns = clock.now_unix_ns();
        state.roll(now_ns);
        if cut == Cut::All {
            let start_ns = state.current.start_ns;
            state.finish_current(start_ns);
        }
        std::mem::take(&mut state.finished)
    }

    pub(super) fn add_in_flight(&self, side: Side, by: i64) {
        self.in_flight[usize::from(side == Side::Server)].fetch_add(by, Ordering::Relaxed);
    }

    /// May be negative for one shard: requests end on other threads than they started on. The sum is correct.
    pub(super) fn in_flight(&self, side: Side) -> i64 {
        self.in_flight[usize::from(side == Side::Server)].load(Ordering::Relaxed)
    }
}

/// The series that another counts as when its table is full.
fn folded(folds: &IdMap<SeriesId>, series: SeriesId) -> SeriesId {
    folds.get(&series.bits()).copied().unwrap_or_else(|| series.other())
}

impl ShardState {
    /// Starts a new window if the current one is over. Returns whether it did.
    fn roll(&mut self, now_ns: i64) -> bool {
        let ended = now_ns >= self.current.end_ns;
        let stepped_back = now_ns < self.current.start_ns.saturating_sub(WINDOW_NS);
        if ended || stepped_back {
            self.finish_current(now_ns);
        }
        ended || stepped_back
    }

    #[cold]
    fn finish_current(&mut self, now_ns: i64) {
        let next = Window::at(now_ns, self.totals.empty_like());
        let mut done = std::mem::replace(&mut self.current, next);
        if done.cells.is_empty() {
            return;
        }
        done.cells.stamp(done.start_unix_s());
        let ShardState { totals, folds, .. } = self;
        totals.merge(&done.cells, |series| folded(folds, series));
        if self.windows_kept == 0 {
            return;
        }
        if self.finished.len() >= self.windows_kept {
            self.finished.remove(0);
            self.windows_lost += 1;
        }
        self.finished.push(done);
    }

    #[cold]
    fn count_flags(&mut self, flags: ResponseFlags) {
        for (count, (_, flag)) in self.flags.iter_mut().zip(ResponseFlags::ALL) {
            *count += u64::from(flags.contains(flag));
        }
    }
}

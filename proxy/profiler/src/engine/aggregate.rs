//! From rings to windows: interning of stacks and sums per (label, stack).
//!
//! Guarantee: every record that leaves a ring is in exactly one window, with its full weight; memory is bounded by the
//! limits on stacks and labels, and what exceeds them folds into one visible row. Only one thread at a time may use it
//! (it reads the rings), which the mutex around it ensures.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use super::clock::{self, CycleRate};
use super::modules::ModuleTable;
use super::registry;
use super::ring::{OFF_STACK, Record, TRUNCATED};
use super::slot::{Life, ThreadSlot};
use crate::label::Label;
use crate::window::{Frame, Sample, Window, WindowStats};

pub(super) struct Aggregator {
    modules: ModuleTable,
    open: OpenWindow,
    scratch: Vec<u64>,
    cycle_rate: CycleRate,
    /// Cost of delivering one signal.
    delivery_ns: u64,
    totals: Totals,
}

/// Sums since the start.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) weight: u64,
    pub(super) captured: u64,
    pub(super) dropped: u64,
    pub(super) truncated: u64,
    pub(super) handler_ns: u64,
    pub(super) overhead_ns: u64,
    pub(super) live_threads: u32,
}

struct OpenWindow {
    started: SystemTime,
    began: Instant,
    process_cpu_ns: u64,
    limits: Limits,
    /// Stacks as sampled; cleared when modules are loaded or unloaded, as addresses then mean something else.
    by_addresses: HashMap<Box<[u64]>, u32>,
    by_frames: HashMap<Vec<Frame>, u32>,
    labels: HashSet<u32>,
    rows: HashMap<(Label, u32), Sums>,
    ended_threads: u32,
    stats: WindowStats,
}

#[derive(Copy, Clone)]
pub(super) struct Limits {
    pub(super) stacks: usize,
    pub(super) labels: usize,
}

#[derive(Copy, Clone, Default)]
struct Sums {
    weight: u64,
    count: u64,
    cpu_ns: u64,
}

impl Aggregator {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            modules: ModuleTable::default(),
            open: OpenWindow::new(limits),
            scratch: Vec::new(),
            cycle_rate: CycleRate::new(),
            delivery_ns: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn set_delivery_ns(&mut self, delivery_ns: u64) {
        self.delivery_ns = delivery_ns;
    }

    pub(super) fn delivery_ns(&self) -> u64 {
        self.delivery_ns
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Counts CPU time spent on sampling outside the handler.
    pub(super) fn add_overhead(&mut self, nanoseconds: u64) {
        self.open.stats.overhead_ns += nanoseconds;
        self.totals.overhead_ns += nanoseconds;
    }

    /// Discards what an earlier profiler left in the rings.
    pub(super) fn discard(&mut self) {
        self.drain();
        self.modules.take_window();
        self.open = OpenWindow::new(self.open.limits);
        self.totals = Totals::default();
    }

    /// Empties all rings.
    pub(super) fn drain(&mut self) {
        if self.modules.refresh() {
            self.open.by_addresses.clear();
        }
        self.totals.live_threads = 0;
        for slot in registry::slots() {
            self.drain_slot(slot);
        }
    }

    fn drain_slot(&mut self, slot: &'static ThreadSlot) {
        // Before the ring: if the thread has ended, everything it wrote is there by now.
        let report = slot.report();
        if let Some(ring) = slot.ring.get() {
            let (open, modules, totals) = (&mut self.open, &mut self.modules, &mut self.totals);
            ring.drain(&mut self.scratch, |record| {
                totals.weight += record.weight;
                totals.captured += 1;
                totals.truncated += u64::from(record.flags & TRUNCATED != 0);
                open.add(&record, modules);
            });
        }
        let counters = report.counters;
        let handler_ns = self.cycle_rate.nanoseconds(counters.cycles);
        let overhead_ns = handler_ns + counters.signals * self.delivery_ns;
        let stats = &mut self.open.stats;
        stats.thread_cpu_ns += report.cpu_ns;
        stats.unattributed_ns += report.unattributed_ns;
        stats.dropped += counters.dropped;
        stats.dropped_weight += counters.dropped_weight;
        stats.handler_ns += handler_ns;
        self.totals.dropped += counters.dropped;
        self.totals.handler_ns += handler_ns;
        self.add_overhead(overhead_ns);
        match report.life {
            Life::Live => self.totals.live_threads += 1,
            Life::Ended => {
                self.open.ended_threads += 1;
                registry::release(slot);
            }
        }
    }

    /// Closes the window and opens the next. `period_ns` is the current one.
    pub(super) fn take_window(&mut self, period_ns: u64) -> Window {
        self.drain();
        let next = OpenWindow::new(self.open.limits);
        let open = std::mem::replace(&mut self.open, next);
        open.finish(&mut self.modules, period_ns, self.totals.live_threads)
    }
}

impl OpenWindow {
    fn new(limits: Limits) -> Self {
        Self {
            started: SystemTime::now(),
            began: Instant::now(),
            process_cpu_ns: clock::process_cpu_ns(),
            limits,
            by_addresses: HashMap::new(),
            by_frames: HashMap::new(),
            labels: HashSet::new(),
            rows: HashMap::new(),
            ended_threads: 0,
            stats: WindowStats::default(),
        }
    }

    fn add(&mut self, record: &Record<'_>, modules: &mut ModuleTable) {
        let label = self.label(record.label);
        let stack = self.stack(record.frames, modules);
        let sums = self.rows.entry((label, stack)).or_default();
        sums.weight += record.weight;
        sums.count += 1;
        sums.cpu_ns += record.cpu_ns;
        let stats = &mut self.stats;
        stats.weight += record.weight;
        stats.captured += 1;
        stats.truncated += u64::from(record.flags & TRUNCATED != 0);
        stats.off_stack += u64::from(record.flags & OFF_STACK != 0);
    }

    fn label(&mut self, number: u32) -> Label {
        let label = Label::new(number);
        if label == Label::NONE || self.labels.contains(&number) {
            return label;
        }
        if self.labels.len() >= self.limits.labels {
            self.stats.labels_overflowed += 1;
            return Label::OVERFLOW;
        }
        self.labels.insert(number);
        label
    }

    /// The index of a stack, or of the empty one when there are too many.
    fn stack(&mut self, addresses: &[u64], modules: &mut ModuleTable) -> u32 {
        if let Some(stack) = self.by_addresses.get(addresses) {
            return *stack;
        }
        // Room is reserved for the empty stack.
        if self.by_addresses.len() >= self.limits.stacks || self.by_frames.len() >= self.limits.stacks {
            self.stats.stacks_overflowed += 1;
            return self.intern(Vec::new());
        }
        let frames = addresses
            .iter()
            .enumerate()
            // A return address is after the call, perhaps in the next function.
            .map(|(depth, address)| {
                modules.frame(if depth == 0 {
                    *address
                } else {
                    address.saturating_sub(1)
                })
            })
            .collect();
        let stack = self.intern(frames);
        self.by_addresses.insert(addresses.into(), stack);
        stack
    }

    fn intern(&mut self, frames: Vec<Frame>) -> u32 {
        let next = self.by_frames.len() as u32;
        *self.by_frames.entry(frames).or_insert(next)
    }

    fn finish(self, modules: &mut ModuleTable, period_ns: u64, live_threads: u32) -> Window {
        let cpu_ns: u64 = self.rows.values().map(|sums| sums.cpu_ns).sum();
        let mean_period_ns = match self.stats.weight {
            0 => period_ns as f64,
            weight => cpu_ns as f64 / weight as f64,
        };
        let mut stacks = vec![Vec::new(); self.by_frames.len()];
        for (frames, stack) in self.by_frames {
            stacks[stack as usize] = frames;
        }
        let mut samples: Vec<Sample> = self
            .rows
            .into_iter()
            .map(|((label, stack), sums)| Sample {
                label,
                stack,
                weight: sums.weight,
                count: sums.count,
                cpu_ns: sums.cpu_ns,
            })
            .collect();
        samples.sort_unstable_by_key(|sample| (sample.label, sample.stack));
        Window {
            started: self.started,
            duration: self.began.elapsed(),
            hz: 1e9 / mean_period_ns,
            period_ns: mean_period_ns.round() as u64,
            samples,
            stacks,
            modules: modules.take_window(),
            stats: WindowStats {
                threads: live_threads + self.ended_threads,
                unregistered_threads: 0,
                process_cpu_ns: clock::process_cpu_ns().saturating_sub(self.process_cpu_ns),
                ..self.stats
            },
        }
    }
}

/// The window of a process that is not sampled.
pub(super) fn empty_window(period_ns: u64) -> Window {
    Window {
        started: SystemTime::now(),
        duration: Duration::ZERO,
        hz: 1e9 / period_ns as f64,
        period_ns,
        samples: Vec::new(),
        stacks: Vec::new(),
        modules: Vec::new(),
        stats: WindowStats::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window_of(records: &[(u32, Vec<u64>, u64, u64)], limits: Limits) -> Window {
        let mut modules = ModuleTable::default();
        let mut open = OpenWindow::new(limits);
        for (label, frames, weight, cpu_ns) in records {
            let record = Record {
                label: *label,
                flags: 0,
                weight: *weight,
                cpu_ns: *cpu_ns,
                frames,
            };
            open.add(&record, &mut modules);
        }
        open.finish(&mut modules, 10, 0)
    }

    proptest! {
        /// Whatever the limits fold, no weight is lost, every index is valid and the limits hold.
        #[test]
        fn sums_survive_every_limit(
            records in prop::collection::vec(
                (0_u32..12, prop::collection::vec(5_000_u64..5_004, 1..4), 0_u64..50, 1_u64..1_000), 0..200),
            stacks in 1_usize..8,
            labels in 1_usize..8,
        ) {
            let window = window_of(&records, Limits { stacks, labels });
            let weight: u64 = records.iter().map(|record| record.2).sum();
            let cpu_ns: u64 = records.iter().map(|record| record.3).sum();
            prop_assert_eq!(window.samples.iter().map(|sample| sample.weight).sum::<u64>(), weight);
            prop_assert_eq!(window.samples.iter().map(|sample| sample.cpu_ns).sum::<u64>(), cpu_ns);
            prop_assert_eq!(window.samples.iter().map(|sample| sample.count).sum::<u64>(), records.len() as u64);
            prop_assert_eq!(window.stats.weight, weight);
            prop_assert!(window.samples.iter().all(|sample| (sample.stack as usize) < window.stacks.len()));
            prop_assert!(window.stacks.len() <= stacks + 1);
            let distinct: HashSet<Label> = window.samples.iter().map(|sample| sample.label).collect();
            prop_assert!(distinct.len() <= labels + 2, "the limit, none and overflow");
        }

        /// The order in which threads are drained does not affect a window.
        #[test]
        fn the_order_of_records_does_not_matter(
            records in prop::collection::vec(
                (0_u32..4, prop::collection::vec(5_000_u64..5_004, 1..4), 0_u64..50, 1_u64..1_000), 0..50),
        ) {
            let limits = Limits { stacks: 1_000, labels: 1_000 };
            let named = |window: &Window| {
                let mut rows: Vec<_> = window
                    .samples
                    .iter()
                    .map(|sample| (sample.label, window.stacks[sample.stack as usize].clone(), sample.weight, sample.cpu_ns))
                    .collect();
                rows.sort();
                rows
            };
            let reversed: Vec<_> = records.iter().rev().cloned().collect();
            prop_assert_eq!(named(&window_of(&records, limits)), named(&window_of(&reversed, limits)));
        }
    }

    #[test]
    fn a_return_address_is_moved_into_its_call_and_the_leaf_is_not() {
        let window = window_of(&[(1, vec![5_000, 6_000, 6_000], 1, 1)], Limits { stacks: 9, labels: 9 });
        let frame = |offset| Frame {
            module: Frame::NO_MODULE,
            offset,
        };
        assert_eq!(window.stacks, [[frame(5_000), frame(5_999), frame(5_999)]]);
    }
}

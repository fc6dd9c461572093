//! Request durations that grow from the start of a process, which is how SDKs send them unless told otherwise.
//!
//! Guarantees: what a process exported last stays known until the growth since then is on disk, and while one of its
//! exports is taken in no other one is compared with the same look; what is remembered is bounded
//! (`max_cumulative_buckets`, `max_cumulative_buckets_per_process`, `max_workloads` processes), and what does not fit is
//! said and counted by a later export that does. A sender that leaves before its answer changes nothing of that.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use emberline_model::{
    Workload,
    otlp::{self, CumulativePoint, Decoded, Streams},
};
use tokio::sync::OwnedMutexGuard;

use crate::cumulative::{Bounds, Budget, Remembered, Senders};

/// A process that exported nothing for so long is forgotten, in nanoseconds.
const IDLE_NS: i64 = 3_600_000_000_000;
/// How often that is looked after, in nanoseconds.
const SWEEP_EVERY_NS: i64 = 60_000_000_000;

/// The last exports of all processes.
pub(super) struct Growing {
    senders: Senders<Streams>,
    /// Exports before it were not seen.
    started_unix_ns: i64,
    swept_unix_ns: AtomicI64,
    /// Exports that lie further in the future are left out.
    max_future: Duration,
}

/// The places of the processes of one request, nobody else's until it is dropped.
#[derive(Default)]
pub(super) struct Held {
    places: Vec<Place>,
    sure_since_unix_ns: u64,
    latest_unix_ns: u64,
    budget: Option<Arc<Budget>>,
}

struct Place {
    process: (Workload, u128),
    last: OwnedMutexGuard<Option<Arc<Remembered<Streams>>>>,
    next: Option<Arc<Remembered<Streams>>>,
    forgotten_unix_ns: u64,
}

impl Growing {
    pub(super) fn new(bounds: Bounds, max_future: Duration, now_unix_ns: i64) -> Growing {
        Growing {
            senders: Senders::new(Budget::new(bounds)),
            started_unix_ns: now_unix_ns,
            swept_unix_ns: AtomicI64::new(now_unix_ns),
            max_future,
        }
    }

    /// Buckets that are remembered.
    pub(super) fn buckets(&self) -> usize {
        self.senders.budget.used()
    }

    /// Waits for the places of all processes that sent these points.
    pub(super) async fn hold(&self, points: &[CumulativePoint], now_unix_ns: i64) -> Held {
        if points.is_empty() {
            return Held::default();
        }
        let swept = self.swept_unix_ns.load(Ordering::Relaxed);
        if now_unix_ns - swept > SWEEP_EVERY_NS {
            self.swept_unix_ns.store(now_unix_ns, Ordering::Relaxed);
            self.senders
                .forget_before(u64::try_from(now_unix_ns - IDLE_NS).unwrap_or(0));
        }
        let mut processes: Vec<(Workload, u128)> = points
            .iter()
            .map(|point| {
                let (workload, process) = point.process();
                (workload.clone(), process)
            })
            .collect();
        // Everybody waits in the same order, so that two requests never wait for each other.
        processes.sort_unstable();
        processes.dedup();
        let mut places = Vec::with_capacity(processes.len());
        for process in processes {
            let slot = self.senders.slot(&process.0, &format!("{:032x}", process.1));
            places.push(Place {
                last: slot.lock_owned().await,
                process,
                next: None,
                forgotten_unix_ns: 0,
            });
        }
        let started = u64::try_from(self.started_unix_ns).unwrap_or(0);
        let future_ns = u64::try_from(self.max_future.as_nanos()).unwrap_or(u64::MAX);
        Held {
            places,
            sure_since_unix_ns: started.max(self.senders.forgotten_unix_ns()),
            latest_unix_ns: u64::try_from(now_unix_ns).unwrap_or(0).saturating_add(future_ns),
            budget: Some(Arc::clone(&self.senders.budget)),
        }
    }

    /// The growth is on disk: what it was told from is the next look.
    pub(super) fn stored(&self, held: Held) {
        for mut place in held.places {
            if let Some(next) = place.next {
                self.senders.forgot(place.forgotten_unix_ns);
                *place.last = Some(next);
            }
        }
    }
}

impl Held {
    /// True when there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Puts what the points grew into the windows of the request, which may unfold to so many bytes.
    pub(super) fn grow(&mut self, decoded: &mut Decoded, most_memory: u64) {
        let Some(budget) = &self.budget else { return };
        let mut room = otlp::bucket_room(most_memory);
        let mut by_process: HashMap<(Workload, u128), Vec<CumulativePoint>> = HashMap::new();
        for point in std::mem::take(&mut decoded.cumulative) {
            // One that was remembered would make all exports until then look overtaken.
            if point.time_unix_ns() > self.latest_unix_ns {
                decoded.refuse_points(&[point], "in_the_future");
                continue;
            }
            let (workload, process) = point.process();
            by_process.entry((workload.clone(), process)).or_default().push(point);
        }
        for place in &mut self.places {
            let points = by_process.remove(&place.process).unwrap_or_default();
            let seen = place.last.as_ref().map(|last| last.seen());
            let growth = otlp::grow(seen, &points, self.sure_since_unix_ns, &mut room);
            let next = if growth.next.buckets() > budget.rows_per_profile() {
                Err("max_cumulative_buckets_per_process")
            } else {
                budget.remember(growth.next).ok_or("max_cumulative_buckets")
            };
            match next {
                Ok(next) => {
                    place.next = Some(Arc::new(next));
                    place.forgotten_unix_ns = growth.forgotten_unix_ns;
                    decoded.append(growth.decoded);
                }
                Err(reason) => decoded.refuse_points(&points, reason),
            }
        }
    }
}

//! Request durations that grow from the start of a process, which is how SDKs send them by default.
//!
//! Guarantees: a process's last export stays known until the increase since then is on disk, and while one of its
//! exports is processed no other one is compared with the same base; what is kept is bounded (`max_cumulative_buckets`,
//! `max_cumulative_buckets_per_process`, `max_workloads` processes) and divided among the senders, and what does not
//! fit is reported and counted by a later export that does. A sender that leaves before its response changes nothing
//! about that.

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

use super::{limits::TOO_MANY_WORKLOADS, sender::SenderKey};
use crate::cumulative::{Bounds, Remembered, Senders};

/// A process that exported nothing for this long is forgotten, in nanoseconds.
const IDLE_NS: i64 = 3_600_000_000_000;
/// How often idle processes are looked for, in nanoseconds.
const SWEEP_EVERY_NS: i64 = 60_000_000_000;

/// The last exports of all processes.
pub(super) struct Growing {
    senders: Arc<Senders<Streams>>,
    /// Exports before it were not seen.
    started_unix_ns: i64,
    swept_unix_ns: AtomicI64,
    /// Exports further in the future are dropped.
    max_future: Duration,
}

/// The slots of one request's processes, locked until dropped.
#[derive(Default)]
pub(super) struct Held {
    places: Vec<Place>,
    latest_unix_ns: u64,
    /// The sender, and where they are kept.
    by: Option<(SenderKey, Arc<Senders<Streams>>)>,
}

struct Place {
    process: (Workload, u128),
    last: OwnedMutexGuard<Option<Arc<Remembered<Streams>>>>,
    next: Option<Arc<Remembered<Streams>>>,
    sure_since_unix_ns: u64,
    forgotten_unix_ns: u64,
}

impl Growing {
    pub(super) fn new(bounds: Bounds, max_future: Duration, now_unix_ns: i64) -> Growing {
        Growing {
            senders: Senders::new(bounds),
            started_unix_ns: now_unix_ns,
            swept_unix_ns: AtomicI64::new(now_unix_ns),
            max_future,
        }
    }

    /// Buckets kept.
    pub(super) fn buckets(&self) -> usize {
        self.senders.budget.used()
    }

    /// Waits for the slots of all processes that sent these points; some may get none.
    pub(super) async fn hold(&self, sender: SenderKey, points: &[CumulativePoint], now_unix_ns: i64) -> Held {
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
        // All requests wait in the same order, so that two never wait for each other.
        processes.sort_unstable();
        processes.dedup();
        let started = u64::try_from(self.started_unix_ns).unwrap_or(0);
        let mut places = Vec::with_capacity(processes.len());
        for process in processes {
            let (now_s, kind) = (now_unix_ns.div_euclid(1_000_000_000), format!("{:032x}", process.1));
            let Some(slot) = self.senders.slot(sender, &process.0, &kind, now_s) else {
                continue;
            };
            places.push(Place {
                last: slot.lock_owned().await,
                // After the slot is taken: a process evicted to make room is forgotten by then.
                sure_since_unix_ns: started.max(self.senders.forgotten_unix_ns(&process.0)),
                process,
                next: None,
                forgotten_unix_ns: 0,
            });
        }
        let future_ns = u64::try_from(self.max_future.as_nanos()).unwrap_or(u64::MAX);
        Held {
            places,
            latest_unix_ns: u64::try_from(now_unix_ns).unwrap_or(0).saturating_add(future_ns),
            by: Some((sender, Arc::clone(&self.senders))),
        }
    }

    /// The increase is on disk: keeps what it was computed from as the next base.
    pub(super) fn stored(&self, held: Held) {
        for mut place in held.places {
            if let Some(next) = place.next {
                self.senders.forgot(&place.process.0, place.forgotten_unix_ns);
                *place.last = Some(next);
            }
        }
    }
}

impl Held {
    /// True if there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds the increase of the points to the request's windows, which may expand to at most `most_memory` bytes.
    pub(super) fn grow(&mut self, decoded: &mut Decoded, most_memory: u64) {
        let Some((sender, senders)) = &self.by else { return };
        let mut room = otlp::bucket_room(most_memory);
        let mut by_process: HashMap<(Workload, u128), Vec<CumulativePoint>> = HashMap::new();
        for point in std::mem::take(&mut decoded.cumulative) {
            // If kept, it would make all exports until then look out of order.
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
            let growth = otlp::grow(seen, &points, place.sure_since_unix_ns, &mut room);
            let next = if growth.next.buckets() > senders.budget.rows_per_profile() {
                Err("max_cumulative_buckets_per_process")
            } else {
                senders.remember(*sender, growth.next).ok_or("max_cumulative_buckets")
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
        for points in by_process.into_values() {
            decoded.refuse_points(&points, TOO_MANY_WORKLOADS);
        }
    }
}

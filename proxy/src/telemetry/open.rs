//! What is in progress and may last: streams, gRPC calls, TCP connections.
//!
//! Guarantees: everything opened is counted in every window that it outlives, together with the bytes moved so far;
//! each byte counts once, because removal returns what has already been counted. One lock per shard, held for a few
//! instructions; ordinary HTTP requests never take it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use slab::Slab;

use super::SeriesId;

/// Bytes in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) request: u64,
    pub(crate) response: u64,
}

/// Running byte counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meters {
    pub(crate) request: Option<Arc<AtomicU64>>,
    pub(crate) response: Option<Arc<AtomicU64>>,
}

impl Meters {
    fn read(&self) -> Bytes {
        let read = |meter: &Option<Arc<AtomicU64>>| meter.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        Bytes {
            request: read(&self.request),
            response: read(&self.response),
        }
    }
}

/// A handle to something open; the code that opened it has to remove it.
#[derive(Debug)]
#[must_use = "it is open until it is closed"]
pub(crate) struct OpenId {
    pub(super) shard: u32,
    key: u32,
}

#[derive(Debug)]
struct Entry {
    series: SeriesId,
    /// Status under which its bytes count until its end is known.
    status: u16,
    meters: Meters,
    counted: Bytes,
}

/// What is open in one shard.
#[derive(Debug, Default)]
pub(super) struct OpenTable(Mutex<Slab<Entry>>);

/// How many are open, and what has moved since the last count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OpenCount {
    pub(super) open: u64,
    pub(super) moved: Bytes,
}

impl OpenTable {
    pub(super) fn insert(&self, shard: u32, series: SeriesId, status: u16, meters: Meters) -> OpenId {
        let key = self.0.lock().insert(Entry {
            series,
            status,
            meters,
            counted: Bytes::default(),
        });
        OpenId { shard, key: key as u32 }
    }

    /// Replaces what is known about it.
    pub(super) fn update(&self, id: &OpenId, series: SeriesId, status: u16, meters: Meters) {
        if let Some(entry) = self.0.lock().get_mut(id.key as usize) {
            (entry.series, entry.status, entry.meters) = (series, status, meters);
        }
    }

    /// Removes it; returns the bytes that windows have counted already.
    pub(super) fn remove(&self, id: &OpenId) -> Bytes {
        self.0
            .lock()
            .try_remove(id.key as usize)
            .map_or(Bytes::default(), |entry| entry.counted)
    }

    /// Adds the series of what is open.
    pub(super) fn note(&self, into: &mut BTreeMap<SeriesId, ()>) {
        into.extend(self.0.lock().iter().map(|(_, entry)| (entry.series, ())));
    }

    /// Adds what is open, by series and status, and marks the bytes that moved as counted.
    pub(super) fn count(&self, into: &mut BTreeMap<(SeriesId, u16), OpenCount>) {
        for (_, entry) in self.0.lock().iter_mut() {
            let now = entry.meters.read();
            let count = into.entry((entry.series, entry.status)).or_default();
            count.open += 1;
            count.moved.request += now.request.saturating_sub(entry.counted.request);
            count.moved.response += now.response.saturating_sub(entry.counted.response);
            entry.counted = now;
        }
    }
}

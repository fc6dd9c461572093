//! What the writing thread works on: durable batches, and requests.

use std::{collections::VecDeque, sync::Arc};

use emberline_model::Batch;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{compact, failure::Kind, purge, writer::Waiter};
use crate::journal::Lsn;

/// What the writing thread is asked to do besides applying batches.
#[derive(Default)]
pub(super) struct Requests {
    /// A question found the engine unusable.
    pub(super) repair: Option<(Kind, String)>,
    pub(super) retention: Vec<oneshot::Sender<()>>,
    pub(super) seal: Vec<oneshot::Sender<()>>,
    pub(super) compact: Vec<oneshot::Sender<()>>,
    /// A compaction ended.
    pub(super) compacted: Option<compact::Outcome>,
    pub(super) delete: Vec<Waiter>,
    /// A step of a deletion ended.
    pub(super) purged: Option<purge::Outcome>,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        let Requests {
            repair,
            retention,
            seal,
            compact,
            compacted,
            delete,
            purged,
        } = self;
        let nobody_waits = retention.is_empty() && seal.is_empty() && compact.is_empty() && delete.is_empty();
        nobody_waits && repair.is_none() && compacted.is_none() && purged.is_none()
    }
}

/// Everything waiting for the writing thread.
pub(super) struct Inbox {
    /// Durable batches in order, as long as they fit; others are read from the journal.
    pub(super) batches: VecDeque<(Lsn, Arc<Batch>, usize)>,
    pub(super) bytes: usize,
    pub(super) durable: Lsn,
    pub(super) requests: Requests,
    /// The store is closing; never reset.
    pub(super) close: bool,
}

/// Where the journal puts batches once they are durable.
pub(crate) struct Queue {
    pub(super) inbox: Mutex<Inbox>,
    pub(super) wake: Condvar,
    limit: usize,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Arc<Queue> {
        let inbox = Inbox {
            batches: VecDeque::new(),
            bytes: 0,
            durable: 0,
            requests: Requests::default(),
            close: false,
        };
        Arc::new(Queue {
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            limit,
        })
    }

    /// Accepts durable batches.
    pub(crate) fn push(&self, durable: Lsn, batches: Vec<(Lsn, Arc<Batch>, usize)>) {
        let mut inbox = self.inbox.lock();
        for (lsn, batch, bytes) in batches {
            if inbox.bytes + bytes <= self.limit {
                inbox.bytes += bytes;
                inbox.batches.push_back((lsn, batch, bytes));
            }
        }
        inbox.durable = durable;
        self.wake.notify_one();
    }

    /// Adds a request, and wakes the thread.
    pub(super) fn request(&self, change: impl FnOnce(&mut Requests)) {
        change(&mut self.inbox.lock().requests);
        self.wake.notify_one();
    }

    /// Asks the thread to end.
    pub(super) fn close(&self) {
        self.inbox.lock().close = true;
        self.wake.notify_one();
    }

    /// Asks for the engine to be reopened or rebuilt.
    pub(crate) fn repair(&self, kind: Kind, why: String) {
        self.request(|requests| {
            // Damage takes precedence.
            if !matches!(requests.repair, Some((Kind::Damaged, _))) {
                requests.repair = Some((kind, why));
            }
        });
    }
}

//! How many requests may be in flight at once, and how many may wait for that.
//!
//! Guarantees: no more than `requests` are in flight, whatever the number of workers, each from here until its response
//! has ended; those that wait are served in the order they came, and none waits longer than `queue_ms`; what finds no
//! place is refused at once, so an overloaded destination serves what it can and the rest learns early.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Refused,
    chain::{Asking, Filter, Flow, Step, WayBack},
};
use crate::{body::RequestBody, config::ConcurrencyConfig};

/// The places of a filter, for all workers.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    patience: Duration,
}

impl Places {
    pub(super) fn new(config: &ConcurrencyConfig) -> Places {
        Places {
            free: Arc::new(Semaphore::new(config.requests)),
            waiting: AtomicUsize::new(0),
            most_waiting: config.queue,
            patience: Duration::from_millis(config.queue_ms),
        }
    }

    /// A place among those that wait, given up when dropped.
    fn queue(&self) -> Option<Waiting<'_>> {
        let taken = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.most_waiting).then_some(waiting + 1)
            });
        taken.is_ok().then(|| Waiting(self))
    }
}

struct Waiting<'a>(&'a Places);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Admits a request when there is a place.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit(pub(super) Arc<Places>);

impl ConcurrencyLimit {
    async fn wait(&self, _waiting: Waiting<'_>) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.0.free).acquire_owned();
        tokio::time::timeout(self.0.patience, place).await.ok()?.ok()
    }
}

impl Filter for ConcurrencyLimit {
    fn on_request<'a>(
        &'a self,
        _asking: Asking<'a>,
        _request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        if let Ok(place) = Arc::clone(&self.0.free).try_acquire_owned() {
            back.hold(place);
            return Step::Done(Flow::Continue);
        }
        let Some(waiting) = self.0.queue() else {
            return Step::Done(Flow::Answer(Refused::OVER_CONCURRENCY));
        };
        Step::later(async move {
            match self.wait(waiting).await {
                Some(place) => {
                    back.hold(place);
                    Flow::Continue
                }
                None => Flow::Answer(Refused::OVER_CONCURRENCY),
            }
        })
    }
}

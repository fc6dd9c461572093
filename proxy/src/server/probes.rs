//! Who speaks first behind a listener of `protocol: auto`.
//!
//! A silent caller may be one whose server greets it, so the endpoint is connected to hear that. An application with few workers
//! keeps one of them for each such connection. Guarantees: where HTTP has been answered, nobody is connected for a silent caller;
//! and a caller that speaks HTTP ends the connections that only wait, for it may need the worker that one of them holds.
//!
//! Wrong on purpose: each worker thread of the proxy learns for itself. What callers say proves nothing, so the connections are made again
//! until an endpoint has answered in HTTP.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, futures::Notified};

/// What is known of it, in one worker.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    is_http: AtomicBool,
    give_way: Notify,
}

impl Probes {
    /// An endpoint has answered in HTTP.
    pub(crate) fn answered_http(&self) {
        if !self.is_http.load(Ordering::Relaxed) {
            self.is_http.store(true, Ordering::Relaxed);
        }
    }

    /// The listener has another plan: what is behind it may be another program.
    pub(crate) fn forget(&self) {
        self.is_http.store(false, Ordering::Relaxed);
    }

    /// True where nobody needs to be connected for a silent caller.
    pub(crate) fn is_http(&self) -> bool {
        self.is_http.load(Ordering::Relaxed)
    }

    /// A caller speaks HTTP: connections that only wait end now.
    pub(crate) fn caller_speaks_http(&self) {
        if !self.is_http() {
            self.give_way.notify_waiters();
        }
    }

    /// Ready when connections that only wait have to end.
    pub(crate) fn asked_to_give_way(&self) -> Notified<'_> {
        self.give_way.notified()
    }
}

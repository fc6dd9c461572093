//! Streams of HTTP/2 whose caller does not take its response.
//!
//! Guarantee: a stream whose caller gives no room for the response (its window stays shut) for `limits.body_idle_ms` is
//! reset, and with it goes what it holds: the destination's connection and a part of the response. The time that the
//! destination takes does not count. What a stream is charged goes back to the budget when it is gone, which is later than
//! the end of its request: its last frame waits for room, too.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::{budget::Guard, wire::io::IdleTimer};

/// Whether a response waits for its caller: odd while it does. Counts up with each change.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    changes: AtomicU64,
    /// Bytes of the budget that the stream holds.
    charged: AtomicUsize,
}

impl Stall {
    /// Of a stream that is charged so many bytes.
    pub(crate) fn charged(bytes: usize) -> Stall {
        Stall {
            changes: AtomicU64::new(0),
            charged: AtomicUsize::new(bytes),
        }
    }

    /// The caller has been given a part.
    pub(crate) fn begin(&self) {
        if !self.is_waiting() {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The caller asked for more.
    pub(crate) fn end(&self) {
        if self.is_waiting() {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_waiting(&self) -> bool {
        self.changes.load(Ordering::Relaxed) & 1 == 1
    }
}

/// What a stream holds, given back when it is gone.
struct Held {
    stall: Arc<Stall>,
    guard: Arc<Guard>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard.account().give(self.stall.charged.swap(0, Ordering::Relaxed));
    }
}

pin_project! {
    /// What serves a stream, until it has ended or its caller has been waited for too long.
    pub(crate) struct Watched<F> {
        #[pin]
        future: F,
        held: Held,
        seen: u64,
        timer: IdleTimer,
        limit: Duration,
    }
}

impl<F> Watched<F> {
    pub(crate) fn new(future: F, stall: Arc<Stall>, limit: Duration, guard: Arc<Guard>) -> Watched<F> {
        Watched {
            future,
            held: Held { stall, guard },
            seen: 0,
            timer: IdleTimer::default(),
            limit,
        }
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let now = this.held.stall.changes.load(Ordering::Relaxed);
        if now != *this.seen {
            *this.seen = now;
            this.timer.disarm();
        }
        if !this.held.stall.is_waiting() {
            return Poll::Pending;
        }
        ready!(this.timer.poll(cx, *this.limit));
        this.held
            .guard
            .account()
            .budget()
            .counters()
            .connection_broke("stream_not_taken");
        Poll::Ready(())
    }
}

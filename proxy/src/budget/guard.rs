//! A caller's connection, shared by those who watch its bytes, serve its requests and count its slot: which requests
//! are refused, why this side ended it, what it is charged, and whether it is to make room.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;

use super::Account;
use crate::{counters::Full, wire::framing::Refusal};

/// An unfinished head up to this size is not charged: it fits the buffer that every connection has.
pub(crate) const FREE_HEAD_BYTES: usize = 4096;

/// What a connection, the code that serves its requests, and the [`Budget`](super::Budget) know about each other.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Number and cause of the first refused request; 0 if there is none.
    refused: AtomicU64,
    /// Requests handed to the service.
    begun: AtomicU64,
    /// Requests whose response has ended.
    ended: AtomicU64,
    /// Index in [`CAUSES`] of what ended the connection from this side, plus one.
    cause: AtomicU64,
    /// The account that is charged.
    account: Arc<Account>,
    /// Its slot in the budget; [`NO_PLACE`] once given back.
    place: AtomicUsize,
    /// Since when it has had no request, in the budget's time.
    quiet_since: AtomicUsize,
    /// Bytes charged for an unfinished head.
    head: AtomicUsize,
    /// It is to end: to make room for another one, or because its time to stop is over.
    to_leave: AtomicBool,
    /// This process ends it together with its requests; the caller has not left.
    is_cut_off: AtomicBool,
    /// Its next response tells the caller to connect anew.
    is_retiring: AtomicBool,
    task: AtomicWaker,
}

const NO_PLACE: usize = usize::MAX;

/// Why a connection was ended from this side: name in metrics, and the message of the error.
pub(crate) type Cause = (&'static str, &'static str);

pub(crate) const HEADER_TIMEOUT: Cause = ("header_timeout", "a request head was incomplete after limits.header_ms");
pub(crate) const BODY_TIMEOUT: Cause = (
    "body_timeout",
    "a request body made no progress for limits.body_idle_ms",
);
pub(crate) const KEEP_ALIVE_TIMEOUT: Cause = ("keep_alive_timeout", "no request was received for limits.keep_alive_ms");
pub(crate) const RESPONSE_TIMEOUT: Cause = (
    "response_timeout",
    "the caller did not read its response for limits.body_idle_ms",
);
pub(crate) const NOT_BEGUN: Cause = (
    "header_timeout",
    "no HTTP/2 preface was received within limits.header_ms",
);
pub(crate) const NO_MEMORY: Cause = (
    "no_memory_for_head",
    "incomplete heads use all memory that limits.memory_bytes allows",
);
pub(crate) const HEAD_TOO_LONG: Cause = ("head_too_long", "a request head is longer than limits.max_header_bytes");
pub(crate) const MALFORMED_CHUNK: Cause = ("malformed_chunk", "the chunked framing of a request body is malformed");
const CAUSES: [Cause; 8] = [
    HEADER_TIMEOUT,
    BODY_TIMEOUT,
    KEEP_ALIVE_TIMEOUT,
    RESPONSE_TIMEOUT,
    HEAD_TOO_LONG,
    MALFORMED_CHUNK,
    NOT_BEGUN,
    NO_MEMORY,
];

const REFUSALS: [Refusal; 6] = [
    Refusal::BareLineFeed,
    Refusal::FoldedLine,
    Refusal::ContentLength,
    Refusal::TwoFramings,
    Refusal::TransferEncoding,
    Refusal::UnknownTransferCoding,
];

impl Guard {
    /// For a connection that has a slot.
    pub(crate) fn at(account: Arc<Account>, place: usize, now: usize) -> Guard {
        Guard {
            refused: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            cause: AtomicU64::new(0),
            account,
            place: AtomicUsize::new(place),
            quiet_since: AtomicUsize::new(now),
            head: AtomicUsize::new(0),
            to_leave: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
            is_retiring: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Has its next response tell the caller to connect anew.
    pub(crate) fn retire(&self) {
        self.is_retiring.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.is_retiring.load(Ordering::Relaxed)
    }

    /// Its slot, on the first call.
    pub(crate) fn take_place(&self) -> Option<usize> {
        let place = self.place.swap(NO_PLACE, Ordering::Relaxed);
        (place != NO_PLACE).then_some(place)
    }

    /// What its unfinished head is charged, on the first call.
    pub(crate) fn take_head(&self) -> usize {
        self.head.swap(0, Ordering::Relaxed)
    }

    /// True once a request has been answered.
    pub(crate) fn has_served(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn quiet_since(&self) -> usize {
        self.quiet_since.load(Ordering::Relaxed)
    }

    /// Ends the connection, because its slot is needed.
    pub(crate) fn ask_to_leave(&self) {
        self.to_leave.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Ends the connection together with its requests in flight.
    pub(crate) fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
        self.ask_to_leave();
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    pub(crate) fn is_to_leave(&self) -> bool {
        self.to_leave.load(Ordering::Acquire)
    }

    /// Runs what serves the connection, to its end or until its slot is needed.
    pub(crate) async fn until_asked_to_leave<F: Future>(&self, serving: F) {
        let mut serving = pin!(serving);
        let mut is_registered = false;
        poll_fn(|cx| {
            // Once is enough: the task keeps its waker.
            if !is_registered {
                is_registered = true;
                self.task.register(cx.waker());
            }
            if self.is_to_leave() {
                return Poll::Ready(());
            }
            serving.as_mut().poll(cx).map(|_| ())
        })
        .await;
    }

    /// Whether an unfinished head is currently charged.
    pub(crate) fn has_charged_head(&self) -> bool {
        self.head.load(Ordering::Relaxed) > 0
    }

    /// Charges an unfinished head of `length` bytes, of which the buffers may hold three copies.
    pub(crate) fn charge_head(&self, length: usize) -> Result<(), Full> {
        let (wanted, charged) = (
            3 * length.saturating_sub(FREE_HEAD_BYTES),
            self.head.load(Ordering::Relaxed),
        );
        if wanted > charged {
            self.account.take(wanted - charged)?;
        } else {
            self.account.give(charged - wanted);
        }
        self.head.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    /// Records the first refused request and why.
    pub(crate) fn refuse(&self, number: u64, refusal: Refusal) {
        let code = REFUSALS.iter().position(|&r| r == refusal).unwrap_or_default() as u64;
        self.refused.store((number << 8) | code, Ordering::Relaxed);
    }

    /// Counts a request that begins; returns its number on the connection, from 1.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a request that has ended.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.quiet_since.store(self.account.budget().tick(), Ordering::Relaxed);
    }

    /// Why this side ended the connection, if it did: its name in metrics.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        let position = usize::try_from(self.cause.load(Ordering::Relaxed))
            .ok()?
            .checked_sub(1)?;
        CAUSES.get(position).map(|cause| cause.0)
    }

    /// Ends the connection from this side; returns the error to end it with.
    pub(crate) fn end_connection(&self, cause: Cause) -> io::Error {
        let position = CAUSES.iter().position(|known| known.0 == cause.0).unwrap_or_default();
        self.cause.store(position as u64 + 1, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::ConnectionAborted, cause.1)
    }

    /// Requests begun and requests ended.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }

    /// Why the request with this number (from 1), or an earlier one, is refused.
    pub(crate) fn refusal_of(&self, number: u64) -> Option<Refusal> {
        let packed = self.refused.load(Ordering::Relaxed);
        let refused = packed >> 8;
        (refused != 0 && number >= refused).then(|| REFUSALS[(packed & 0xff) as usize])
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.account.give(self.take_head());
    }
}

#[cfg(test)]
impl Guard {
    /// For a connection with unlimited room.
    pub(crate) fn for_test() -> Arc<Guard> {
        let limits = crate::config::Limits::default();
        super::Budget::new(&limits, &Arc::default())
            .admit(None)
            .expect("there is room")
    }
}

//! A caller's connection as the HTTP parser sees it: strict framing and the times that the parser does not keep.
//!
//! Guarantees: what [`Framing`] refuses is known to the [`Guard`] before the parser hands the request on; a head that
//! is not whole after `header`, a body that does not move for `body_idle`, a caller that does not take its response
//! for `body_idle`, and a connection without a request for `keep_alive` end with an error that names the setting; so
//! does one of HTTP/2 that has not begun after `header`. A connection has one timer for reading, made once and moved
//! from then on, because making one per request shows in the CPU time of a request. What an unfinished head holds beyond
//! the first buffer is charged to the [`crate::budget`].
//!
//! Wrong on purpose: HTTP/2 streams have no idle limit (watch streams of gRPC are silent for long), and neither have its
//! connections; dead peers are found by PING, idle ones make place when there are too many.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::framing::{Broken, Framing, Refusal};
use crate::budget::{Account, Full};

/// What an unfinished head holds without being charged: it fits the buffer that every connection has.
const FREE_HEAD_BYTES: usize = 4096;
/// The preface of HTTP/2 and the head of the frame that has to follow.
const HTTP2_BEGIN_BYTES: usize = 24 + 9;
/// One less than what the library's smallest buffer holds, so that it stays the smallest.
pub(crate) const SMALL_READ: usize = 8191;
/// What HTTP/2 reads in a turn when memory is short: a few lists of compressed headers.
const PIECE_OF_HEADS: usize = 2048;

/// A timer that exists once it was needed and is cheap while it is not.
#[derive(Debug, Default)]
pub(crate) struct IdleTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl IdleTimer {
    /// Ready when `limit` has passed since the first of the polls that nothing disarmed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.armed {
            sleep.as_mut().reset(Instant::now() + limit);
            self.armed = true;
        }
        sleep.as_mut().poll(cx)
    }

    /// Something moved: the time begins anew at the next poll.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

/// What a connection, those who serve its requests, and the [`crate::budget`] know of each other.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Number and cause of the first refused request; 0 while there is none.
    refused: AtomicU64,
    /// Requests that were handed to the service.
    begun: AtomicU64,
    /// Requests whose response has ended.
    ended: AtomicU64,
    /// Position in [`CAUSES`] of what ended the connection from this side, plus one.
    cause: AtomicU64,
    /// Who pays for it.
    account: Arc<Account>,
    /// Its number among the places; [`NO_PLACE`] once it was given back.
    place: AtomicUsize,
    /// Since when it has no request, in the budget's time.
    quiet_since: AtomicUsize,
    /// Bytes charged for an unfinished head.
    head: AtomicUsize,
    /// It is to make place for another one.
    to_leave: AtomicBool,
    task: AtomicWaker,
}

const NO_PLACE: usize = usize::MAX;

/// Why a connection was ended from this side: name in metrics, and the message of the error.
type Cause = (&'static str, &'static str);

const HEADER_TIMEOUT: Cause = ("header_timeout", "a request head was not whole within limits.header_ms");
const BODY_TIMEOUT: Cause = ("body_timeout", "a request body did not move for limits.body_idle_ms");
const KEEP_ALIVE_TIMEOUT: Cause = ("keep_alive_timeout", "no request came for limits.keep_alive_ms");
const RESPONSE_TIMEOUT: Cause = (
    "response_timeout",
    "the caller did not take its response for limits.body_idle_ms",
);
const NOT_BEGUN: Cause = ("header_timeout", "HTTP/2 was not begun within limits.header_ms");
const NO_MEMORY: Cause = (
    "no_memory_for_head",
    "heads of all connections hold as much as limits.memory_bytes allows",
);
const HEAD_TOO_LONG: Cause = ("head_too_long", "a request head is longer than limits.max_header_bytes");
const MALFORMED_CHUNK: Cause = ("malformed_chunk", "the chunked framing of a request body is malformed");
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
    /// Of a connection that has a place.
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
            task: AtomicWaker::new(),
        }
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Its place, the first time.
    pub(crate) fn take_place(&self) -> Option<usize> {
        let place = self.place.swap(NO_PLACE, Ordering::Relaxed);
        (place != NO_PLACE).then_some(place)
    }

    /// What its unfinished head is charged, the first time.
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

    /// Has the connection end, because its place is needed.
    pub(crate) fn ask_to_leave(&self) {
        self.to_leave.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(crate) fn is_to_leave(&self) -> bool {
        self.to_leave.load(Ordering::Acquire)
    }

    /// Runs what serves the connection, to its end or until the place is needed.
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

    /// Charges an unfinished head of so many bytes, which the buffers hold up to three times.
    fn charge_head(&self, length: usize) -> Result<(), Full> {
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

    fn set(&self, number: u64, refusal: Refusal) {
        let code = REFUSALS.iter().position(|&r| r == refusal).unwrap_or_default() as u64;
        self.refused.store((number << 8) | code, Ordering::Relaxed);
    }

    /// Counts a request that begins; its number on the connection, from 1.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a request that has ended.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.quiet_since.store(self.account.budget().tick(), Ordering::Relaxed);
    }

    /// Why this side ended the connection, if it did: the name in metrics.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        let position = usize::try_from(self.cause.load(Ordering::Relaxed))
            .ok()?
            .checked_sub(1)?;
        CAUSES.get(position).map(|cause| cause.0)
    }

    /// Ends the connection from this side: the error to end it with.
    fn end_connection(&self, cause: Cause) -> io::Error {
        let position = CAUSES.iter().position(|known| known.0 == cause.0).unwrap_or_default();
        self.cause.store(position as u64 + 1, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::ConnectionAborted, cause.1)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }

    /// Why the connection's request of this number (from 1), or one before it, is refused.
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

/// Times of a caller's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallerTimes {
    /// To send a whole head.
    pub(crate) header: Duration,
    /// Without a byte of a body moving.
    pub(crate) body_idle: Duration,
    /// Without a request.
    pub(crate) keep_alive: Duration,
}

/// A caller's connection.
#[derive(Debug)]
pub(crate) struct GuardedIo<T> {
    inner: T,
    /// Bytes that protocol detection has read already.
    prefix: Bytes,
    framing: Option<Framing>,
    /// Bytes that are missing until HTTP/2 has begun.
    to_begin: usize,
    /// Of HTTP/2: whether it may read now when memory is short.
    turn: Option<bool>,
    guard: Arc<Guard>,
    times: CallerTimes,
    read_timer: IdleTimer,
    write_timer: IdleTimer,
}

impl<T> GuardedIo<T> {
    /// A connection whose HTTP/1 framing is watched.
    pub(crate) fn http1(inner: T, prefix: Bytes, times: CallerTimes, max_head_bytes: usize, guard: Arc<Guard>) -> Self {
        GuardedIo {
            framing: Some(Framing::new(max_head_bytes)),
            ..GuardedIo::opaque(inner, prefix, times, guard)
        }
    }

    /// A connection of HTTP/2.
    pub(crate) fn http2(inner: T, prefix: Bytes, times: CallerTimes, guard: Arc<Guard>) -> Self {
        GuardedIo {
            to_begin: HTTP2_BEGIN_BYTES,
            turn: Some(true),
            ..GuardedIo::opaque(inner, prefix, times, guard)
        }
    }

    /// A connection whose bytes are not looked at.
    pub(crate) fn opaque(inner: T, prefix: Bytes, times: CallerTimes, guard: Arc<Guard>) -> Self {
        GuardedIo {
            inner,
            prefix,
            framing: None,
            to_begin: 0,
            turn: None,
            guard,
            times,
            read_timer: IdleTimer::default(),
            write_timer: IdleTimer::default(),
        }
    }

    /// How long the next byte may take, and the setting that says so.
    fn read_limit(&self) -> Option<(Duration, Cause)> {
        if self.to_begin > 0 {
            return Some((self.times.header, NOT_BEGUN));
        }
        let framing = self.framing.as_ref()?;
        if framing.is_idle() {
            Some((self.times.keep_alive, KEEP_ALIVE_TIMEOUT))
        } else if framing.is_in_head() {
            Some((self.times.header, HEADER_TIMEOUT))
        } else {
            Some((self.times.body_idle, BODY_TIMEOUT))
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for GuardedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            let is_tight = this.guard.account.budget().is_tight();
            if is_tight && let Some(turn) = &mut this.turn {
                // The library unpacks all the heads that it can read before it hands over the first, and nothing is charged
                // until then: it gets a few at a time.
                *turn = !*turn;
                if *turn {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let most = match this.turn {
                _ if !is_tight => usize::MAX,
                Some(_) => PIECE_OF_HEADS,
                None => SMALL_READ,
            };
            match poll_read_up_to(&mut this.inner, cx, buf, most) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    let Some((limit, cause)) = this.read_limit() else {
                        return Poll::Pending;
                    };
                    ready!(this.read_timer.poll(cx, limit));
                    let is_idle = this.framing.as_ref().is_some_and(Framing::is_idle);
                    if is_idle && this.guard.is_busy() {
                        // The caller waits for its response: that has times of its own.
                        this.read_timer.disarm();
                        ready!(this.read_timer.poll(cx, limit));
                    }
                    return Poll::Ready(Err(this.guard.end_connection(cause)));
                }
            }
        } else {
            let length = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..length]);
            this.prefix.advance(length);
        }
        if this.to_begin > 0 {
            this.to_begin = this.to_begin.saturating_sub(buf.filled().len() - before);
        }
        let Some(framing) = &mut this.framing else {
            return Poll::Ready(Ok(()));
        };
        let head_was_open = framing.is_in_head();
        let bytes = &buf.filled()[before..];
        if let Err(broken) = framing.feed(bytes) {
            // Bytes that were not judged must not reach the parser.
            buf.set_filled(before);
            let cause = if broken == Broken::HeadTooLong {
                HEAD_TOO_LONG
            } else {
                MALFORMED_CHUNK
            };
            return Poll::Ready(Err(this.guard.end_connection(cause)));
        }
        let head = framing.unfinished_head();
        if (head > FREE_HEAD_BYTES || this.guard.head.load(Ordering::Relaxed) > 0)
            && this.guard.charge_head(head).is_err()
        {
            buf.set_filled(before);
            return Poll::Ready(Err(this.guard.end_connection(NO_MEMORY)));
        }
        // A head has one time for all its bytes, however many reads it takes; a body has it anew with each.
        if !(head_was_open && framing.is_in_head()) {
            this.read_timer.disarm();
        }
        if let Some((number, refusal)) = framing.refused() {
            this.guard.set(number, refusal);
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads so many bytes at most; few when memory is short, because the library makes its buffers as large as the pieces are.
#[inline]
pub(crate) fn poll_read_up_to<T: AsyncRead + Unpin>(
    inner: &mut T,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<()>> {
    if buf.remaining() <= most {
        return Pin::new(inner).poll_read(cx, buf);
    }
    let mut small = ReadBuf::new(buf.initialize_unfilled_to(most));
    ready!(Pin::new(inner).poll_read(cx, &mut small))?;
    let length = small.filled().len();
    buf.advance(length);
    Poll::Ready(Ok(()))
}

impl<T> GuardedIo<T> {
    /// Starts the time of a caller that does not take its response, or ends it.
    fn watch_write<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.write_timer.disarm();
            // The time without a request begins when the last response has gone.
            if self.framing.as_ref().is_some_and(Framing::is_idle) {
                self.read_timer.disarm();
            }
            return polled;
        }
        ready!(self.write_timer.poll(cx, self.times.body_idle));
        Poll::Ready(Err(self.guard.end_connection(RESPONSE_TIMEOUT)))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for GuardedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, buffers);
        self.watch_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
impl Guard {
    /// Of a connection with all the room there is.
    pub(crate) fn for_test() -> Arc<Guard> {
        let limits = crate::config::Limits::default();
        crate::budget::Budget::new(&limits, &Arc::default())
            .admit(None)
            .expect("there is room")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const TIMES: CallerTimes = CallerTimes {
        header: Duration::from_millis(60),
        body_idle: Duration::from_millis(400),
        keep_alive: Duration::from_millis(100),
    };

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn a_refusal_is_known_with_the_bytes_that_cause_it() {
        runtime().block_on(async {
            let guard = Guard::for_test();
            let (client, mut server) = tokio::io::duplex(4096);
            let prefix = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut io = GuardedIo::http1(client, prefix, TIMES, 8192, guard.clone());
            let mut buf = [0; 4096];
            assert_eq!(io.read(&mut buf).await.unwrap(), 27);
            assert_eq!(guard.refusal_of(1), None);
            server.write_all(b"GET / HTTP/1.1\nHost: a\r\n\r\n").await.unwrap();
            io.read_exact(&mut buf[..26]).await.unwrap();
            assert_eq!(
                (guard.refusal_of(1), guard.refusal_of(2)),
                (None, Some(Refusal::BareLineFeed))
            );
            assert_eq!(guard.refusal_of(3), Some(Refusal::BareLineFeed));
        });
    }

    fn io_after(
        sent: &'static [u8],
        guard: &Arc<Guard>,
    ) -> (GuardedIo<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (client, server) = tokio::io::duplex(4096);
        (
            GuardedIo::http1(client, Bytes::from_static(sent), TIMES, 8192, Arc::clone(guard)),
            server,
        )
    }

    #[test]
    fn a_connection_without_a_request_ends_and_one_that_waits_for_its_response_does_not() {
        runtime().block_on(async {
            let guard = Guard::for_test();
            let (mut io, server) = io_after(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &guard);
            let mut buf = [0; 4096];
            assert_eq!(io.read(&mut buf).await.unwrap(), 27);
            guard.begin();
            // Four times the limit while the response is being made.
            let waited = tokio::time::timeout(4 * TIMES.keep_alive, io.read(&mut buf)).await;
            assert!(
                waited.is_err(),
                "the connection was ended while its request was being served: {waited:?}"
            );
            guard.end();
            let error = io.read(&mut buf).await.unwrap_err();
            assert!(error.to_string().contains("limits.keep_alive_ms"), "{error}");
            drop(server);
        });
    }

    #[test]
    fn a_head_has_one_time_however_it_drips_and_a_body_has_it_anew_with_each_byte() {
        runtime().block_on(async {
            for (sent, setting, at_least) in [
                (&b"GET / HT"[..], "limits.header_ms", TIMES.header),
                (
                    b"POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\na",
                    "limits.body_idle_ms",
                    TIMES.body_idle * 3 / 2,
                ),
            ] {
                let (mut io, mut server) = io_after(sent, &Guard::for_test());
                let started = Instant::now();
                let drip = tokio::spawn(async move {
                    // Longer than any of the times in all, each pause shorter than a body's.
                    for _ in 0..30 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        if server.write_all(b"T").await.is_err() {
                            return;
                        }
                    }
                    std::future::pending::<()>().await;
                });
                let mut buf = [0; 4096];
                let error = loop {
                    match io.read(&mut buf).await {
                        Ok(0) => panic!("the connection ended without an error"),
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                drip.abort();
                assert!(error.to_string().contains(setting), "{error}");
                assert!(started.elapsed() >= at_least, "{setting} after {:?}", started.elapsed());
            }
        });
    }
}

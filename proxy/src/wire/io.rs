//! A caller's connection as the HTTP parser sees it: strict framing, and the timeouts that the parser does not enforce.
//!
//! Guarantees: the [`Guard`] learns what [`Framing`] refuses before the parser hands the request on; a head that is
//! incomplete after `header`, a body without progress for `body_idle`, a caller that does not read its response for
//! `body_idle`, and a connection without a request for `keep_alive` end with an error that names the setting; so does
//! an HTTP/2 connection that has not begun after `header`. A connection has one read timer, created once and then
//! moved, because creating one per request shows in the CPU time of a request. What an unfinished head holds beyond the
//! first buffer is charged to the [`crate::budget`]. Characters that the parser would refuse in a target because they
//! are not escaped are escaped ([`super::target`]).
//!
//! Wrong on purpose: HTTP/2 streams have no idle limit (gRPC watch streams are silent for long), nor have HTTP/2
//! connections; dead peers are found by PING, and idle ones are closed to make room when there are too many.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::framing::{Broken, Framing};
use crate::budget::guard::{
    BODY_TIMEOUT, Cause, FREE_HEAD_BYTES, Guard, HEAD_TOO_LONG, HEADER_TIMEOUT, KEEP_ALIVE_TIMEOUT, MALFORMED_CHUNK,
    NO_MEMORY, NOT_BEGUN, RESPONSE_TIMEOUT,
};

/// The preface of HTTP/2 and the header of the frame that has to follow.
const HTTP2_BEGIN_BYTES: usize = 24 + 9;
/// One less than the capacity of the library's smallest buffer, so that it stays the smallest.
pub(crate) const SMALL_READ: usize = 8191;
/// The most that HTTP/2 reads per turn when memory is short: a few lists of compressed headers.
const PIECE_OF_HEADS: usize = 2048;

/// A timer that is created when first needed and cheap while it is not.
#[derive(Debug, Default)]
pub(crate) struct IdleTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl IdleTimer {
    /// Ready when `limit` has passed since the first poll after the last [`IdleTimer::disarm`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.armed {
            sleep.as_mut().reset(Instant::now() + limit);
            self.armed = true;
        }
        sleep.as_mut().poll(cx)
    }

    /// There was progress: the time starts again at the next poll.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

/// Timeouts of a caller's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallerTimes {
    /// To send a whole head.
    pub(crate) header: Duration,
    /// Without progress of a body.
    pub(crate) body_idle: Duration,
    /// Without a request.
    pub(crate) keep_alive: Duration,
}

/// A caller's connection.
#[derive(Debug)]
pub(crate) struct GuardedIo<T> {
    inner: T,
    /// Bytes already read by protocol detection.
    prefix: Bytes,
    /// Checked bytes for which the reader's buffer had no room.
    judged: Bytes,
    framing: Option<Framing>,
    /// Bytes missing until HTTP/2 has begun.
    to_begin: usize,
    /// Only for HTTP/2: whether it is its turn to read when memory is short.
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

    /// An HTTP/2 connection.
    pub(crate) fn http2(inner: T, prefix: Bytes, times: CallerTimes, guard: Arc<Guard>) -> Self {
        GuardedIo {
            to_begin: HTTP2_BEGIN_BYTES,
            turn: Some(true),
            ..GuardedIo::opaque(inner, prefix, times, guard)
        }
    }

    /// A connection whose bytes are not inspected.
    pub(crate) fn opaque(inner: T, prefix: Bytes, times: CallerTimes, guard: Arc<Guard>) -> Self {
        GuardedIo {
            inner,
            prefix,
            judged: Bytes::new(),
            framing: None,
            to_begin: 0,
            turn: None,
            guard,
            times,
            read_timer: IdleTimer::default(),
            write_timer: IdleTimer::default(),
        }
    }

    /// The same connection after switching to another protocol; `read` was taken from it but not used.
    pub(crate) fn into_opaque(self, read: Bytes) -> Self {
        // What looked like an unfinished head was the start of the other protocol. Charging zero cannot fail.
        let _ = self.guard.charge_head(0);
        let left = [read, self.judged, self.prefix];
        let prefix = match left.iter().filter(|part| !part.is_empty()).count() {
            0 => Bytes::new(),
            _ => left.concat().into(),
        };
        GuardedIo::opaque(self.inner, prefix, self.times, self.guard)
    }

    /// How long the next byte may take, and the setting responsible.
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
        if !this.judged.is_empty() {
            put(buf, &mut this.judged);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            let is_tight = this.guard.account().budget().is_tight();
            if is_tight && let Some(turn) = &mut this.turn {
                // The library decodes all the heads that it can read before it hands over the first, and nothing is
                // charged until then: it gets a few at a time.
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
                        // The caller is waiting for its response, which has timeouts of its own.
                        this.read_timer.disarm();
                        ready!(this.read_timer.poll(cx, limit));
                    }
                    return Poll::Ready(Err(this.guard.end_connection(cause)));
                }
            }
        } else {
            put(buf, &mut this.prefix);
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
            // Unchecked bytes must not reach the parser.
            buf.set_filled(before);
            let cause = if broken == Broken::HeadTooLong {
                HEAD_TOO_LONG
            } else {
                MALFORMED_CHUNK
            };
            return Poll::Ready(Err(this.guard.end_connection(cause)));
        }
        let head = framing.unfinished_head();
        if (head > FREE_HEAD_BYTES || this.guard.has_charged_head()) && this.guard.charge_head(head).is_err() {
            buf.set_filled(before);
            return Poll::Ready(Err(this.guard.end_connection(NO_MEMORY)));
        }
        // A head has one time limit for all its bytes, however many reads it takes; for a body it restarts with each.
        if !(head_was_open && framing.is_in_head()) {
            this.read_timer.disarm();
        }
        if let Some((number, refusal)) = framing.refused() {
            this.guard.refuse(number, refusal);
        }
        if !framing.unescaped().is_empty() {
            this.judged = framing.unescaped().escape(&buf.filled()[before..]).into();
            buf.set_filled(before);
            put(buf, &mut this.judged);
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves as much into `buf` as fits.
fn put(buf: &mut ReadBuf<'_>, bytes: &mut Bytes) {
    let length = bytes.len().min(buf.remaining());
    buf.put_slice(&bytes[..length]);
    bytes.advance(length);
}

/// Reads at most `most` bytes; few when memory is short, because the library sizes its buffers by what it reads.
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
    /// Starts or ends the time of a caller that does not read its response.
    fn watch_write<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.write_timer.disarm();
            // The time without a request starts when the last response has been sent.
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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{super::framing::Refusal, *};

    const TIMES: CallerTimes = CallerTimes {
        header: Duration::from_millis(60),
        body_idle: Duration::from_millis(400),
        keep_alive: Duration::from_millis(100),
    };

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_known_with_the_bytes_that_cause_it() {
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends_and_one_that_waits_for_its_response_does_not() {
        let guard = Guard::for_test();
        let (mut io, server) = io_after(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &guard);
        let mut buf = [0; 4096];
        assert_eq!(io.read(&mut buf).await.unwrap(), 27);
        guard.begin();
        // Four times the limit while the response is being prepared.
        let waited = tokio::time::timeout(4 * TIMES.keep_alive, io.read(&mut buf)).await;
        assert!(
            waited.is_err(),
            "the connection was ended while its request was being served: {waited:?}"
        );
        guard.end();
        let error = io.read(&mut buf).await.unwrap_err();
        assert!(error.to_string().contains("limits.keep_alive_ms"), "{error}");
        drop(server);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_one_time_however_it_drips_and_a_body_has_it_anew_with_each_byte() {
        let drips = Duration::from_millis(10) * 30;
        for (sent, setting, after) in [
            (&b"GET / HT"[..], "limits.header_ms", TIMES.header),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\na",
                "limits.body_idle_ms",
                drips + TIMES.body_idle,
            ),
        ] {
            let (mut io, mut server) = io_after(sent, &Guard::for_test());
            let started = Instant::now();
            let drip = tokio::spawn(async move {
                // Longer in total than any of the timeouts, each pause shorter than a body's.
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
            // With paused time, a timer is at most a millisecond late.
            let late = started.elapsed().checked_sub(after);
            assert!(
                late.is_some_and(|late| late <= Duration::from_millis(2)),
                "{setting} after {:?}",
                started.elapsed()
            );
        }
    }
}

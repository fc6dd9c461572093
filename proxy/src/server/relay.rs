//! Bytes both ways between a caller and a destination, counted as they are read.
//!
//! Guarantees: half-closes pass on; it ends when both directions have, when one end breaks, or when no byte moved for as long as
//! it may be idle.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};

use crate::wire::{io::GuardedIo, transport::Transport};

/// Size of each direction's buffer: what one system call moves at most.
const BUFFER_BYTES: usize = 16 * 1024;

/// Counts what is read from one end, and knows whether that end broke.
struct Metered<'a, T> {
    inner: T,
    bytes: &'a AtomicU64,
    is_broken: bool,
}

impl<'a, T> Metered<'a, T> {
    fn new(inner: T, bytes: &'a AtomicU64) -> Self {
        Metered {
            inner,
            bytes,
            is_broken: false,
        }
    }

    fn note<R>(&mut self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.is_broken |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.bytes
            .fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        self.note(polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.note(polled)
    }
}

/// How bytes both ways came to an end.
pub(super) enum Relayed {
    /// Both ends have closed.
    Ended,
    /// No byte moved for too long.
    Idle,
    /// One end broke.
    Broken { by_caller: bool },
}

/// Passes bytes both ways, first those that the destination has sent `early`.
pub(super) async fn relay(
    caller: GuardedIo<Transport>,
    destination: Transport,
    early: &[u8],
    limit: Duration,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> Relayed {
    let mut caller = Metered::new(caller, sent);
    let mut destination = Metered::new(destination, received);
    let relaying = async {
        received.fetch_add(early.len() as u64, Ordering::Relaxed);
        caller.write_all(early).await?;
        copy_bidirectional_with_sizes(&mut caller, &mut destination, BUFFER_BYTES, BUFFER_BYTES).await
    };
    let ended = tokio::select! {
        relayed = relaying => relayed,
        () = idle(limit, sent, received) => return Relayed::Idle,
    };
    match ended {
        Ok(_) => Relayed::Ended,
        Err(_) => Relayed::Broken {
            by_caller: caller.is_broken,
        },
    }
}

/// Returns when no byte has moved for `limit`.
async fn idle(limit: Duration, sent: &AtomicU64, received: &AtomicU64) {
    let moved = || {
        sent.load(Ordering::Relaxed)
            .wrapping_add(received.load(Ordering::Relaxed))
    };
    // Looking four times per limit finds an idle connection after at most 1.25 limits.
    let step = (limit / 4).max(Duration::from_millis(1));
    let (mut seen, mut since) = (moved(), Instant::now());
    while since.elapsed() < limit {
        tokio::time::sleep(step).await;
        let now = moved();
        if now != seen {
            seen = now;
            since = Instant::now();
        }
    }
}

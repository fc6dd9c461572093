//! A socket to an endpoint, as the HTTP library uses it.
//!
//! Guarantees: it is read in small pieces when memory is short; the response of an endpoint that closes before it has
//! read the whole request is received, and so is the reason it gives for closing (a TLS alert). Its reset makes the
//! next write fail while the response is in the receive buffer, and the library gives up at the first error. So a
//! failed write is withheld: nothing more is written, what has arrived is read, and how that ends is how the request
//! ends.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    budget::Budget,
    wire::{
        io::{SMALL_READ, poll_read_up_to},
        transport::Transport,
    },
};

/// An open socket to an endpoint.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Transport,
    budget: Arc<Budget>,
    /// Why nothing more can be written.
    failure: Option<io::ErrorKind>,
}

impl Socket {
    pub(super) fn new(stream: Transport, budget: Arc<Budget>) -> Socket {
        Socket {
            stream,
            budget,
            failure: None,
        }
    }

    /// The bare socket, for another protocol than HTTP.
    pub(super) fn into_stream(self) -> Transport {
        self.stream
    }

    fn write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Transport>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.failure.is_some() {
            return Poll::Pending;
        }
        match write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(Err(error)) if is_gone(error.kind()) => {
                self.failure = Some(error.kind());
                // Reading continues, and there may already be something to read.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }
}

/// An endpoint's end of a connection that has switched protocols.
#[derive(Debug)]
pub(crate) struct Switched {
    pub(crate) stream: Transport,
    /// What it sent right after its 101.
    pub(crate) early: Bytes,
}

/// True when the other end has closed; what it sent before can still be read.
fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = if self.budget.is_tight() { SMALL_READ } else { usize::MAX };
        let before = buf.filled().len();
        ready!(poll_read_up_to(&mut self.stream, cx, buf, most))?;
        // The write consumed the reset's error, so reading ends as if the response were complete. A broken pipe follows
        // an orderly close.
        if let Some(kind) = self.failure
            && kind != io::ErrorKind::BrokenPipe
            && buf.filled().len() == before
        {
            return Poll::Ready(Err(kind.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |stream, cx| stream.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// A socket whose endpoint sends `response` and resets, which was noticed while writing.
    async fn met_reset(response: &[u8]) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let budget = Budget::new(&crate::config::Limits::default(), &Arc::default());
        let mut socket = Socket::new(Transport::Plain(stream), budget);
        socket.write_all(b"request").await.unwrap();
        let (mut endpoint, _) = listener.accept().await.unwrap();
        endpoint.readable().await.unwrap();
        endpoint.write_all(response).await.unwrap();
        // Unread data makes the kernel reset the connection.
        drop(endpoint);
        poll_fn(|cx| match Pin::new(&mut socket).poll_write(cx, &[0; 1000]) {
            Poll::Ready(result) => panic!("the reset came out as {result:?}"),
            Poll::Pending => Poll::Ready(()),
        })
        .await;
        socket
    }

    #[tokio::test]
    async fn a_response_that_came_before_a_reset_is_read_and_its_end_is_no_orderly_one() {
        let mut socket = met_reset(b"413").await;
        let mut read = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut read)).await;
        assert_eq!(read, b"413");
        let error = end.expect("the reset is met").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

//! A connection of the data path: from a caller or to an endpoint, with or without TLS.
//!
//! Guarantees: without TLS it is just the socket: no allocation, and a write from several buffers is one system call;
//! whether a byte has arrived can be checked without consuming it ([`Transport::readable`]), with or without TLS.
//!
//! Wrong on purpose: with TLS, that check takes up to [`READ_AHEAD`] bytes out of the session and keeps them until they
//! are read.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use emberline_client::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::tls::Certificate;

/// Decrypted bytes taken to find out whether there are any.
const READ_AHEAD: usize = 1024;

/// An open connection.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The bare socket.
    Plain(TcpStream),
    /// A socket with TLS.
    Tls(Box<Secured>),
}

/// A connection with TLS.
#[derive(Debug)]
pub(crate) struct Secured {
    end: End,
    /// Taken out of the session, but not read yet.
    ahead: Bytes,
    /// The other end's, if it was requested and verified.
    certificate: Option<Arc<Certificate>>,
}

#[derive(Debug)]
enum End {
    /// From a caller. Boxed, as is the stream of the other variant.
    Caller(Box<TlsStream<TcpStream>>),
    /// To an endpoint.
    Endpoint(Stream),
}

/// Calls the same function on whichever stream it is.
macro_rules! with {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport {
            Transport::Plain($stream) => $call,
            Transport::Tls(secured) => match &mut secured.end {
                End::Caller($stream) => $call,
                End::Endpoint($stream) => $call,
            },
        }
    };
}

impl Transport {
    /// A caller's connection, after the handshake.
    pub(crate) fn of_caller(stream: TlsStream<TcpStream>, certificate: Option<Arc<Certificate>>) -> Transport {
        Transport::Tls(Box::new(Secured {
            end: End::Caller(Box::new(stream)),
            ahead: Bytes::new(),
            certificate,
        }))
    }

    /// A connection to an endpoint, after the handshake.
    pub(crate) fn to_endpoint(stream: Stream) -> Transport {
        Transport::Tls(Box::new(Secured {
            end: End::Endpoint(stream),
            ahead: Bytes::new(),
            certificate: None,
        }))
    }

    /// The caller's verified certificate.
    pub(crate) fn certificate(&self) -> Option<&Arc<Certificate>> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(secured) => secured.certificate.as_ref(),
        }
    }

    /// Waits until there is something to read, without consuming it; false at the end.
    pub(crate) async fn readable(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(stream) => stream.peek(&mut [0]).await.map(|read| read > 0),
            Transport::Tls(secured) => poll_fn(|cx| secured.poll_ahead(cx)).await,
        }
    }
}

impl Secured {
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ahead.is_empty() {
            let mut bytes = [0; READ_AHEAD];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(self.end.poll_read(cx, &mut buffer))?;
            self.ahead = Bytes::copy_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(!self.ahead.is_empty()))
    }
}

impl End {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Caller(stream) => Pin::new(stream).poll_read(cx, buf),
            End::Endpoint(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(secured) if !secured.ahead.is_empty() => {
                let length = secured.ahead.len().min(buf.remaining());
                buf.put_slice(&secured.ahead[..length]);
                secured.ahead.advance(length);
                Poll::Ready(Ok(()))
            }
            Transport::Tls(secured) => secured.end.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        with!(&mut *self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with!(&mut *self, stream => Pin::new(stream).poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(&mut *self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(&mut *self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

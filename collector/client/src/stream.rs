//! A connection, with or without TLS, whose errors explain themselves.
//!
//! Guarantees: a TLS error is explained where it occurs, so that it need not be recognised again behind the layers of
//! HTTP and gRPC. A server that requests a client certificate checks it (in TLS 1.3) after the handshake has ended on
//! our side: the error at the first read or write is explained as well; if a write finds the connection closed, by the
//! alert that preceded the close. A peer that answers plain HTTP with a TLS alert is recognised.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::error::{Circumstances, DEMANDED, Error, SPEAKS_TLS, TlsFailure, explain, reason_of};

/// An open connection.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
    /// Nothing has been read yet.
    is_fresh: bool,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

#[derive(Debug)]
struct Tls {
    stream: TlsStream<TcpStream>,
    story: Story,
    /// What preceded the end of a connection that can no longer be written to.
    last_words: Vec<u8>,
}

impl Tls {
    /// Why a write failed: the alert that the peer sent before it closed the connection, if it can be read.
    fn reason_of(&mut self, error: io::Error, context: &mut Context<'_>) -> io::Error {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Ready(Err(alert)) if is_of_tls(&alert) => alert,
            // A response that has yet to be read.
            Poll::Ready(Ok(())) => {
                self.last_words.extend_from_slice(buffer.filled());
                error
            }
            _ => error,
        }
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Facts about a handshake that explain later errors.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) name: String,
    /// The setting that contains it, unless it is from the address.
    pub(crate) configured: Option<&'static str>,
    pub(crate) trusts_system: bool,
    pub(crate) has_certificate: bool,
    /// The server requested a client certificate.
    pub(crate) was_asked: Arc<AtomicBool>,
}

impl Story {
    pub(crate) fn explain(&self, error: &io::Error) -> Error {
        Error::Tls(TlsFailure {
            reason: reason_of(error),
            message: explain(error, self.circumstances()),
        })
    }

    fn circumstances(&self) -> Circumstances<'_> {
        let was_asked = self.was_asked.load(Ordering::Relaxed);
        Circumstances {
            name: &self.name,
            configured: self.configured,
            trusts_system: self.trusts_system,
            owes_certificate: was_asked && !self.has_certificate,
            sent_certificate: was_asked && self.has_certificate,
        }
    }
}

impl Stream {
    pub(crate) fn plain(stream: TcpStream) -> Stream {
        Stream {
            inner: Inner::Plain(stream),
            is_fresh: true,
        }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, story: Story) -> Stream {
        Stream {
            inner: Inner::Tls(Box::new(Tls {
                stream,
                story,
                last_words: Vec::new(),
            })),
            is_fresh: true,
        }
    }

    /// Both sides agreed on HTTP/2.
    pub(crate) fn agreed_on_http2(&self) -> bool {
        match &self.inner {
            Inner::Plain(_) => false,
            Inner::Tls(tls) => tls.stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Explains a TLS error; others, after the first bytes, are passed on unchanged.
    fn explained(&self, error: io::Error) -> io::Error {
        match &self.inner {
            Inner::Tls(tls) if self.is_fresh || is_of_tls(&error) => {
                io::Error::new(error.kind(), tls.story.explain(&error))
            }
            _ => error,
        }
    }

    /// The same for a write error.
    fn explained_write(&mut self, error: io::Error, context: &mut Context<'_>) -> io::Error {
        let error = match &mut self.inner {
            Inner::Tls(tls) if self.is_fresh && !is_of_tls(&error) => tls.reason_of(error, context),
            _ => error,
        };
        self.explained(error)
    }

    /// Checks the first bytes received.
    fn judge_first(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_fresh, false) {
            return Ok(());
        }
        let why = match &self.inner {
            // The header of an alert (RFC 8446, section 5.1); no HTTP begins like that.
            Inner::Plain(_) if bytes.starts_with(&[0x15, 0x03]) => ("speaks_tls", SPEAKS_TLS),
            Inner::Tls(tls) if bytes.is_empty() && tls.story.circumstances().owes_certificate => {
                ("no_certificate", DEMANDED)
            }
            _ => return Ok(()),
        };
        let (reason, message) = (why.0, why.1.to_owned());
        let failure = Error::Tls(TlsFailure { reason, message });
        Err(io::Error::new(io::ErrorKind::InvalidData, failure))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Inner::Tls(tls) if !tls.last_words.is_empty() => {
                let length = tls.last_words.len().min(buffer.remaining());
                buffer.put_slice(&tls.last_words[..length]);
                tls.last_words.drain(..length);
                Poll::Ready(Ok(()))
            }
            Inner::Tls(tls) => Pin::new(&mut tls.stream).poll_read(context, buffer),
        };
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(self.judge_first(&buffer.filled()[before..])),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.explained(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Inner::Tls(tls) => Pin::new(&mut tls.stream).poll_write(context, bytes),
        };
        polled.map_err(|error| self.explained_write(error, context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Inner::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(context, buffers),
        };
        polled.map_err(|error| self.explained_write(error, context))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(context),
            Inner::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(context),
        };
        polled.map_err(|error| self.explained_write(error, context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Inner::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(context),
        }
    }
}

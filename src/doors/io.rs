//! A connection's bytes and bodies, as seen by the doors.
//!
//! Guarantees: nothing is changed in transit; a large response leaves in pieces, so that what its reader has not taken
//! stays where it is counted, and not in the protocol's buffers.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    Doors,
    seat::{Course, Reason, Seat},
};

/// How HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A head up to this size is read even if others hold all the room there is.
const ORDINARY_HEAD: u64 = 8 << 10;
/// A response leaves in pieces of this size.
const PIECE: usize = 32 << 10;

/// A client's connection.
pub(super) struct Watched {
    stream: TcpStream,
    doors: Arc<Doors>,
    /// The port.
    port: &'static str,
    seat: Arc<Seat>,
    has_read: bool,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, doors: Arc<Doors>, port: &'static str, seat: Arc<Seat>) -> Watched {
        Watched {
            stream,
            doors,
            port,
            seat,
            has_read: false,
        }
    }

    fn note_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.has_read {
            self.has_read = true;
            if bytes.starts_with(&PREFACE[..PREFACE.len().min(bytes.len())]) {
                self.seat.set_framed();
            }
        }
        let doors = &self.doors;
        let Some(held) = self.seat.read(bytes.len() as u64, doors.now()) else {
            return Ok(());
        };
        let heads = doors.heads.fetch_add(bytes.len() as u64, Relaxed);
        if heads > doors.budget.head_bytes && held > ORDINARY_HEAD {
            doors.count_ended(self.port, Reason::Heads);
            return Err(io::Error::other("too many bytes of incomplete request heads"));
        }
        Ok(())
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.seat.wrote(Some(*bytes), 0),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.seat.wrote(None, self.doors.now()),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.doors.heads.fetch_sub(self.seat.end_head(), Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        match &buffer.filled()[before..] {
            [] => Poll::Ready(Ok(())),
            read => Poll::Ready(self.note_read(read)),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_written(&written);
        written
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

/// A request body in transit.
pub(super) struct Arriving<B> {
    body: B,
    course: Arc<Course>,
}

impl<B: HttpBody> Arriving<B> {
    pub(super) fn new(body: B, course: Arc<Course>) -> Arriving<B> {
        if body.is_end_stream() {
            course.arrived();
        }
        Arriving { body, course }
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.course.arrived();
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Arriving<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.course.arrived();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response in transit; keeps what its request holds until it is sent.
pub(super) struct Leaving<H> {
    body: Body,
    rest: Bytes,
    _held: H,
}

impl<H> Leaving<H> {
    pub(super) fn new(body: Body, held: H) -> Leaving<H> {
        Leaving {
            body,
            rest: Bytes::new(),
            _held: held,
        }
    }
}

impl<H: Unpin> HttpBody for Leaving<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = PIECE.min(self.rest.len());
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_leaves_in_pieces_and_whole() {
        let whole: Vec<u8> = (0..PIECE * 2 + 5).map(|n| (n % 251) as u8).collect();
        let mut leaving = Leaving::new(Body::from(whole.clone()), ());
        let mut sizes = Vec::new();
        let mut read = Vec::new();
        while !leaving.is_end_stream() {
            assert_eq!(leaving.size_hint().exact(), Some((whole.len() - read.len()) as u64));
            let piece = leaving.frame().await.unwrap().unwrap().into_data().unwrap();
            sizes.push(piece.len());
            read.extend_from_slice(&piece);
        }
        assert_eq!((sizes, read), (vec![PIECE, PIECE, 5], whole));
    }
}

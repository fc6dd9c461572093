//! HTTP/2 in turns: a peer that sends many small DATA frames at once does not lose its connection because of it.
//!
//! The library ends a connection, with all its streams, when too many DATA frames below 256 bytes wait to be read:
//! their budget is half of the connection's window, and each is charged the difference to 256 bytes (h2 0.4.16 and
//! later, `too_many_data_frames`). It reads all that a socket has before a stream gets its turn, so a burst of small
//! messages is enough, however fast their reader is.
//!
//! Guarantee: after [`SMALL_FRAMES`] of them the connection waits until everything else that is ready has had a turn,
//! including the readers of these frames; bytes pass unchanged.
//!
//! Wrong on purpose: with a slow reader the connection is still lost; holding it back would hold back all its streams.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames per turn: a quarter of what our smallest window allows.
const SMALL_FRAMES: u32 = 64;
/// What counts as small (h2, `DEFAULT_DATA_FRAME_OVERHEAD_THRESHOLD`).
const SMALL_BYTES: usize = 256;
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;

/// Tracks the boundaries of frames (RFC 9113, 4.1).
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` read so far.
    known: usize,
    /// Bytes left until the next frame header.
    skip: usize,
    small: u32,
}

impl Frames {
    /// Scans bytes; returns how many may pass in this turn.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() - at);
                self.skip -= skipped;
                at += skipped;
                continue;
            }
            let wanted = (HEAD_BYTES - self.known).min(bytes.len() - at);
            self.head[self.known..self.known + wanted].copy_from_slice(&bytes[at..at + wanted]);
            self.known += wanted;
            at += wanted;
            if self.known < HEAD_BYTES {
                break;
            }
            self.known = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind == DATA && flags & END_STREAM == 0 && self.skip < SMALL_BYTES {
                self.small += 1;
                if self.small == SMALL_FRAMES {
                    self.small = 0;
                    let rest = self.skip.min(bytes.len() - at);
                    self.skip -= rest;
                    return at + rest;
                }
            }
        }
        bytes.len()
    }
}

/// An HTTP/2 connection that is read in turns.
#[derive(Debug)]
pub(crate) struct Paced<T> {
    inner: T,
    frames: Frames,
    /// Read, but not passed on yet.
    held: Bytes,
    /// The next read has to wait for the next turn.
    has_had_its_turn: bool,
}

impl<T> Paced<T> {
    /// A caller's connection, which begins with the preface.
    pub(crate) fn of_caller(inner: T) -> Paced<T> {
        let mut paced = Paced::of_endpoint(inner);
        paced.frames.skip = PREFACE_BYTES;
        paced
    }

    /// A connection to an endpoint.
    pub(crate) fn of_endpoint(inner: T) -> Paced<T> {
        Paced {
            inner,
            frames: Frames::default(),
            held: Bytes::new(),
            has_had_its_turn: false,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if std::mem::take(&mut this.has_had_its_turn) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.held.is_empty() {
            let most = this.held.len().min(buf.remaining());
            let length = this.frames.pass(&this.held[..most]);
            this.has_had_its_turn = length < most;
            buf.put_slice(&this.held[..length]);
            this.held.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let length = this.frames.pass(read);
        if length < read.len() {
            this.has_had_its_turn = true;
            this.held = Bytes::copy_from_slice(&read[length..]);
            buf.set_filled(before + length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
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
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.extend((0..length).map(|at| at as u8));
        frame
    }

    /// Feeds bytes to frames in pieces; returns how many passed in each turn.
    fn turns(frames: &mut Frames, bytes: &[u8], piece: usize) -> Vec<usize> {
        let (mut turns, mut turn, mut at) = (Vec::new(), 0, 0);
        while at < bytes.len() {
            let end = bytes.len().min(at + piece);
            let passed = frames.pass(&bytes[at..end]);
            assert!(passed > 0);
            (turn, at) = (turn + passed, at + passed);
            if at < end {
                turns.push(std::mem::take(&mut turn));
            }
        }
        turns.push(turn);
        turns
    }

    #[test]
    fn only_small_frames_of_data_that_end_no_stream_are_counted() {
        for (kind, flags, length, is_counted) in [
            (DATA, 0, 1, true),
            (DATA, 8, 255, true),
            (DATA, 0, 0, true),
            (DATA, 0, 256, false),
            (DATA, END_STREAM, 1, false),
            (1, 4, 10, false),
        ] {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            bytes.extend(frame(kind, flags, length).repeat(200));
            let mut frames = Frames {
                skip: PREFACE_BYTES,
                ..Frames::default()
            };
            let turn = SMALL_FRAMES as usize * (HEAD_BYTES + length);
            let expected = match is_counted {
                true => vec![PREFACE_BYTES + turn, turn, turn, 8 * (HEAD_BYTES + length)],
                false => vec![bytes.len()],
            };
            assert_eq!(
                turns(&mut frames, &bytes, bytes.len()),
                expected,
                "{kind} {flags} {length}"
            );
        }
    }

    proptest! {
        #[test]
        fn bytes_pass_unchanged_however_they_come(
            frames in prop::collection::vec((0..3_u8, 0..2_u8, 0..400_usize), 0..300),
            piece in 1..700_usize,
            room in 1..700_usize,
        ) {
            let sent: Vec<u8> = frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let received = runtime.block_on(async {
                let (one, mut other) = tokio::io::duplex(piece);
                let bytes = sent.clone();
                let sending = tokio::spawn(async move {
                    tokio::io::AsyncWriteExt::write_all(&mut other, &bytes).await.unwrap();
                });
                let (mut paced, mut received, mut buf) = (Paced::of_endpoint(one), Vec::new(), vec![0; room]);
                loop {
                    match tokio::io::AsyncReadExt::read(&mut paced, &mut buf).await.unwrap() {
                        0 => break,
                        length => received.extend_from_slice(&buf[..length]),
                    }
                }
                sending.await.unwrap();
                received
            });
            prop_assert_eq!(received, sent);
        }
    }
}

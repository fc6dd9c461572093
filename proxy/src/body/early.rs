//! The beginning of a body, read before anything consumes it.
//!
//! Over HTTP/2, many small unread frames cost the caller its connection ([`crate::wire::pace`]), even while an endpoint
//! is still being connected to. Guarantees: until the first read, up to [`MOST_BYTES`] are read ahead and joined; after
//! that, everything passes in order, and nothing more is read ahead.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

/// The most bytes of a body that are read ahead.
const MOST_BYTES: usize = 16 << 10;

/// What follows the bytes that were read.
type End = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A body whose beginning may have been read.
#[derive(Debug)]
struct State {
    body: Incoming,
    read: BytesMut,
    end: Option<End>,
    is_taken: bool,
}

/// A handle to such a body: one side reads ahead, the other consumes.
#[derive(Debug, Clone)]
pub(crate) struct Early(Arc<Mutex<State>>);

impl Early {
    pub(super) fn new(body: Incoming) -> Early {
        Early(Arc::new(Mutex::new(State {
            body,
            read: BytesMut::new(),
            end: None,
            is_taken: false,
        })))
    }

    /// Reads what is available, if nothing has been consumed yet; `cx` is woken when more arrives.
    pub(crate) fn read(&self, cx: &mut Context<'_>) {
        let mut state = self.0.lock();
        while !state.is_taken && state.end.is_none() && state.read.len() < MOST_BYTES {
            let Poll::Ready(frame) = Pin::new(&mut state.body).poll_frame(cx) else {
                return;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => state.read.extend_from_slice(&data),
                Some(Ok(Err(other))) => state.end = Some(Some(Ok(other))),
                Some(Err(error)) => state.end = Some(Some(Err(error))),
                None => state.end = Some(None),
            }
        }
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut state = self.0.lock();
        state.is_taken = true;
        if !state.read.is_empty() {
            let read = std::mem::take(&mut state.read);
            return Poll::Ready(Some(Ok(Frame::data(read.freeze()))));
        }
        match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => Pin::new(&mut state.body).poll_frame(cx),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.read.is_empty() && state.body.is_end_stream() && !matches!(state.end, Some(Some(_)))
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.0.lock();
        let (hint, read) = (state.body.size_hint(), state.read.len() as u64);
        let mut all = SizeHint::new();
        all.set_lower(hint.lower() + read);
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + read);
        }
        all
    }
}

//! Bodies on their way through: streamed frame by frame, never buffered.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::wire::headers::strip_forbidden_trailers;

/// Any error of a body or service.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request: what a service behind [`Mesh::serve`](crate::Mesh::serve) reads, and what goes to a
/// destination. Forbidden trailers are dropped.
#[derive(Debug)]
pub struct RequestBody {
    inner: Inner,
    /// Bytes that passed, for the request's record.
    count: Option<Arc<AtomicU64>>,
    /// When they did, for whoever waits for the response.
    moved: Option<Arc<LastMove>>,
}

/// When a body moved last.
#[derive(Debug)]
pub(crate) struct LastMove {
    since: Instant,
    milliseconds: AtomicU64,
}

impl LastMove {
    fn note(&self) {
        let milliseconds = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.store(milliseconds, Ordering::Relaxed);
    }

    /// How long ago; since the request was made, if it has not moved.
    pub(crate) fn elapsed(&self) -> Duration {
        let moved = Duration::from_millis(self.milliseconds.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(moved)
    }
}

#[derive(Debug)]
enum Inner {
    Nothing,
    Bytes(Option<Bytes>),
    Incoming(Incoming),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl RequestBody {
    /// No body.
    pub fn empty() -> RequestBody {
        RequestBody {
            inner: Inner::Nothing,
            count: None,
            moved: None,
        }
    }

    /// A streamed body.
    pub fn stream<B>(body: B) -> RequestBody
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return RequestBody::empty();
        }
        RequestBody {
            inner: Inner::Boxed(body.map_err(Into::into).boxed_unsync()),
            count: None,
            moved: None,
        }
    }

    pub(crate) fn incoming(body: Incoming) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::empty();
        }
        RequestBody {
            inner: Inner::Incoming(body),
            count: None,
            moved: None,
        }
    }

    /// Counts the bytes that pass from now on.
    pub(crate) fn count_into(&mut self, count: Arc<AtomicU64>) {
        self.count = Some(count);
        self.moved = Some(Arc::new(LastMove {
            since: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }));
    }

    /// When bytes passed last, if they are counted.
    pub(crate) fn last_move(&self) -> Option<Arc<LastMove>> {
        self.moved.clone()
    }
}

impl Default for RequestBody {
    fn default() -> RequestBody {
        RequestBody::empty()
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> RequestBody {
        if bytes.is_empty() {
            return RequestBody::empty();
        }
        RequestBody {
            inner: Inner::Bytes(Some(bytes)),
            count: None,
            moved: None,
        }
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> RequestBody {
        RequestBody::from(Bytes::from(text))
    }
}

impl From<&'static str> for RequestBody {
    fn from(text: &'static str) -> RequestBody {
        RequestBody::from(Bytes::from_static(text.as_bytes()))
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> RequestBody {
        RequestBody::from(Bytes::from(bytes))
    }
}

impl From<()> for RequestBody {
    fn from((): ()) -> RequestBody {
        RequestBody::empty()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.inner {
            Inner::Nothing => Poll::Ready(None),
            Inner::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Inner::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|mut frame| {
                    if let (Some(count), Some(data)) = (&self.count, frame.data_ref()) {
                        count.fetch_add(data.len() as u64, Ordering::Relaxed);
                        if let Some(moved) = &self.moved {
                            moved.note();
                        }
                    }
                    if let Some(trailers) = frame.trailers_mut() {
                        strip_forbidden_trailers(trailers);
                    }
                    frame
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Nothing => true,
            Inner::Bytes(bytes) => bytes.is_none(),
            Inner::Incoming(body) => body.is_end_stream(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Nothing => SizeHint::with_exact(0),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Incoming(body) => body.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

/// A body of this process's own making: an error message, or nothing.
#[derive(Debug, Default)]
pub(crate) struct LocalBody(Option<Bytes>);

impl LocalBody {
    pub(crate) fn text(text: String) -> LocalBody {
        LocalBody((!text.is_empty()).then(|| text.into()))
    }
}

impl Body for LocalBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// The body of a response: someone else's, or our own.
#[derive(Debug)]
pub(crate) enum EitherBody<B> {
    /// From the destination or the service.
    Theirs(B),
    /// Of our own making.
    Ours(LocalBody),
}

impl<B> Body for EitherBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            EitherBody::Theirs(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            EitherBody::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            EitherBody::Theirs(body) => body.is_end_stream(),
            EitherBody::Ours(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            EitherBody::Theirs(body) => body.size_hint(),
            EitherBody::Ours(body) => body.size_hint(),
        }
    }
}

//! Bodies in transit: streamed frame by frame, never buffered, except for a beginning that came too early ([`early`]).

mod early;

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
pub(crate) use early::Early;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::wire::headers::strip_forbidden_trailers;

/// Any error of a body or service.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request: what a service behind [`Mesh::serve`](crate::Mesh::serve) reads, and what is sent to an
/// endpoint. Forbidden trailers are dropped.
#[derive(Debug)]
pub struct RequestBody {
    inner: Inner,
    /// Bytes that passed, for the request's record.
    count: Option<Arc<AtomicU64>>,
    /// When they passed, for the side that waits for the response.
    moved: Option<Arc<LastMove>>,
    /// What passed, in case it is sent again.
    kept: Option<Arc<KeptBody>>,
    /// Dropped when the body is over.
    held: Option<Held>,
}

/// Something that lives as long as a body is in transit.
struct Held(#[expect(dead_code, reason = "held, not read")] Box<dyn Any + Send + Sync>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// The beginning of a body that has passed; all of it if it is short. It can be read more than once.
#[derive(Debug)]
pub(crate) struct KeptBody {
    most: usize,
    state: Mutex<KeptState>,
}

#[derive(Debug, Default)]
struct KeptState {
    frames: Vec<Frame<Bytes>>,
    bytes: usize,
    is_whole: bool,
    is_too_long: bool,
}

impl KeptBody {
    fn note(&self, frame: &Frame<Bytes>, is_last: bool) {
        let mut state = self.state.lock();
        state.bytes += frame.data_ref().map_or(0, Bytes::len);
        let Some(copy) = copy_of(frame) else { return };
        state.is_too_long |= state.bytes > self.most;
        if state.is_too_long {
            state.frames = Vec::new();
        } else {
            state.frames.push(copy);
        }
        state.is_whole = is_last;
    }

    /// The whole body again; `None` if it is not available.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        let state = self.state.lock();
        if !state.is_whole || state.is_too_long {
            return None;
        }
        let frames: Vec<_> = state
            .frames
            .iter()
            .filter_map(copy_of)
            .map(Ok::<_, Infallible>)
            .collect();
        Some(RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames))))
    }
}

fn copy_of(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Some(Frame::data(data.clone())),
        (_, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
        _ => None,
    }
}

/// When a body last made progress.
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

    /// How long ago; since the request was created if nothing has moved.
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
    Early(Early),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl RequestBody {
    /// No body.
    pub fn empty() -> RequestBody {
        RequestBody::of(Inner::Nothing)
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
        RequestBody::of(Inner::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    pub(crate) fn incoming(body: Incoming) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::empty();
        }
        RequestBody::of(Inner::Incoming(body))
    }

    /// Lets its beginning be read before anything consumes it; `None` if it has already arrived completely.
    pub(crate) fn read_early(&mut self) -> Option<Early> {
        match std::mem::replace(&mut self.inner, Inner::Nothing) {
            Inner::Incoming(body) => {
                let early = Early::new(body);
                self.inner = Inner::Early(early.clone());
                Some(early)
            }
            other => {
                self.inner = other;
                None
            }
        }
    }

    fn of(inner: Inner) -> RequestBody {
        RequestBody {
            inner,
            count: None,
            moved: None,
            kept: None,
            held: None,
        }
    }

    /// Keeps what passes from now on, up to `most` bytes; the first caller decides how many.
    pub(crate) fn keep(&mut self, most: usize) -> Arc<KeptBody> {
        if let Some(kept) = &self.kept {
            return Arc::clone(kept);
        }
        let kept = Arc::new(KeptBody {
            most,
            state: Mutex::default(),
        });
        self.kept = Some(Arc::clone(&kept));
        kept
    }

    /// Holds something until the body is over.
    pub(crate) fn hold(&mut self, what: impl Any + Send + Sync) {
        self.held = Some(Held(Box::new(what)));
    }

    /// Counts the bytes that pass from now on.
    pub(crate) fn count_into(&mut self, count: Arc<AtomicU64>) {
        self.count = Some(count);
        self.moved = Some(Arc::new(LastMove {
            since: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }));
    }

    /// When bytes last passed, if they are counted.
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
        RequestBody::of(Inner::Bytes(Some(bytes)))
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
            Inner::Early(body) => body.poll_frame(cx).map_err(Into::into),
            Inner::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        let polled = polled.map(|frame| {
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
        });
        if let Some(kept) = &self.kept {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => kept.note(frame, self.is_end_stream()),
                Poll::Ready(None) => kept.state.lock().is_whole = true,
                _ => {}
            }
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.is_end_stream() {
            self.held = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Nothing => true,
            Inner::Bytes(bytes) => bytes.is_none(),
            Inner::Incoming(body) => body.is_end_stream(),
            Inner::Early(body) => body.is_end_stream(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Nothing => SizeHint::with_exact(0),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Incoming(body) => body.size_hint(),
            Inner::Early(body) => body.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

/// A body of this process's own making: an error message, or nothing.
#[derive(Debug, Default)]
pub(crate) struct LocalBody(Option<Bytes>);

impl LocalBody {
    pub(crate) fn text(text: String) -> LocalBody {
        LocalBody::bytes(text.into())
    }

    pub(crate) fn bytes(bytes: Bytes) -> LocalBody {
        LocalBody((!bytes.is_empty()).then_some(bytes))
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
    /// From the endpoint or the service.
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

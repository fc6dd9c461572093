//! Reads a whole request before it is sent on.
//!
//! Guarantees: no more is held than the filter allows and than the caller's share of the memory has room for, and it is given back
//! when the request is over; trailers stay what they were.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header::CONTENT_LENGTH};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};

use super::{
    Refused,
    chain::{Asking, Filter, Flow, Step, WayBack},
};
use crate::{body::RequestBody, budget::Account, config::BufferConfig};

/// Bytes of the budget, given back when dropped.
struct Taken {
    account: Option<Arc<Account>>,
    bytes: usize,
}

impl Taken {
    fn more(&mut self, bytes: usize) -> Result<(), Refused> {
        if let Some(account) = &self.account {
            account.take_for_request(bytes).map_err(|_| Refused::OVERLOADED)?;
            self.bytes += bytes;
        }
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.give(self.bytes);
        }
    }
}

/// Holds requests until they are there.
#[derive(Debug)]
pub(crate) struct Buffer {
    most: usize,
}

impl Buffer {
    pub(crate) fn new(config: &BufferConfig) -> Buffer {
        Buffer {
            most: config.request_bytes,
        }
    }

    /// The body as a whole, its trailers, and what they take; nothing if the caller broke off, which is told when it is sent on.
    async fn read(
        &self,
        body: &mut RequestBody,
        account: Option<&Arc<Account>>,
    ) -> Result<Option<(Bytes, Option<HeaderMap>, Taken)>, Refused> {
        let mut taken = Taken {
            account: account.cloned(),
            bytes: 0,
        };
        let (mut all, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Ok(None) };
            match frame.into_data() {
                Ok(data) => {
                    if all.len() + data.len() > self.most {
                        return Err(Refused::BODY_TOO_LARGE);
                    }
                    taken.more(data.len())?;
                    all.extend_from_slice(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Some((all.freeze(), trailers, taken)))
    }
}

impl Filter for Buffer {
    fn on_request<'a>(
        &'a self,
        asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        _back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        if request.body().is_end_stream() {
            return Step::Done(Flow::Continue);
        }
        let most = self.most as u64;
        if request.body().size_hint().lower() > most {
            return Step::Done(Flow::Answer(Refused::BODY_TOO_LARGE));
        }
        Step::later(async move {
            let (bytes, trailers, taken) = match self.read(request.body_mut(), asking.account).await {
                Ok(Some(read)) => read,
                Ok(None) => return Flow::Answer(Refused::BODY_BROKE_OFF),
                Err(refused) => return Flow::Answer(refused),
            };
            let length = bytes.len();
            let mut body = match trailers {
                None => RequestBody::from(bytes),
                Some(trailers) => {
                    let frames = [Frame::data(bytes), Frame::trailers(trailers)];
                    let frames = frames.map(Ok::<_, std::convert::Infallible>);
                    RequestBody::stream(StreamBody::new(futures_util::stream::iter(frames)))
                }
            };
            body.hold(taken);
            *request.body_mut() = body;
            let headers = request.headers_mut();
            if !headers.contains_key(http::header::TRAILER) {
                headers.remove(http::header::TRANSFER_ENCODING);
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            Flow::Continue
        })
    }
}

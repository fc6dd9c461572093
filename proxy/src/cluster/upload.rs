//! The body of a request that is waiting for its response.
//!
//! Guarantee: as long as the body makes progress, the endpoint is not considered late.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Request;

use crate::{
    body::{LastMove, RequestBody},
    wire::io::IdleTimer,
};

/// Tracks whether a request's body makes progress.
#[derive(Debug)]
pub(super) struct Upload {
    /// A body over HTTP/2 is sent by another task: its last progress is checked when the time is up.
    moved: Option<Arc<LastMove>>,
}

impl Upload {
    pub(super) fn of(request: &Request<RequestBody>) -> Upload {
        Upload {
            moved: request.body().last_move(),
        }
    }

    /// Ready when `limit` has passed without any progress of the body.
    pub(super) fn poll_stalled(&self, timer: &mut IdleTimer, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        ready!(timer.poll(cx, limit));
        while let Some(moved) = &self.moved
            && let Some(left) = limit.checked_sub(moved.elapsed())
            && !left.is_zero()
        {
            timer.disarm();
            ready!(timer.poll(cx, left));
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_moves_is_not_late() {
        const LIMIT: Duration = Duration::from_millis(600);
        const PAUSE: Duration = Duration::from_millis(500);
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let parts = futures_util::stream::unfold(receive, |mut receive| async {
            let part = receive.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(part)), receive))
        });
        let mut body = RequestBody::stream(StreamBody::new(parts));
        body.count_into(Arc::default());
        let request = Request::new(body);
        let (upload, begun) = (Upload::of(&request), Instant::now());
        let caller = async {
            // Longer than the limit in total, each pause shorter.
            for _ in 0..4 {
                tokio::time::sleep(PAUSE).await;
                send.send(Bytes::from_static(b"x")).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let passed = async {
            let mut body = request.into_body();
            while body.frame().await.is_some() {}
        };
        let mut timer = IdleTimer::default();
        let stalled = std::future::poll_fn(|cx| upload.poll_stalled(&mut timer, cx, LIMIT));
        tokio::select! {
            () = stalled => {}
            ((), ()) = async { tokio::join!(caller, passed) } => {}
        }
        let late = begun.elapsed().checked_sub(4 * PAUSE + LIMIT);
        assert!(
            late.is_some_and(|late| late < Duration::from_millis(10)),
            "{:?}",
            begun.elapsed()
        );
    }
}

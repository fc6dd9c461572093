//! Responses as JSON.
//!
//! Guarantees: the text is in memory once, without slack, however long: it grows in pieces, which are charged to the
//! query ([`emberline_storage::Holding`]) before they are allocated, and are freed as they are sent.

use std::{
    collections::VecDeque,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::{IntoResponse, Response},
};
use emberline_storage::{Holding, QueryError};
use http::{HeaderValue, header};
use http_body::{Frame, SizeHint};
use serde::Serialize;

use crate::http::error::ApiError;

/// Length of a piece.
const PIECE: usize = 64 << 10;

/// A response to be written as JSON.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut text = Text::new(Holding::current());
        let written = serde_json::to_writer(&mut text, &self.0);
        // The data is freed before the text is sent.
        drop(self);
        match (written, text.refused.take()) {
            (Ok(()), _) => {
                let kind = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], text.into_body()).into_response()
            }
            (Err(_), Some(refused)) => ApiError::from(refused).into_response(),
            (Err(error), None) => ApiError::internal(format!("cannot encode the response: {error}")).into_response(),
        }
    }
}

/// Text being written.
struct Text {
    full: VecDeque<Bytes>,
    last: Vec<u8>,
    holding: Holding,
    refused: Option<QueryError>,
}

impl Text {
    fn new(holding: Holding) -> Text {
        Text {
            full: VecDeque::new(),
            last: Vec::new(),
            holding,
            refused: None,
        }
    }

    fn into_body(mut self) -> Body {
        if self.full.is_empty() {
            return Body::from(self.last);
        }
        self.full.push_back(self.last.into());
        let bytes = self.full.iter().map(|piece| piece.len() as u64).sum();
        Body::new(Pieces {
            pieces: self.full,
            bytes,
        })
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() + bytes.len() > PIECE && !self.last.is_empty() {
            self.holding.add_now(PIECE.max(bytes.len()) as u64).map_err(|refused| {
                self.refused = Some(refused);
                io::Error::from(io::ErrorKind::OutOfMemory)
            })?;
            let next = Vec::with_capacity(PIECE.max(bytes.len()));
            let mut full = std::mem::replace(&mut self.last, next);
            full.shrink_to_fit();
            self.full.push_back(full.into());
        }
        self.last.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body of several pieces.
struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let piece = self.pieces.pop_front();
        self.bytes -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use emberline_storage::{AnswerMemory, Pressure};
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn text_of_any_length_is_that_of_serde_json_and_says_how_long_it_is() {
        for count in [0, 1, 5_000, 50_000] {
            let answer: Vec<String> = (0..count).map(|n| format!("name {n}")).collect();
            let expected = serde_json::to_vec(&answer).unwrap();
            let response = Json(answer).into_response();
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(response.body().size_hint().exact(), Some(expected.len() as u64));
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
        }
        let long = "a".repeat(3 * PIECE);
        let response = Json([&long, &long]).into_response();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text.len(), 6 * PIECE + 7);
    }

    #[tokio::test]
    async fn text_longer_than_what_its_question_may_hold_is_refused() {
        let memory = AnswerMemory::new(1 << 20, 1, Pressure::default());
        let long = vec![0u64; 1 << 20];
        let response = memory.count((), async { Json(long).into_response() }).await;
        assert_eq!(response.status(), 422);
        assert_eq!(
            memory.count((), async { Json([0]).into_response() }).await.status(),
            200
        );
    }
}

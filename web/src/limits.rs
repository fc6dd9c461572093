//! How many questions are asked at a time and for how long, so that a crowd costs a bounded amount of memory.
//!
//! Guarantees: at most [`WebState::max_questions`](crate::WebState::max_questions) requests are under way, waiting
//! for the store included; more are refused at once and can be asked again. A request that takes longer than
//! [`WebState::max_request_seconds`](crate::WebState::max_request_seconds) with everything it waits for is dropped,
//! and its questions in the store with it. A request whose
//! connection is closed is dropped, too, and counted. Health, metrics and pages are never refused.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::StatusCode;

use crate::{Web, error::ApiError};

/// Lets a request through when there is room, for as long as it may take.
pub(crate) async fn hold(State(web): State<Web>, request: Request, next: Next) -> Response {
    let Ok(_place) = web.places.try_acquire() else {
        let message = format!(
            "{} questions are being answered, as many as `max_questions` allows: ask again in a moment",
            web.max_questions
        );
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too_many_questions", message, true);
    };
    let limit = Duration::from_secs(web.max_request_seconds);
    let running = web.http.begin();
    let answer = tokio::time::timeout(limit, next.run(request)).await;
    running.answered();
    match answer {
        Ok(response) => response,
        Err(_) => {
            let message = format!(
                "no answer within `max_request_seconds` = {}: ask for a shorter range",
                web.max_request_seconds
            );
            refuse(StatusCode::GATEWAY_TIMEOUT, "request_timeout", message, false)
        }
    }
}

fn refuse(status: StatusCode, code: &'static str, message: String, retry: bool) -> Response {
    ApiError {
        status,
        code,
        message,
        retry,
    }
    .into_response()
}

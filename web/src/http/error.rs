//! What a client is told when a query failed. Guarantee: every error of the API is JSON of one shape, with a code that
//! programs can match, a sentence that says what to do, and whether retrying can help.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use emberline_storage::QueryError;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a query failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable name for programs.
    pub code: &'static str,
    /// What was wrong and what to do.
    pub message: String,
    /// True if a retry can succeed.
    pub retry: bool,
}

/// The body of an error response.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable name for programs, for example `unknown_service`.
    pub code: String,
    /// What was wrong and what to do.
    pub message: String,
    /// True if a retry can succeed.
    pub retry: bool,
}

impl ApiError {
    /// The query itself is wrong.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::BAD_REQUEST,
            code,
            message: message.into(),
            retry: false,
        }
    }

    /// The query refers to something unknown.
    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::NOT_FOUND,
            code,
            message: message.into(),
            retry: false,
        }
    }

    /// A bug in this program.
    pub(crate) fn internal(message: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "internal",
            message: message.into(),
            retry: false,
        }
    }
}

/// A client's text, truncated so that a message cannot be made long.
pub(crate) fn shorten(text: &str) -> String {
    let cut: String = text
        .chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut
    }
}

/// Why a query was refused that could be answered with fewer of them or more memory; attached to the response, to be
/// counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal(pub(crate) &'static str);

const NO_ROOM: &str = "no_memory_for_answer";
const TOO_LARGE: &str = "answer_too_large";

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> ApiError {
        let (status, code) = match &error {
            QueryError::BadRange { .. } => (StatusCode::BAD_REQUEST, "bad_range"),
            QueryError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "query_timeout"),
            QueryError::TooLarge { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "query_too_large"),
            QueryError::AnswerTooLarge { .. } => (StatusCode::UNPROCESSABLE_ENTITY, TOO_LARGE),
            QueryError::NoRoom { .. } => (StatusCode::SERVICE_UNAVAILABLE, NO_ROOM),
            QueryError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            QueryError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "store_closed"),
            QueryError::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        ApiError {
            status,
            code,
            retry: error.is_retryable(),
            message: error.to_string(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(code = self.code, message = %self.message, "query failed");
        }
        let detail = ErrorDetail {
            code: self.code.to_owned(),
            message: self.message,
            retry: self.retry,
        };
        let mut response = (self.status, Json(ErrorBody { error: detail })).into_response();
        match self.code {
            NO_ROOM => drop(response.extensions_mut().insert(Refusal("memory"))),
            TOO_LARGE => drop(response.extensions_mut().insert(Refusal("size"))),
            _ => {}
        }
        if self.retry {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_failures_keep_whose_fault_they_are() {
        let message = || "m".to_owned();
        for (error, status, retry) in [
            (
                QueryError::BadRange {
                    from_unix_s: 2,
                    to_unix_s: 1,
                },
                400,
                false,
            ),
            (QueryError::Timeout { seconds: 30 }, 504, false),
            (QueryError::TooLarge { message: message() }, 422, false),
            (QueryError::AnswerTooLarge { megabytes: 1 }, 422, false),
            (
                QueryError::NoRoom {
                    megabytes: 1,
                    seconds: 10,
                },
                503,
                true,
            ),
            (QueryError::Unavailable { message: message() }, 503, true),
            (QueryError::Closed, 503, true),
            (QueryError::Internal { message: message() }, 500, false),
        ] {
            let told = ApiError::from(error.clone());
            assert_eq!((told.status.as_u16(), told.retry), (status, retry), "{error}");
            assert_eq!(told.message, error.to_string());
        }
    }
}

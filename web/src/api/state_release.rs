//! `POST /api/v1/releases`: a deployment states when a release began.
//!
//! Guarantees: what was acknowledged is on disk; the same call twice counts once; a statement never makes a release
//! newer than it was if it has already reported or been stated: a rollback and a second deployment leave the order of
//! releases unchanged, and the response says what counts.

use axum::{Json, extract::State};
use emberline_model::Release;
use emberline_storage::{ReleaseBeginning, StateError};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::error::{ApiError, ErrorBody, shorten},
    query::times,
    state::Web,
};

/// The most bytes of a call.
const MOST_BYTES: usize = 8 << 10;
/// The most bytes of a name.
const MOST_NAME_BYTES: usize = 256;

/// A release and when it began.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseStatement {
    /// Service, as it names itself in its reports.
    service: String,
    /// Version, as the service reports it.
    version: String,
    /// Namespace of the service; empty if omitted.
    #[serde(default)]
    namespace: String,
    /// Unix seconds (number or text), `now` or `now-15m`; `now` if omitted.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    time: Option<Time>,
}

/// A time as programs write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Number(serde_json::Number),
    Text(String),
}

/// What counts now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatedRelease {
    namespace: String,
    service: String,
    version: String,
    /// When the release began; decides which release is newer.
    first_seen_ms: i64,
    /// True: as stated. False: the release already reported long before the stated time, and keeps its position.
    stated: bool,
}

/// States when a release began, so that its position among the releases does not depend on what its first process sent.
///
/// There is no login yet: anyone who can reach the port may call it, except pages of other sites in a browser (403).
/// Without a statement, a release began when it was first seen.
#[utoipa::path(post, path = "/api/v1/releases",
    request_body = ReleaseStatement,
    responses(
        (status = 200, body = StatedRelease, description = "The release as now recorded."),
        (status = "default", body = ErrorBody),
    ),
)]
pub(crate) async fn state_release(
    State(web): State<Web>,
    body: axum::body::Body,
) -> Result<Json<StatedRelease>, ApiError> {
    let body = axum::body::to_bytes(body, MOST_BYTES).await.map_err(|error| ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "body_too_large",
        message: format!("cannot read the body: {error}; the limit is {MOST_BYTES} bytes"),
        retry: false,
    })?;
    let statement: ReleaseStatement = serde_json::from_slice(&body).map_err(|error| {
        let message = format!(
            "the body does not declare a release: {error}; send JSON such as {{\"service\": \"checkout\", \"version\": \"v2\"}}"
        );
        ApiError::bad_request("bad_body", message)
    })?;
    for (field, text, may_be_empty) in [
        ("service", &statement.service, false),
        ("version", &statement.version, true),
        ("namespace", &statement.namespace, true),
    ] {
        check_name(field, text, may_be_empty)?;
    }
    let time = match &statement.time {
        None => "now".to_owned(),
        Some(Time::Number(number)) => number.to_string(),
        Some(Time::Text(text)) => text.clone(),
    };
    let time_s = times::parse(&time, web.clock.now_unix_ns())
        .map_err(|why| ApiError::bad_request("bad_parameter", format!("`time` is `{}`: {why}", shorten(&time))))?;
    let release = Release {
        namespace: statement.namespace,
        service: statement.service,
        version: statement.version,
    };
    let store = web.store.clone();
    // On disk before the response.
    let stated = tokio::task::spawn_blocking(move || {
        let beginning = store.state_release(&release, time_s as i64);
        (release, beginning)
    });
    let (release, beginning) = stated
        .await
        .map_err(|error| ApiError::internal(format!("recording the release ended early: {error}")))?;
    let ReleaseBeginning {
        first_seen_s,
        is_stated,
    } = beginning?;
    Ok(Json(StatedRelease {
        namespace: release.namespace,
        service: release.service,
        version: release.version,
        first_seen_ms: first_seen_s.saturating_mul(1000),
        stated: is_stated,
    }))
}

fn check_name(field: &str, text: &str, may_be_empty: bool) -> Result<(), ApiError> {
    let wrong = if text.is_empty() && !may_be_empty {
        "is empty"
    } else if text.len() > MOST_NAME_BYTES {
        "is longer than 256 bytes"
    } else if text.chars().any(char::is_control) {
        "contains control characters"
    } else {
        return Ok(());
    };
    let message = format!("`{field}` {wrong}: use the value that the service reports");
    Err(ApiError::bad_request("bad_parameter", message))
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> ApiError {
        let (status, code, retry) = match &error {
            StateError::OutOfRange { .. } => (StatusCode::BAD_REQUEST, "bad_parameter", false),
            StateError::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_releases", false),
            StateError::Io { .. } => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", true),
        };
        ApiError {
            status,
            code,
            message: error.to_string(),
            retry,
        }
    }
}

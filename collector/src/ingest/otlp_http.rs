//! OTLP over HTTP: protobuf bodies, plain or compressed with gzip or zstd.
//!
//! Guarantees: those of [`crate::ingest`]; a refusal is a `google.rpc.Status` body, with `Retry-After` when trying
//! again can help. Wrong on purpose: the JSON encoding is not spoken; the refusal says so.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header},
    routing::post,
};
use bytes::Bytes;
use emberline_model::{Signal, batch::BATCH_ID_HEADER};
use prost::Message;

use super::{Ingest, Payload, body, body::Encoding, otlp_grpc, refused::Refused, signal_name};

/// The routes of the OTLP/HTTP port.
pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/profiles", post(profiles))
        .route("/v1development/profiles", post(profiles))
        .fallback(not_found)
        .with_state(ingest)
}

async fn not_found() -> (StatusCode, &'static str) {
    let message = "this port takes OTLP: POST /v1/metrics, /v1/profiles or /v1development/profiles\n";
    (StatusCode::NOT_FOUND, message)
}

async fn metrics(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    answer(&ingest, Signal::Requests, request).await
}

async fn profiles(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    answer(&ingest, Signal::Profiles, request).await
}

async fn answer(ingest: &Ingest, signal: Signal, request: Request<Body>) -> Response<Body> {
    let timeout = ingest.config.request_timeout;
    let read = tokio::time::timeout(timeout, async {
        let _turn = ingest.turn().await?;
        let (headers, message) = read_message(ingest, signal, request).await?;
        Ok((headers, message, _turn))
    });
    let (headers, message, _turn) = match read.await {
        Ok(Ok(read)) => read,
        Ok(Err(refused)) => return refuse(ingest, signal, &refused),
        Err(_) => {
            return refuse(
                ingest,
                signal,
                &Refused::TimedOut {
                    seconds: timeout.as_secs(),
                },
            );
        }
    };
    let bytes = message.len();
    let payload = match decode(signal, message).await {
        Ok(payload) => payload,
        Err(refused) => return refuse(ingest, signal, &refused),
    };
    let id = headers.get(BATCH_ID_HEADER).map(HeaderValue::as_bytes);
    match ingest.accept(id, payload, bytes).await {
        Ok(accepted) => {
            let body = match signal {
                Signal::Requests => otlp_grpc::metrics_response(&accepted).encode_to_vec(),
                Signal::Profiles => otlp_grpc::profiles_response(&accepted).encode_to_vec(),
            };
            let mut response = Response::new(Body::from(body));
            let protobuf = HeaderValue::from_static("application/x-protobuf");
            response.headers_mut().insert(header::CONTENT_TYPE, protobuf);
            response
        }
        // Counted where it was accepted.
        Err(refused) => refused.to_http(),
    }
}

fn refuse(ingest: &Ingest, signal: Signal, refused: &Refused) -> Response<Body> {
    ingest.count_refusal(signal_name(signal), refused);
    refused.to_http()
}

/// The decompressed body.
async fn read_message(ingest: &Ingest, signal: Signal, request: Request<Body>) -> Result<(HeaderMap, Bytes), Refused> {
    let (parts, body) = request.into_parts();
    let limit = ingest.config.max_request_bytes;
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .map_or("", |v| v.to_str().unwrap_or("?"));
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-protobuf") && !essence.eq_ignore_ascii_case("application/protobuf")
    {
        return Err(Refused::ContentType(essence.chars().take(80).collect()));
    }
    let encoding = Encoding::parse(parts.headers.get(header::CONTENT_ENCODING))?;
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let packed = body::read(body, length, limit).await?;
    if encoding == Encoding::Identity {
        return Ok((parts.headers, packed));
    }
    match tokio::task::spawn_blocking(move || body::decompress(packed, encoding, limit)).await {
        Ok(message) => Ok((parts.headers, message?)),
        Err(error) => Err(Refused::Undecodable {
            what: signal_name(signal),
            reason: error.to_string(),
        }),
    }
}

async fn decode(signal: Signal, message: Bytes) -> Result<Payload, Refused> {
    let decode = move || match signal {
        Signal::Requests => Message::decode(message).map(Payload::Metrics),
        Signal::Profiles => Message::decode(message).map(Payload::Profiles),
    };
    let undecodable = |reason: String| Refused::Undecodable {
        what: signal_name(signal),
        reason,
    };
    match tokio::task::spawn_blocking(decode).await {
        Ok(payload) => payload.map_err(|error| undecodable(error.to_string())),
        Err(error) => Err(undecodable(error.to_string())),
    }
}

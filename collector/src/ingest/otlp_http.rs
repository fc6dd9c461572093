//! OTLP over HTTP: bodies in protobuf or JSON, uncompressed or compressed with gzip or zstd.
//!
//! Guarantees: those of [`crate::ingest`]; a response has the encoding of its request, and a refusal is a
//! `google.rpc.Status` body, with `Retry-After` if retrying can help.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header},
    middleware,
    routing::post,
};
use emberline_model::{Signal, batch::BATCH_ID_HEADER};
use prost::Message;

use super::{
    Accepted, Ingest, Payload, body, otlp_grpc, pyroscope, rejection::Rejection, rpc, signal_name, unread,
    untaken::Untaken, upload,
};

/// The routes of the OTLP/HTTP port.
pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    let mut router = Router::new();
    for signal in Untaken::ALL {
        let take = move |State(ingest): State<Arc<Ingest>>, request: Request<Body>| async move {
            answer_untaken(&ingest, signal, request).await
        };
        router = router.route(signal.path(), post(take));
    }
    let router = router
        .route("/v1/metrics", post(metrics))
        .route("/v1/profiles", post(profiles))
        .route("/v1development/profiles", post(profiles))
        .route("/api/ingest", post(upload::upload))
        .route("/ingest", post(pyroscope::ingest))
        .route("/pyroscope/ingest", post(pyroscope::ingest));
    rpc::http_routes(&ingest, router)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&ingest),
            unread::read_the_rest,
        ))
        .with_state(ingest)
}

async fn not_found() -> (StatusCode, &'static str) {
    let message = "not found: this port accepts OTLP (POST /v1/metrics, /v1/profiles or /v1development/profiles), profile files (POST /api/ingest?service=NAME) and Pyroscope clients (/ingest, /push.v1.PusherService/Push)\n";
    (StatusCode::NOT_FOUND, message)
}

async fn metrics(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    answer(&ingest, Signal::Requests, request).await
}

async fn profiles(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    answer(&ingest, Signal::Profiles, request).await
}

async fn answer(ingest: &Ingest, signal: Signal, request: Request<Body>) -> Response<Body> {
    let form = match Form::of(request.headers()) {
        Ok(form) => form,
        Err(refused) => {
            ingest.count_refusal(signal_name(signal), &refused);
            return refused.to_http();
        }
    };
    let refuse = |refused: &Rejection| match form {
        Form::Protobuf => refused.to_http(),
        Form::Json => refused.to_json(),
    };
    let (headers, message, place) = match body::receive(ingest, request).await {
        Ok(received) => received,
        Err(refused) => {
            ingest.count_refusal(signal_name(signal), &refused);
            return refuse(&refused);
        }
    };
    let bytes = message.len();
    let payload = match (signal, form) {
        (Signal::Requests, Form::Protobuf) => Payload::MetricsBytes(message),
        (Signal::Requests, Form::Json) => Payload::MetricsJson(message),
        (Signal::Profiles, Form::Protobuf) => Payload::Profiles(message),
        (Signal::Profiles, Form::Json) => Payload::ProfilesJson(message),
    };
    let id = headers.get(BATCH_ID_HEADER).map(HeaderValue::as_bytes);
    match ingest.accept(place.sender, id, payload, bytes).await {
        Ok(accepted) => {
            let body = match (form, signal) {
                (Form::Protobuf, Signal::Requests) => otlp_grpc::metrics_response(&accepted).encode_to_vec(),
                (Form::Protobuf, Signal::Profiles) => otlp_grpc::profiles_response(&accepted).encode_to_vec(),
                (Form::Json, _) => json_response(signal, &accepted).into_bytes(),
            };
            let mut response = Response::new(Body::from(body));
            let content_type = HeaderValue::from_static(form.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        // Already counted when it was accepted.
        Err(refused) => refuse(&refused),
    }
}

/// Traces and logs: read, counted and not stored.
async fn answer_untaken(ingest: &Ingest, signal: Untaken, request: Request<Body>) -> Response<Body> {
    let form = match Form::of(request.headers()) {
        Ok(form) => form,
        Err(refused) => {
            ingest.count_refusal(signal.name(), &refused);
            return refused.to_http();
        }
    };
    let counted = match body::receive(ingest, request).await {
        Ok((_, message, _place)) => signal.count(ingest, &message, form == Form::Json),
        Err(refused) => {
            ingest.count_refusal(signal.name(), &refused);
            Err(refused)
        }
    };
    let body = match (counted, form) {
        (Ok(items), Form::Protobuf) => signal.protobuf(items),
        (Ok(items), Form::Json) => signal.json(items),
        (Err(refused), Form::Protobuf) => return refused.to_http(),
        (Err(refused), Form::Json) => return refused.to_json(),
    };
    let mut response = Response::new(Body::from(body));
    let content_type = HeaderValue::from_static(form.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The encoding of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Form, Rejection> {
        let essence = body::essence(headers);
        match essence.to_ascii_lowercase().as_str() {
            "application/x-protobuf" | "application/protobuf" => Ok(Form::Protobuf),
            "application/json" => Ok(Form::Json),
            _ => Err(Rejection::ContentType {
                content_type: essence.chars().take(80).collect(),
                accepted: "`application/x-protobuf` or `application/json`",
            }),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::Protobuf => "application/x-protobuf",
            Form::Json => "application/json",
        }
    }
}

/// The protobuf response in JSON: 64-bit numbers are text.
fn json_response(signal: Signal, accepted: &Accepted) -> String {
    let message = accepted.message();
    if message.is_empty() {
        return "{}".to_owned();
    }
    let rejected = match signal {
        Signal::Requests => "rejectedDataPoints",
        Signal::Profiles => "rejectedProfiles",
    };
    serde_json::json!({
        "partialSuccess": { rejected: accepted.rejected().to_string(), "errorMessage": message }
    })
    .to_string()
}

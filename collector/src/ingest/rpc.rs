//! Calls of other profile stores with labelled pprof files: Pyroscope's `Push` and Parca's `WriteRaw`. Over gRPC on
//! both OTLP ports; over Connect (JSON or protobuf over HTTP) on the OTLP/HTTP port.
//!
//! Guarantees: those of [`crate::ingest`]. A call whose data was dropped completely is an error that says why; what was
//! dropped from an accepted one is reported in JSON as for uploads, and in the header `emberline-left-out` in every
//! encoding, because the messages of these protocols are empty.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header},
    routing::{MethodRouter, post},
};
use bytes::Bytes;
use emberline_model::{
    formats::series::{self, SeriesError},
    otlp::Decoded,
};
use tonic::metadata::MetadataMap;

use super::{
    Accepted, Ingest, Payload, body, grpc_guard, left_out,
    raw_grpc::{self, Call},
    rejection::Rejection,
    sender::SenderKey,
};

/// Decodes a message, given its bytes, the limit on its expanded size, and when it was received.
type Read = fn(&[u8], usize, i64) -> Result<Decoded, SeriesError>;

/// One method; all of them respond with an empty message, apart from what was dropped.
#[derive(Clone, Copy)]
struct Method {
    path: &'static str,
    protobuf: Read,
    json: Option<Read>,
}

const METHODS: [Method; 2] = [
    Method {
        path: "/push.v1.PusherService/Push",
        protobuf: series::read_push,
        json: Some(series::read_push_json),
    },
    Method {
        path: "/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw",
        protobuf: series::read_write_raw,
        json: None,
    },
];

/// True for the path of such a call.
pub(super) fn is_path(path: &str) -> bool {
    METHODS.iter().any(|method| method.path == path)
}

/// The methods over gRPC; the guard of the gRPC services wraps them.
pub(super) fn grpc_routes(ingest: &Arc<Ingest>, mut router: Router) -> Router {
    for method in METHODS {
        router = router.route(method.path, method.grpc(ingest));
    }
    router
}

/// The methods over Connect and gRPC.
pub(super) fn http_routes(ingest: &Arc<Ingest>, mut router: Router<Arc<Ingest>>) -> Router<Arc<Ingest>> {
    for method in METHODS {
        let ingest = Arc::clone(ingest);
        let serve = move |request: Request<Body>| {
            let ingest = Arc::clone(&ingest);
            async move { method.serve(ingest, request).await }
        };
        router = router.route(method.path, post(serve));
    }
    router
}

impl Method {
    fn grpc(self, ingest: &Arc<Ingest>) -> MethodRouter {
        let ingest = Arc::clone(ingest);
        post(move |request: Request<Body>| self.unary(Arc::clone(&ingest), request))
    }

    async fn unary(self, ingest: Arc<Ingest>, request: Request<Body>) -> Response<Body> {
        let call = move |ingest: Arc<Ingest>, call: Call, message: Bytes| async move {
            let taken = self.take(&ingest, call.sender, message, self.protobuf).await;
            let accepted = taken.map_err(|refused| refused.to_status())?;
            let mut headers = http::HeaderMap::new();
            left_out::in_header(&accepted, &mut headers);
            Ok(tonic::Response::from_parts(
                MetadataMap::from_headers(headers),
                Vec::new(),
                http::Extensions::new(),
            ))
        };
        raw_grpc::unary(ingest, call, request).await
    }

    async fn serve(self, ingest: Arc<Ingest>, request: Request<Body>) -> Response<Body> {
        let essence = body::essence(request.headers()).to_ascii_lowercase();
        let (read, content_type) = match essence.as_str() {
            "application/grpc" | "application/grpc+proto" => {
                let run = |request| self.unary(Arc::clone(&ingest), request);
                return grpc_guard::guarded(&ingest, "profiles", request, run).await;
            }
            "application/json" if self.json.is_some() => (self.json.unwrap_or(self.protobuf), "application/json"),
            "application/proto" | "application/protobuf" | "application/x-protobuf" => {
                (self.protobuf, "application/proto")
            }
            _ => {
                let refused = Rejection::ContentType {
                    content_type: essence.chars().take(80).collect(),
                    accepted: match self.json {
                        Some(_) => "`application/json`, `application/proto` or `application/grpc`",
                        None => "`application/proto` or `application/grpc`",
                    },
                };
                ingest.count_refusal("profiles", &refused);
                return refused.to_connect();
            }
        };
        let (_, message, place) = match body::receive(&ingest, request).await {
            Ok(received) => received,
            Err(refused) => {
                ingest.count_refusal("profiles", &refused);
                return refused.to_connect();
            }
        };
        let accepted = match self.take(&ingest, place.sender, message, read).await {
            Ok(accepted) => accepted,
            Err(refused) => return refused.to_connect(),
        };
        let body = match content_type {
            "application/json" => json_answer(&accepted),
            _ => String::new(),
        };
        let mut response = Response::new(Body::from(body));
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        left_out::in_header(&accepted, response.headers_mut());
        response
    }

    async fn take(self, ingest: &Ingest, sender: SenderKey, message: Bytes, read: Read) -> Result<Accepted, Rejection> {
        let bytes = message.len();
        let reader = move |received_unix_ns, limit| {
            read(&message, limit, received_unix_ns).map_err(|error| Rejection::of_series(&error, limit))
        };
        ingest
            .accept(sender, None, Payload::third_party(bytes, reader), bytes)
            .await
    }
}

/// An empty message, as in the protocol, with what was not stored as sent.
fn json_answer(accepted: &Accepted) -> String {
    let mut answer = serde_json::Map::new();
    for (name, list) in [
        ("left_out", &accepted.outcome.rejected),
        ("changed", &accepted.outcome.changed),
    ] {
        if !list.is_empty() {
            answer.insert(name.to_owned(), serde_json::json!(left_out::told(list)));
        }
    }
    serde_json::Value::Object(answer).to_string()
}

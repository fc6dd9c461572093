//! The guard around every gRPC call, of OTLP and of other profile stores.
//!
//! Guarantees: time, memory and the number of requests are bounded. What the transport itself refuses (too many bytes
//! after decompression, invalid messages) is reported as in [`super::rejection`]: by default such requests would get
//! codes that make senders retry forever.

use axum::{
    body::Body,
    http::{Request, Response},
};
use tonic::{Code, Status};

use super::{Ingest, body, rejection::Rejection};

/// Limits time, memory and number of requests, and translates the transport's refusals.
pub(super) async fn guarded<F: Future<Output = Response<Body>>>(
    ingest: &Ingest,
    signal: &'static str,
    request: Request<Body>,
    call: impl FnOnce(Request<Body>) -> F,
) -> Response<Body> {
    let refuse = |refused: Rejection| {
        ingest.count_refusal(signal, &refused);
        refused.to_status().into_http()
    };
    let timeout = ingest.config.request_timeout;
    let run = async {
        let (request, _place) = body::receive_grpc(ingest, request).await?;
        Ok(call(request).await)
    };
    let response = match tokio::time::timeout(timeout, run).await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => return refuse(refused),
        Err(_) => {
            return refuse(Rejection::TimedOut {
                seconds: timeout.as_secs(),
            });
        }
    };
    // The service's own refusals use none of these codes.
    match response
        .extensions()
        .get::<Status>()
        .map(|status| (status.code(), status.message().to_owned()))
    {
        Some((Code::ResourceExhausted | Code::OutOfRange, _)) => refuse(Rejection::TooLarge {
            limit: ingest.config.max_request_bytes,
        }),
        Some((Code::Internal | Code::Unknown, reason)) => refuse(Rejection::Undecodable { what: signal, reason }),
        _ => response,
    }
}

//! OTLP over gRPC: metrics (request durations) and profiles, plain or compressed with gzip or zstd.
//!
//! Guarantees: those of [`crate::ingest`]. Traces and logs are not served and answer UNIMPLEMENTED. What the transport
//! itself refuses (too many bytes after decompression, bytes that are no message) is said in the words of
//! [`super::refused`]: by default such requests would be answered with codes that make senders try again for ever.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response},
    middleware::{self, Next},
};
use emberline_model::batch::BATCH_ID_HEADER;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    profiles::v1development::{
        ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
        profiles_service_server::{ProfilesService, ProfilesServiceServer},
    },
};
use prost::Message;
use tonic::{Code, Status, codec::CompressionEncoding, service::Routes};

use super::{Accepted, Ingest, Payload, refused::Refused};

/// Both services behind the guards.
pub(crate) fn routes(ingest: Arc<Ingest>) -> Routes {
    let limit = ingest.config.max_request_bytes;
    let metrics = MetricsServiceServer::new(OtlpGrpc(Arc::clone(&ingest)))
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit);
    let profiles = ProfilesServiceServer::new(OtlpGrpc(Arc::clone(&ingest)))
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit);
    let router = Routes::new(metrics).add_service(profiles).into_axum_router();
    Routes::from(router.layer(middleware::from_fn_with_state(ingest, guard)))
}

#[derive(Clone)]
struct OtlpGrpc(Arc<Ingest>);

#[tonic::async_trait]
impl MetricsService for OtlpGrpc {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let id = metadata.get(BATCH_ID_HEADER).map(|value| value.as_encoded_bytes());
        let bytes = message.encoded_len();
        let accepted = self
            .0
            .accept(id, Payload::Metrics(message), bytes)
            .await
            .map_err(|refused| refused.to_status())?;
        Ok(tonic::Response::new(metrics_response(&accepted)))
    }
}

#[tonic::async_trait]
impl ProfilesService for OtlpGrpc {
    async fn export(
        &self,
        request: tonic::Request<ExportProfilesServiceRequest>,
    ) -> Result<tonic::Response<ExportProfilesServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let id = metadata.get(BATCH_ID_HEADER).map(|value| value.as_encoded_bytes());
        let bytes = message.encoded_len();
        let accepted = self
            .0
            .accept(id, Payload::Profiles(message), bytes)
            .await
            .map_err(|refused| refused.to_status())?;
        Ok(tonic::Response::new(profiles_response(&accepted)))
    }
}

/// The answer to an accepted metrics request.
pub(super) fn metrics_response(accepted: &Accepted) -> ExportMetricsServiceResponse {
    let error_message = accepted.message();
    let partial_success = (!error_message.is_empty()).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: accepted.rejected(),
        error_message,
    });
    ExportMetricsServiceResponse { partial_success }
}

/// The answer to an accepted profiles request. What is left out is counted in samples, not in whole profiles.
pub(super) fn profiles_response(accepted: &Accepted) -> ExportProfilesServiceResponse {
    let error_message = accepted.message();
    let partial_success = (!error_message.is_empty()).then(|| ExportProfilesPartialSuccess {
        rejected_profiles: accepted.rejected(),
        error_message,
    });
    ExportProfilesServiceResponse { partial_success }
}

/// Bounds time and number of requests, and translates what the transport refuses.
async fn guard(State(ingest): State<Arc<Ingest>>, request: Request<Body>, next: Next) -> Response<Body> {
    let signal = match request.uri().path() {
        path if path.contains("MetricsService") => "metrics",
        path if path.contains("ProfilesService") => "profiles",
        _ => return next.run(request).await,
    };
    let refuse = |refused: Refused| {
        ingest.count_refusal(signal, &refused);
        refused.to_status().into_http()
    };
    let timeout = ingest.config.request_timeout;
    let run = async {
        let _turn = ingest.turn().await?;
        Ok(next.run(request).await)
    };
    let response = match tokio::time::timeout(timeout, run).await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => return refuse(refused),
        Err(_) => {
            return refuse(Refused::TimedOut {
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
        Some((Code::ResourceExhausted | Code::OutOfRange, _)) => refuse(Refused::TooLarge {
            limit: ingest.config.max_request_bytes,
        }),
        Some((Code::Internal | Code::Unknown, reason)) => refuse(Refused::Undecodable { what: signal, reason }),
        _ => response,
    }
}

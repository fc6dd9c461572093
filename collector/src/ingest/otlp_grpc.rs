//! OTLP over gRPC: metrics (request durations) and profiles, uncompressed or compressed with gzip or zstd. Messages are
//! decoded from their bytes: profiles because all layouts are supported, metrics because they are weighed first.
//!
//! Guarantees: those of [`crate::ingest`]; traces and logs are acknowledged but not stored ([`super::untaken`]).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response},
    middleware::{self, Next},
    routing::post,
};
use bytes::Bytes;
use emberline_model::batch::BATCH_ID_HEADER;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse},
    profiles::v1development::{ExportProfilesPartialSuccess, ExportProfilesServiceResponse},
};
use prost::Message;
use tonic::{Status, service::Routes};

use super::{
    Accepted, Ingest, Payload, body, grpc_guard,
    raw_grpc::{self, Call},
    rejection::Rejection,
    rpc,
    untaken::Untaken,
};

/// The method for profiles.
const EXPORT_PROFILES: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";

/// The method for request durations.
const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// All services behind the guards.
pub(crate) fn routes(ingest: Arc<Ingest>) -> Routes {
    let metrics = {
        let ingest = Arc::clone(&ingest);
        post(move |request: Request<Body>| raw_grpc::unary(Arc::clone(&ingest), export_metrics, request))
    };
    let profiles = {
        let ingest = Arc::clone(&ingest);
        post(move |request: Request<Body>| raw_grpc::unary(Arc::clone(&ingest), export_profiles, request))
    };
    let router = Routes::default().into_axum_router();
    let mut router = router.route(EXPORT_METRICS, metrics).route(EXPORT_PROFILES, profiles);
    for signal in Untaken::ALL {
        let ingest = Arc::clone(&ingest);
        let call = move |ingest, _: Call, message| signal.export(ingest, message);
        let serve = move |request: Request<Body>| raw_grpc::unary(Arc::clone(&ingest), call, request);
        router = router.route(signal.method(), post(serve));
    }
    let router = rpc::grpc_routes(&ingest, router);
    Routes::from(router.layer(middleware::from_fn_with_state(ingest, guard)))
}

async fn export_metrics(ingest: Arc<Ingest>, call: Call, message: Bytes) -> Result<Vec<u8>, Status> {
    let id = call.metadata.get(BATCH_ID_HEADER).map(|value| value.as_encoded_bytes());
    let bytes = message.len();
    let accepted = ingest
        .accept(call.sender, id, Payload::MetricsBytes(message), bytes)
        .await;
    let accepted = accepted.map_err(|refused| refused.to_status())?;
    Ok(metrics_response(&accepted).encode_to_vec())
}

async fn export_profiles(ingest: Arc<Ingest>, call: Call, message: Bytes) -> Result<Vec<u8>, Status> {
    let id = call.metadata.get(BATCH_ID_HEADER).map(|value| value.as_encoded_bytes());
    let bytes = message.len();
    let accepted = ingest.accept(call.sender, id, Payload::Profiles(message), bytes).await;
    let accepted = accepted.map_err(|refused| refused.to_status())?;
    ingest.came_from(call.sender, &accepted);
    Ok(profiles_response(&accepted).encode_to_vec())
}

/// The response to an accepted metrics request.
pub(super) fn metrics_response(accepted: &Accepted) -> ExportMetricsServiceResponse {
    let error_message = accepted.message();
    let partial_success = (!error_message.is_empty()).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: accepted.rejected(),
        error_message,
    });
    ExportMetricsServiceResponse { partial_success }
}

/// The response to an accepted profiles request. Dropped data is counted in samples, not in whole profiles.
pub(super) fn profiles_response(accepted: &Accepted) -> ExportProfilesServiceResponse {
    let error_message = accepted.message();
    let partial_success = (!error_message.is_empty()).then(|| ExportProfilesPartialSuccess {
        rejected_profiles: accepted.rejected(),
        error_message,
    });
    ExportProfilesServiceResponse { partial_success }
}

/// Guards the services on this port.
async fn guard(State(ingest): State<Arc<Ingest>>, request: Request<Body>, next: Next) -> Response<Body> {
    let signal = match request.uri().path() {
        path if path.contains("MetricsService") => "metrics",
        path if path.contains("ProfilesService") || rpc::is_path(path) => "profiles",
        path if path == Untaken::Traces.method() => Untaken::Traces.name(),
        path if path == Untaken::Logs.method() => Untaken::Logs.name(),
        _ => return next.run(request).await,
    };
    let content_type = body::essence(request.headers());
    if !content_type.starts_with("application/grpc") {
        let refused = Rejection::ContentType {
            content_type: content_type.chars().take(80).collect(),
            accepted: "`application/grpc`, or use the port for OTLP over HTTP",
        };
        ingest.count_refusal(signal, &refused);
        return refused.to_connect();
    }
    grpc_guard::guarded(&ingest, signal, request, |request| next.run(request)).await
}

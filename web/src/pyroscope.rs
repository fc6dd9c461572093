//! Pyroscope's query API, as used by Grafana's data source and other clients: `querier.v1.QuerierService` over Connect
//! and gRPC, `/pyroscope/render` and related paths.
//!
//! Guarantees: the same numbers as `/api/v1/merge` and `/api/v1/series` for the same query; what is not supported is
//! refused by name, never with an empty graph. Wrong on purpose: labels have Emberline's names, with `service_name` for
//! the service; an unknown label has the empty value instead of being refused; a flame graph of spans or traces
//! consists of the samples that were kept individually (`exemplars`), which are only a part.

mod connect;
mod querier;
mod render;
mod times;

use axum::{
    Router,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderValue, Method, StatusCode, header};

use crate::state::Web;
use connect::{Call, Codec, RpcError};

/// Types generated from `proto/`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
pub(crate) mod proto {
    /// Package `querier.v1`.
    pub mod querier {
        include!(concat!(env!("OUT_DIR"), "/querier.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/querier.v1.serde.rs"));
    }
    /// Package `perftools.profiles`: the pprof format, with a JSON form.
    pub mod pprof {
        include!(concat!(env!("OUT_DIR"), "/perftools.profiles.rs"));
        include!(concat!(env!("OUT_DIR"), "/perftools.profiles.serde.rs"));
    }
}

/// Paths of the legacy interface.
pub(crate) const LEGACY_ROUTES: [&str; 3] = ["/pyroscope/render", "/pyroscope/render-diff", "/pyroscope/label-values"];

/// Path of the calls.
const CALLS: &str = "/querier.v1.QuerierService/{call}";

/// Adds the routes.
pub(crate) fn add_routes(router: Router<Web>) -> Router<Web> {
    let [render, render_diff, label_values] = LEGACY_ROUTES;
    router
        .route(CALLS, any(call))
        .route(render, get(render::render))
        .route(render_diff, get(render::render_diff))
        .route(label_values, get(render::label_values))
}

async fn call(State(web): State<Web>, Path(name): Path<String>, request: Request) -> Response {
    if request.method() != Method::POST {
        let allow = [(header::ALLOW, HeaderValue::from_static("POST"))];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "use POST for calls\n").into_response();
    }
    let (head, body) = request.into_parts();
    let Some(codec) = Codec::of(&head.headers) else {
        let message = "unsupported content type: use application/json, application/proto or application/grpc\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
    };
    let body = match connect::collect(body).await {
        Ok(body) => body,
        Err(error) => return error.answer(codec),
    };
    let call = Call::new(codec, head.headers, body);
    match name.as_str() {
        "ProfileTypes" => call.run(|q| querier::profile_types(&web, q)).await,
        "LabelNames" => call.run(|q| querier::label_names(&web, q)).await,
        "LabelValues" => call.run(|q| querier::label_values(&web, q)).await,
        "Series" => call.run(|q| querier::series(&web, q)).await,
        "SelectMergeStacktraces" => call.run(|q| querier::select_merge_stacktraces(&web, q)).await,
        "SelectMergeSpanProfile" => call.run(|q| querier::select_merge_span_profile(&web, q)).await,
        "SelectMergeProfile" => call.run(|q| querier::select_merge_profile(&web, q)).await,
        "SelectSeries" => call.run(|q| querier::select_series(&web, q)).await,
        "Diff" => call.run(|q| querier::diff(&web, q)).await,
        "GetProfileStats" => call.run(|q| querier::get_profile_stats(&web, q)).await,
        other => {
            let message = format!("unknown call `{}`", crate::http::error::shorten(other));
            RpcError::unimplemented(message).answer(codec)
        }
    }
}

//! The HTTP API and the embedded user interface.
//!
//! Guarantees: queries change nothing (only GET and HEAD are answered, besides the calls under `pyroscope`); of the two
//! calls that change something, deleting a service is off unless allowed; pages of other sites are refused everything
//! ([`protect`]); every number in a response is computed on all stored rows before a display limit applies; percentiles
//! come from merged histograms; an unknown name or parameter is refused by name with the nearest known one; every
//! response carries a policy that forbids scripts and hosts other than this server's own. Dropping a request drops its
//! query in the store.
//!
//! Wrong on purpose: there are no users. Anyone who can reach the port may read everything, state when releases began,
//! and delete services if that is allowed.
//!
//! Rooms, each knowing only those after it: `openapi` and `ui`; `api`, one file per endpoint, and `pyroscope`, the
//! interface that Grafana's data source uses; `probes`; `state`; `answers`; `exports`, one file per format; `query`;
//! `http`.

mod answers;
mod api;
mod exports;
mod http;
mod openapi;
mod probes;
mod pyroscope;
mod query;
pub mod render;
mod state;
mod ui;
#[doc(hidden)]
pub mod untrusted;

/// API responses as programs parse them: the same types that the server writes.
pub mod types {
    pub use crate::{
        answers::tree_columns::ProfileTree,
        api::{
            alerts::Alerts,
            diff::DiffFunctionsCut,
            functions::DiffFunctions,
            merge::{Merge, SelectionQuery},
            profile::{FunctionsCut, ProfileFunction},
            series::{OneSeries, SeriesAnswer, SeriesCut},
        },
        http::error::{ErrorBody, ErrorDetail},
    };
}

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
};

pub use crate::{
    http::{
        error::ApiError,
        same_site::{AllowedHosts, protect},
        security::CONTENT_SECURITY_POLICY,
    },
    state::{LossesProbe, ReadyProbe, StatusProbe, WebState},
};
use crate::{
    http::{limits, metrics, security},
    state::{Shared, Web},
};

/// The whole web service: API, metrics, health, and the user interface on every other path.
pub fn router(state: WebState) -> Router {
    let http_metrics = Arc::new(metrics::HttpMetrics::new());
    let endpoints = api::endpoints();
    let lights = endpoints.iter().filter(|endpoint| endpoint.is_light);
    let bounds = limits::Bounds {
        max_questions: state.max_questions,
        max_request_seconds: state.max_request_seconds,
        max_answer_bytes: state.max_answer_bytes,
        answer_memory_bytes: state.answer_memory_bytes,
        light: lights.map(|endpoint| endpoint.path().to_owned()).collect(),
    };
    let limits = Arc::new(limits::Limits::new(
        bounds,
        Arc::clone(&http_metrics),
        state.store.pressure().clone(),
    ));
    let hosts = Arc::clone(&state.allowed_hosts);
    let web: Web = Arc::new(Shared::new(state, Arc::clone(&http_metrics)));
    let [openapi_json, metrics_page, healthy, ready] = ui::OTHER_ROUTES;
    let mut router = Router::new();
    for endpoint in endpoints {
        let (path, (_, _, methods)) = (endpoint.path().to_owned(), endpoint.routes);
        router = router.route(&path, methods);
    }
    let router = pyroscope::add_routes(router)
        .route_layer(middleware::from_fn_with_state(limits, limits::hold))
        .route(openapi_json, get(openapi::document))
        .route(metrics_page, get(probes::metrics::page))
        .route(healthy, get(probes::health::healthy))
        .route(ready, get(probes::health::ready))
        .method_not_allowed_fallback(ui::method_not_allowed)
        .fallback(ui::serve)
        .layer(compression())
        .layer(middleware::from_fn(security::add_headers))
        .layer(middleware::from_fn_with_state(http_metrics, metrics::count))
        .with_state(web);
    protect(router, hosts)
}

/// The types for the pages: `web/ui/src/api.generated.ts`.
#[doc(hidden)]
pub fn api_types() -> Result<String, String> {
    openapi::typescript::write(&openapi::describe(""))
}

/// Large responses are compressed if the client accepts it; pprof files and pictures already are.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(1024)
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/grpc"))
        .and(NotForContentType::const_new("image/png"));
    CompressionLayer::new()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(worth_it)
}

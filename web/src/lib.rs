//! The HTTP API and the embedded user interface.
//!
//! Guarantees: questions change nothing (only GET and HEAD are answered, besides the calls under `pyroscope`); of the two
//! calls that do, deleting a service is off unless it is allowed; pages of other sites are refused everything
//! ([`protect`]); every number of an answer is computed on all stored rows before a display limit cuts anything; percentiles come from
//! merged histograms; an unknown name or parameter is refused by name with the nearest known one; every answer
//! carries a policy that forbids scripts and hosts that are not this server's own. Dropping a request drops its
//! question in the store.
//!
//! What it gets wrong on purpose: it knows no users. Who may reach the port may read everything, state when releases began,
//! and delete services where that is allowed.
//!
//! One file per endpoint under `api`, one per export format under `exports`; `pyroscope` is the interface that
//! Grafana's data source speaks.

mod answer;
mod api;
mod catalog;
mod cost;
mod edges;
mod error;
mod exemplars;
mod exports;
mod health;
mod layout;
mod limits;
mod metrics;
mod names;
mod openapi;
mod over_time;
mod params;
mod pyroscope;
mod red;
pub mod render;
mod same_site;
mod security;
mod selector;
mod stacks;
mod times;
mod tree_columns;
mod ui;
#[doc(hidden)]
pub mod untrusted;

/// Answers of the API as programs read them: the types that the server writes.
pub mod answers {
    pub use crate::{
        api::{
            alerts::Alerts,
            diff::DiffFunctionsCut,
            functions::DiffFunctions,
            merge::{Merge, SelectionQuery},
            profile::{FunctionsCut, ProfileFunction},
            series::{OneSeries, SeriesAnswer, SeriesCut},
        },
        error::{ErrorBody, ErrorDetail},
        tree_columns::ProfileTree,
    };
}

use std::{path::PathBuf, sync::Arc};

use axum::{Router, middleware, routing::get};
use emberline_model::{alert::AlertsBoard, function::OwnCode, metric::LossCount, time::Clock};
use emberline_storage::{AnswerMemory, Store};
use prometheus_client::registry::Registry;
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
};

pub use error::ApiError;
pub use same_site::{AllowedHosts, protect};
pub use security::CONTENT_SECURITY_POLICY;

/// Says whether the server may be asked; the reason when not.
pub type ReadyProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Gives a part of `/api/v1/status` that another crate knows.
pub type StatusProbe = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Gives how much of each kind of loss another crate counted.
pub type LossesProbe = Arc<dyn Fn() -> Vec<LossCount> + Send + Sync>;

/// What the web service answers from.
#[derive(Clone)]
pub struct WebState {
    /// Where questions go.
    pub store: Store,
    /// The alerts to show.
    pub alerts: AlertsBoard,
    /// What `now` means.
    pub clock: Arc<dyn Clock>,
    /// Start of the process, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Version of the whole program, as `status` shows it.
    pub version: String,
    /// Folder to serve the user interface from instead of the embedded one, while it is being worked on.
    pub ui_dir: Option<PathBuf>,
    /// Counters of other parts, shown at `/metrics` beside the web service's and the store's.
    pub registries: Vec<Arc<Registry>>,
    /// Asked by `/-/ready` before the store is.
    pub ready: ReadyProbe,
    /// The `ingest` part of `/api/v1/status`.
    pub ingest_status: StatusProbe,
    /// What was lost besides the store's losses.
    pub losses: LossesProbe,
    /// What is own code of which service, where that is set.
    pub own_code: Arc<OwnCode>,
    /// Requests of the API under way at most, those that wait for the store included.
    pub max_questions: usize,
    /// Seconds a request of the API may take with everything it waits for.
    pub max_request_seconds: u64,
    /// Bytes of large answers that were not taken yet, of all requests together.
    pub max_answer_bytes: u64,
    /// Bytes that answers to heavy questions may hold together while they are put together.
    pub answer_memory_bytes: u64,
    /// `DELETE` of a service is answered.
    pub allow_delete: bool,
    /// Names by which browsers may call this server.
    pub allowed_hosts: Arc<AllowedHosts>,
    /// The `connections` part of `/api/v1/status`.
    pub connection_status: StatusProbe,
}

impl WebState {
    /// A state that is always ready and knows nothing of ingest; set the other fields as needed.
    pub fn new(store: Store, alerts: AlertsBoard, clock: Arc<dyn Clock>) -> WebState {
        WebState {
            store,
            alerts,
            started_ms: clock.now_unix_ms(),
            clock,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ui_dir: None,
            registries: Vec::new(),
            ready: Arc::new(|| Ok(())),
            ingest_status: Arc::new(|| serde_json::json!({})),
            losses: Arc::new(Vec::new),
            own_code: Arc::default(),
            max_questions: 64,
            max_request_seconds: 120,
            max_answer_bytes: 64 << 20,
            answer_memory_bytes: 256 << 20,
            allow_delete: false,
            allowed_hosts: Arc::default(),
            connection_status: Arc::new(|| serde_json::json!({})),
        }
    }
}

/// The state of the handlers: what the caller gave and what lives with the router.
pub(crate) struct Shared {
    given: WebState,
    http: metrics::HttpMetrics,
    layouts: layout::LayoutMemory,
    places: Arc<limits::Places>,
    answer_memory: AnswerMemory,
}

impl std::ops::Deref for Shared {
    type Target = WebState;

    fn deref(&self) -> &WebState {
        &self.given
    }
}

/// What handlers take.
pub(crate) type Web = Arc<Shared>;

/// Addresses besides the endpoints of the API.
pub(crate) const OTHER_ROUTES: [&str; 4] = ["/api/openapi.json", "/metrics", "/-/healthy", "/-/ready"];

/// The whole web service: API, metrics, health and the user interface on every other address.
pub fn router(state: WebState) -> Router {
    let web: Web = Arc::new(Shared {
        places: Arc::new(limits::Places::new(state.max_questions, state.max_answer_bytes)),
        answer_memory: AnswerMemory::new(state.answer_memory_bytes, limits::HEAVY_AT_ONCE),
        given: state,
        http: metrics::HttpMetrics::new(),
        layouts: layout::LayoutMemory::default(),
    });
    let hosts = Arc::clone(&web.allowed_hosts);
    let [openapi_json, metrics_page, healthy, ready] = OTHER_ROUTES;
    let mut router = Router::new();
    for endpoint in api::ENDPOINTS.iter().chain(&api::DELETIONS) {
        router = router.route(endpoint.path, (endpoint.handler)());
    }
    let router = pyroscope::add_routes(router)
        .route_layer(middleware::from_fn_with_state(web.clone(), limits::hold))
        .route(openapi_json, get(openapi::document))
        .route(metrics_page, get(metrics::page))
        .route(healthy, get(health::healthy))
        .route(ready, get(health::ready))
        .method_not_allowed_fallback(ui::method_not_allowed)
        .fallback(ui::serve)
        .layer(compression())
        .layer(middleware::from_fn(security::add_headers))
        .layer(middleware::from_fn_with_state(web.clone(), metrics::count))
        .with_state(web);
    protect(router, hosts)
}

/// The types of the pages: `web/ui/src/api.generated.ts`.
#[doc(hidden)]
pub fn api_types() -> Result<String, String> {
    openapi::typescript::write(&openapi::describe(""))
}

/// Large answers travel compressed when the caller accepts it; pprof files and pictures are compressed already.
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

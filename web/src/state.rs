//! The state of the handlers. Nothing below them knows it: answers, exports, parameters and layers take what they need.

use std::{path::PathBuf, sync::Arc};

use emberline_model::{alert::AlertsBoard, function::OwnCode, metric::LossCount, time::Clock};
use emberline_storage::Store;
use prometheus_client::registry::Registry;

use crate::{
    answers::layout::LayoutMemory,
    http::{metrics::HttpMetrics, same_site::AllowedHosts},
};

/// Says whether the server is ready; if not, why.
pub type ReadyProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Returns a part of `/api/v1/status` that another crate provides.
pub type StatusProbe = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Returns another crate's losses of each kind.
pub type LossesProbe = Arc<dyn Fn() -> Vec<LossCount> + Send + Sync>;

/// The state of the web service.
#[derive(Clone)]
pub struct WebState {
    /// The store to query.
    pub store: Store,
    /// The alerts to show.
    pub alerts: AlertsBoard,
    /// What `now` means.
    pub clock: Arc<dyn Clock>,
    /// Start of the process, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Version of the whole program, for `status`.
    pub version: String,
    /// Directory to serve the user interface from instead of the embedded one, for development.
    pub ui_dir: Option<PathBuf>,
    /// Counters of other parts, shown in `/metrics` with the web service's and the store's.
    pub registries: Vec<Arc<Registry>>,
    /// Checked by `/-/ready` before the store is.
    pub ready: ReadyProbe,
    /// The `ingest` part of `/api/v1/status`.
    pub ingest_status: StatusProbe,
    /// Losses other than the store's.
    pub losses: LossesProbe,
    /// Own-code prefixes by service, if configured.
    pub own_code: Arc<OwnCode>,
    /// The most API requests in progress, including those waiting for the store.
    pub max_questions: usize,
    /// The longest time of an API request in seconds, including all waiting.
    pub max_request_seconds: u64,
    /// Bytes of large responses not read yet, all requests together.
    pub max_answer_bytes: u64,
    /// Bytes that responses to heavy queries may take together while they are built.
    pub answer_memory_bytes: u64,
    /// Whether `DELETE` of a service is allowed.
    pub allow_delete: bool,
    /// Names by which browsers may call this server.
    pub allowed_hosts: Arc<AllowedHosts>,
    /// The `connections` part of `/api/v1/status`.
    pub connection_status: StatusProbe,
}

impl WebState {
    /// A state that is always ready and has no ingest; set the other fields as needed.
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

/// The state of the handlers: from the caller, and created with the router.
pub(crate) struct Shared {
    given: WebState,
    pub(crate) http_metrics: Arc<HttpMetrics>,
    pub(crate) layouts: LayoutMemory,
}

impl Shared {
    /// The state of a router that counts in `http_metrics`.
    pub(crate) fn new(given: WebState, http_metrics: Arc<HttpMetrics>) -> Shared {
        Shared {
            given,
            http_metrics,
            layouts: LayoutMemory::default(),
        }
    }
}

impl std::ops::Deref for Shared {
    type Target = WebState;

    fn deref(&self) -> &WebState {
        &self.given
    }
}

/// The handlers' argument.
pub(crate) type Web = Arc<Shared>;

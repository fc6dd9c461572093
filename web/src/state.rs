//! What the handlers answer from. Nothing below them knows it: answers, exports, parameters and layers take what they need.

use std::{path::PathBuf, sync::Arc};

use emberline_model::{alert::AlertsBoard, function::OwnCode, metric::LossCount, time::Clock};
use emberline_storage::Store;
use prometheus_client::registry::Registry;

use crate::{
    answers::layout::LayoutMemory,
    http::{metrics::HttpMetrics, same_site::AllowedHosts},
};

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

/// What handlers take.
pub(crate) type Web = Arc<Shared>;

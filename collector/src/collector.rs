//! The parts of the collector, assembled.

use std::{collections::HashSet, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use emberline_client::Tls;
use emberline_model::{
    alert::{Alert, AlertsBoard},
    metric::LossCount,
    time::Clock,
};
use emberline_storage::{QueryError, Store};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Mutex, Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    alert_book::AlertBook,
    ingest::{
        Ingest, IngestConfig,
        debuginfo::{self, DebugInfoService},
        limits::config::IngestLimits,
        otlp_grpc, otlp_http,
    },
    notify::{InvalidReceiver, Notifier, Receiver},
    scrape::{InvalidScrapeTls, ScrapeConfig, Scraper},
    self_metrics::SelfMetrics,
    symbols::{
        files::{DebugFiles, FileLimits, Surroundings},
        worker::SymbolWorker,
    },
    verdict::{Memory, VerdictConfig, VerdictRunner},
};

/// How long the tasks may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often the known names are stored.
const KEEP_NAMES_EVERY: Duration = Duration::from_secs(30);

/// Settings of a collector. Errors and responses name them.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// The server's data directory; debug files are stored in its `debuginfo`.
    pub data_dir: PathBuf,
    /// Largest OTLP request in bytes, before and after decompression.
    pub max_request_bytes: usize,
    /// OTLP requests processed concurrently.
    pub max_concurrent_requests: usize,
    /// Longest time from an OTLP request's first byte to its response.
    pub request_timeout: Duration,
    /// Limits for senders.
    pub limits: IngestLimits,
    /// Largest debug information file, in bytes.
    pub debuginfo_max_bytes: u64,
    /// Total size of debug files, in bytes; files that no stored data needs are removed first, then the oldest.
    pub debuginfo_total_bytes: u64,
    /// Limit on the decompressed sections of one file, in bytes.
    pub debuginfo_unpacked_max_bytes: u64,
    /// Disk space that debug files leave free, in MiB, like the store's setting of the same name.
    pub min_free_mb: u64,
    /// Command line of the symbol reader, which runs as a separate process; its `main` calls [`crate::read_symbols`].
    /// Without one, native addresses are not symbolized.
    pub symbol_reader: Option<Vec<OsString>>,
    /// Heap limit of that process, in bytes; its program and the mapped file are not included.
    pub symbol_memory_bytes: u64,
    /// Time limit per lookup batch (some thousand locations of a file).
    pub symbol_seconds: u64,
    /// How long after its last window a release is compared.
    pub lookback: Duration,
    /// URL of the UI as users reach it, for links in messages; without a trailing slash.
    pub external_url: String,
    /// URLs of Alertmanagers (`http://host:9093`); each receives all alerts.
    pub alertmanager_urls: Vec<String>,
    /// TLS for `https` receivers.
    pub alertmanager_tls: Tls,
    /// URLs that receive a POST for each alert that fires or is resolved.
    pub webhook_urls: Vec<String>,
    /// TLS for `https` receivers.
    pub webhook_tls: Tls,
    /// How releases are judged.
    pub verdict: VerdictConfig,
    /// Scrape targets; none by default.
    pub scrape: Option<ScrapeConfig>,
}

impl CollectorConfig {
    /// The defaults, in a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> CollectorConfig {
        CollectorConfig {
            data_dir: data_dir.into(),
            max_request_bytes: 16 << 20,
            max_concurrent_requests: 32,
            request_timeout: Duration::from_secs(30),
            limits: IngestLimits::default(),
            debuginfo_max_bytes: 512 << 20,
            debuginfo_total_bytes: 4 << 30,
            debuginfo_unpacked_max_bytes: 96 << 20,
            min_free_mb: 64,
            symbol_reader: None,
            symbol_memory_bytes: 192 << 20,
            symbol_seconds: 60,
            lookback: Duration::from_secs(3600),
            external_url: "http://127.0.0.1:4040".to_owned(),
            alertmanager_urls: Vec::new(),
            alertmanager_tls: Tls::default(),
            webhook_urls: Vec::new(),
            webhook_tls: Tls::default(),
            verdict: VerdictConfig::default(),
            scrape: None,
        }
    }
}

/// Why a collector cannot be set up. Retrying does not help until the cause is removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The directory of debug files cannot be used.
    #[error("cannot use {path}: {source}; make it writable for this user or set another `data_dir`")]
    DebugInfoFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An alert receiver has an invalid address.
    #[error("`alertmanagers` or `webhooks`: {0}")]
    Receiver(InvalidReceiver),
    /// The TLS settings of a job are invalid.
    #[error(transparent)]
    ScrapeTls(#[from] InvalidScrapeTls),
}

/// The store, as the directory of debug information needs it.
struct StoreAround(Store);

impl Surroundings for StoreAround {
    fn builds(&self) -> HashSet<String> {
        self.0.builds().into_iter().map(|build| build.build_id).collect()
    }

    fn free_bytes(&self) -> u64 {
        self.0.free_bytes()
    }
}

/// The collector. Serve [`Collector::grpc_router`] and [`Collector::http_router`], and keep what
/// [`Collector::spawn_tasks`] returns.
pub struct Collector {
    store: Store,
    clock: Arc<dyn Clock>,
    ingest: Arc<Ingest>,
    files: Arc<DebugFiles>,
    arrived: Arc<Notify>,
    symbol_reader: Option<Vec<OsString>>,
    symbol_memory_bytes: u64,
    symbol_seconds: u64,
    runner: Arc<VerdictRunner>,
    receivers: Vec<Receiver>,
    external_url: String,
    scraper: Option<Arc<Scraper>>,
    metrics: SelfMetrics,
}

impl Collector {
    /// Sets up a collector on an open store. Nothing runs yet.
    pub fn new(config: CollectorConfig, store: Store, clock: Arc<dyn Clock>) -> Result<Collector, CollectorError> {
        let receivers = Receiver::parse_all(
            (&config.alertmanager_urls, &config.alertmanager_tls),
            (&config.webhook_urls, &config.webhook_tls),
        )
        .map_err(CollectorError::Receiver)?;
        let files = FileLimits {
            max_bytes: config.debuginfo_max_bytes,
            total_bytes: config.debuginfo_total_bytes,
            unpacked_bytes: config.debuginfo_unpacked_max_bytes,
            keep_free_bytes: config.min_free_mb.saturating_mul(1 << 20),
        };
        let files = DebugFiles::open(
            &config.data_dir,
            files,
            Arc::clone(&clock),
            Box::new(StoreAround(store.clone())),
        )
        .map_err(|source| CollectorError::DebugInfoFolder {
            path: config.data_dir.join("debuginfo"),
            source,
        })?;
        let metrics = SelfMetrics::new();
        let ingest = IngestConfig {
            max_request_bytes: config.max_request_bytes,
            max_concurrent_requests: config.max_concurrent_requests,
            request_timeout: config.request_timeout,
            limits: config.limits,
        };
        let book = AlertBook::open(store.clone(), receivers.iter().map(Receiver::key).collect());
        let runner = VerdictRunner {
            book,
            started_ms: clock.now_unix_ms(),
            store: store.clone(),
            clock: Arc::clone(&clock),
            config: config.verdict,
            lookback: config.lookback,
            board: AlertsBoard::default(),
            publish: watch::Sender::new(Arc::new(Vec::new())),
            metrics: metrics.clone(),
            memory: Mutex::new(Memory::default()),
        };
        let ingest = Arc::new(Ingest::new(store.clone(), Arc::clone(&clock), ingest, metrics.clone()));
        let scraper = config
            .scrape
            .map(|scrape| Scraper::new(scrape, Arc::clone(&ingest), Arc::clone(&clock), metrics.clone()).map(Arc::new));
        let scraper = scraper.transpose()?;
        Ok(Collector {
            ingest,
            scraper,
            store,
            clock,
            files: Arc::new(files),
            arrived: Arc::new(Notify::new()),
            symbol_reader: config.symbol_reader,
            symbol_memory_bytes: config.symbol_memory_bytes,
            symbol_seconds: config.symbol_seconds,
            runner: Arc::new(runner),
            receivers,
            external_url: config.external_url,
            metrics,
        })
    }

    /// The services of the gRPC port (4317): OTLP metrics and profiles, debug information.
    pub fn grpc_router(&self) -> Routes {
        let service = DebugInfoService {
            files: Arc::clone(&self.files),
            store: self.store.clone(),
            reporters: Arc::clone(&self.ingest.reporters),
            metrics: self.metrics.clone(),
            arrived: Arc::clone(&self.arrived),
        };
        otlp_grpc::routes(Arc::clone(&self.ingest)).add_service(debuginfo::server(service))
    }

    /// The routes of the OTLP/HTTP port (4318).
    pub fn http_router(&self) -> axum::Router {
        otlp_http::router(Arc::clone(&self.ingest))
    }

    /// Starts the background tasks: symbol worker, verdict runner, one notifier per receiver, the scraper. Needs a tokio runtime.
    pub fn spawn_tasks(&self) -> Tasks {
        let stop = CancellationToken::new();
        let symbols = SymbolWorker {
            store: self.store.clone(),
            files: Arc::clone(&self.files),
            metrics: self.metrics.clone(),
            arrived: Arc::clone(&self.arrived),
            reader: self.symbol_reader.clone(),
            memory_bytes: self.symbol_memory_bytes,
            seconds: self.symbol_seconds,
        };
        let mut handles = vec![
            tokio::spawn(symbols.run(stop.clone())),
            tokio::spawn(Arc::clone(&self.runner).run(stop.clone())),
        ];
        handles.push(tokio::spawn(keep_names(Arc::clone(&self.ingest), stop.clone())));
        if let Some(scraper) = &self.scraper {
            handles.push(tokio::spawn(Arc::clone(scraper).run(stop.clone())));
        }
        for receiver in &self.receivers {
            let notifier = Notifier {
                receiver: receiver.clone(),
                alerts: self.runner.publish.subscribe(),
                book: self.runner.book.clone(),
                clock: Arc::clone(&self.clock),
                external_url: self.external_url.clone(),
                metrics: self.metrics.clone(),
            };
            handles.push(tokio::spawn(notifier.run(stop.clone())));
        }
        Tasks { stop, handles }
    }

    /// The current alerts; written by the verdict runner.
    pub fn alerts(&self) -> AlertsBoard {
        self.runner.board.clone()
    }

    /// Judges all complete windows now instead of after the next window, publishes the alerts and returns them, newest
    /// first. Fails like the store's queries.
    pub async fn judge_now(&self) -> Result<Vec<Alert>, QueryError> {
        self.runner.judge().await
    }

    /// Registers the collector's counters.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Returns the losses of each kind since start-up.
    pub fn losses_probe(&self) -> Arc<dyn Fn() -> Vec<LossCount> + Send + Sync> {
        let metrics = self.metrics.clone();
        Arc::new(move || metrics.losses())
    }

    /// What was ingested since the start, for the status page: `{"metrics": {"stored", "duplicate", "bytes"},
    /// "profiles": {...}, "refused_metrics": [{"service", "metric", "shape", "reason", "points", "last_ms", "remedy"}],
    /// "shares": {"workloads", "names", "refused"}}`, and `"scrape"` if there are targets.
    pub fn status_probe(&self) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
        let metrics = self.metrics.clone();
        let board = self.scraper.as_ref().map(|scraper| scraper.board.clone());
        let ingest = Arc::clone(&self.ingest);
        Arc::new(move || {
            let of = |signal| {
                serde_json::json!({
                    "stored": metrics.requests(signal, "stored", ""),
                    "duplicate": metrics.requests(signal, "duplicate", ""),
                    "bytes": metrics.bytes(signal),
                })
            };
            let mut status = serde_json::json!({
                "metrics": of("metrics"),
                "profiles": of("profiles"),
                "refused_metrics": ingest.refusals.json(),
                "cumulative_buckets": ingest.cumulative_buckets(),
                "shares": ingest.shares(),
            });
            if let Some(board) = &board {
                status["scrape"] = board.json();
            }
            status
        })
    }
}

/// Stores the known names, periodically and at the end.
async fn keep_names(ingest: Arc<Ingest>, stop: CancellationToken) {
    loop {
        let is_over = tokio::time::timeout(KEEP_NAMES_EVERY, stop.cancelled()).await.is_ok();
        let ingest = Arc::clone(&ingest);
        // Errors were logged; the runtime reports panics.
        let _ = tokio::task::spawn_blocking(move || ingest.keep_names()).await;
        if is_over {
            return;
        }
    }
}

/// The background tasks; dropping this signals them to stop without waiting.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    handles: Vec<JoinHandle<()>>,
}

impl Tasks {
    /// Stops the tasks and waits for them, at most ten seconds in total; a hanging task is aborted.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let handles = std::mem::take(&mut self.handles);
        let deadline = tokio::time::Instant::now() + STOP_LIMIT;
        for handle in handles {
            let abort = handle.abort_handle();
            if tokio::time::timeout_at(deadline, handle).await.is_err() {
                tracing::warn!("aborted a background task that did not stop in time");
                abort.abort();
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

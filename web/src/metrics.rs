//! `/metrics`: this server's own counters in the OpenMetrics text format. Guarantee: labels are bounded (an
//! address counts under the route that answered it, never under its own text).

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::header;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{Web, error::ApiError};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    endpoint: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

type Durations = Family<Endpoint, Histogram, fn() -> Histogram>;

/// What the web service counts about itself.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    registry: Registry,
    requests: Family<Asked, Counter>,
    durations: Durations,
    running: Gauge,
    abandoned: Counter,
    refused: Family<Refused, Counter>,
}

/// A question under way; one that is dropped without an answer was abandoned by whoever asked it.
pub(crate) struct Running {
    running: Gauge,
    abandoned: Option<Counter>,
}

impl Running {
    /// There is an answer, or a refusal.
    pub(crate) fn answered(mut self) {
        self.abandoned = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.dec();
        if let Some(abandoned) = &self.abandoned {
            abandoned.inc();
        }
    }
}

/// 1 ms to about 65 s.
fn duration_buckets() -> Histogram {
    Histogram::new((0..9).map(|power| 0.001 * 4f64.powi(power)))
}

impl HttpMetrics {
    pub(crate) fn new() -> HttpMetrics {
        let requests = Family::<Asked, Counter>::default();
        let durations = Durations::new_with_constructor(duration_buckets);
        let mut registry = Registry::with_prefix("emberline_web");
        registry.register(
            "requests",
            "Requests answered, by endpoint and status",
            requests.clone(),
        );
        registry.register(
            "request_seconds",
            "Time until the head of the answer was ready",
            durations.clone(),
        );
        let running = Gauge::default();
        registry.register("questions_running", "Questions of the API under way", running.clone());
        let abandoned = Counter::default();
        registry.register(
            "questions_abandoned",
            "Questions whose asker left before the answer",
            abandoned.clone(),
        );
        let refused = Family::<Refused, Counter>::default();
        registry.register(
            "questions_refused",
            "Questions refused because of others, by reason: all places taken, the asker's places taken, no turn, answers not taken, memory held by others, larger than an answer may be",
            refused.clone(),
        );
        HttpMetrics {
            registry,
            requests,
            durations,
            running,
            abandoned,
            refused,
        }
    }

    /// Counts a question that is refused because of others.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// Counts a question until it is answered or dropped.
    pub(crate) fn begin(&self) -> Running {
        self.running.inc();
        Running {
            running: self.running.clone(),
            abandoned: Some(self.abandoned.clone()),
        }
    }
}

/// Counts one request.
pub(crate) async fn count(State(web): State<Web>, request: Request, next: Next) -> Response {
    let endpoint = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("ui", MatchedPath::as_str)
        .to_owned();
    let started = Instant::now();
    let response = next.run(request).await;
    web.http
        .durations
        .get_or_create(&Endpoint {
            endpoint: endpoint.clone(),
        })
        .observe(started.elapsed().as_secs_f64());
    web.http
        .requests
        .get_or_create(&Asked {
            endpoint,
            status: response.status().as_u16(),
        })
        .inc();
    response
}

/// The store's counters, read when asked.
#[derive(Debug)]
struct StoreMetrics(emberline_storage::StoreStats);

impl prometheus_client::collector::Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let stats = &self.0;
        let gauges = [
            ("journal_bytes", "Bytes of all journal segments", stats.journal_bytes),
            ("journal_segments", "Journal segments", stats.journal_segments),
            ("hot_bytes", "Bytes of the query engine's files", stats.hot_bytes),
            (
                "free_bytes",
                "Bytes free on the disk of the data directory",
                stats.free_bytes,
            ),
            (
                "queued_bytes",
                "Bytes of batches that wait for the journal",
                stats.queued_bytes,
            ),
            ("lsn_durable", "Number of the last batch on disk", stats.lsn_durable),
            (
                "lsn_applied",
                "Number of the last batch visible to questions",
                stats.lsn_applied,
            ),
            ("hours", "Hours held", stats.hours),
            (
                "deletion_files_left",
                "Sealed files that still hold something of a deleted service",
                stats.deletion_files_left,
            ),
            (
                "queries_running",
                "Questions under way in the query engine",
                stats.queries_running,
            ),
            (
                "available",
                "1 while the query engine is open",
                u64::from(stats.hot_available),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(
                &format!("emberline_store_{name}"),
                help,
                None,
                gauge.metric_type(),
            )?)?;
        }
        let counters = [
            ("batches_stored", "Batches stored", stats.batches_stored),
            (
                "batches_duplicate",
                "Batches that had been stored before",
                stats.duplicates,
            ),
            (
                "batches_skipped",
                "Batches that could not be made visible",
                stats.batches_skipped,
            ),
            (
                "journal_groups",
                "Groups written with one sync each",
                stats.journal_groups,
            ),
            (
                "journal_sync_failures",
                "Writes or syncs of the journal that failed",
                stats.journal_sync_failures,
            ),
            (
                "journal_records_lost",
                "Batches known to be lost to damage",
                stats.journal_records_lost,
            ),
            (
                "hot_rebuilds",
                "Times the query engine was rebuilt from the journal",
                stats.hot_rebuilds,
            ),
            (
                "hot_failures",
                "Transactions of the query engine that failed",
                stats.hot_failures,
            ),
            ("sample_rows", "Sample rows made visible", stats.sample_rows),
            ("services_deleted", "Services deleted by name", stats.services_deleted),
            (
                "deletion_failures",
                "Deletions of services that failed and are tried again",
                stats.deletion_failures,
            ),
            ("request_rows", "Request rows made visible", stats.request_rows),
            ("window_rows", "Window rows made visible", stats.window_rows),
            (
                "id_collisions",
                "Contents whose identifier another one had, kept apart from it",
                stats.id_collisions,
            ),
            ("queries", "Questions asked", stats.queries),
            (
                "query_timeouts",
                "Questions interrupted because they took too long",
                stats.query_timeouts,
            ),
            (
                "query_failures",
                "Questions that failed otherwise",
                stats.query_failures,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                &format!("emberline_store_{name}"),
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let mut rejected = encoder.encode_descriptor(
            "emberline_store_batches_rejected",
            "Batches refused, by reason",
            None,
            MetricType::Counter,
        )?;
        for (&reason, &count) in &stats.rejected {
            ConstCounter::new(count).encode(rejected.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

/// `/metrics`.
pub(crate) async fn page(State(web): State<Web>) -> Result<Response, ApiError> {
    let mut page = String::new();
    let mut store = Registry::default();
    store.register_collector(Box::new(StoreMetrics(web.store.stats())));
    let registries = [&web.http.registry, &store]
        .into_iter()
        .chain(web.registries.iter().map(|r| &**r));
    for registry in registries {
        text::encode_registry(&mut page, registry).map_err(|_| ApiError::internal("the counters cannot be written"))?;
    }
    text::encode_eof(&mut page).map_err(|_| ApiError::internal("the counters cannot be written"))?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        page,
    )
        .into_response())
}

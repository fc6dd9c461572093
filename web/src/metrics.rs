//! `/metrics`: this server's own counters in the OpenMetrics text format. Guarantee: labels are bounded (an
//! address counts under the route that answered it, never under its own text).

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use emberline_model::metric as model;
use emberline_storage::StoreStats;
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
    registry::{Registry, Unit},
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
        // There from the start, so that the first one is seen as growth.
        for reason in ["all", "asker", "turn", "readers"] {
            drop(refused.get_or_create(&Refused { reason }));
        }
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
struct StoreMetrics(StoreStats);

impl prometheus_client::collector::Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for metric in StoreStats::METRICS {
            let (stem, unit) = metric.stem();
            let unit = unit.map(|unit| match unit {
                model::Unit::Bytes => Unit::Bytes,
                model::Unit::Seconds => Unit::Seconds,
                model::Unit::Count => Unit::Other(String::new()),
            });
            let value = self.0.value(metric);
            let gauge = ConstGauge::new(value as f64);
            let counter = ConstCounter::new(value);
            let kind = match metric.kind {
                model::Kind::Counter => MetricType::Counter,
                model::Kind::Gauge | model::Kind::Histogram => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(stem, metric.help, unit.as_ref(), kind)?;
            match kind {
                MetricType::Counter if metric.name == StoreStats::REJECTED.name => {
                    for (&reason, &count) in &self.0.rejected {
                        ConstCounter::new(count).encode(encoder.encode_family(&[("reason", reason)])?)?;
                    }
                }
                MetricType::Counter => counter.encode(encoder)?,
                _ => gauge.encode(encoder)?,
            }
        }
        Ok(())
    }
}

/// When this process began, under the name that all programs use: what is counted at a start was there before anybody
/// looked, so that alert rules need to know how long ago that was.
#[derive(Debug)]
struct Started(i64);

impl prometheus_client::collector::Collector for Started {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let gauge = ConstGauge::new(self.0 as f64 / 1_000.0);
        gauge.encode(encoder.encode_descriptor(
            "process_start_time",
            "Start of the process, seconds since the Unix epoch",
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?)
    }
}

/// `/metrics`.
pub(crate) async fn page(State(web): State<Web>) -> Result<Response, ApiError> {
    let mut page = String::new();
    let mut store = Registry::default();
    store.register_collector(Box::new(StoreMetrics(web.store.stats())));
    store.register_collector(Box::new(Started(web.started_ms)));
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

//! The web service's own metrics. Guarantee: labels are bounded (a URL counts under the route that answered it, never
//! under its own text).

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

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

/// The web service's own metrics.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    /// All of them.
    pub(crate) registry: Registry,
    requests: Family<Asked, Counter>,
    durations: Durations,
    running: Gauge,
    abandoned: Counter,
    refused: Family<Refused, Counter>,
}

/// A query in progress; one that is dropped without a response was abandoned by its client.
pub(crate) struct Running {
    running: Gauge,
    abandoned: Option<Counter>,
}

impl Running {
    /// There is a response, or a refusal.
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
            "Time until the response head was ready",
            durations.clone(),
        );
        let running = Gauge::default();
        registry.register("questions_running", "API queries in progress", running.clone());
        let abandoned = Counter::default();
        registry.register(
            "questions_abandoned",
            "API queries abandoned by the client",
            abandoned.clone(),
        );
        let refused = Family::<Refused, Counter>::default();
        // Present from the start, so that the first one is seen as an increase.
        for reason in ["all", "asker", "turn", "readers"] {
            drop(refused.get_or_create(&Refused { reason }));
        }
        registry.register(
            "questions_refused",
            "API queries refused because of load, by reason: concurrency limit, per-address limit, queue timeout, unread responses, memory in use by others, response too large",
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

    /// Counts a query refused because of others.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// Counts a query until it is answered or dropped.
    pub(crate) fn begin(&self) -> Running {
        self.running.inc();
        Running {
            running: self.running.clone(),
            abandoned: Some(self.abandoned.clone()),
        }
    }
}

/// Counts one request.
pub(crate) async fn count(State(metrics): State<Arc<HttpMetrics>>, request: Request, next: Next) -> Response {
    let endpoint = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("ui", MatchedPath::as_str)
        .to_owned();
    let started = Instant::now();
    let response = next.run(request).await;
    metrics
        .durations
        .get_or_create(&Endpoint {
            endpoint: endpoint.clone(),
        })
        .observe(started.elapsed().as_secs_f64());
    metrics
        .requests
        .get_or_create(&Asked {
            endpoint,
            status: response.status().as_u16(),
        })
        .inc();
    response
}

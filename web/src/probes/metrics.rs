//! `/metrics`: this server's own counters in the OpenMetrics text format.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use emberline_model::metric as model;
use emberline_storage::StoreStats;
use http::header;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{http::error::ApiError, state::Web};

/// The store's counters, read on demand.
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

/// The start of this process, under the conventional name: what is counted at a start precedes the first scrape, so
/// alert rules need to know how long ago that was.
#[derive(Debug)]
struct Started(i64);

impl prometheus_client::collector::Collector for Started {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let gauge = ConstGauge::new(self.0 as f64 / 1_000.0);
        gauge.encode(encoder.encode_descriptor(
            "process_start_time",
            "Start time of the process, in Unix seconds",
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
    let registries = [&web.http_metrics.registry, &store]
        .into_iter()
        .chain(web.registries.iter().map(|r| &**r));
    for registry in registries {
        text::encode_registry(&mut page, registry).map_err(|_| ApiError::internal("cannot encode the metrics"))?;
    }
    text::encode_eof(&mut page).map_err(|_| ApiError::internal("cannot encode the metrics"))?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        page,
    )
        .into_response())
}

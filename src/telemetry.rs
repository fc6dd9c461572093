//! The server's own logs and traces: `tracing` to standard error, and spans as OTLP when an endpoint is given.

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Ships the last spans when dropped.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

/// Sets up logging, and tracing if an endpoint is given. Must be called inside a tokio runtime.
pub(crate) fn start(filter: &str, traces_endpoint: Option<&str>) -> Result<Telemetry> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("`--log {filter}` is not a filter: write for example `info` or `warn,emberline=debug`")
    })?;
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let provider = match traces_endpoint {
        None => None,
        Some(endpoint) => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build();
            let exporter = exporter.with_context(|| format!("`--traces-endpoint {endpoint}` cannot be used"))?;
            let resource = Resource::builder().with_service_name("emberline").build();
            Some(
                SdkTracerProvider::builder()
                    .with_batch_exporter(exporter)
                    .with_resource(resource)
                    .build(),
            )
        }
    };
    let spans = provider
        .as_ref()
        .map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer("emberline")));
    tracing_subscriber::registry()
        .with(filter)
        .with(logs)
        .with(spans)
        .try_init()
        .context("logging is set up twice")?;
    Ok(Telemetry(provider))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown()
        {
            eprintln!("emberline: the last traces could not be sent: {error}");
        }
    }
}

//! The server's own logs and traces: `tracing` to standard error, and spans as OTLP if an endpoint is given.

use std::time::Duration;

use anyhow::{Context, Result};
use emberline_client::{Address, Connector, Speaks, Tls};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Ships the last spans when dropped.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

/// Longest call that exports spans.
const TRACES_TIMEOUT: Duration = Duration::from_secs(10);

/// A lazily opened gRPC connection; with TLS, the system's roots are used.
fn channel(endpoint: &str) -> Result<Channel> {
    let address = Address::parse(endpoint)?;
    let connector = Connector::new(&Tls::default(), Speaks::Http2)?;
    let endpoint = Endpoint::from_shared(endpoint.to_owned())?.timeout(TRACES_TIMEOUT);
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move { connector.connect(&address).await.map(TokioIo::new) }
    })))
}

/// Sets up logging, and tracing if an endpoint is given. Must be called inside a tokio runtime.
pub(crate) fn start(filter: &str, traces_endpoint: Option<&str>) -> Result<Telemetry> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("`--log {filter}` is not a valid filter: use, for example, `info` or `warn,emberline=debug`")
    })?;
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let provider = match traces_endpoint {
        None => None,
        Some(endpoint) => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_timeout(TRACES_TIMEOUT)
                .with_channel(channel(endpoint).context("cannot use `--traces-endpoint`")?)
                .build();
            let exporter = exporter.context("cannot use `--traces-endpoint`")?;
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
            eprintln!("emberline: cannot send the last traces: {error}");
        }
    }
}

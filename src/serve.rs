//! `emberline serve`: ingest, storage, verdicts and pages in one process.
//!
//! Order matters at both ends: all ports are bound before the store is opened, so that a wrong setting is said at
//! once; at the end ingest stops first, then the tasks, then the store is closed with everything acknowledged in it.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use emberline_collector::{Collector, CollectorConfig, IngestLimits, VerdictConfig, scrape};
use emberline_model::{
    function::OwnCode,
    time::{Clock, SystemClock},
};
use emberline_proxy::{machine, stop_requested};
use emberline_storage::{Options, Store};
use emberline_web::{AllowedHosts, WebState, protect};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    budget::Budget,
    cli::ServeArgs,
    doors::{Doors, Speaks},
    telemetry,
};

/// How long open connections may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections that the kernel keeps while none is accepted.
const BACKLOG: u32 = 4096;

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(args));
    // A question may still be running on a blocking thread; nobody waits for its answer any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| ExitCode::SUCCESS)
}

fn bind(address: SocketAddr, option: &str) -> Result<TcpListener> {
    let listener = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart does not wait for connections of the last run to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = listener().with_context(|| {
        format!("cannot listen on {address}: stop what uses it, or choose another address with {option}")
    })?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            "{address} can be reached from other machines and asks nobody who they are: let only those reach it who may read and write everything, or listen on 127.0.0.1 ({option}) behind a proxy that checks"
        );
    }
    Ok(listener)
}

async fn serve(args: ServeArgs) -> Result<()> {
    let _telemetry = telemetry::start(&args.log, args.traces_endpoint.as_deref())?;
    let scrape = args.scrape_config.as_deref().map(scrape::load).transpose()?;
    let budget = Budget::of(machine::memory_limit_bytes(), machine::raise_descriptors());
    let hosts = AllowedHosts::new(
        args.allowed_hosts.iter().map(String::as_str),
        args.external_url.as_deref(),
    );
    let hosts = hosts.map_err(|name| {
        anyhow::anyhow!("--allowed-host (EMBERLINE_ALLOWED_HOST): `{name}` is no name of a host: write it as in `emberline.example.com`")
    })?;
    let hosts = Arc::new(hosts);
    let web_listener = bind(args.listen, "--listen")?;
    let grpc_listener = bind(args.otlp_grpc, "--otlp-grpc")?;
    let http_listener = bind(args.otlp_http, "--otlp-http")?;
    let web_address = web_listener.local_addr()?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let retention = Duration::from_secs(args.retention_hours.saturating_mul(3600));
    let options = Options {
        memory_limit_mb: args.memory_limit_mb,
        duckdb_threads: args.query_threads,
        retention,
        rollup_retention: Duration::from_secs(args.rollup_retention_days.saturating_mul(24 * 3600)),
        samples_limit_mb: args.samples_limit_mb,
        rollup_limit_mb: args.rollup_limit_mb,
        ..Options::new(&args.data_dir)
    };
    // Opening may replay a journal, which takes a while and must not hold up the runtime.
    let store = {
        let clock = Arc::clone(&clock);
        tokio::task::spawn_blocking(move || Store::open(options, clock)).await??
    };
    let own_code = OwnCode::parse(args.own_code.iter().map(String::as_str))
        .map_err(|error| anyhow::anyhow!("--own-code (EMBERLINE_OWN_CODE): {error}"))?;
    let config = CollectorConfig {
        limits: IngestLimits {
            retention,
            ..IngestLimits::default()
        },
        max_request_bytes: args.max_request_mb << 20,
        debuginfo_max_bytes: args.max_debug_file_mb << 20,
        debuginfo_unpacked_max_bytes: args.max_unpacked_debug_mb << 20,
        symbol_reader: Some(vec!["/proc/self/exe".into(), "read-symbols".into()]),
        symbol_memory_bytes: args.symbol_memory_mb << 20,
        symbol_seconds: args.symbol_seconds,
        external_url: args
            .external_url
            .clone()
            .unwrap_or_else(|| format!("http://{web_address}")),
        alertmanager_urls: args.alertmanagers.clone(),
        webhook_urls: args.webhooks.clone(),
        scrape,
        verdict: VerdictConfig {
            own_code: own_code.clone(),
            ..VerdictConfig::with_warm_up(Duration::from_secs(args.warm_up_seconds))
        },
        ..CollectorConfig::new(&args.data_dir)
    };
    let collector = Collector::new(config, store.clone(), Arc::clone(&clock))?;
    let mut registry = Registry::default();
    collector.register(&mut registry);
    let doors = Doors::new(budget);
    doors.register(&mut registry);
    let mut state = WebState::new(store.clone(), collector.alerts(), clock);
    state.version = env!("CARGO_PKG_VERSION").to_owned();
    state.own_code = Arc::new(own_code);
    state.ui_dir = args.ui_dir.clone();
    state.registries = vec![Arc::new(registry)];
    state.ingest_status = collector.status_probe();
    state.losses = collector.losses_probe();
    state.allow_delete = args.allow_delete;
    state.allowed_hosts = Arc::clone(&hosts);
    state.max_answer_bytes = budget.answer_bytes;
    state.connection_status = {
        let doors = Arc::clone(&doors);
        Arc::new(move || doors.status())
    };
    let tasks = collector.spawn_tasks();

    // Browsers do not speak HTTP/2 without TLS, so no page reaches the port of gRPC.
    let grpc = collector.grpc_router().prepare().into_axum_router();
    doors.open("otlp_grpc", grpc_listener, Speaks::Http2, grpc);
    let http = protect(collector.http_router(), hosts);
    doors.open("otlp_http", http_listener, Speaks::Http, http);
    doors.open("web", web_listener, Speaks::Http, emberline_web::router(state));
    tracing::info!("{}", budget.in_words());
    tracing::info!(
        "ready: pages and API on http://{web_address}, OTLP on {} (gRPC) and {} (HTTP), data in {}",
        args.otlp_grpc,
        args.otlp_http,
        args.data_dir.display()
    );

    stop_requested(args.exit_on_stdin_close).await;
    tracing::info!("stopping");
    if !doors.close(DRAIN).await {
        tracing::warn!("some connections did not finish within {DRAIN:?} and are cut");
    }
    tasks.shutdown().await;
    // Writing the last of it to disk blocks.
    tokio::task::spawn_blocking(move || store.close()).await?;
    Ok(())
}

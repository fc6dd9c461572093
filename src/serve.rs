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
use emberline_proxy::stop_requested;
use emberline_storage::{Options, Store};
use emberline_web::WebState;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;

use crate::{cli::ServeArgs, telemetry};

/// How long open connections may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);

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

async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what uses it, or choose another address with {option}")
    })
}

async fn serve(args: ServeArgs) -> Result<()> {
    let _telemetry = telemetry::start(&args.log, args.traces_endpoint.as_deref())?;
    let scrape = args.scrape_config.as_deref().map(scrape::load).transpose()?;
    let web_listener = bind(args.listen, "--listen").await?;
    let grpc_listener = bind(args.otlp_grpc, "--otlp-grpc").await?;
    let http_listener = bind(args.otlp_http, "--otlp-http").await?;
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
    let mut state = WebState::new(store.clone(), collector.alerts(), clock);
    state.version = env!("CARGO_PKG_VERSION").to_owned();
    state.own_code = Arc::new(own_code);
    state.ui_dir = args.ui_dir.clone();
    state.registries = vec![Arc::new(registry)];
    state.ingest_status = collector.status_probe();
    let tasks = collector.spawn_tasks();

    let (stop, stopping) = watch::channel(false);
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        // The sender lives until the end; if it did not, stopping would be right too.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let mut servers: JoinSet<Result<()>> = JoinSet::new();
    let mut grpc = tonic::transport::Server::builder().http2_keepalive_interval(Some(Duration::from_secs(30)));
    let grpc = grpc.add_routes(collector.grpc_router());
    let grpc = grpc.serve_with_incoming_shutdown(TcpListenerStream::new(grpc_listener), stopped(stopping.clone()));
    servers.spawn(async { grpc.await.context("OTLP over gRPC ended") });
    let http_service = collector
        .http_router()
        .into_make_service_with_connect_info::<SocketAddr>();
    let http = axum::serve(http_listener, http_service).with_graceful_shutdown(stopped(stopping.clone()));
    servers.spawn(async { http.await.context("OTLP over HTTP ended") });
    let web = axum::serve(web_listener, emberline_web::router(state)).with_graceful_shutdown(stopped(stopping));
    servers.spawn(async { web.await.context("the web service ended") });
    tracing::info!(
        "ready: pages and API on http://{web_address}, OTLP on {} (gRPC) and {} (HTTP), data in {}",
        args.otlp_grpc,
        args.otlp_http,
        args.data_dir.display()
    );

    let ended_early = tokio::select! {
        () = stop_requested(args.exit_on_stdin_close) => None,
        ended = servers.join_next() => ended,
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    let drained = tokio::time::timeout(DRAIN, async { while servers.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some connections did not finish within {DRAIN:?} and are cut");
        servers.shutdown().await;
    }
    tasks.shutdown().await;
    // Writing the last of it to disk blocks.
    tokio::task::spawn_blocking(move || store.close()).await?;
    match ended_early {
        Some(Ok(result)) => result,
        Some(Err(panicked)) => Err(panicked.into()),
        None => Ok(()),
    }
}

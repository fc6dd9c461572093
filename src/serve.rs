//! `emberline serve`: ingest, storage, verdicts and pages in one process.
//!
//! Order matters at both ends: all ports are bound before the store is opened, so that an invalid setting is reported
//! at once; at the end ingest stops first, then the tasks, then the store is closed with everything acknowledged in it.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use emberline_collector::Collector;
use emberline_model::time::{Clock, SystemClock};
use emberline_proxy::{machine, stop_requested};
use emberline_storage::Store;
use emberline_web::{AllowedHosts, WebState, protect};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    budget::Budget,
    cli::ServeArgs,
    config,
    doors::{Doors, Speaks},
    memory, telemetry,
};

/// How long open connections may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections that the kernel queues while none is accepted.
const BACKLOG: u32 = 4096;

pub(crate) fn run(args: ServeArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(args));
    // A query may still be running on a blocking thread; nobody waits for its response any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map(|()| ExitCode::SUCCESS)
}

fn bind(address: SocketAddr, option: &str) -> Result<TcpListener> {
    let listener = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart does not wait for connections of the previous run to expire.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = listener().with_context(|| {
        format!("cannot listen on {address}: stop the program that uses it, or choose another address with {option}")
    })?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            "{address} is reachable from other machines and has no authentication: restrict who can reach it, or listen on 127.0.0.1 ({option}) behind an authenticating proxy"
        );
    }
    Ok(listener)
}

async fn serve(args: ServeArgs) -> Result<()> {
    let loaded = args.settings.load()?;
    let settings = &loaded.settings;
    let _telemetry = telemetry::start(&settings.server.log, settings.server.traces_endpoint.as_deref())?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in config::unknown_variables(variables) {
        tracing::warn!("{warning}");
    }
    let budget = Budget::of(machine::memory_limit_bytes(), machine::raise_descriptors());
    let hosts = AllowedHosts::new(
        settings.web.allowed_hosts.iter().map(String::as_str),
        settings.web.external_url.as_deref(),
    );
    let hosts = hosts.map_err(|name| {
        anyhow::anyhow!("`allowed_hosts` (--allowed-host, EMBERLINE_ALLOWED_HOST): `{name}` is not a host name: use, for example, `emberline.example.com`")
    })?;
    let hosts = Arc::new(hosts);
    let (otlp_grpc, otlp_http) = (settings.ingest.otlp_grpc, settings.ingest.otlp_http);
    let web_listener = bind(settings.web.listen, "--listen")?;
    let grpc_listener = bind(otlp_grpc, "--otlp-grpc")?;
    let http_listener = bind(otlp_http, "--otlp-http")?;
    let web_address = web_listener.local_addr()?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = config::store_options(settings, &budget);
    // Opening may replay a journal, which takes time and must not block the runtime.
    let store = {
        let clock = Arc::clone(&clock);
        tokio::task::spawn_blocking(move || Store::open(options, clock)).await??
    };
    memory::watch(store.pressure().clone(), budget.memory_bytes)?;
    let config = config::collector_config(&loaded, &budget, &web_address.to_string());
    let collector = Collector::new(config, store.clone(), Arc::clone(&clock))?;
    let mut registry = Registry::default();
    collector.register(&mut registry);
    let doors = Doors::new(budget);
    doors.register(&mut registry);
    let mut state = WebState::new(store.clone(), collector.alerts(), clock);
    state.version = env!("CARGO_PKG_VERSION").to_owned();
    state.own_code = Arc::new(settings.web.own_code.clone());
    state.ui_dir = settings.web.ui_dir.clone();
    state.max_questions = usize::try_from(settings.web.max_questions)?;
    state.max_request_seconds = settings.web.max_request_seconds;
    state.registries = vec![Arc::new(registry)];
    state.ingest_status = collector.status_probe();
    state.losses = collector.losses_probe();
    state.allow_delete = settings.web.allow_delete;
    state.allowed_hosts = Arc::clone(&hosts);
    state.max_answer_bytes = settings.web.max_answer_bytes.unwrap_or(budget.answer_bytes);
    state.answer_memory_bytes = budget.answer_memory_bytes;
    state.connection_status = {
        let doors = Arc::clone(&doors);
        Arc::new(move || doors.status())
    };
    let tasks = collector.spawn_tasks();

    // Browsers do not speak HTTP/2 without TLS, so no page can reach the gRPC port.
    let grpc = collector.grpc_router().prepare().into_axum_router();
    doors.open("otlp_grpc", grpc_listener, Speaks::Http2, grpc);
    let http = protect(collector.http_router(), hosts);
    doors.open("otlp_http", http_listener, Speaks::Http, http);
    doors.open("web", web_listener, Speaks::Http, emberline_web::router(state));
    tracing::info!("{}", budget.in_words());
    tracing::info!(
        "ready: UI and API on http://{web_address}, OTLP on {} (gRPC) and {} (HTTP), data in {}",
        otlp_grpc,
        otlp_http,
        settings.server.data_dir.display()
    );

    stop_requested(args.exit_on_stdin_close).await;
    tracing::info!("stopping");
    if !doors.close(DRAIN).await {
        tracing::warn!("closed connections that did not finish within {DRAIN:?}");
    }
    tasks.shutdown().await;
    // Writing the last data to disk blocks.
    tokio::task::spawn_blocking(move || store.close()).await?;
    Ok(())
}

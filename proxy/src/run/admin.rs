//! The admin port: `/live`, `/ready`, `/metrics`, `/config`, `/profile`. It has its own thread, which also watches the
//! configuration file and the certificates, and resolves names.
//!
//! Guarantees: responses come from memory and never wait for the data path. There are [`MAX_CONNECTIONS`] slots; when
//! they are taken the oldest connection is closed, so that a probe, which sends its request at once, is answered
//! whoever holds the others. A connection is for one request and ends after [`LIFE`] in any case. The long pages are
//! served to [`MAX_PAGES`] callers at once, since each holds its page until it is read; `/live` and `/ready` have no
//! such limit. `/ready` returns 503 from the moment a stop begins, so that load balancers go elsewhere while requests
//! in flight end.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::TcpListener as StdTcpListener,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;
use emberline_model::{Frame, Location, Profile, pprof};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{NOTICE, Shared};
use crate::{
    cluster::{ToCheck, run_checks},
    listener::{SETTLE, begin_no_more},
    resolve::Lookups,
};

/// Concurrent connections.
const MAX_CONNECTIONS: usize = 32;
/// Long pages served at once.
const MAX_PAGES: usize = 4;
/// Time to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Time for everything.
const LIFE: Duration = Duration::from_secs(30);
/// The most that the library may read of a head.
const HEAD_BYTES: usize = 16 << 10;

/// Starts the thread.
pub(super) fn start(
    socket: StdTcpListener,
    shared: Arc<Shared>,
    (lookups, to_check): (Lookups, ToCheck),
    (leaves, ends): (watch::Receiver<bool>, watch::Receiver<bool>),
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("emberline-admin".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let listener = match TcpListener::from_std(socket) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "cannot listen on the admin port"),
                };
                let mut ends = ends;
                tokio::select! {
                    () = accept(listener, Arc::clone(&shared), leaves) => {}
                    () = watch_file(&shared) => {}
                    () = watch_certificates(&shared) => {}
                    () = lookups.run() => {}
                    () = run_checks(to_check) => {}
                    // An error means that the proxy is gone.
                    _ = ends.wait_for(|end| *end) => {}
                }
            });
            // The C library's resolver cannot be interrupted, and nobody waits for its result any more.
            runtime.shutdown_background();
        })
}

/// Applies changes of the configuration file within about a second.
async fn watch_file(shared: &Shared) {
    let mut seen = shared.reloader.stamp();
    if seen.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(NOTICE).await;
        let now = shared.reloader.stamp();
        if now != seen {
            seen = now;
            shared.reloader.reload(&shared.reporting);
        }
    }
}

/// Rereads changed certificates within about a second.
async fn watch_certificates(shared: &Shared) {
    loop {
        tokio::time::sleep(NOTICE).await;
        shared.reloader.refresh_certificates();
    }
}

/// Accepts until another process takes the port over; what is open then goes on.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut leaves: watch::Receiver<bool>) {
    let mut closes_at: Option<Instant> = None;
    let pages = Arc::new(Semaphore::new(MAX_PAGES));
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that the proxy is gone, and this thread about to end.
            _ = leaves.wait_for(|leaves| *leaves), if closes_at.is_none() => {
                begin_no_more(&listener);
                closes_at = Some(Instant::now() + SETTLE);
                continue;
            }
            () = sleep_until(closes_at.unwrap_or_else(Instant::now)), if closes_at.is_some() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of file descriptors, most likely: the data path reports it.
                tokio::time::sleep(NOTICE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        while open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let (shared, pages) = (Arc::clone(&shared), Arc::clone(&pages));
        open.push_back(tokio::spawn(async move {
            // Released with the connection, when the page has been read or never will be.
            let page: Mutex<Option<OwnedSemaphorePermit>> = Mutex::default();
            let service = service_fn(|request| {
                let is_short = matches!(request.uri().path(), "/live" | "/ready");
                let permit = if is_short {
                    None
                } else {
                    Arc::clone(&pages).try_acquire_owned().ok()
                };
                let response = if is_short || permit.is_some() {
                    answer(&shared, &request)
                } else {
                    plain(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "too many concurrent requests for pages: try again\n",
                    )
                };
                *page.lock() = permit;
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .keep_alive(false)
                .max_header_size(HEAD_BYTES)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            // A caller that leaves early, or does not read, hurts only itself.
            let _ = tokio::time::timeout(LIFE, served).await;
        }));
    }
    drop(listener);
    std::future::pending::<()>().await;
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported\n");
    }
    match request.uri().path() {
        "/live" => plain(StatusCode::OK, "live\n"),
        "/ready" if shared.is_ready.load(Ordering::Acquire) => plain(StatusCode::OK, "ready\n"),
        "/ready" => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping: draining requests in flight\n",
        ),
        "/metrics" => respond(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            format!("{}{}", about(shared), shared.reporting.metrics()),
        ),
        "/config" => match serde_json::to_string_pretty(&shared.reloader.status()) {
            Ok(json) => respond(StatusCode::OK, "application/json", json + "\n"),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/profile" => match shared.reporting.profile() {
            Some(profile) => respond(StatusCode::OK, "application/octet-stream", pprof_of(&profile)),
            None => plain(
                StatusCode::NOT_FOUND,
                "no profile: the profiler is off, or its first window has not ended\n",
            ),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "not found: use /live, /ready, /metrics, /config or /profile\n",
        ),
    }
}

/// What the process reports about itself.
fn about(shared: &Shared) -> String {
    format!(
        "# HELP emberline_proxy_build Version of the proxy.\n# TYPE emberline_proxy_build info\n\
         emberline_proxy_build_info{{version=\"{}\"}} 1\n\
         # HELP emberline_proxy_uptime_seconds Time since start-up.\n# TYPE emberline_proxy_uptime_seconds gauge\n\
         # UNIT emberline_proxy_uptime_seconds seconds\nemberline_proxy_uptime_seconds {:.3}\n",
        env!("CARGO_PKG_VERSION"),
        shared.started.elapsed().as_secs_f64()
    )
}

/// The profile as a gzipped pprof file. Symbolisation is up to the collector: frames are `module+0xoffset`.
fn pprof_of(profile: &Profile) -> Vec<u8> {
    let mut named = profile.clone();
    for location in &mut named.locations {
        let Location::Native { mapping, offset } = location else {
            continue;
        };
        let path = profile
            .mappings
            .get(*mapping as usize)
            .map_or("", |mapping| mapping.path.as_str());
        let module = path.rsplit('/').next().unwrap_or_default();
        let frame = Frame {
            function: format!("{module}+{offset:#x}"),
            file: path.to_owned(),
            line: 0,
        };
        *location = Location::Named { frames: vec![frame] };
    }
    let resolved = pprof::resolve_named(&named);
    let rows: Vec<(u64, [i64; 2])> = named
        .samples
        .iter()
        .map(|sample| (u64::from(sample.stack), [sample.value, 0]))
        .collect();
    let meta = pprof::PprofMeta {
        profile_type: named.profile_type.clone(),
        time_ns: named.start_unix_ns,
        duration_ns: named.duration_ns,
        period: named.period,
    };
    pprof::write(&meta, &resolved, &rows, false)
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

//! The admin port: `/live`, `/ready`, `/metrics`, `/config`, `/profile`. On a thread of its own, which also watches the
//! configuration file.
//!
//! Guarantees: answers come from memory and never wait for the data path; at most [`MAX_CONNECTIONS`] callers at once.
//! `/ready` is 503 from the moment a stop begins, so that load balancers look elsewhere while requests in flight end.

use std::{
    convert::Infallible,
    io,
    net::TcpListener as StdTcpListener,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use emberline_model::{Frame, Location, Profile, pprof};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use super::{NOTICE, Shared};

/// Callers served at once; further ones wait.
const MAX_CONNECTIONS: usize = 64;
/// To send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Starts the thread.
pub(super) fn start(
    socket: StdTcpListener,
    shared: Arc<Shared>,
    ends: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("emberline-admin".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let listener = match TcpListener::from_std(socket) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "the admin port cannot be used"),
                };
                let mut ends = ends;
                tokio::select! {
                    () = accept(listener, Arc::clone(&shared)) => {}
                    () = watch_file(&shared) => {}
                    // An error means that the proxy is gone.
                    _ = ends.wait_for(|end| *end) => {}
                }
            });
        })
}

/// Takes over changes of the configuration file within about a second.
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

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of file descriptors, most likely: the data path says so.
                tokio::time::sleep(NOTICE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            // A caller that leaves early is its own loss.
            let _ = served;
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    match request.uri().path() {
        "/live" => plain(StatusCode::OK, "live\n"),
        "/ready" if shared.is_ready.load(Ordering::Acquire) => plain(StatusCode::OK, "ready\n"),
        "/ready" => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping: requests in flight are ending\n",
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
            "there are /live, /ready, /metrics, /config and /profile\n",
        ),
    }
}

/// What the process says of itself.
fn about(shared: &Shared) -> String {
    format!(
        "# HELP emberline_proxy_build The version of this program.\n# TYPE emberline_proxy_build info\n\
         emberline_proxy_build_info{{version=\"{}\"}} 1\n\
         # HELP emberline_proxy_uptime_seconds Time since the start.\n# TYPE emberline_proxy_uptime_seconds gauge\n\
         # UNIT emberline_proxy_uptime_seconds seconds\nemberline_proxy_uptime_seconds {:.3}\n",
        env!("CARGO_PKG_VERSION"),
        shared.started.elapsed().as_secs_f64()
    )
}

/// The profile as a gzipped pprof file. Symbols are the collector's work: frames are `module+0xoffset`.
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

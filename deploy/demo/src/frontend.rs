//! The shop's front door: an ordinary program that knows nothing about the mesh. Its proxy handles traffic in both
//! directions.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use emberline_proxy::stop_requested;
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::net::TcpListener;

/// Route templates of the frontend; each corresponds to the checkout route of the same form.
pub const ROUTES: [&str; 4] = crate::checkout::ROUTES;

struct Frontend {
    checkout: SocketAddr,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Serves on `listen`, calling checkout at `checkout`.
pub async fn run(listen: SocketAddr, checkout: SocketAddr, exit_on_stdin_close: bool) -> Result<()> {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build_http();
    let state = Arc::new(Frontend { checkout, client });
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route, get(pass_on));
    }
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}: is another program using it?"))?;
    let server = axum::serve(listener, router.with_state(state));
    server
        .with_graceful_shutdown(stop_requested(exit_on_stdin_close))
        .await?;
    Ok(())
}

async fn pass_on(State(frontend): State<Arc<Frontend>>, request: Request) -> Result<Response, (StatusCode, String)> {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let uri: Uri = format!("http://{}{path}", frontend.checkout)
        .parse()
        .map_err(|_| (StatusCode::BAD_REQUEST, "not a path".to_owned()))?;
    let mut onward = Request::new(Empty::new());
    *onward.uri_mut() = uri;
    copy_trace(request.headers(), onward.headers_mut());
    let failed = |error: hyper_util::client::legacy::Error| (StatusCode::BAD_GATEWAY, error.to_string());
    let response = frontend.client.request(onward).await.map_err(failed)?;
    Ok(response.map(axum::body::Body::new))
}

/// Headers that an application has to pass on to keep a trace connected.
fn copy_trace(from: &HeaderMap, to: &mut HeaderMap) {
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

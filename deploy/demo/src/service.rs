//! What all sample services have in common: identity, serving, and stopping when told.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::{Router, http::StatusCode};
use bytes::Bytes;
use clap::Args;
use emberline_model::Workload;
use emberline_proxy::{Client, Mesh, ProfilerOptions, stop_requested};
use http_body_util::BodyExt;
use tokio::net::TcpListener;

/// Arguments of a service that embeds the mesh library.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// Address to listen on.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The collector's OTLP address, for example `http://127.0.0.1:4317`.
    #[arg(long)]
    pub collector: String,
    /// Name of this instance.
    #[arg(long)]
    pub instance: String,
    /// Exit when standard input is closed, so that no service outlives its parent.
    #[arg(long)]
    pub exit_on_stdin_close: bool,
}

/// Starts the library for a service of the sample mesh.
pub fn mesh(service: &str, version: &str, routes: &[&str], args: &ServiceArgs) -> Result<Mesh> {
    let workload = Workload {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        version: version.to_owned(),
        instance: args.instance.clone(),
    };
    let builder = Mesh::builder(workload)
        .collector(&args.collector)
        .routes(routes.iter().copied());
    Ok(builder.profiler(ProfilerOptions::default()).start()?)
}

/// Serves until a signal (or the end of standard input), finishes what is in flight and ships the last window.
pub async fn serve(mesh: Mesh, router: Router, args: &ServiceArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: is another program using it?", args.listen))?;
    tokio::select! {
        result = mesh.serve(listener, router) => result?,
        () = stop_requested(args.exit_on_stdin_close) => {}
    }
    mesh.shutdown().await;
    Ok(())
}

/// Calls another service and reads its whole response; a failure becomes this request's 502.
pub async fn ask(client: &Client, path: &str) -> Result<Bytes, (StatusCode, String)> {
    let failed = |what: String| (StatusCode::BAD_GATEWAY, format!("{path}: {what}"));
    let response = client.get(path).await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| failed(error.to_string()))?
        .to_bytes();
    if status.is_success() {
        Ok(body)
    } else {
        Err(failed(format!("status {status}")))
    }
}

//! The mesh data path and its telemetry, as a library and a binary.
//!
//! As a process ([`Proxy`], `emberline-proxy --config FILE`) it runs next to a workload and forwards its requests, in
//! and out. As a library ([`Mesh`]) it does the same without the extra hop: a service serves and calls through it.
//!
//! ```no_run
//! use emberline_proxy::{Mesh, ProfilerOptions, Workload};
//!
//! # async fn price() -> String { String::new() }
//! # async fn example(stock: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::builder(Workload {
//!     namespace: "shop".into(),
//!     service: "checkout".into(),
//!     version: "v1".into(),
//!     instance: "checkout-1".into(),
//! })
//! .collector("http://127.0.0.1:4317")
//! .routes(["/checkout", "/quote/{id}"])
//! .profiler(ProfilerOptions::default())
//! .start()?;
//!
//! let inventory = mesh.client("inventory", ["/stock/{sku}"], [stock]);
//! let app = axum::Router::new().route(
//!     "/checkout",
//!     axum::routing::get(move || async move {
//!         let response = inventory.get("/stock/42").await.map_err(|e| e.to_string())?;
//!         Ok::<_, String>(format!("{}", response.status()))
//!     }),
//! );
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! tokio::select! {
//!     served = mesh.serve(listener, app) => served?,
//!     _ = tokio::signal::ctrl_c() => {}
//! }
//! mesh.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The path of a request
//!
//! `listener` accepts; `wire` detects the protocol and checks the framing; `server` runs the connection; `filter`
//! checks and changes heads (`identity`, `trace`); [`route`] names the path; `cluster` picks an endpoint and keeps its
//! connections; `record` ends it as one [`telemetry::RequestRecord`]; [`export`] ships the window.

mod access_log;
mod age;
pub(crate) mod body;
pub(crate) mod budget;
mod choose;
pub(crate) mod cluster;
pub mod config;
pub(crate) mod counters;
pub(crate) mod drain;
mod embed;
pub mod export;
pub(crate) mod filter;
pub(crate) mod forwarded;
mod grpc;
pub(crate) mod identity;
pub(crate) mod listener;
pub mod machine;
pub(crate) mod record;
mod reporting;
pub mod resolve;
pub mod route;
mod run;
pub(crate) mod server;
pub(crate) mod state;
mod stop;
pub mod telemetry;
pub(crate) mod tls;
pub(crate) mod trace;
#[doc(hidden)]
pub mod untrusted;
pub(crate) mod wire;

pub use body::{BoxError, RequestBody};
pub use choose::{Asked, Choice, ChooseCluster};
pub use config::Config;
pub use embed::{Client, ClientBody, ClientError, Mesh, MeshBuilder, MeshError, ServeError, ShutdownReport};
pub use emberline_client::Tls;
pub use emberline_model::Workload;
pub use reporting::ProfilerOptions;
pub use run::{
    Addresses, BindError, Extensions, HAND_OVER, NoProxy, OtherProcess, Proxy, Reloaded, StartError, StopReport,
};
pub use stop::{stdin_closed, stop_requested};

//! The library API: a service that contains its own proxy, without the extra hop.
//!
//! Guarantees: works in any tokio runtime, including multi-threaded ones; a request's stacks carry its route from its
//! head to the end of its response, including tasks created with [`Mesh::spawn_labeled`]; a service that panics costs
//! its caller a 500 and affects nobody else; [`Mesh::shutdown`] returns when what was in flight has ended and the last
//! window is acknowledged, or when the time for that is up.
//!
//! Wrong on purpose: no upgrades (WebSocket), and no limits on what the service itself holds. Callers get as much of
//! the process's memory as in a proxy, which assumes that nothing else needs it: a service that needs most of it sets
//! [`Limits::memory_bytes`].

mod client;
mod serve;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use emberline_client::Tls;
use emberline_model::{
    Component, Workload,
    time::{Clock, SystemClock},
};
use emberline_profiler::{Labeled, current_label};
use http::HeaderValue;
use tokio::{net::TcpListener, task::JoinHandle};

pub use client::{Client, ClientBody, ClientError};
pub use serve::ServeError;

use crate::{
    body::{BoxError, RequestBody},
    budget::Budget,
    config::{CollectorConfig, IdentityRule, Limits, Network, SpoolConfig, TraceConfig},
    drain::Drain,
    export::ExportError,
    filter::{HeadFilter, Hygiene},
    identity::Identity,
    reporting::{ProfilerOptions, Reporting},
    route::{DuplicateTemplate, InvalidTemplate, RouteTable, Template},
    telemetry::{RouteId, Telemetry},
    trace::Trace,
};

tokio::task_local! {
    /// What calls made while a request is served inherit from it.
    static CURRENT: RequestContext;
}

/// The trace of the request being served.
#[derive(Debug, Clone, Default)]
struct RequestContext {
    traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
}

/// Why a mesh cannot start: its settings are wrong.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The workload has no name.
    #[error("the workload's service is empty: set `service` in `Workload`")]
    NoService,
    /// A route is not a valid template.
    #[error(transparent)]
    Template(#[from] InvalidTemplate),
    /// Two routes are identical.
    #[error(transparent)]
    Duplicate(#[from] DuplicateTemplate),
    /// The export cannot start.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Settings of a [`Mesh`]; see [`Mesh::builder`].
#[must_use = "call `start`"]
pub struct MeshBuilder {
    workload: Workload,
    collector: Option<CollectorConfig>,
    spool: Option<SpoolConfig>,
    routes: Vec<String>,
    profiler: ProfilerOptions,
    drain: Duration,
    limits: Limits,
    trace: TraceConfig,
    identity: Option<IdentityRule>,
    trusted_callers: Vec<Network>,
    clock: Arc<dyn Clock>,
}

impl MeshBuilder {
    /// Where telemetry goes, for example `http://127.0.0.1:4317`. Without it, telemetry is only in [`Mesh::metrics`].
    pub fn collector(mut self, endpoint: impl Into<String>) -> Self {
        self.collector = Some(CollectorConfig {
            endpoint: endpoint.into(),
            tls: Tls::default(),
            spool: None,
        });
        self
    }

    /// The same over TLS, for example `https://emberline:4317`. Files are reread when they change.
    pub fn collector_with_tls(mut self, endpoint: impl Into<String>, tls: Tls) -> Self {
        self.collector = Some(CollectorConfig {
            endpoint: endpoint.into(),
            tls,
            spool: None,
        });
        self
    }

    /// Disk on which telemetry waits while the collector is away, and outlives the process; by default it waits in memory.
    pub fn spool(mut self, spool: SpoolConfig) -> Self {
        self.spool = Some(spool);
        self
    }

    /// The path templates of this service's API; whatever matches none is the route `other`.
    pub fn routes<R: Into<String>>(mut self, routes: impl IntoIterator<Item = R>) -> Self {
        self.routes = routes.into_iter().map(Into::into).collect();
        self
    }

    /// How the sampler runs. By default, it is on at 99 Hz.
    pub fn profiler(mut self, options: ProfilerOptions) -> Self {
        self.profiler = options;
        self
    }

    /// How long [`Mesh::shutdown`] waits for requests in flight. Default: 10 s.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Limits on connections and heads.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Which callers' identities are believed, as in `identity` and `trusted_callers` of an inbound listener. By
    /// default, those of callers with private addresses, if the listener's address is private or unspecified.
    pub fn identity(mut self, rule: Option<IdentityRule>, trusted_callers: impl IntoIterator<Item = Network>) -> Self {
        self.identity = rule;
        self.trusted_callers = trusted_callers.into_iter().collect();
        self
    }

    /// The trace that requests and calls without one get. By default a new one, of which one in a hundred is sampled.
    pub fn trace(mut self, trace: TraceConfig) -> Self {
        self.trace = trace;
        self
    }

    /// The clock that defines the windows.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the sampler and the export thread.
    ///
    /// # Errors
    /// When a setting cannot be used. A sampler that cannot start is logged, not an error.
    pub fn start(self) -> Result<Mesh, MeshError> {
        if self.workload.service.is_empty() {
            return Err(MeshError::NoService);
        }
        let templates = self
            .routes
            .iter()
            .map(|r| Template::parse(r))
            .collect::<Result<Vec<_>, _>>()?;
        let routes = RouteTable::new(&templates)?;
        let collector = self.collector.map(|collector| CollectorConfig {
            spool: self.spool,
            ..collector
        });
        let reporting = Reporting::start(
            collector.as_ref(),
            &self.workload,
            Component::Application,
            self.profiler,
            self.clock,
        )?;
        let telemetry = reporting.telemetry.clone();
        let filters: Vec<Box<dyn HeadFilter>> = vec![
            Box::new(Hygiene { strip: false }),
            Box::new(Identity::new(telemetry.clone(), &self.workload)),
            Trace::filter(&self.trace),
        ];
        let inner = Inner {
            server: Api::new(routes, &telemetry, filters),
            workload: self.workload,
            budget: Budget::new(&self.limits, &reporting.counters),
            limits: self.limits,
            identity: self.identity,
            trusted_callers: self.trusted_callers,
            trace: self.trace,
            drain: Drain::new(),
            drain_limit: self.drain,
            reporting,
        };
        Ok(Mesh { inner: Arc::new(inner) })
    }
}

/// An API with its routes and head filters.
#[derive(Debug)]
struct Api {
    routes: RouteTable,
    route_ids: Vec<RouteId>,
    filters: Vec<Box<dyn HeadFilter>>,
}

impl Api {
    fn new(routes: RouteTable, telemetry: &Telemetry, filters: Vec<Box<dyn HeadFilter>>) -> Api {
        let route_ids = routes.names().iter().map(|name| telemetry.route(name)).collect();
        Api {
            routes,
            route_ids,
            filters,
        }
    }

    fn route_of(&self, path: &str) -> RouteId {
        self.route_ids
            .get(self.routes.route_of(path).position())
            .copied()
            .unwrap_or(RouteId::OTHER)
    }
}

#[derive(Debug)]
struct Inner {
    workload: Workload,
    server: Api,
    budget: Arc<Budget>,
    limits: Limits,
    identity: Option<IdentityRule>,
    trusted_callers: Vec<Network>,
    trace: TraceConfig,
    drain: Drain,
    drain_limit: Duration,
    reporting: Reporting,
}

/// The mesh inside an application: serves its requests, makes its calls, samples its stacks and reports all three.
///
/// A cheap handle to clone.
#[derive(Debug, Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

/// The outcome of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Everything in flight ended by itself.
    pub drained: bool,
    /// Batches that the collector acknowledged during the shutdown.
    pub acked: u64,
    /// Batches lost because it did not acknowledge them.
    pub unacked: u64,
    /// Batches that it did not acknowledge and that wait on disk for the next process.
    pub spooled: u64,
}

impl Mesh {
    /// Starts with the identity of this process.
    pub fn builder(workload: Workload) -> MeshBuilder {
        MeshBuilder {
            workload,
            collector: None,
            spool: None,
            routes: Vec::new(),
            profiler: ProfilerOptions::default(),
            drain: Duration::from_secs(10),
            limits: Limits::default(),
            trace: TraceConfig::default(),
            identity: None,
            trusted_callers: Vec::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Serves HTTP/1.1 and HTTP/2 (with prior knowledge) on a listener until [`Mesh::shutdown`]. `service` is an
    /// `axum::Router` or any other tower service; each request gets a clone of it.
    ///
    /// # Errors
    /// When the listener's address cannot be read.
    pub async fn serve<S, B>(&self, listener: TcpListener, service: S) -> Result<(), ServeError>
    where
        S: tower::Service<http::Request<RequestBody>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        serve::serve(Arc::clone(&self.inner), listener, service).await
    }

    /// A client of another service at these addresses; requests are shared equally among them. `routes` are the path
    /// templates of its API. An invalid template is logged, and its paths belong to the route `other`.
    pub fn client<R: AsRef<str>>(
        &self,
        service: &str,
        routes: impl IntoIterator<Item = R>,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Client {
        let mut templates: Vec<Template> = Vec::new();
        for route in routes {
            match Template::parse(route.as_ref()) {
                Ok(template) => templates.push(template),
                Err(error) => tracing::error!(service, %error, "invalid route of a client ignored"),
            }
        }
        let routes = RouteTable::new(&templates).unwrap_or_else(|error| {
            tracing::error!(service, %error, "conflicting routes of a client ignored");
            RouteTable::default()
        });
        let telemetry = &self.inner.reporting.telemetry;
        let filters: Vec<Box<dyn HeadFilter>> = vec![
            Box::new(Identity::new(telemetry.clone(), &self.inner.workload)),
            Trace::filter(&self.inner.trace),
        ];
        let api = Api::new(routes, telemetry, filters);
        let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
        Client::new(service, api, &addresses, telemetry.clone(), &self.inner.budget)
    }

    /// Spawns a task whose work is attributed to the request being served, and whose calls continue its trace.
    pub fn spawn_labeled<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let context = CURRENT.try_with(Clone::clone).unwrap_or_default();
        tokio::spawn(Labeled::new(current_label(), CURRENT.scope(context, future)))
    }

    /// The telemetry of this process.
    pub fn telemetry(&self) -> &Telemetry {
        &self.inner.reporting.telemetry
    }

    /// All metrics, in Prometheus text format.
    pub fn metrics(&self) -> String {
        self.inner.reporting.metrics()
    }

    /// The profile of the last window, if the sampler runs.
    pub fn profile(&self) -> Option<Arc<emberline_model::Profile>> {
        self.inner.reporting.profile()
    }

    /// Stops accepting, lets requests in flight end (at most for the drain time), then exports the last window and
    /// waits for its acknowledgement (at most 5 s). [`Mesh::serve`] returns. A second call does nothing.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.inner.drain.start(self.inner.drain_limit);
        let drained = tokio::time::timeout(self.inner.drain_limit, self.inner.drain.done())
            .await
            .is_ok();
        let flushed = self.inner.reporting.stop().await;
        ShutdownReport {
            drained,
            acked: flushed.acked,
            unacked: flushed.unacked,
            spooled: flushed.spooled,
        }
    }
}

//! From a listener of the state to what it does in a worker.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use emberline_client::TlsError;
use emberline_model::Workload;

use crate::{
    budget::Budget,
    cluster::{Cluster, Groups, Http1Options, Upstream},
    config::{Address, InboundTls, OutboundTls, TraceConfig},
    counters::Counters,
    filter::{Filter, Hygiene},
    identity::Identity,
    resolve::Resolver,
    route::{DuplicateTemplate, RouteTable},
    server::{HttpSettings, forward::Forwarder, plan::Plan},
    state::Listener,
    telemetry::Telemetry,
    tls::Certificates,
    trace::Trace,
};

/// Why a listener has no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error(transparent)]
    Duplicate(#[from] DuplicateTemplate),
    #[error("{listener} listener {address}: tls: {error}")]
    Tls {
        listener: &'static str,
        address: SocketAddr,
        error: TlsError,
    },
}

/// What plans are made with, and what carries them out.
pub(super) struct Parts<'a> {
    pub(super) telemetry: &'a Telemetry,
    pub(super) counters: &'a Arc<Counters>,
    pub(super) http: &'a HttpSettings,
    pub(super) budget: &'a Arc<Budget>,
    pub(super) resolver: &'a Resolver,
    pub(super) groups: &'a Groups,
    pub(super) certificates: &'a Certificates,
    pub(super) workload: &'a Workload,
    /// Idle connections to each endpoint.
    pub(super) max_idle: usize,
    pub(super) trace: TraceConfig,
}

impl Parts<'_> {
    /// A listener in one worker, with its first plan.
    pub(super) fn forwarder(&self, plan: Plan) -> Forwarder {
        Forwarder {
            plan: ArcSwap::from_pointee(plan),
            telemetry: self.telemetry.clone(),
            counters: Arc::clone(self.counters),
            http: self.http.clone(),
            budget: Arc::clone(self.budget),
        }
    }
}

/// Makes a listener's plan; endpoints that the `previous` one has already keep their connections.
pub(super) fn plan(listener: &Listener, parts: &Parts<'_>, previous: Option<&Plan>) -> Result<Plan, PlanError> {
    let options = Http1Options {
        max_idle: parts.max_idle,
        idle: listener.timeouts.pool_idle(),
        max_header_bytes: parts.http.limits().max_header_bytes,
    };
    let cluster = &listener.cluster;
    let in_words = |error| PlanError::Tls {
        listener: listener.id.side_name(),
        address: listener.id.address,
        error,
    };
    let secured = |tls: &OutboundTls| parts.certificates.outbound(tls).map_err(in_words);
    let secured = cluster.tls.as_ref().map(secured).transpose()?;
    let met = |tls: &InboundTls| parts.certificates.inbound(tls, listener.protocol).map_err(in_words);
    let group = parts
        .groups
        .group(listener.id.address, &cluster.service, secured.as_ref(), &cluster.watch);
    let upstream = |address: &Address| {
        previous
            .and_then(|plan| plan.cluster.find(address))
            .filter(|known| known.options() == options && Arc::ptr_eq(known.group(), &group))
            .cloned()
            .unwrap_or_else(|| Upstream::new(address, options, &group, (parts.budget, parts.resolver)))
    };
    let routes = RouteTable::new(&listener.routes)?;
    let filters: Vec<Box<dyn Filter>> = vec![
        Box::new(Hygiene { strip: true }),
        Box::new(Identity::new(parts.telemetry.clone(), parts.workload)),
        Trace::filter(&parts.trace),
    ];
    let endpoints = cluster.endpoints.iter();
    Ok(Plan {
        side: listener.id.side,
        destination: parts.telemetry.destination(&cluster.service),
        protocol: listener.protocol,
        tls: listener.tls.as_ref().map(met).transpose()?,
        has_routes: !listener.routes.is_empty(),
        trust: listener.trust.clone(),
        route_ids: routes.names().iter().map(|name| parts.telemetry.route(name)).collect(),
        routes,
        cluster: Cluster::new(
            endpoints.map(|endpoint| (upstream(&endpoint.address), endpoint.weight)),
            cluster.sharing.clone(),
        ),
        timeouts: listener.timeouts,
        filters,
    })
}

//! From a listener of the state to its plan in a worker.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use emberline_client::TlsError;
use emberline_model::{Side, Workload};

use crate::{
    budget::Budget,
    choose::ChooseCluster,
    cluster::{Cluster, Groups, Http1Options, Upstream},
    config::{Address, ForwardedMode, InboundTls, OutboundTls, RuleConfig, TraceConfig},
    counters::Counters,
    filter::{
        HeadFilter, Hygiene,
        list::{self, Made, filters},
        remote::Reach,
    },
    identity::Identity,
    resolve::Resolver,
    route::{DuplicateTemplate, RouteTable, host::HostTable},
    server::{
        HttpSettings,
        forward::Forwarder,
        plan::{Place, Plan, Rule, Service},
        probes::Probes,
    },
    state::{self, Endpoint, Listener},
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

/// What plans are made from and carried out with.
pub(super) struct Parts<'a> {
    pub(super) telemetry: &'a Telemetry,
    pub(super) counters: &'a Arc<Counters>,
    pub(super) http: &'a HttpSettings,
    pub(super) budget: &'a Arc<Budget>,
    pub(super) resolver: &'a Resolver,
    pub(super) groups: &'a Groups,
    pub(super) filters: &'a list::Shared,
    pub(super) certificates: &'a Certificates,
    pub(super) workload: &'a Workload,
    /// Idle connections to each endpoint.
    pub(super) max_idle: usize,
    pub(super) trace: TraceConfig,
    /// Chooses the cluster for requests to others.
    pub(super) chooser: Option<&'a Arc<dyn ChooseCluster>>,
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
            probes: Probes::default(),
        }
    }
}

/// Makes a listener's plan; endpoints that the `previous` one already has keep their connections.
pub(super) fn plan(listener: &Listener, parts: &Parts<'_>, previous: Option<&Plan>) -> Result<Plan, PlanError> {
    let met = |tls: &InboundTls| {
        let met = parts.certificates.inbound(tls, listener.protocol);
        met.map_err(|error| of_tls(listener, error))
    };
    let head_filters: Vec<Box<dyn HeadFilter>> = vec![
        Box::new(Hygiene { strip: true }),
        Box::new(Identity::new(parts.telemetry.clone(), parts.workload)),
        Trace::filter(&parts.trace),
    ];
    let services = listener.services.iter();
    // Filters and forwarded headers have to hold for everything that passes: nothing may be taken for bytes to relay.
    let is_http = |service: &state::Service| {
        service.hosts.is_some()
            || !service.routes.is_empty()
            || !service.rules.is_empty()
            || !service.filters.is_empty()
            || listener.forwarded != ForwardedMode::Keep
    };
    Ok(Plan {
        side: listener.id.side,
        protocol: listener.protocol,
        is_http: listener.services.iter().any(is_http),
        tls: listener.tls.as_ref().map(met).transpose()?,
        trust: listener.trust.clone(),
        forwarded: listener.forwarded,
        proxy_protocol: listener.proxy_protocol.clone(),
        hosts: HostTable::new(services.clone().map(|service| service.hosts.as_deref())),
        services: (0..listener.services.len())
            .map(|at| service(listener, at, parts, previous))
            .collect::<Result<_, _>>()?,
        chooser: parts.chooser.filter(|_| listener.id.side == Side::Client).cloned(),
        head_filters,
    })
}

fn of_tls(listener: &Listener, error: TlsError) -> PlanError {
    PlanError::Tls {
        listener: listener.id.side_name(),
        address: listener.id.address,
        error,
    }
}

/// The service at a position of a listener. All its clusters share what is known about an address.
fn service(listener: &Listener, at: usize, parts: &Parts<'_>, previous: Option<&Plan>) -> Result<Service, PlanError> {
    let wanted = &listener.services[at];
    let options = Http1Options {
        max_idle: parts.max_idle,
        idle: wanted.timeouts.pool_idle(),
        age: wanted.timeouts.pool_age(),
        max_header_bytes: parts.http.limits().max_header_bytes,
    };
    let cluster = &wanted.cluster;
    let secured = |tls: &OutboundTls| {
        let secured = parts.certificates.outbound(tls);
        secured.map_err(|error| of_tls(listener, error))
    };
    let secured = cluster.tls.as_ref().map(secured).transpose()?;
    let group = parts
        .groups
        .group(listener.id.address, &cluster.service, secured.as_ref(), &cluster.watch);
    let is_same = |known: &&Upstream| known.options() == options && Arc::ptr_eq(known.group(), &group);
    let mut made: HashMap<Address, Upstream> = HashMap::new();
    let mut upstream = |address: &Address| {
        let upstream = made.entry(address.clone()).or_insert_with(|| {
            let known = previous.and_then(|plan| plan.find(address).find(is_same));
            known
                .cloned()
                .unwrap_or_else(|| Upstream::new(address, options, &group, (parts.budget, parts.resolver)))
        });
        upstream.clone()
    };
    let mut cluster_of = |endpoints: &[Endpoint]| {
        let members: Vec<_> = endpoints.iter().map(|e| (upstream(&e.address), e.weight)).collect();
        Cluster::new(members, cluster.sharing.clone())
    };
    let mut clusters = vec![cluster_of(&cluster.endpoints)];
    clusters.extend(wanted.subsets.iter().map(|subset| cluster_of(&subset.endpoints)));
    let routes = RouteTable::new(&wanted.routes)?;
    let places = places(listener, at);
    let name = format!("{} {} {at}", listener.id.side_name(), listener.id.address);
    let made = Made {
        shared: parts.filters,
        reach: Reach {
            budget: parts.budget,
            resolver: parts.resolver,
            options,
        },
    };
    let rule = |(index, rule): (usize, &RuleConfig)| Rule::new(rule, &places, &format!("{name} {index}"), &made);
    Ok(Service {
        name: cluster.service.clone(),
        destination: parts.telemetry.destination(&cluster.service),
        route_ids: routes.names().iter().map(|name| parts.telemetry.route(name)).collect(),
        routes,
        clusters,
        rules: wanted.rules.iter().enumerate().map(rule).collect(),
        filters: filters(&wanted.filters, &name, &made),
        places,
        upstream_protocol: wanted.upstream_protocol,
        timeouts: wanted.timeouts,
    })
}

/// The targets for a service's rules, by name: its own clusters, and the services of the listener.
fn places(listener: &Listener, at: usize) -> HashMap<String, Place> {
    let services = listener.services.iter().enumerate().map(|(service, other)| {
        let place = Place { service, cluster: 0 };
        (other.cluster.service.clone(), place)
    });
    let subsets = listener.services[at].subsets.iter().zip(1..);
    let subsets = subsets.map(|(subset, cluster)| (subset.name.clone(), Place { service: at, cluster }));
    services.chain(subsets).collect()
}

//! From the configuration to what listeners do.

use std::{net::SocketAddr, sync::Arc};

use emberline_model::{Side, Workload};

use crate::{
    budget::Budget,
    cluster::{Cluster, Groups, Http1Options, Sharing, Upstream, Watch},
    config::{Address, Config, Limits, Protocol, Timeouts, TraceConfig, Trust},
    filter::{Filter, Hygiene},
    identity::Identity,
    resolve::Resolver,
    route::{DuplicateTemplate, RouteTable, Template},
    server::forward::Plan,
    telemetry::Telemetry,
    trace::Trace,
};

/// What plans are made with.
pub(super) struct Parts<'a> {
    pub(super) telemetry: &'a Telemetry,
    pub(super) budget: &'a Arc<Budget>,
    pub(super) resolver: &'a Resolver,
    pub(super) groups: &'a Groups,
    pub(super) workload: &'a Workload,
    pub(super) limits: Limits,
    /// Idle connections to each destination.
    pub(super) max_idle: usize,
    pub(super) trace: TraceConfig,
}

/// What one listener is to do.
pub(super) struct Wanted<'a> {
    listen: SocketAddr,
    side: Side,
    /// Whom an outbound listener is for.
    service: &'a str,
    protocol: Protocol,
    routes: &'a [Template],
    trust: Trust,
    destinations: Vec<(&'a Address, u32)>,
    sharing: Sharing,
    watch: Watch,
    timeouts: Timeouts,
}

/// All listeners of a configuration, inbound ones first.
pub(super) fn wanted(config: &Config) -> Vec<Wanted<'_>> {
    let inbound = config.inbound.iter().map(|inbound| Wanted {
        listen: inbound.listen,
        side: Side::Server,
        service: "",
        protocol: inbound.protocol,
        routes: &config.routes,
        trust: Trust::of(inbound.listen.ip(), inbound.identity, &inbound.trusted_callers),
        destinations: vec![(&inbound.to, 1)],
        sharing: Sharing::default(),
        watch: Watch::default(),
        timeouts: inbound.timeouts,
    });
    let outbound = config.outbound.iter().map(|outbound| Wanted {
        listen: outbound.listen,
        side: Side::Client,
        service: &outbound.service,
        protocol: outbound.protocol,
        routes: &outbound.routes,
        // The workload itself, which says nothing that counts.
        trust: Trust::Everybody,
        destinations: outbound.destinations.iter().map(|d| (&d.address, d.weight)).collect(),
        sharing: Sharing {
            balancer: outbound.balancer,
            options: outbound.balancer_options,
            hash_on: outbound.hash_on.clone(),
            retries: outbound.retries.clone(),
        },
        watch: Watch {
            outlier: outbound.outlier,
            check: outbound.health.clone(),
        },
        timeouts: outbound.timeouts,
    });
    inbound.chain(outbound).collect()
}

impl Wanted<'_> {
    /// Makes the plan; destinations that the `previous` one has already keep their connections.
    pub(super) fn plan(&self, parts: &Parts<'_>, previous: Option<&Plan>) -> Result<Plan, DuplicateTemplate> {
        let options = Http1Options {
            max_idle: parts.max_idle,
            idle: self.timeouts.idle(),
            max_header_bytes: parts.limits.max_header_bytes,
        };
        let group = parts.groups.group(self.listen, self.service, &self.watch);
        let upstream = |address: &Address| {
            previous
                .and_then(|plan| plan.cluster.find(address))
                .filter(|known| known.options() == options && Arc::ptr_eq(known.group(), &group))
                .cloned()
                .unwrap_or_else(|| Upstream::new(address, options, &group, (parts.budget, parts.resolver)))
        };
        let routes = RouteTable::new(self.routes)?;
        let filters: Vec<Box<dyn Filter>> = vec![
            Box::new(Hygiene { strip: true }),
            Box::new(Identity::new(parts.telemetry.clone(), parts.workload)),
            Trace::filter(&parts.trace),
        ];
        Ok(Plan {
            side: self.side,
            destination: parts.telemetry.destination(self.service),
            protocol: self.protocol,
            has_routes: !self.routes.is_empty(),
            trust: self.trust.clone(),
            route_ids: routes.names().iter().map(|name| parts.telemetry.route(name)).collect(),
            routes,
            cluster: Cluster::new(
                self.destinations
                    .iter()
                    .map(|(address, weight)| (upstream(address), *weight)),
                self.sharing.clone(),
            ),
            timeouts: self.timeouts,
            filters,
        })
    }
}

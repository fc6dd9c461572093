//! What a listener does with its requests.
//!
//! Guarantees: a plan never changes; it is replaced as a whole, and whoever has begun with one ends with it. Where a request goes
//! is chosen once: its host says the service; code that is asked, or else the first of the service's rules that takes it, the
//! cluster; else it is the service's own one. Without rules and with a single service nothing of the request is looked at.
//!
//! Wrong on purpose: shares start anew with every plan, so each reload begins a round.

mod rule;

use emberline_model::Side;
use http::{Version, request::Parts};
pub(crate) use rule::Rule;
use std::{collections::HashMap, net::IpAddr, sync::Arc};

use crate::{
    choose::{Asked, Choice, ChooseCluster},
    cluster::{Cluster, Retries, Upstream},
    config::{Address, ForwardedMode, Network, Protocol, Timeouts, Trust, UpstreamProtocol},
    filter::{HeadFilter, Refused, chain::Filter},
    grpc::is_grpc,
    route::{RouteTable, host::HostTable},
    telemetry::{DestinationId, RouteId},
    tls::Inbound,
};

/// A plan, made of a listener of [`crate::state`].
#[derive(Debug)]
pub(crate) struct Plan {
    /// Inbound listeners are on the server's side, outbound ones on the client's.
    pub(crate) side: Side,
    pub(crate) protocol: Protocol,
    /// How callers are met, where it is not in plaintext.
    pub(crate) tls: Option<Arc<Inbound>>,
    /// HTTP is spoken here, whatever comes.
    pub(crate) is_http: bool,
    /// Whose word counts.
    pub(crate) trust: Trust,
    /// What the application is told of its callers.
    pub(crate) forwarded: ForwardedMode,
    /// Whose connections begin with a PROXY protocol header.
    pub(crate) proxy_protocol: Vec<Network>,
    /// Places in `services`.
    pub(crate) hosts: HostTable,
    pub(crate) services: Vec<Service>,
    /// Code that is asked before the rules.
    pub(crate) chooser: Option<Arc<dyn ChooseCluster>>,
    /// Of every head.
    pub(crate) head_filters: Vec<Box<dyn HeadFilter>>,
}

/// Whom requests are for.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) routes: RouteTable,
    /// Telemetry's number of each route, by position in `routes`.
    pub(crate) route_ids: Vec<RouteId>,
    /// Its name, where it is another one than the workload's own.
    pub(crate) destination: DestinationId,
    /// Its own one first.
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) upstream_protocol: UpstreamProtocol,
    pub(crate) timeouts: Timeouts,
    /// Of its requests, but for those of a rule that has its own.
    pub(crate) filters: Arc<[Arc<dyn Filter>]>,
    pub(crate) rules: Vec<Rule>,
    /// What its requests can be led to, by name.
    pub(crate) places: HashMap<String, Place>,
}

/// A cluster of a plan, by the positions of its service and of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) service: usize,
    pub(crate) cluster: usize,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    place: Place,
    /// What led it there: the service and its rule.
    rule: Option<(usize, usize)>,
}

impl Plan {
    /// Where a request goes.
    ///
    /// # Errors
    /// When nobody takes its host, or a rule leads it to a cluster that is not there.
    pub(crate) fn choose(&self, head: &Parts, caller: IpAddr) -> Result<Chosen, Refused> {
        let service = self.hosts.find(head).ok_or(Refused::NO_ROUTE)?;
        if let Some(place) = self.chosen_by_code(service, head, caller) {
            return place.map(|place| Chosen { place, rule: None });
        }
        for (at, rule) in self.services[service].rules.iter().enumerate() {
            if let Some(place) = rule.place_of(head) {
                let rule = Some((service, at));
                return place.map(|place| Chosen { place, rule });
            }
        }
        let place = Place { service, cluster: 0 };
        Ok(Chosen { place, rule: None })
    }

    fn chosen_by_code(&self, service: usize, head: &Parts, caller: IpAddr) -> Option<Result<Place, Refused>> {
        let Service { name, places, .. } = &self.services[service];
        let asked = Asked {
            service: name,
            head,
            caller,
        };
        match self.chooser.as_ref()?.choose(&asked) {
            Choice::Configured => None,
            Choice::Cluster(name) => Some(places.get(&*name).copied().ok_or(Refused::NO_CLUSTER)),
        }
    }

    /// Its retries, where they are not those of the cluster.
    pub(crate) fn retries(&self, chosen: Chosen) -> Option<&Retries> {
        self.rule(chosen)?.retries.as_ref()
    }

    /// What it passes on its way.
    pub(crate) fn filters(&self, chosen: Chosen) -> &[Arc<dyn Filter>] {
        let of_rule = self.rule(chosen).and_then(|rule| rule.filters.as_deref());
        of_rule.unwrap_or(&self.service(chosen).filters)
    }

    fn rule(&self, chosen: Chosen) -> Option<&Rule> {
        let (service, at) = chosen.rule?;
        self.services[service].rules.get(at)
    }

    /// Where a connection goes that says nothing of a host.
    pub(crate) fn default_service(&self) -> Option<&Service> {
        self.services.get(self.hosts.of_any_host()?)
    }

    /// Whom a request is for.
    pub(crate) fn service(&self, chosen: Chosen) -> &Service {
        &self.services[chosen.place.service]
    }

    /// Who gets it.
    pub(crate) fn cluster(&self, chosen: Chosen) -> &Cluster {
        &self.service(chosen).clusters[chosen.place.cluster]
    }

    /// Its times.
    pub(crate) fn timeouts(&self, chosen: Chosen) -> &Timeouts {
        let of_rule = self.rule(chosen).and_then(|rule| rule.timeouts.as_ref());
        of_rule.unwrap_or(&self.service(chosen).timeouts)
    }

    /// What an address of a service stands for already, to keep its connections.
    pub(crate) fn find(&self, address: &Address) -> impl Iterator<Item = &Upstream> {
        let clusters = self.services.iter().flat_map(|service| &service.clusters);
        clusters.filter_map(move |cluster| cluster.find(address))
    }

    /// Closes connections that were idle for too long or were closed by the other end.
    pub(crate) fn sweep(&self) {
        let clusters = self.services.iter().flat_map(|service| &service.clusters);
        clusters.for_each(Cluster::sweep);
        for service in &self.services {
            let of_rules = service.rules.iter().filter_map(|rule| rule.filters.as_ref());
            let lists = of_rules.chain([&service.filters]);
            lists.flat_map(|list| list.iter()).for_each(|filter| filter.sweep());
        }
    }
}

impl Service {
    /// Whether a request goes on over HTTP/2.
    ///
    /// # Errors
    /// When what it asks for needs another version of HTTP than its service is spoken to with.
    pub(crate) fn is_http2(&self, head: &Parts, asks_for_websocket: bool) -> Result<bool, Refused> {
        match self.upstream_protocol {
            UpstreamProtocol::Same => Ok(head.version == Version::HTTP_2),
            UpstreamProtocol::Http1 if is_grpc(&head.headers) => Err(Refused::GRPC_OVER_HTTP1),
            UpstreamProtocol::Http1 => Ok(false),
            UpstreamProtocol::Http2 if asks_for_websocket => Err(Refused::UPGRADE_OVER_HTTP2),
            UpstreamProtocol::Http2 => Ok(true),
        }
    }

    /// Its own cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.clusters[0]
    }

    /// Telemetry's number of the route that a path is of.
    pub(crate) fn route_of(&self, path: &str) -> RouteId {
        self.route_ids
            .get(self.routes.route_of(path).position())
            .copied()
            .unwrap_or(RouteId::OTHER)
    }
}

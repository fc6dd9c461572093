//! What a listener does with its requests.
//!
//! Guarantee: a plan never changes; it is replaced as a whole, and whoever has begun with one ends with it.

use emberline_model::Side;
use http::request::Parts;

use crate::{
    cluster::{Cluster, Upstream},
    config::{Address, Protocol, Timeouts, Trust},
    filter::{Filter, Refused},
    route::{RouteTable, host::HostTable},
    telemetry::{DestinationId, RouteId},
};

/// A plan, made of a listener of [`crate::state`].
#[derive(Debug)]
pub(crate) struct Plan {
    /// Inbound listeners are on the server's side, outbound ones on the client's.
    pub(crate) side: Side,
    pub(crate) protocol: Protocol,
    /// HTTP is spoken here, whatever comes.
    pub(crate) is_http: bool,
    /// Whose word counts.
    pub(crate) trust: Trust,
    /// Places in `services`.
    pub(crate) hosts: HostTable,
    pub(crate) services: Vec<Service>,
    pub(crate) filters: Vec<Box<dyn Filter>>,
}

/// Whom requests are for.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) routes: RouteTable,
    /// Telemetry's number of each route, by position in `routes`.
    pub(crate) route_ids: Vec<RouteId>,
    /// Its name, where it is another one than the workload's own.
    pub(crate) destination: DestinationId,
    pub(crate) cluster: Cluster,
    pub(crate) timeouts: Timeouts,
}

/// Where a request goes: a place in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    service: usize,
}

impl Plan {
    /// Where a request goes.
    ///
    /// # Errors
    /// When nobody takes its host.
    pub(crate) fn choose(&self, head: &Parts) -> Result<Chosen, Refused> {
        let service = self.hosts.find(head).ok_or(Refused::NO_ROUTE)?;
        Ok(Chosen { service })
    }

    /// Where a connection goes that says nothing of a host.
    pub(crate) fn default_service(&self) -> Option<&Service> {
        self.services.get(self.hosts.of_any_host()?)
    }

    /// Whom a request is for.
    pub(crate) fn service(&self, chosen: Chosen) -> &Service {
        &self.services[chosen.service]
    }

    /// What an address of a service stands for already, to keep its connections.
    pub(crate) fn find(&self, address: &Address) -> impl Iterator<Item = &Upstream> {
        let clusters = self.services.iter().map(|service| &service.cluster);
        clusters.filter_map(move |cluster| cluster.find(address))
    }

    /// Closes connections that were idle for too long or were closed by the other end.
    pub(crate) fn sweep(&self) {
        self.services.iter().for_each(|service| service.cluster.sweep());
    }
}

impl Service {
    /// Telemetry's number of the route that a path is of.
    pub(crate) fn route_of(&self, path: &str) -> RouteId {
        self.route_ids
            .get(self.routes.route_of(path).position())
            .copied()
            .unwrap_or(RouteId::OTHER)
    }
}

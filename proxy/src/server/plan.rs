//! What a listener does with its requests.
//!
//! Guarantee: a plan never changes; it is replaced as a whole, and whoever has begun with one ends with it.

use std::sync::Arc;

use emberline_model::Side;

use crate::{
    cluster::Cluster,
    config::{Protocol, Timeouts, Trust},
    filter::Filter,
    route::RouteTable,
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
    pub(crate) has_routes: bool,
    /// Whose word counts.
    pub(crate) trust: Trust,
    pub(crate) routes: RouteTable,
    /// Telemetry's number of each route, by position in `routes`.
    pub(crate) route_ids: Vec<RouteId>,
    /// Whom an outbound listener's requests are for.
    pub(crate) destination: DestinationId,
    pub(crate) cluster: Cluster,
    pub(crate) timeouts: Timeouts,
    pub(crate) filters: Vec<Box<dyn Filter>>,
}

impl Plan {
    /// Telemetry's number of the route that a path is of.
    pub(crate) fn route_of(&self, path: &str) -> RouteId {
        self.route_ids
            .get(self.routes.route_of(path).position())
            .copied()
            .unwrap_or(RouteId::OTHER)
    }
}

//! What the listeners of a proxy are to do, whoever says so: a snapshot of listeners, their routes, clusters, endpoints
//! and policy.
//!
//! Guarantees: whoever reads a snapshot knows no source of it; it is complete and never changes, so what is done about a
//! new one follows from it and from what runs. Each source is a file of this folder that makes snapshots ([`of_file`]).
//!
//! Wrong on purpose: what a process is started with (its workload, workers, limits, collector, profiler and admin port) is
//! no part of it, since no source changes that while the process runs; and values have the types of the configuration
//! file ([`Timeouts`], [`Address`], ...), because every source has to say the same.

mod of_file;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use emberline_model::Side;

use crate::{
    cluster::{Sharing, Watch},
    config::{
        Address, FilterConfig, ForwardedMode, InboundTls, Network, OutboundTls, Protocol, RuleConfig, Timeouts,
        TraceConfig, Trust, UpstreamProtocol,
    },
    route::{HostPattern, Template},
};

/// A snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// Inbound ones first; no two have the same identity.
    pub(crate) listeners: Vec<Listener>,
    /// Trace context.
    pub(crate) trace: TraceConfig,
    /// How long requests in flight may go on when their listener closes.
    pub(crate) drain: Duration,
    /// How long a process that stops serves on, not ready.
    pub(crate) drain_delay: Duration,
}

impl State {
    /// Whether a listener of that identity is in it.
    pub(crate) fn has(&self, id: ListenerId) -> bool {
        self.listeners.iter().any(|listener| listener.id == id)
    }

    /// Addresses of destinations, those of all listeners together.
    pub(crate) fn endpoints(&self) -> usize {
        self.listeners
            .iter()
            .flat_map(|listener| &listener.services)
            .map(|service| {
                let more = service.subsets.iter().map(|subset| subset.endpoints.len());
                service.cluster.endpoints.len() + more.sum::<usize>()
            })
            .sum()
    }
}

/// What makes a listener the same one in two snapshots: its side and its address. One that asks for any free port is told
/// by its position among those of its side and host that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId {
    /// Inbound listeners are on the server's side, outbound ones on the client's.
    pub(crate) side: Side,
    /// As it was written.
    pub(crate) address: SocketAddr,
    position: usize,
}

impl ListenerId {
    /// Its side in the words of the configuration file.
    pub(crate) fn side_name(self) -> &'static str {
        match self.side {
            Side::Server => "inbound",
            Side::Client => "outbound",
        }
    }
}

/// Gives the listeners of a snapshot their identities, in their order.
#[derive(Debug, Default)]
pub(crate) struct Identities(HashMap<(Side, SocketAddr), usize>);

impl Identities {
    /// Of the next listener.
    pub(crate) fn next(&mut self, side: Side, address: SocketAddr) -> ListenerId {
        let seen = self.0.entry((side, address)).or_default();
        let position = if address.port() == 0 { *seen } else { 0 };
        *seen += 1;
        ListenerId {
            side,
            address,
            position,
        }
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listener {
    pub(crate) id: ListenerId,
    pub(crate) protocol: Protocol,
    /// How callers are met, where it is not in plaintext.
    pub(crate) tls: Option<InboundTls>,
    /// Whose word counts.
    pub(crate) trust: Trust,
    pub(crate) forwarded: ForwardedMode,
    /// Whose connections begin with a PROXY protocol header.
    pub(crate) proxy_protocol: Vec<Network>,
    /// Whom its requests are for; at least one.
    pub(crate) services: Vec<Service>,
}

/// A service behind a listener.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    /// Hosts of its requests; `None` is every one that no other service lists.
    pub(crate) hosts: Option<Vec<HostPattern>>,
    /// Path templates of its API.
    pub(crate) routes: Vec<Template>,
    /// Where its requests go that no rule leads elsewhere.
    pub(crate) cluster: Cluster,
    /// More clusters, which are as `cluster` but for their endpoints.
    pub(crate) subsets: Vec<Subset>,
    /// The first one that takes a request decides.
    pub(crate) rules: Vec<RuleConfig>,
    /// What its requests pass, in order.
    pub(crate) filters: Vec<FilterConfig>,
    /// What its requests are sent on over.
    pub(crate) upstream_protocol: UpstreamProtocol,
    pub(crate) timeouts: Timeouts,
}

/// Endpoints of a service that only rules lead to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subset {
    /// Its name in rules.
    pub(crate) name: String,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A service as a listener reaches it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cluster {
    /// Its name; empty for the workload's own application.
    pub(crate) service: String,
    pub(crate) endpoints: Vec<Endpoint>,
    /// How connections to them are secured, where they are.
    pub(crate) tls: Option<OutboundTls>,
    /// How requests are shared among them, and sent again.
    pub(crate) sharing: Sharing,
    /// How their health is watched.
    pub(crate) watch: Watch,
}

/// One address of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    /// Share of the requests, relative to the other endpoints' weights.
    pub(crate) weight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_by_side_and_address_and_by_position_where_any_port_will_do() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ids = |wanted: &[(Side, u16)]| {
            let mut identities = Identities::default();
            let ids = wanted.iter().map(|&(side, port)| identities.next(side, at(port)));
            ids.collect::<Vec<_>>()
        };
        let first = ids(&[
            (Side::Server, 0),
            (Side::Server, 0),
            (Side::Server, 80),
            (Side::Client, 0),
        ]);
        let second = ids(&[
            (Side::Server, 80),
            (Side::Server, 0),
            (Side::Client, 80),
            (Side::Server, 0),
        ]);
        assert_eq!((first[0], first[1], first[2]), (second[1], second[3], second[0]));
        assert_ne!(first[0], first[1]);
        assert_ne!(second[0], second[2]);
        assert!(!second.contains(&first[3]));
    }
}

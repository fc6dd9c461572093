//! A snapshot of what a configuration file says.

use std::time::Duration;

use emberline_model::Side;

use super::{Cluster, Endpoint, Identities, Listener, Service, State, Subset};
use crate::{
    cluster::{Sharing, Watch},
    config::{ClusterConfig, Config, DestinationConfig, ForwardedMode, InboundTls, Outbound, Trust},
};

impl From<&Config> for State {
    fn from(config: &Config) -> State {
        let mut identities = Identities::default();
        let mut listeners = Vec::new();
        for inbound in &config.inbound {
            listeners.push(Listener {
                id: identities.next(Side::Server, inbound.listen),
                protocol: inbound.protocol,
                tls: inbound.tls.clone().filter(InboundTls::is_on),
                trust: Trust::of(inbound.listen.ip(), inbound.identity, &inbound.trusted_callers),
                forwarded: inbound.forwarded,
                proxy_protocol: inbound.proxy_protocol.clone(),
                services: vec![Service {
                    hosts: None,
                    routes: config.routes.clone(),
                    cluster: Cluster {
                        service: String::new(),
                        endpoints: vec![Endpoint {
                            address: inbound.to.clone(),
                            weight: 1,
                        }],
                        tls: None,
                        sharing: Sharing::default(),
                        watch: Watch::default(),
                    },
                    subsets: Vec::new(),
                    rules: Vec::new(),
                    filters: inbound.filters.clone(),
                    upstream_protocol: inbound.upstream_protocol,
                    timeouts: inbound.timeouts,
                }],
            });
        }
        let inbound = listeners.len();
        for outbound in &config.outbound {
            let is_shared = |known: &&mut Listener| known.id.address == outbound.listen && outbound.listen.port() != 0;
            if let Some(known) = listeners[inbound..].iter_mut().find(is_shared) {
                known.services.push(service(outbound));
                continue;
            }
            listeners.push(Listener {
                id: identities.next(Side::Client, outbound.listen),
                protocol: outbound.protocol,
                tls: None,
                // The workload itself, which says nothing that counts.
                trust: Trust::Everybody,
                forwarded: ForwardedMode::Keep,
                proxy_protocol: Vec::new(),
                services: vec![service(outbound)],
            });
        }
        State {
            listeners,
            trace: config.trace,
            drain: Duration::from_secs(config.drain_seconds),
            drain_delay: Duration::from_secs(config.drain_delay_seconds),
        }
    }
}

/// What an entry says of its service.
fn service(outbound: &Outbound) -> Service {
    let subset = |cluster: &ClusterConfig| Subset {
        name: cluster.name.clone(),
        endpoints: endpoints(&cluster.destinations),
    };
    Service {
        hosts: outbound.hosts.clone(),
        routes: outbound.routes.clone(),
        cluster: Cluster {
            service: outbound.service.clone(),
            endpoints: endpoints(&outbound.destinations),
            tls: outbound.tls.clone(),
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
        },
        subsets: outbound.clusters.iter().map(subset).collect(),
        rules: outbound.rules.clone(),
        filters: outbound.filters.clone(),
        upstream_protocol: outbound.upstream_protocol,
        timeouts: outbound.timeouts,
    }
}

fn endpoints(destinations: &[DestinationConfig]) -> Vec<Endpoint> {
    let endpoint = |destination: &DestinationConfig| Endpoint {
        address: destination.address.clone(),
        weight: destination.weight,
    };
    destinations.iter().map(endpoint).collect()
}

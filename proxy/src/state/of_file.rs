//! A snapshot of what a configuration file says.

use std::time::Duration;

use emberline_model::Side;

use super::{Cluster, Endpoint, Identities, Listener, State};
use crate::{
    cluster::{Sharing, Watch},
    config::{Config, InboundTls, Trust},
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
                timeouts: inbound.timeouts,
            });
        }
        for outbound in &config.outbound {
            let endpoints = outbound.destinations.iter().map(|destination| Endpoint {
                address: destination.address.clone(),
                weight: destination.weight,
            });
            listeners.push(Listener {
                id: identities.next(Side::Client, outbound.listen),
                protocol: outbound.protocol,
                tls: None,
                // The workload itself, which says nothing that counts.
                trust: Trust::Everybody,
                routes: outbound.routes.clone(),
                cluster: Cluster {
                    service: outbound.service.clone(),
                    endpoints: endpoints.collect(),
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
                timeouts: outbound.timeouts,
            });
        }
        State {
            listeners,
            trace: config.trace,
            drain: Duration::from_secs(config.drain_seconds),
        }
    }
}

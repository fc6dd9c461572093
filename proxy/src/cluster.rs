//! The endpoints of one service: which one gets the next request, and the connections kept open to them.
//!
//! Guarantees: endpoints share requests by the configured weights ([`balancer`]); an endpoint that accepts no
//! connection costs no request as long as another one does ([`send`]); whether a request that may have arrived is sent
//! again is decided in two places: for a pooled connection that ended ([`replay`]), and by configuration ([`retry`]). A
//! configured name stands for all its addresses ([`name`]). A cluster with a single address takes no lock to pick it.
//!
//! Wrong on purpose: if a request moves on to another release, its record does not mention the one that accepted no
//! connection; such attempts are counted for the process (`emberline_proxy_upstream_connection_failures`).

mod balancer;
mod check;
mod dial;
mod endpoint;
mod error;
mod group;
mod hash_key;
mod health;
mod in_flight;
mod load;
mod name;
mod outgoing;
mod pool;
mod replay;
mod retry;
mod send;
mod upload;
mod upstream_body;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use balancer::Balancer;
pub(crate) use balancer::RoundRobin;
pub(crate) use check::run as run_checks;
use dial::Dial;
pub(crate) use dial::prepare;
pub(crate) use endpoint::Endpoint;
pub(crate) use error::{BodyFailure, UpstreamError};
pub(crate) use group::{Group, Groups, ToCheck, Watch};
use hash_key::HashKey;
use http::HeaderMap;
pub(crate) use in_flight::InFlight;
use name::Addresses;
pub(crate) use name::Upstream;
use parking_lot::Mutex;
pub(crate) use pool::{Http1Options, PING_EVERY, PING_TIMEOUT, Switched};
pub(crate) use retry::Retries;
pub(crate) use send::Call;
pub(crate) use upstream_body::UpstreamBody;

use crate::{
    budget::Budget,
    config::{Address, BalancerKind, BalancerOptions, HashOn, RetryConfig, Timeouts},
};

/// How requests are shared among endpoints, and retried.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sharing {
    pub(crate) balancer: BalancerKind,
    pub(crate) options: BalancerOptions,
    pub(crate) hash_on: Option<HashOn>,
    pub(crate) retries: RetryConfig,
}

/// The endpoints of one service, in one worker.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    sharing: Sharing,
    retries: Retries,
    key: Option<HashKey>,
    /// How fast the averages of latencies decay, if they are used.
    decay: Option<Duration>,
    current: ArcSwap<Current>,
    /// Held while `current` is rebuilt.
    following: Mutex<()>,
    /// The only endpoint, if there can never be another.
    only: Option<Arc<Endpoint>>,
    has_names: bool,
}

#[derive(Debug)]
struct Member {
    upstream: Upstream,
    weight: u32,
}

/// The current endpoints.
#[derive(Debug)]
struct Current {
    /// The resolved addresses of each member that is a name.
    seen: Vec<Option<Addresses>>,
    balancer: Balancer,
}

impl Current {
    fn of(members: &[Member], sharing: &Sharing) -> Current {
        let endpoints = members.iter().map(|member| match &member.upstream {
            Upstream::Socket(endpoint) => (None, vec![Arc::clone(endpoint)]),
            Upstream::Name(name) => name.endpoints(),
        });
        let (seen, endpoints): (Vec<_>, Vec<_>) = endpoints.unzip();
        let weights = members.iter().map(|member| member.weight);
        let groups: Vec<_> = endpoints.into_iter().zip(weights).collect();
        Current {
            seen,
            balancer: Balancer::new(sharing.balancer, &sharing.options, &groups),
        }
    }

    fn is_outdated(&self, members: &[Member]) -> bool {
        members
            .iter()
            .zip(&self.seen)
            .any(|(member, seen)| match &member.upstream {
                Upstream::Socket(_) => false,
                Upstream::Name(name) => name.has_moved(seen.as_ref()),
            })
    }
}

impl Cluster {
    /// `members`: the configured destinations, with their weights.
    pub(crate) fn new(members: impl IntoIterator<Item = (Upstream, u32)>, sharing: Sharing) -> Cluster {
        let members: Vec<Member> = members
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(upstream, weight)| Member { upstream, weight })
            .collect();
        let only = match members.as_slice() {
            [
                Member {
                    upstream: Upstream::Socket(endpoint),
                    ..
                },
            ] => Some(Arc::clone(endpoint)),
            _ => None,
        };
        let current = Current::of(&members, &sharing);
        Cluster {
            key: sharing.hash_on.as_ref().and_then(HashKey::new),
            decay: current.balancer.decay(),
            retries: Retries::new(sharing.retries.clone()),
            sharing,
            current: ArcSwap::from_pointee(current),
            following: Mutex::default(),
            only,
            has_names: members.iter().any(|m| matches!(m.upstream, Upstream::Name(_))),
            members,
        }
    }

    /// A service at addresses of equal weight.
    pub(crate) fn of_addresses(addresses: &[SocketAddr], options: Http1Options, budget: &Arc<Budget>) -> Cluster {
        let group = Group::new("", None, Watch::default(), budget.counters());
        let members = addresses.iter().map(|&at| {
            let endpoint = Endpoint::new(Dial::new(at, None, Arc::clone(budget)), options, &group);
            (Upstream::Socket(endpoint), 1)
        });
        Cluster::new(members, Sharing::default())
    }

    /// The key that a request is hashed by, if any; a connection that carries no requests has no headers.
    pub(crate) fn key_of(&self, headers: Option<&HeaderMap>, caller: IpAddr) -> Option<u64> {
        self.key.as_ref()?.of(headers, caller)
    }

    /// The next endpoint. Waits only for the first answer for a name, and only if there is no other endpoint.
    async fn pick(&self, key: Option<u64>, timeouts: &Timeouts) -> Result<Arc<Endpoint>, UpstreamError> {
        match self.pick_after(key, &[]) {
            Some(endpoint) => Ok(endpoint),
            // Boxed: all others do not pay for its size.
            None => Box::pin(self.pick_first(key, timeouts)).await,
        }
    }

    async fn pick_first(&self, key: Option<u64>, timeouts: &Timeouts) -> Result<Arc<Endpoint>, UpstreamError> {
        let names = self.members.iter().filter_map(|member| match &member.upstream {
            Upstream::Socket(_) => None,
            Upstream::Name(name) => Some(Box::pin(name.known(timeouts))),
        });
        let names: Vec<_> = names.collect();
        if names.is_empty() {
            return Err(UpstreamError::NoDestination);
        }
        futures_util::future::select_ok(names).await?;
        self.pick_after(key, &[]).ok_or(UpstreamError::NoDestination)
    }

    /// The next endpoint for a request that was `tried` elsewhere.
    fn pick_after(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        if let Some(only) = &self.only {
            return tried.is_empty().then(|| Arc::clone(only));
        }
        self.follow();
        let picked = self.current.load().balancer.pick(key, tried)?;
        picked.health().chosen();
        Some(picked)
    }

    /// The number of endpoints.
    fn size(&self) -> usize {
        match &self.only {
            Some(_) => 1,
            None => self.current.load().balancer.endpoints().len(),
        }
    }

    /// Picks up the latest addresses of names.
    fn follow(&self) {
        if !self.has_names || !self.current.load().is_outdated(&self.members) {
            return;
        }
        let _following = self.following.lock();
        self.current.store(Arc::new(Current::of(&self.members, &self.sharing)));
    }

    /// The existing upstream for an address, whose connections are kept.
    pub(crate) fn find(&self, address: &Address) -> Option<&Upstream> {
        let mut known = self.members.iter().map(|member| &member.upstream);
        known.find(|upstream| upstream.address() == address)
    }

    /// Closes connections that have been idle for too long or were closed by the other end.
    pub(crate) fn sweep(&self) {
        self.follow();
        for endpoint in self.current.load().balancer.endpoints() {
            endpoint.sweep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_without_weight_picks_nobody() {
        let budget = Budget::new(&crate::config::Limits::default(), &Arc::default());
        let group = Group::new("shop", None, Watch::default(), &Arc::default());
        for weights in [&[][..], &[0, 0]] {
            let members = weights.iter().map(|&weight| {
                let dial = Dial::new(([127, 0, 0, 1], 1).into(), None, Arc::clone(&budget));
                (
                    Upstream::Socket(Endpoint::new(dial, Http1Options::default(), &group)),
                    weight,
                )
            });
            let cluster = Cluster::new(members, Sharing::default());
            let picked = cluster.pick(None, &Timeouts::default()).await;
            assert!(matches!(picked, Err(UpstreamError::NoDestination)));
        }
    }
}

//! One configured entry of a service's `destinations`: an address, or a name that stands for all its addresses.
//!
//! Guarantees: each address of a name is an endpoint of its own with its own connections; one that stays keeps them,
//! one that is removed gets no further requests and its idle connections are closed, while its requests in flight end
//! by themselves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{UpstreamError, dial::Dial, endpoint::Endpoint, group::Group, pool::Http1Options};
use crate::{
    budget::Budget,
    config::{Address, Timeouts},
    resolve::{LookupError, Resolution, Resolver},
};

/// One configured entry of a service's `destinations`.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Socket(Arc<Endpoint>),
    Name(Arc<Name>),
}

impl Upstream {
    pub(crate) fn new(
        address: &Address,
        options: Http1Options,
        group: &Arc<Group>,
        (budget, resolver): (&Arc<Budget>, &Resolver),
    ) -> Upstream {
        match address {
            Address::Socket(at) => Upstream::Socket(Endpoint::new(
                Dial::new(*at, group.tls().cloned(), Arc::clone(budget)),
                options,
                group,
            )),
            Address::Name(name, port) => Upstream::Name(Arc::new(Name {
                address: address.clone(),
                port: *port,
                resolution: resolver.resolution(name),
                options,
                group: Arc::clone(group),
                budget: Arc::clone(budget),
                known: Mutex::default(),
            })),
        }
    }

    pub(super) fn address(&self) -> &Address {
        match self {
            Upstream::Socket(endpoint) => endpoint.address(),
            Upstream::Name(name) => &name.address,
        }
    }

    /// The pool settings of its connections.
    pub(crate) fn options(&self) -> Http1Options {
        match self {
            Upstream::Socket(endpoint) => endpoint.options(),
            Upstream::Name(name) => name.options,
        }
    }

    /// How it and its neighbours are monitored.
    pub(crate) fn group(&self) -> &Arc<Group> {
        match self {
            Upstream::Socket(endpoint) => endpoint.group(),
            Upstream::Name(name) => &name.group,
        }
    }
}

/// A name and its addresses, in one worker.
#[derive(Debug)]
pub(crate) struct Name {
    /// As configured.
    address: Address,
    port: u16,
    resolution: Arc<Resolution>,
    options: Http1Options,
    group: Arc<Group>,
    budget: Arc<Budget>,
    known: Mutex<Known>,
}

/// The addresses resolved for a name.
pub(super) type Addresses = Arc<[IpAddr]>;

#[derive(Debug, Default)]
struct Known {
    /// What the endpoints were made from.
    addresses: Option<Addresses>,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Name {
    /// Whether there are other addresses than those last `seen`.
    pub(super) fn has_moved(&self, seen: Option<&Addresses>) -> bool {
        self.resolution.newer_than(seen).is_some()
    }

    /// The endpoints for the latest addresses, and those addresses; none before the first answer.
    pub(super) fn endpoints(&self) -> (Option<Addresses>, Vec<Arc<Endpoint>>) {
        let mut known = self.known.lock();
        if let Some(addresses) = self.resolution.newer_than(known.addresses.as_ref()) {
            self.follow(&mut known, addresses);
        }
        (known.addresses.clone(), known.endpoints.clone())
    }

    fn follow(&self, known: &mut Known, addresses: Addresses) {
        let before = known.endpoints.drain(..);
        let mut before: BTreeMap<IpAddr, Arc<Endpoint>> = before.map(|e| (e.dial().at().ip(), e)).collect();
        let endpoint = |&ip: &IpAddr| before.remove(&ip).unwrap_or_else(|| self.endpoint(ip));
        known.endpoints = addresses.iter().map(endpoint).collect();
        // The name's share of descriptors is divided among its endpoints.
        let share = (self.options.max_idle / known.endpoints.len().max(1)).max(1);
        for endpoint in &known.endpoints {
            endpoint.keep_at_most(share);
        }
        known.addresses = Some(addresses);
    }

    fn endpoint(&self, ip: IpAddr) -> Arc<Endpoint> {
        let at = SocketAddr::new(ip, self.port);
        let dial = Dial::of_name(
            Arc::clone(&self.resolution),
            (self.address.clone(), at),
            self.group.tls().cloned(),
            Arc::clone(&self.budget),
        );
        Endpoint::new(dial, self.options, &self.group)
    }

    /// Waits for the first answer.
    pub(super) async fn known(&self, timeouts: &Timeouts) -> Result<(), UpstreamError> {
        let limit = timeouts.connect();
        let known = tokio::time::timeout(limit, self.resolution.known()).await;
        let late = |_| {
            Err(LookupError::new(format_args!(
                "no answer within timeouts.connect_ms ({limit:?})"
            )))
        };
        known.unwrap_or_else(late).map_err(|source| {
            self.budget.counters().upstream_failures.add();
            UpstreamError::Unresolved {
                address: self.address.clone(),
                source,
            }
        })
    }
}

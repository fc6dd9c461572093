//! A destination that is a name: each of its addresses is an endpoint of its own, with its own connections.
//!
//! Guarantees: the addresses take turns; one that stays keeps its connections, one that goes gets no further request and its
//! idle connections are closed, while requests on it end by themselves; no request fails for an address that refuses
//! connections while another one of the name accepts them (as with `connect(2)` over all addresses that the C library
//! gives), and such an address is passed over for [`AVOIDED`].

use std::{
    collections::BTreeMap,
    io, iter,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::{Destination, Http1Options, UpstreamError};
use crate::{
    budget::Budget,
    config::{Address, Timeouts},
    resolve::{LookupError, Resolution, Resolver},
};

/// How long an address that refused a connection is passed over. Short, because the last word has the next answer for the
/// name; long enough that an address family without a route costs next to nothing.
const AVOIDED: Duration = Duration::from_secs(5);

/// What is written as one destination of a service.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Socket(Arc<Destination>),
    Host(Arc<Host>),
}

impl Upstream {
    pub(crate) fn new(address: &Address, options: Http1Options, budget: &Arc<Budget>, resolver: &Resolver) -> Upstream {
        match address {
            Address::Socket(at) => Upstream::Socket(Destination::new(*at, options, Arc::clone(budget))),
            Address::Name(name, port) => Upstream::Host(Host::new((name, *port), options, budget, resolver)),
        }
    }

    pub(super) fn address(&self) -> &Address {
        match self {
            Upstream::Socket(destination) => destination.address(),
            Upstream::Host(host) => host.address(),
        }
    }

    /// How its connections are kept.
    pub(crate) fn options(&self) -> Http1Options {
        match self {
            Upstream::Socket(destination) => destination.options(),
            Upstream::Host(host) => host.options(),
        }
    }
}

/// A name and its addresses, in one worker.
#[derive(Debug)]
pub(crate) struct Host {
    /// As it was written.
    address: Address,
    port: u16,
    me: Weak<Host>,
    resolution: Arc<Resolution>,
    options: Http1Options,
    budget: Arc<Budget>,
    round: Mutex<Round>,
}

#[derive(Debug, Default)]
struct Round {
    /// What the endpoints were made of.
    addresses: Option<Arc<[IpAddr]>>,
    endpoints: Vec<Endpoint>,
    /// Whose turn it is.
    next: usize,
}

#[derive(Debug)]
struct Endpoint {
    destination: Arc<Destination>,
    /// When a connection was refused last, if none was opened since.
    refused: Option<Instant>,
}

impl Endpoint {
    fn is_avoided(&self) -> bool {
        self.refused.is_some_and(|at| at.elapsed() < AVOIDED)
    }
}

impl Host {
    pub(super) fn new(
        (name, port): (&str, u16),
        options: Http1Options,
        budget: &Arc<Budget>,
        resolver: &Resolver,
    ) -> Arc<Host> {
        Arc::new_cyclic(|me| Host {
            address: Address::Name(name.to_owned(), port),
            port,
            me: Weak::clone(me),
            resolution: resolver.resolution(name),
            options,
            budget: Arc::clone(budget),
            round: Mutex::default(),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn options(&self) -> Http1Options {
        self.options
    }

    /// Whose turn it is. Waits for the name's first answer.
    pub(super) async fn pick(&self, timeouts: &Timeouts) -> Result<Arc<Destination>, UpstreamError> {
        match self.turn() {
            Some(destination) => Ok(destination),
            // Boxed: all others do not pay for its size.
            None => Box::pin(self.pick_first(timeouts)).await,
        }
    }

    async fn pick_first(&self, timeouts: &Timeouts) -> Result<Arc<Destination>, UpstreamError> {
        let limit = timeouts.connect();
        let known = tokio::time::timeout(limit, self.resolution.known()).await;
        let late = |_| {
            Err(LookupError::new(format_args!(
                "no answer within timeouts.connect_ms ({limit:?})"
            )))
        };
        let known = known.unwrap_or_else(late);
        let picked = known.and_then(|()| self.turn().ok_or_else(|| LookupError::new("the name has no address")));
        picked.map_err(|source| {
            self.budget.counters().upstream_failures.add();
            UpstreamError::Unresolved {
                address: self.address.clone(),
                source,
            }
        })
    }

    /// The next address that accepts connections as far as is known; the next one if none does; none without an answer.
    fn turn(&self) -> Option<Arc<Destination>> {
        let mut round = self.round.lock();
        self.follow(&mut round);
        let (endpoints, next) = (&round.endpoints, round.next);
        let mut turns = (next..endpoints.len()).chain(0..next);
        let at = turns.find(|&at| !endpoints[at].is_avoided()).unwrap_or(next);
        let destination = Arc::clone(&endpoints.get(at)?.destination);
        round.next = (at + 1) % round.endpoints.len();
        Some(destination)
    }

    /// Makes the endpoints those of the latest answer.
    fn follow(&self, round: &mut Round) {
        let Some(addresses) = self.resolution.newer_than(round.addresses.as_ref()) else {
            return;
        };
        let endpoints = round.endpoints.drain(..);
        let mut known: BTreeMap<IpAddr, Endpoint> = endpoints.map(|e| (e.destination.at.ip(), e)).collect();
        round.endpoints = addresses
            .iter()
            .map(|&ip| {
                known.remove(&ip).unwrap_or_else(|| Endpoint {
                    destination: self.destination(ip),
                    refused: None,
                })
            })
            .collect();
        // The name's place among the descriptors is shared out.
        let share = (self.options.max_idle / round.endpoints.len().max(1)).max(1);
        for endpoint in &round.endpoints {
            endpoint.destination.http1.keep_at_most(share);
        }
        round.next = round.next.min(round.endpoints.len().saturating_sub(1));
        round.addresses = Some(addresses);
    }

    fn destination(&self, ip: IpAddr) -> Arc<Destination> {
        let at = SocketAddr::new(ip, self.port);
        Destination::of_host(
            Weak::clone(&self.me),
            (self.address.clone(), at),
            self.options,
            Arc::clone(&self.budget),
        )
    }

    pub(super) fn sweep(&self) {
        let mut round = self.round.lock();
        self.follow(&mut round);
        for endpoint in &round.endpoints {
            endpoint.destination.sweep();
        }
    }

    /// Opens a connection to a destination of this name, or else to one of the others.
    pub(super) async fn connect(&self, wanted: &Destination, limit: Duration) -> io::Result<TcpStream> {
        let others = self.others(wanted);
        let began = tokio::time::Instant::now();
        let mut refusal: Option<io::Error> = None;
        let mut left = others.len();
        for at in iter::once(wanted.at).chain(others) {
            let connecting = TcpStream::connect(at);
            let connected = if left > 0 {
                // Half of the time is for those that come after.
                let time = limit.saturating_sub(began.elapsed()) / 2;
                let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
                tokio::time::timeout(time, connecting).await.unwrap_or_else(late)
            } else {
                // Whoever waits has the limit.
                connecting.await
            };
            left = left.saturating_sub(1);
            match connected {
                Ok(stream) => {
                    self.accepted(wanted, at);
                    return Ok(stream);
                }
                Err(error) => {
                    self.refused(at);
                    refusal = refusal.or(Some(io::Error::new(error.kind(), format!("{at}: {error}"))));
                }
            }
        }
        Err(refusal.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// Where else to connect to, those first that accept connections as far as is known.
    fn others(&self, wanted: &Destination) -> Vec<SocketAddr> {
        let round = self.round.lock();
        let others = round.endpoints.iter().filter(|other| other.destination.at != wanted.at);
        let (avoided, fine): (Vec<&Endpoint>, Vec<&Endpoint>) = others.partition(|other| other.is_avoided());
        fine.into_iter()
            .chain(avoided)
            .map(|other| other.destination.at)
            .collect()
    }

    fn refused(&self, at: SocketAddr) {
        // It may have moved.
        self.resolution.ask_again();
        let mut round = self.round.lock();
        if let Some(endpoint) = round.endpoints.iter_mut().find(|e| e.destination.at == at) {
            endpoint.refused = Some(Instant::now());
        }
    }

    fn accepted(&self, wanted: &Destination, at: SocketAddr) {
        let mut round = self.round.lock();
        for endpoint in &mut round.endpoints {
            if endpoint.destination.at == at {
                endpoint.refused = None;
            } else if std::ptr::eq(Arc::as_ptr(&endpoint.destination), wanted) {
                // What was connected leads elsewhere and must not be kept for this address.
                let fresh = self.destination(wanted.at.ip());
                fresh.http1.keep_at_most(wanted.http1.most_kept());
                *fresh.last_peer.lock() = wanted.last_peer();
                endpoint.destination = fresh;
            }
        }
    }
}

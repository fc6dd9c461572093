//! Destinations of one service: who gets the next request, and the connections that are kept for it.
//!
//! Guarantees: smooth weighted round robin, so any run of requests as long as the sum of the weights is shared exactly by
//! weight; a destination's connections survive a change of the configuration that keeps its address; whether a request is
//! sent once more is decided in one place ([`retry`]). A member that is a name is all its addresses ([`host`]).
//!
//! Wrong on purpose: a destination that refuses connections stays in the round: its errors are what a release's verdict
//! is about, and hiding them is not this proxy's work yet. Only one of several addresses of a name is passed over.

mod error;
mod host;
mod http1;
mod http2;
mod keep_alive;
mod retry;
mod socket;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

pub(crate) use error::{BodyFailure, UpstreamError};
pub(crate) use host::Upstream;
use http::Request;
use http1::Http1Pool;
pub(crate) use http1::{Http1Body, Http1Options};
pub(crate) use http2::{Http2Body, Http2Pool, PING_EVERY, PING_TIMEOUT};
use parking_lot::Mutex;
pub(crate) use socket::Switched;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    body::{LastMove, RequestBody},
    budget::Budget,
    config::{Address, Timeouts},
    counters::Counters,
    telemetry::{PeerId, Source},
    wire::io::IdleTimer,
};

/// The body of a request that waits for its response: while it moves, the destination is not late.
#[derive(Debug)]
struct Upload {
    /// The task that sends a body over HTTP/2 is another one: the last bytes that it moved are found when a time is up.
    moved: Option<Arc<LastMove>>,
}

impl Upload {
    fn of(request: &Request<RequestBody>) -> Upload {
        Upload {
            moved: request.body().last_move(),
        }
    }

    /// Ready when `limit` has passed without a byte of the body moving.
    fn poll_stalled(&self, timer: &mut IdleTimer, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        ready!(timer.poll(cx, limit));
        while let Some(moved) = &self.moved
            && let Some(left) = limit.checked_sub(moved.elapsed())
            && !left.is_zero()
        {
            timer.disarm();
            ready!(timer.poll(cx, left));
        }
        Poll::Ready(())
    }
}

/// One address of a service.
#[derive(Debug)]
pub(crate) struct Destination {
    /// As it was written.
    address: Address,
    /// Where that is.
    at: SocketAddr,
    /// Whose address it is one of, if it was written as a name.
    host: Weak<host::Host>,
    pub(crate) http1: Http1Pool,
    pub(crate) http2: Http2Pool,
    /// The release that answered last: whom the next request is for, before it is answered.
    last_peer: Mutex<Option<PeerId>>,
    /// Of whose shares the names are that it says.
    source: Source,
    budget: Arc<Budget>,
}

impl Destination {
    pub(crate) fn new(at: SocketAddr, options: Http1Options, budget: Arc<Budget>) -> Arc<Destination> {
        Destination::of_host(Weak::new(), (at.into(), at), options, budget)
    }

    /// One of the addresses of a name.
    fn of_host(
        host: Weak<host::Host>,
        (address, at): (Address, SocketAddr),
        options: Http1Options,
        budget: Arc<Budget>,
    ) -> Arc<Destination> {
        Arc::new(Destination {
            host,
            at,
            http2: Http2Pool::new(options.max_header_bytes, options.idle),
            http1: Http1Pool::new(options),
            source: Source::of_destination(&address),
            address,
            last_peer: Mutex::new(None),
            budget,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Of whose share the names are that it says.
    pub(crate) fn source(&self) -> Source {
        self.source
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn counters(&self) -> &Counters {
        self.budget.counters()
    }

    /// How its connections are kept.
    pub(crate) fn options(&self) -> Http1Options {
        self.http1.options()
    }

    /// The release that answered last.
    pub(crate) fn last_peer(&self) -> Option<PeerId> {
        *self.last_peer.lock()
    }

    pub(crate) fn set_last_peer(&self, peer: PeerId) {
        *self.last_peer.lock() = Some(peer);
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self, timeouts: &Timeouts) -> Result<TcpStream, UpstreamError> {
        let connecting = async {
            match self.host.upgrade() {
                // Boxed: most destinations are no names.
                Some(host) => Box::pin(host.connect(self, timeouts.connect())).await,
                None => TcpStream::connect(self.at).await,
            }
        };
        let connected = tokio::time::timeout(timeouts.connect(), connecting).await;
        let result = match connected {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(UpstreamError::Connect {
                address: self.address.clone(),
                source,
            }),
            Err(_) => Err(UpstreamError::ConnectTimeout {
                address: self.address.clone(),
                limit: timeouts.connect(),
            }),
        };
        match result {
            Ok(stream) => {
                self.counters().upstream_connections.add();
                prepare(&stream);
                Ok(stream)
            }
            Err(error) => {
                self.counters().upstream_failures.add();
                Err(error)
            }
        }
    }

    /// Closes connections that were idle for too long or were closed by the other end.
    fn sweep(&self) {
        self.http1.sweep();
        self.http2.sweep();
    }

    fn count_retry(&self) {
        self.counters().retries.add();
    }
}

/// Settings of every socket of the data path.
pub(crate) fn prepare(stream: &TcpStream) {
    // Small writes leave at once. A socket that refuses the option works without it.
    let _ = stream.set_nodelay(true);
    // Peers that vanished without a word are found in about two minutes.
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keep_alive);
}

/// The destinations of one service.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// Credit of each member in the smooth weighted round robin.
    credit: Mutex<Vec<i64>>,
}

#[derive(Debug)]
struct Member {
    upstream: Upstream,
    weight: i64,
}

impl Cluster {
    /// `members`: destinations with their weights.
    pub(crate) fn new(members: impl IntoIterator<Item = (Upstream, u32)>) -> Cluster {
        let members: Vec<Member> = members
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(upstream, weight)| Member {
                upstream,
                weight: i64::from(weight),
            })
            .collect();
        Cluster {
            credit: Mutex::new(vec![0; members.len()]),
            members,
        }
    }

    /// A service at equal addresses.
    pub(crate) fn of_addresses(addresses: &[SocketAddr], options: Http1Options, budget: &Arc<Budget>) -> Cluster {
        Cluster::new(addresses.iter().map(|&at| {
            let destination = Destination::new(at, options, Arc::clone(budget));
            (Upstream::Socket(destination), 1)
        }))
    }

    /// Whose turn it is; `None` without members. Waits only for the first answer for a name.
    pub(crate) async fn pick(&self, timeouts: &Timeouts) -> Option<Result<Arc<Destination>, UpstreamError>> {
        match self.turn()? {
            Upstream::Socket(destination) => Some(Ok(Arc::clone(destination))),
            Upstream::Host(host) => Some(host.pick(timeouts).await),
        }
    }

    fn turn(&self) -> Option<&Upstream> {
        if self.members.len() <= 1 {
            return self.members.first().map(|member| &member.upstream);
        }
        let mut credit = self.credit.lock();
        let mut best = 0;
        let mut total = 0;
        for (at, member) in self.members.iter().enumerate() {
            credit[at] += member.weight;
            total += member.weight;
            if credit[at] > credit[best] {
                best = at;
            }
        }
        credit[best] -= total;
        Some(&self.members[best].upstream)
    }

    /// What an address stands for already, to keep its connections.
    pub(crate) fn find(&self, address: &Address) -> Option<&Upstream> {
        let mut known = self.members.iter().map(|member| &member.upstream);
        known.find(|upstream| upstream.address() == address)
    }

    /// Closes connections that were idle for too long or were closed by the other end.
    pub(crate) fn sweep(&self) {
        for member in &self.members {
            match &member.upstream {
                Upstream::Socket(destination) => destination.sweep(),
                Upstream::Host(host) => host.sweep(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::Instant;

    use super::*;

    fn cluster(weights: &[u32]) -> Cluster {
        let budget = Budget::new(&crate::config::Limits::default(), &Arc::default());
        Cluster::new(weights.iter().enumerate().map(|(at, &weight)| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1000 + at as u16));
            let destination = Destination::new(address, Http1Options::default(), Arc::clone(&budget));
            (Upstream::Socket(destination), weight)
        }))
    }

    fn picks(cluster: &Cluster, n: usize) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for _ in 0..n {
            *counts.entry(cluster.turn().unwrap().address().to_string()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_cluster_without_weight_picks_nobody() {
        assert!(cluster(&[]).turn().is_none());
        assert!(cluster(&[0, 0]).turn().is_none());
    }

    proptest! {
        /// Over one round (as many requests as the weights sum to) every destination gets exactly its weight.
        #[test]
        fn weights_are_respected_exactly_in_every_round(weights in proptest::collection::vec(0_u32..20, 1..6)) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let cluster = cluster(&weights);
            for _ in 0..3 {
                let counts = picks(&cluster, total as usize);
                for (at, &weight) in weights.iter().enumerate() {
                    let address = format!("127.0.0.1:{}", 1000 + at);
                    prop_assert_eq!(counts.get(&address).copied().unwrap_or_default(), weight as usize);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_moves_is_not_late() {
        const LIMIT: Duration = Duration::from_millis(600);
        const PAUSE: Duration = Duration::from_millis(500);
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let parts = futures_util::stream::unfold(receive, |mut receive| async {
            let part = receive.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(part)), receive))
        });
        let mut body = RequestBody::stream(StreamBody::new(parts));
        body.count_into(Arc::default());
        let request = Request::new(body);
        let (upload, begun) = (Upload::of(&request), Instant::now());
        let caller = async {
            // Together longer than the limit, each pause shorter.
            for _ in 0..4 {
                tokio::time::sleep(PAUSE).await;
                send.send(Bytes::from_static(b"x")).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let passed = async {
            let mut body = request.into_body();
            while body.frame().await.is_some() {}
        };
        let mut timer = IdleTimer::default();
        let stalled = std::future::poll_fn(|cx| upload.poll_stalled(&mut timer, cx, LIMIT));
        tokio::select! {
            () = stalled => {}
            ((), ()) = async { tokio::join!(caller, passed) } => {}
        }
        let late = begun.elapsed().checked_sub(4 * PAUSE + LIMIT);
        assert!(
            late.is_some_and(|late| late < Duration::from_millis(10)),
            "{:?}",
            begun.elapsed()
        );
    }
}

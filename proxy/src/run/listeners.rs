//! The listeners of all workers: which ones exist, and how they follow the state.
//!
//! Guarantees: a state is applied as a whole or not at all: plans are made and sockets bound before anything changes. A
//! listener's plan is replaced in one step. A new listener accepts from the moment its state is applied; a removed one
//! stops accepting, as described in [`listener::accept`], while its requests in flight end ([`super::worker`]). A
//! listener that moves to another address is a new one and a removed one, even if the addresses overlap.
//!
//! Wrong on purpose: connections to endpoints stay with a listener, so a listener that moves opens its own.

use std::{
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use emberline_model::Side;
use tokio::sync::mpsc;

use super::plan::{Parts, PlanError, plan};
use crate::{
    drain::{Drain, Draining},
    listener::{self, BindError, Neighbours},
    server::{forward::Forwarder, plan::Plan},
    state::{Listener, ListenerId, State},
};

/// One listener, as shared by all workers.
#[derive(Debug)]
pub(super) struct Listening {
    id: ListenerId,
    /// Where it listens; the port is known.
    at: SocketAddr,
    /// Starts its removal. Workers hold a share of it until their last connection has ended.
    removal: Drain,
    /// Open sockets, one per worker.
    sockets: AtomicUsize,
    /// Workers that have connections from it, or may still get some.
    workers: AtomicUsize,
    /// A worker ended connections that had requests in flight.
    was_cut_off: AtomicBool,
}

impl Listening {
    pub(super) fn id(&self) -> ListenerId {
        self.id
    }

    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// True while it still holds its address.
    fn is_open(&self) -> bool {
        self.sockets.load(Ordering::Acquire) > 0
    }

    /// Called when a worker has closed its socket.
    pub(super) fn close(&self) {
        self.sockets.fetch_sub(1, Ordering::Release);
    }

    /// Called when connections of a worker did not end in time.
    pub(super) fn cut_off(&self) {
        self.was_cut_off.store(true, Ordering::Relaxed);
    }

    /// Called when a worker's last connection has ended.
    pub(super) fn leave(&self) {
        if self.workers.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (listener, address) = (self.id.side_name(), self.at);
        if self.was_cut_off.load(Ordering::Relaxed) {
            tracing::warn!(listener, %address, "removed listener closed; requests still in flight after drain_seconds were aborted");
        } else {
            tracing::info!(listener, %address, "removed listener closed");
        }
    }
}

/// What a worker needs to start a listener.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) socket: StdTcpListener,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) listening: Arc<Listening>,
    /// Its removal.
    pub(super) removal: Draining,
}

/// Where a worker receives new listeners.
pub(super) type Starts = mpsc::UnboundedReceiver<Start>;

/// Plans of a state's listeners, by listener, then by worker.
pub(super) struct Plans(Vec<Vec<Plan>>);

/// Sockets for a state's listeners, with their addresses; `None` for listeners that already have theirs.
pub(super) struct Sockets(Vec<Option<(SocketAddr, Vec<StdTcpListener>)>>);

/// Listeners added and removed by a state.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: Vec<Arc<Listening>>,
    pub(super) removed: Vec<Arc<Listening>>,
}

/// A listener of the current state.
#[derive(Debug, Clone)]
struct Current {
    listening: Arc<Listening>,
    /// By worker.
    forwarders: Vec<Arc<Forwarder>>,
}

/// All listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    workers: Vec<mpsc::UnboundedSender<Start>>,
    /// In the order of the state.
    current: Vec<Current>,
    /// Removed from the state, with connections that have not ended.
    draining: Vec<Arc<Listening>>,
}

impl Listeners {
    /// Without any listeners; also returns where each worker receives new ones.
    pub(super) fn new(workers: u16) -> (Listeners, Vec<Starts>) {
        let (workers, starts) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let listeners = Listeners {
            workers,
            current: Vec::new(),
            draining: Vec::new(),
        };
        (listeners, starts)
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The listeners of the state that was applied last, in its order.
    pub(super) fn current(&self) -> impl Iterator<Item = &Arc<Listening>> {
        self.current.iter().map(|current| &current.listening)
    }

    /// Removed listeners that still have connections.
    pub(super) fn draining(&self) -> impl Iterator<Item = &Arc<Listening>> {
        self.draining.iter().filter(|listening| !listening.removal.is_done())
    }

    fn find(&self, id: ListenerId) -> Option<&Current> {
        self.current.iter().find(|current| current.listening.id == id)
    }

    /// Makes the plans of a state. Endpoints that a listener already has keep their connections.
    pub(super) fn plan(&self, state: &State, parts: &Parts<'_>) -> Result<Plans, PlanError> {
        let plans_of = |wanted: &Listener| {
            let known = self.find(wanted.id);
            let of_worker = |worker: usize| {
                let previous = known.map(|known| known.forwarders[worker].plan.load_full());
                plan(wanted, parts, previous.as_deref())
            };
            (0..self.workers()).map(of_worker).collect::<Result<Vec<_>, _>>()
        };
        let plans = state.listeners.iter().map(plans_of);
        plans.collect::<Result<_, _>>().map(Plans)
    }

    /// Binds the addresses of a state that are not bound yet; `others` says who may be there besides listeners of this
    /// process that are about to close.
    ///
    /// # Errors
    ///
    /// If an address is taken or does not belong to this machine. Nothing new is bound then.
    pub(super) fn bind(&self, state: &State, others: impl Fn(SocketAddr) -> Neighbours) -> Result<Sockets, BindError> {
        let going = self.current().filter(|listening| !state.has(listening.id));
        let going: Vec<&Arc<Listening>> = going.chain(&self.draining).filter(|l| l.is_open()).collect();
        let bind = |wanted: &Listener| {
            if self.find(wanted.id).is_some() {
                return Ok(None);
            }
            let address = wanted.id.address;
            let neighbours = if going.iter().any(|own| overlap(own.at, address)) {
                Neighbours::Leaving
            } else {
                others(address)
            };
            let services = wanted.services.iter().map(|service| service.cluster.service.as_str());
            let of_outbound = format!("the outbound listener of {}", services.collect::<Vec<_>>().join(", "));
            let names = match wanted.id.side {
                Side::Server => ("an inbound listener", "inbound.listen"),
                Side::Client => (of_outbound.as_str(), "outbound.listen"),
            };
            listener::bind(address, self.workers(), neighbours, names).map(Some)
        };
        let sockets = state.listeners.iter().map(bind);
        sockets.collect::<Result<_, _>>().map(Sockets)
    }

    /// Makes all workers follow a state, using its plans and sockets.
    pub(super) fn apply(&mut self, state: &State, (plans, sockets): (Plans, Sockets), parts: &Parts<'_>) -> Changes {
        let mut changes = Changes::default();
        let mut current = Vec::new();
        for ((wanted, plans), sockets) in state.listeners.iter().zip(plans.0).zip(sockets.0) {
            if let Some(known) = self.find(wanted.id) {
                for (forwarder, plan) in known.forwarders.iter().zip(plans) {
                    forwarder.plan.store(Arc::new(plan));
                    forwarder.probes.forget();
                }
                current.push(known.clone());
            } else if let Some(bound) = sockets {
                let new = self.start(wanted.id, bound, plans, parts);
                changes.added.push(Arc::clone(&new.listening));
                current.push(new);
            }
        }
        for before in std::mem::replace(&mut self.current, current) {
            if !state.has(before.listening.id) {
                before.listening.removal.start(state.drain);
                changes.removed.push(before.listening);
            }
        }
        self.draining.extend(changes.removed.iter().cloned());
        self.draining.retain(|listening| !listening.removal.is_done());
        changes
    }

    /// Stops accepting; the connections go on until their callers leave.
    pub(super) fn hand_over(&mut self) {
        for handed in self.current.drain(..) {
            handed.listening.removal.retire();
            self.draining.push(handed.listening);
        }
    }

    fn start(
        &self,
        id: ListenerId,
        (at, sockets): (SocketAddr, Vec<StdTcpListener>),
        plans: Vec<Plan>,
        parts: &Parts<'_>,
    ) -> Current {
        let listening = Arc::new(Listening {
            id,
            at,
            removal: Drain::new(),
            sockets: AtomicUsize::new(self.workers()),
            workers: AtomicUsize::new(self.workers()),
            was_cut_off: AtomicBool::new(false),
        });
        let forwarders: Vec<_> = plans.into_iter().map(|plan| Arc::new(parts.forwarder(plan))).collect();
        for ((worker, socket), forwarder) in self.workers.iter().zip(sockets).zip(&forwarders) {
            // A worker that is gone needs no more listeners: the process is stopping.
            let _ = worker.send(Start {
                socket,
                forwarder: Arc::clone(forwarder),
                removal: listening.removal.join(),
                listening: Arc::clone(&listening),
            });
        }
        Current { listening, forwarders }
    }
}

/// Whether a connection to one address might be meant for the other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

//! The doors: how connections reach the three ports, how many, for how long, and what happens if there are too many.
//!
//! Guarantees: nobody keeps a slot by doing nothing. A head has to be complete within 10 s and 64 KiB, a body and a
//! response have to make progress, a connection between two requests is closed after 75 s; when slots are scarce all
//! this shrinks to a few seconds, and when they run out, connections that keep the server waiting are closed to make
//! room: first those of the address with the most, and among these, those that never finished a request. One address
//! has at most seven eighths of a port's slots. What connections hold is bounded for all together ([`crate::budget`]),
//! and every refusal is counted by reason. `/-/ready` and `/-/healthy` are answered even if no room can be made. At
//! shutdown, requests in flight are completed.
//!
//! HTTP/2's limits: 100 streams and heads of 16 KiB per connection, pings that detect dead peers, and the library's own
//! against streams that are opened only to be reset.
//!
//! Wrong on purpose: a client that is closed for the sake of others sees its connection closed without an explanation:
//! there is no request to answer. Clients behind one proxy are one address.

mod health;
mod io;
mod port;
mod seat;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::budget::Budget;
pub(crate) use port::Port;
use seat::{Reason, Told};

/// The unit of the doors' clock.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two sweeps over all connections.
const SWEEP_TICKS: u64 = 4;
/// Ticks between two warnings.
const WARN_TICKS: u64 = 240;

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1 and HTTP/2.
    Http,
    /// HTTP/2 only, as in gRPC.
    Http2,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    port: &'static str,
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Counts {
    open: Family<PortLabel, Gauge>,
    ended: Family<ReasonLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    /// Events to warn about.
    floods: AtomicU64,
}

/// What all ports share.
#[derive(Debug)]
pub(crate) struct Doors {
    budget: Budget,
    /// Ticks since the start, from 1.
    clock: Arc<AtomicU64>,
    /// Bytes of heads: incomplete ones, and those of requests in flight.
    heads: AtomicU64,
    requests: AtomicUsize,
    counts: Counts,
    ports: Mutex<Vec<Arc<Port>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Doors {
    pub(crate) fn new(budget: Budget) -> Arc<Doors> {
        Arc::new(Doors {
            budget,
            clock: Arc::new(AtomicU64::new(1)),
            heads: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            counts: Counts::default(),
            ports: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Serves a port until the stop; needs a runtime.
    pub(crate) fn open(self: &Arc<Self>, name: &'static str, listener: TcpListener, speaks: Speaks, router: Router) {
        let port = Arc::new(Port::new(name, Arc::clone(self), speaks, router));
        let mut ports = self.ports.lock();
        if ports.is_empty() {
            self.tasks.spawn(Arc::clone(self).keep_time());
        }
        ports.push(Arc::clone(&port));
        self.tasks.spawn(port.accept(listener));
    }

    /// Adds the counters to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("emberline_server");
        r.register("connections", "Open connections, by port", self.counts.open.clone());
        r.register(
            "connections_ended",
            "Connections closed by the server, by port and reason: silent, head_timeout, slow_sender, slow_reader, idle, made_room (connection limit reached), heads_full",
            self.counts.ended.clone(),
        );
        r.register(
            "refused",
            "Connections and requests refused, by port and reason: full (connection limit), requests_full and heads_full (503 responses)",
            self.counts.refused.clone(),
        );
    }

    /// The `connections` part of the status.
    pub(crate) fn status(&self) -> Value {
        let ports = self.ports.lock().clone();
        let of_ports = ports.iter().map(|port| (port.name.to_owned(), port.status()));
        json!({
            "limits": self.budget,
            "head_bytes": self.heads.load(Relaxed),
            "requests": self.requests.load(Relaxed),
            "ports": of_ports.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// Stops accepting, lets requests in flight complete within `patience`, and cuts off the rest; false if anything
    /// was cut off.
    pub(crate) async fn close(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_ok() {
            return true;
        }
        for port in self.ports.lock().iter() {
            port.tell_all(Told::Leave);
        }
        // Once told, they end at the next poll.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        false
    }

    fn now(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    async fn keep_time(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut warned_at, mut warned_of) = (0, 0);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stop.cancelled() => return,
            }
            let now = self.clock.fetch_add(1, Relaxed) + 1;
            if !now.is_multiple_of(SWEEP_TICKS) {
                continue;
            }
            let ports = self.ports.lock().clone();
            for port in &ports {
                port.sweep(now);
            }
            let floods = self.counts.floods.load(Relaxed);
            if floods > warned_of && (warned_at == 0 || now - warned_at >= WARN_TICKS) {
                tracing::warn!(
                    "too many connections or requests: {} refused or closed to make room ({}; {} bytes of heads); see `connections` in /api/v1/status, and raise the cgroup's memory limit or LimitNOFILE if the load is legitimate",
                    floods - warned_of,
                    self.budget.in_words(),
                    self.heads.load(Relaxed)
                );
                (warned_at, warned_of) = (now, floods);
            }
        }
    }

    fn count_ended(&self, port: &'static str, reason: Reason) {
        if matches!(reason, Reason::MadeRoom | Reason::Heads) {
            self.counts.floods.fetch_add(1, Relaxed);
        }
        let labels = ReasonLabels {
            port,
            reason: reason.word(),
        };
        self.counts.ended.get_or_create(&labels).inc();
    }
}

impl Port {
    fn count_refused(&self, reason: &'static str) {
        self.doors.counts.floods.fetch_add(1, Relaxed);
        let labels = ReasonLabels {
            port: self.name,
            reason,
        };
        self.doors.counts.refused.get_or_create(&labels).inc();
    }

    fn open_connections(&self) -> Gauge {
        self.doors
            .counts
            .open
            .get_or_create_owned(&PortLabel { port: self.name })
    }

    fn status(&self) -> Value {
        let count = |family: &Family<ReasonLabels, Counter>, reason| {
            let labels = ReasonLabels {
                port: self.name,
                reason,
            };
            family.get(&labels).map_or(0, |counter| counter.get())
        };
        let ended = Reason::ALL.map(|reason| {
            (
                reason.word().to_owned(),
                json!(count(&self.doors.counts.ended, reason.word())),
            )
        });
        let refused = REFUSALS.map(|reason| (reason.to_owned(), json!(count(&self.doors.counts.refused, reason))));
        json!({
            "open": self.open_connections().get(),
            "ended": serde_json::Map::from_iter(ended),
            "refused": serde_json::Map::from_iter(refused),
        })
    }
}

/// Why a connection or a request is refused.
const REFUSALS: [&str; 3] = [FULL, REQUESTS_FULL, HEADS_FULL];
const FULL: &str = "full";
const REQUESTS_FULL: &str = "requests_full";
const HEADS_FULL: &str = "heads_full";

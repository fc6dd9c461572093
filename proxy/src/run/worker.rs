//! A worker: one thread that accepts connections, forwards and records.
//!
//! Guarantees: a listener that closes, because it was removed or because the process stops, lets its requests in flight
//! end and closes its idle connections at once; for a removed one, they have `drain_seconds`, after which their
//! connections are closed; for one that was handed to another process they have as long as they take.

use std::{
    io,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use emberline_model::Side;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use super::{
    Shared,
    listeners::{Start, Starts},
};
use crate::{
    budget::Guard,
    config::Protocol,
    drain::{Drain, Draining},
    listener::{self, Admission},
    server::{self, forward::Forwarder, tcp::FirstWord},
    tls::Begun,
    wire::{
        detect::{Detected, Expected},
        proxy_header,
        transport::Transport,
    },
};

/// How often idle and aged connections to endpoints are closed.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts a worker. Its thread returns whether everything in flight ended by itself.
pub(super) fn start(number: usize, starts: Starts, shared: Arc<Shared>) -> io::Result<JoinHandle<bool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("emberline-w{number}"))
        .spawn(move || {
            emberline_profiler::register_thread();
            runtime.block_on(run(starts, shared))
        })
}

async fn run(mut starts: Starts, shared: Arc<Shared>) -> bool {
    let mut draining = shared.drain.join();
    let mut forwarders: Vec<Weak<Forwarder>> = Vec::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            () = draining.asked() => break,
            Some(start) = starts.recv() => {
                forwarders.push(Arc::downgrade(&start.forwarder));
                tokio::spawn(listen(start, Arc::clone(&shared)));
            }
            _ = sweep.tick() => forwarders.retain(|forwarder| {
                let forwarder = forwarder.upgrade();
                forwarder.is_some_and(|forwarder| {
                    // Closes connections to endpoints that have been idle for too long.
                    forwarder.plan.load().sweep();
                    true
                })
            }),
        }
    }
    drop(draining);
    let limit = shared.reloader.drain();
    let drained = tokio::time::timeout(limit, shared.drain.done()).await.is_ok();
    if !drained {
        // What ends with the runtime did not end by itself.
        shared.reporting.telemetry.cut_off();
    }
    drained
}

/// Runs one listener in this worker, until its last connection has ended.
async fn listen(start: Start, shared: Arc<Shared>) {
    let Start {
        socket,
        forwarder,
        listening,
        mut removal,
    } = start;
    let mut stop = shared.drain.join();
    match TcpListener::from_std(socket) {
        Ok(listener) => {
            let (connections, open) = (Drain::new(), Arc::new(Mutex::new(Open::default())));
            let closing = async {
                tokio::select! {
                    () = removal.retires() => {}
                    () = stop.asked() => {}
                }
            };
            accept(listener, forwarder, closing, &connections, &open).await;
            listening.close();
            if !removal.is_asked() {
                connections.retire();
                tokio::select! {
                    () = connections.done() => {}
                    () = stop.asked() => {}
                }
            }
            connections.start(shared.reloader.drain());
            let limit = removal.is_asked().then(|| shared.reloader.drain());
            if !is_done_within(limit, &connections).await {
                listening.cut_off();
                open.lock().cut_off();
                connections.done().await;
            }
        }
        Err(error) => {
            tracing::error!(%error, address = %listening.at(), "cannot accept connections on a listener");
            listening.close();
        }
    }
    let is_removed = removal.is_retiring();
    drop(removal);
    if is_removed {
        listening.leave();
    }
}

/// Accepts until `closing` resolves, and gives each connection a task.
async fn accept(
    listener: TcpListener,
    forwarder: Arc<Forwarder>,
    closing: impl Future<Output = ()>,
    connections: &Drain,
    open: &Mutex<Open>,
) {
    let budget = Arc::clone(&forwarder.budget);
    // Outbound listeners have one caller: the workload itself.
    let has_shares = forwarder.plan.load().side == Side::Server;
    let draining = connections.join();
    listener::accept(listener, budget, has_shares, closing, move |stream, admission| {
        open.lock().add(&admission.guard);
        let (forwarder, draining) = (Arc::clone(&forwarder), draining.clone());
        let is_announced = {
            let plan = forwarder.plan.load();
            plan.proxy_protocol
                .iter()
                .any(|network| network.contains(admission.caller))
        };
        tokio::spawn(async move {
            let (guard, mut admission, mut stream) = (Arc::clone(&admission.guard), admission, stream);
            let serving = async {
                // Boxed: few listeners are behind a balancer that says so.
                if is_announced && !Box::pin(is_introduced(&mut stream, &forwarder, &mut admission)).await {
                    return;
                }
                serve(stream, forwarder, draining, &admission).await;
            };
            guard.until_asked_to_leave(serving).await;
        });
    })
    .await;
}

/// Whether all connections end, within a limit if there is one.
async fn is_done_within(limit: Option<Duration>, connections: &Drain) -> bool {
    match limit {
        Some(limit) => tokio::time::timeout(limit, connections.done()).await.is_ok(),
        None => {
            connections.done().await;
            true
        }
    }
}

/// The connections of a listener in one worker that may still be open.
#[derive(Debug, Default)]
struct Open {
    guards: Vec<Weak<Guard>>,
}

impl Open {
    fn add(&mut self, guard: &Arc<Guard>) {
        if self.guards.len() == self.guards.capacity() {
            // Only before it grows, and then it grows by half at least: each connection is checked a few times in all.
            self.guards.retain(|guard| guard.strong_count() > 0);
            self.guards.reserve(self.guards.len().max(64));
        }
        self.guards.push(Arc::downgrade(guard));
    }

    /// Ends them, along with what is in flight on them.
    fn cut_off(&self) {
        for guard in self.guards.iter().filter_map(Weak::upgrade) {
            guard.cut_off();
        }
    }
}

/// Has the connection be that of whom its balancer names; false where it names nobody.
async fn is_introduced(stream: &mut TcpStream, forwarder: &Forwarder, admission: &mut Admission) -> bool {
    let limit = forwarder.http.caller_times().header;
    match proxy_header::read(stream, admission.caller, limit).await {
        Ok(caller) => {
            admission.caller = caller;
            true
        }
        Err(none) => {
            forwarder.counters.connection_broke(none.reason());
            false
        }
    }
}

/// Serves one connection, whatever its protocol.
async fn serve(stream: TcpStream, forwarder: Arc<Forwarder>, draining: Draining, admission: &Admission) {
    let (protocol, expected, mut tls) = {
        let plan = forwarder.plan.load();
        let expected = if plan.is_http {
            Expected::Http
        } else {
            Expected::Anything
        };
        (plan.protocol, expected, plan.tls.clone())
    };
    let mut stream = Transport::Plain(stream);
    let (mut upstream, mut agreed, mut _charge) = (None, None, None);
    let (detected, prefix) = loop {
        stream = match stream {
            Transport::Plain(plain) if let Some(inbound) = tls.take() => {
                let times = times_to_begin(&forwarder, protocol);
                // Boxed, so that the many plaintext connections do not pay for its size.
                let beginning = inbound.begin(plain, admission, times, &draining, &forwarder.counters);
                match Box::pin(beginning).await {
                    Begun::Secured(secured, spoken, charge) => {
                        (agreed, _charge) = (spoken, Some(charge));
                        secured
                    }
                    Begun::Plain(plain) => Transport::Plain(plain),
                    Begun::Silent(plain) => {
                        tls = Some(inbound);
                        Transport::Plain(plain)
                    }
                    Begun::Over => return,
                }
            }
            known => known,
        };
        match (protocol, agreed) {
            (Protocol::Http1, _) => break (Detected::Http1, Bytes::new()),
            (Protocol::Http2, _) => break (Detected::Http2, Bytes::new()),
            (Protocol::Tcp, _) => break (Detected::Tcp, Bytes::new()),
            (Protocol::Auto, Some(agreed)) => break (agreed, Bytes::new()),
            // A connection that began silently can still become TLS.
            (Protocol::Auto, None) if tls.is_some() => {}
            (Protocol::Auto, None) => {
                let wait = Duration::from_millis(forwarder.http.limits().detect_ms);
                match server::first_bytes(&mut stream, expected, wait, &draining, &forwarder.counters).await {
                    Some((Detected::Silent, _)) => {}
                    Some(found) => break found,
                    None => return,
                }
            }
        }
        // Boxed: most callers speak first.
        match Box::pin(forwarder.first_word(&mut stream, expected, admission, &draining)).await {
            FirstWord::Caller => {}
            FirstWord::Destination(connected) => {
                upstream = Some(*connected);
                break (Detected::Tcp, Bytes::new());
            }
            FirstWord::Nobody => return,
        }
    };
    if matches!(detected, Detected::Http1 | Detected::Http2) {
        forwarder.probes.caller_speaks_http();
    }
    let counters = Arc::clone(&forwarder.counters);
    match detected {
        Detected::Http1 => {
            let http = forwarder.http.clone();
            http.serve_http1(stream, prefix, admission, forwarder, draining, &counters)
                .await;
        }
        Detected::Http2 => {
            let http = forwarder.http.clone();
            // Boxed, as is TCP below, so that the many HTTP/1 connections do not pay for their size.
            Box::pin(http.serve_http2(stream, prefix, admission, forwarder, draining, &counters)).await;
        }
        Detected::Tcp => Box::pin(forwarder.carry_tcp(stream, prefix, upstream, admission, draining)).await,
        Detected::Silent | Detected::Nothing => {}
    }
}

/// How long a caller may be silent before its connection is treated as plaintext, and how long a handshake may take.
fn times_to_begin(forwarder: &Forwarder, protocol: Protocol) -> (Duration, Duration) {
    let times = forwarder.http.caller_times();
    let wait = match protocol {
        Protocol::Auto | Protocol::Tcp => Duration::from_millis(forwarder.http.limits().detect_ms),
        Protocol::Http1 | Protocol::Http2 => times.keep_alive,
    };
    (wait, times.header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counters::Counters, run::reload::tests::reloader};

    /// Every open connection holds one of these; a large local in an `async fn` would show up only here.
    #[test]
    fn a_connections_task_stays_small() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (_reloader, mut starts) = reloader();
            let forwarder = starts.try_recv().unwrap().forwarder;
            let admission = Admission::for_test(&Arc::<Counters>::default());
            let task = serve(stream, forwarder, Drain::new().join(), &admission);
            let size = size_of_val(&task);
            assert!(size <= 3_000, "{size} bytes");
        });
    }
}

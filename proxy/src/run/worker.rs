//! A worker: one thread that accepts, carries and records.

use std::{io, net::TcpListener as StdTcpListener, sync::Arc, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use emberline_model::Side;
use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use crate::{
    config::Protocol,
    drain::Draining,
    listener::{self, Admission},
    server::{self, forward::Forwarder, tcp::FirstWord},
    wire::detect::{Detected, Expected},
};

/// How often connections to destinations are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts a worker. Its thread returns whether everything in flight ended by itself.
pub(super) fn start(
    number: usize,
    listeners: Vec<(StdTcpListener, Arc<Forwarder>)>,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<bool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("emberline-w{number}"))
        .spawn(move || {
            emberline_profiler::register_thread();
            runtime.block_on(run(number, listeners, shared))
        })
}

async fn run(number: usize, listeners: Vec<(StdTcpListener, Arc<Forwarder>)>, shared: Arc<Shared>) -> bool {
    for (socket, forwarder) in listeners {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections on a listener");
                continue;
            }
        };
        let draining = shared.drain.join();
        // Outbound listeners have one caller: the workload itself.
        let has_shares = forwarder.plan.load().side == Side::Server;
        tokio::spawn(listener::accept(
            listener,
            Arc::clone(&forwarder.budget),
            has_shares,
            draining.clone(),
            move |stream, admission| {
                let (forwarder, draining) = (Arc::clone(&forwarder), draining.clone());
                tokio::spawn(async move {
                    let guard = &admission.guard;
                    guard
                        .until_asked_to_leave(serve(stream, forwarder, draining, &admission))
                        .await;
                });
            },
        ));
    }
    let sweeping = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                shared.reloader.sweep(number);
            }
        }
    });
    let mut draining = shared.drain.join();
    draining.asked().await;
    drop(draining);
    sweeping.abort();
    let limit = Duration::from_secs(shared.reloader.drain_seconds());
    let drained = tokio::time::timeout(limit, shared.drain.done()).await.is_ok();
    if !drained {
        // What goes down with the runtime did not end by itself.
        shared.reporting.telemetry.cut_off();
    }
    drained
}

/// One connection, whatever it speaks.
async fn serve(mut stream: TcpStream, forwarder: Arc<Forwarder>, draining: Draining, admission: &Admission) {
    let (protocol, expected) = {
        let plan = forwarder.plan.load();
        let expected = if plan.has_routes {
            Expected::Http
        } else {
            Expected::Anything
        };
        (plan.protocol, expected)
    };
    let mut upstream = None;
    let (detected, prefix) = match protocol {
        Protocol::Http1 => (Detected::Http1, Bytes::new()),
        Protocol::Http2 => (Detected::Http2, Bytes::new()),
        Protocol::Tcp => (Detected::Tcp, Bytes::new()),
        Protocol::Auto => {
            let wait = Duration::from_millis(forwarder.http.limits().detect_ms);
            loop {
                match server::first_bytes(&mut stream, expected, wait, &draining, &forwarder.counters).await {
                    Some((Detected::Silent, _)) => {}
                    Some(found) => break found,
                    None => return,
                }
                // Boxed: most callers speak at once.
                match Box::pin(forwarder.first_word(&stream, expected, admission, &draining)).await {
                    FirstWord::Caller => {}
                    FirstWord::Destination(connected) => {
                        upstream = Some(*connected);
                        break (Detected::Tcp, Bytes::new());
                    }
                    FirstWord::Nobody => return,
                }
            }
        }
    };
    let counters = Arc::clone(&forwarder.counters);
    match detected {
        Detected::Http1 => {
            let http = forwarder.http.clone();
            http.serve_http1(stream, prefix, admission, forwarder, draining, &counters)
                .await;
        }
        Detected::Http2 => {
            let http = forwarder.http.clone();
            // Boxed, and TCP below too, so that the many connections of HTTP/1 do not pay for their size.
            Box::pin(http.serve_http2(stream, prefix, admission, forwarder, draining, &counters)).await;
        }
        Detected::Tcp => Box::pin(forwarder.carry_tcp(stream, prefix, upstream, admission, draining)).await,
        Detected::Silent | Detected::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counters::Counters, drain::Drain, run::reload::tests::reloader};

    /// Every open connection holds one of these; a large local in an `async fn` shows up here and nowhere else.
    #[test]
    fn a_connections_task_stays_small() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let forwarder = reloader().listeners_of(0).remove(0);
            let admission = Admission::for_test(&Arc::<Counters>::default());
            let task = serve(stream, forwarder, Drain::new().join(), &admission);
            let size = size_of_val(&task);
            assert!(size <= 3_000, "{size} bytes");
        });
    }
}

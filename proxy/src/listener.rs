//! Sockets that accept.
//!
//! Guarantees: a second process on the same address is an error at the start, also with several workers, whose sockets
//! share the address (`SO_REUSEPORT`); the accept loop outlives everything that `accept` can say, also running out of
//! file descriptors, and recovers within a second; a listener holds at most `max_connections`, further ones wait in the
//! kernel's queue.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    cluster,
    counters::{Counters, OpenConnection},
    drain::Draining,
};

/// Length of the kernel's queue of connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Waits after a failure to accept: doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Someone else is there.
    #[error(
        "{what}: {address} is in use by another process (`ss -ltnp sport = :{}` names it); stop that one, or write another port in `{setting}`",
        address.port()
    )]
    InUse {
        /// What should listen there.
        what: String,
        /// The address.
        address: SocketAddr,
        /// Key of the configuration.
        setting: &'static str,
    },
    /// Anything else.
    #[error("{what}: cannot listen on {address}: {source}; write an address of this machine in `{setting}`")]
    Other {
        /// What should listen there.
        what: String,
        /// The address.
        address: SocketAddr,
        /// Key of the configuration.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Opens `count` sockets on one address.
///
/// # Errors
/// When the address is taken or not of this machine; the message names `what` and `setting`.
pub(crate) fn bind(
    address: SocketAddr,
    count: u16,
    what: &str,
    setting: &'static str,
) -> Result<Vec<StdTcpListener>, BindError> {
    let named = |source: io::Error| {
        let what = what.to_owned();
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::InUse { what, address, setting }
        } else {
            BindError::Other {
                what,
                address,
                setting,
                source,
            }
        }
    };
    // A socket that does not share finds out whether anybody else is there.
    let alone = open(address, false).map_err(named)?;
    if count == 1 {
        return Ok(vec![alone]);
    }
    let address_found = alone.local_addr().map_err(named)?;
    drop(alone);
    (0..count).map(|_| open(address_found, true).map_err(named)).collect()
}

fn open(address: SocketAddr, share: bool) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the drain is asked for; `serve` is called for each connection and must not block.
pub(crate) async fn accept(
    listener: TcpListener,
    max_connections: usize,
    counters: Arc<Counters>,
    mut draining: Draining,
    mut serve: impl FnMut(TcpStream, Admission),
) {
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = async {
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = draining.asked() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = FIRST_PAUSE;
                cluster::prepare(&stream);
                serve(
                    stream,
                    Admission {
                        _open: counters.open_connection(),
                        _place: place,
                    },
                );
            }
            Err(error) if is_of_one_connection(&error) => counters.accept_errors.add(),
            Err(error) => {
                counters.accept_errors.add();
                if pause == FIRST_PAUSE {
                    tracing::warn!(
                        %error,
                        "cannot accept connections; trying on (if file descriptors ran out, raise LimitNOFILE or lower limits.max_connections)"
                    );
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// A place among the connections of a listener; given up when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    _open: OpenConnection,
    _place: tokio::sync::OwnedSemaphorePermit,
}

#[cfg(test)]
impl Admission {
    /// To a listener with one place.
    pub(crate) fn for_test(counters: &Arc<Counters>) -> Admission {
        let place = Arc::new(Semaphore::new(1))
            .try_acquire_owned()
            .expect("the place is free");
        Admission {
            _open: counters.open_connection(),
            _place: place,
        }
    }
}

/// True for errors that concern the connection that was to be accepted, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut | WouldBlock
    )
}

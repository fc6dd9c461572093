//! Sockets that accept.
//!
//! Guarantees: a second process on the same address is an error at the start, also with several workers, whose sockets
//! share the address (`SO_REUSEPORT`); the accept loop outlives everything that `accept` can say, also running out of
//! file descriptors, and recovers within a second; a connection that is accepted has a place in the [`crate::budget`],
//! one that finds none is closed at once and counted.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    budget::{Budget, Guard},
    cluster,
    counters::InUse,
    drain::Draining,
};

#[cfg(test)]
use crate::counters::Counters;

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
        "{what}: {address} is in use by another process (find it with `ss -ltnp sport = :{}`); stop it, or set another port in `{setting}`",
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
    #[error("{what}: cannot listen on {address}: {source}; set `{setting}` to an address of this machine")]
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

/// Accepts until the drain is asked for; `serve` is called for each connection and must not block. `has_shares` where a
/// caller's address may only hold its share.
pub(crate) async fn accept(
    listener: TcpListener,
    budget: Arc<Budget>,
    has_shares: bool,
    mut draining: Draining,
    mut serve: impl FnMut(TcpStream, Admission),
) {
    let counters = Arc::clone(budget.counters());
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = draining.asked() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, caller)) => {
                pause = FIRST_PAUSE;
                match budget.admit(has_shares.then_some(caller.ip())) {
                    Ok(guard) => {
                        cluster::prepare(&stream);
                        serve(
                            stream,
                            Admission {
                                _open: counters.open_connection(),
                                guard,
                                caller: caller.ip(),
                            },
                        );
                    }
                    Err(full) => {
                        drop(stream);
                        counters.refuse_connection(full);
                    }
                }
                if budget.is_crowded() {
                    // So that those who were asked to make place do before the next one comes.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_of_one_connection(&error) => counters.accept_errors.add(),
            Err(error) => {
                counters.accept_errors.add();
                if pause == FIRST_PAUSE {
                    tracing::warn!(
                        %error,
                        "cannot accept connections; retrying (if out of file descriptors, raise LimitNOFILE or lower limits.max_connections)"
                    );
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// A place among the connections; given up when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    _open: InUse,
    pub(crate) guard: Arc<Guard>,
    /// Address of who is at the other end.
    pub(crate) caller: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let account = Arc::clone(self.guard.account());
        account.budget().leave(&self.guard);
    }
}

#[cfg(test)]
impl Admission {
    /// Of a caller of this machine.
    pub(crate) fn for_test(counters: &Arc<Counters>) -> Admission {
        Admission {
            _open: counters.open_connection(),
            guard: Guard::for_test(),
            caller: IpAddr::from([127, 0, 0, 1]),
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

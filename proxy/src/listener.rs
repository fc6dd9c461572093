//! Sockets that accept, from their opening to their close.
//!
//! Guarantees: a second process on the same address is an error, also with several workers, whose sockets share the
//! address (`SO_REUSEPORT`); the accept loop outlives everything that `accept` can say, also running out of file
//! descriptors, and recovers within a second; a connection that is accepted has a place in the [`crate::budget`], one that
//! finds none is closed at once and counted; a socket that closes has taken what waited for it ([`accept`]).
//!
//! Wrong on purpose: a caller that connects while a socket closes is refused a second later, when it tries again, and not
//! at once. A handshake that takes longer than [`SETTLE`] may still be reset.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    budget::{Budget, Guard},
    cluster,
    counters::InUse,
};

#[cfg(test)]
use crate::counters::Counters;

/// Length of the kernel's queue of connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Waits after a failure to accept: doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long a socket that closes waits for handshakes that have begun: many round trips inside a mesh.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);

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

/// Who may be on an address already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbours {
    /// Nobody.
    None,
    /// A listener that is about to close, of this process or of one that it takes over, on this address or on one that
    /// overlaps with it.
    Leaving,
}

/// Opens a socket, and says on which address.
///
/// # Errors
/// When the address is taken or not of this machine; the message names `what` and `setting`.
pub(crate) fn bind_one(
    address: SocketAddr,
    neighbours: Neighbours,
    (what, setting): (&str, &'static str),
) -> Result<(SocketAddr, StdTcpListener), BindError> {
    first(address, neighbours).map_err(|error| named(error, address, what, setting))
}

/// A socket that does not share finds out whether anybody else is there. It shares from then on: with those of the other
/// workers, and with those of a listener that takes its place, here or in another process of this user.
fn first(address: SocketAddr, neighbours: Neighbours) -> io::Result<(SocketAddr, StdTcpListener)> {
    let socket = listen(open(address, neighbours == Neighbours::Leaving)?)?;
    Ok((socket.local_addr()?, socket))
}

/// Opens `count` sockets on one address, at least one, and says which address that is.
///
/// # Errors
/// As [`bind_one`].
pub(crate) fn bind(
    address: SocketAddr,
    count: usize,
    neighbours: Neighbours,
    (what, setting): (&str, &'static str),
) -> Result<(SocketAddr, Vec<StdTcpListener>), BindError> {
    let opened = || -> io::Result<_> {
        let (at, first) = first(address, neighbours)?;
        let others = (1..count).map(|_| listen(open(at, true)?));
        let all: io::Result<_> = std::iter::once(Ok(first)).chain(others).collect();
        Ok((at, all?))
    };
    opened().map_err(|error| named(error, address, what, setting))
}

fn named(source: io::Error, address: SocketAddr, what: &str, setting: &'static str) -> BindError {
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
}

fn open(address: SocketAddr, shares: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<StdTcpListener> {
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until `closing` is ready, and closes the socket then; `serve` is called for each connection and must not block.
/// `has_shares` where a caller's address may only hold its share.
///
/// The kernel resets what waits on a socket that is closed, and moves nothing to the sockets that share its address. So
/// before the close no new handshake begins, those that have begun end, and all connections are accepted.
pub(crate) async fn accept(
    listener: TcpListener,
    budget: Arc<Budget>,
    has_shares: bool,
    closing: impl Future<Output = ()>,
    mut serve: impl FnMut(TcpStream, Admission),
) {
    let mut serve = |stream, caller: SocketAddr| admit(stream, caller.ip(), &budget, has_shares, &mut serve);
    {
        let mut accepting = pin!(accept_all(&listener, &budget, &mut serve));
        tokio::select! {
            biased;
            () = closing => {}
            () = &mut accepting => {}
        }
        begin_no_more(&listener);
        // It never ends by itself.
        let _ = tokio::time::timeout(SETTLE, accepting).await;
    }
    // What the runtime has not heard of yet.
    let Ok(listener) = listener.into_std() else { return };
    let set_up = |stream: StdTcpStream| stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    while let Ok((stream, caller)) = listener.accept() {
        if let Ok(stream) = set_up(stream) {
            serve(stream, caller);
        }
    }
}

/// Accepts for ever.
async fn accept_all(listener: &TcpListener, budget: &Budget, serve: &mut impl FnMut(TcpStream, SocketAddr)) {
    let counters = budget.counters();
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, caller)) => {
                pause = FIRST_PAUSE;
                serve(stream, caller);
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

/// Gives a connection its place, or closes it.
fn admit(
    stream: TcpStream,
    caller: IpAddr,
    budget: &Arc<Budget>,
    has_shares: bool,
    serve: &mut impl FnMut(TcpStream, Admission),
) {
    let counters = budget.counters();
    match budget.admit(has_shares.then_some(caller)) {
        Ok(guard) => {
            cluster::prepare(&stream);
            serve(
                stream,
                Admission {
                    _open: counters.open_connection(),
                    guard,
                    caller,
                },
            );
        }
        Err(full) => {
            // Before its caller notices.
            counters.refuse_connection(full);
            drop(stream);
        }
    }
}

/// Has the kernel drop segments that would begin a handshake. Where it cannot, a few more connections are accepted.
pub(crate) fn begin_no_more(listener: &TcpListener) {
    // Operations of classic BPF (linux/bpf_common.h); the packet begins with the TCP header (RFC 9293).
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    const NOTHING: u32 = 0;
    const ALL: u32 = u32::MAX;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, NOTHING),
        SockFilter::new(RETURN, 0, 0, ALL),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
        tracing::debug!(%error, "connections are accepted until a listener is closed");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_closes_serves_what_waits_and_begins_no_more() {
        // More than a task may accept in one go.
        const WAITING: usize = 300;
        let (address, sockets) = bind(([127, 0, 0, 1], 0).into(), 2, Neighbours::None, ("a test", "none")).unwrap();
        let callers: Vec<_> = (0..WAITING).map(|_| StdTcpStream::connect(address).unwrap()).collect();
        let budget = Budget::new(&crate::config::Limits::default(), &Arc::default());
        let mut served = Vec::new();
        for socket in sockets {
            let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            late.set_nonblocking(true).unwrap();
            let mut has_tried = false;
            let listener = TcpListener::from_std(socket).unwrap();
            accept(listener, Arc::clone(&budget), false, async {}, |stream, admission| {
                if !std::mem::replace(&mut has_tried, true) {
                    // The kernel would establish it at once.
                    let _ = late.connect(&address.into());
                }
                served.push((stream, admission));
            })
            .await;
            assert!(has_tried);
            // The first of them may go to the other socket, which still begins connections.
            assert!(late.peer_addr().is_err() || served.len() < WAITING);
        }
        let refused = StdTcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let served: Vec<_> = served.iter().map(|(stream, _)| stream.peer_addr().unwrap()).collect();
        for caller in callers {
            assert!(served.contains(&caller.local_addr().unwrap()));
        }
    }
}

//! One port: accepting, slots, serving, and making room.

use std::{
    cmp::Reverse,
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use emberline_model::host::host_of;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service;

use super::{
    Doors, FULL, HEADS_FULL, REQUESTS_FULL, Speaks, health,
    io::{Arriving, Leaving, Watched},
    seat::{Course, Reason, Seat, Told},
    ticks,
};

/// The largest head, in HTTP/1 and in HTTP/2.
const HEAD_BYTES: usize = 64 << 10;
const HEAD_BYTES_HTTP2: u32 = 16 << 10;
/// The most unread bytes that an HTTP/2 client may have sent.
const WINDOW: u32 = 256 << 10;
/// The most unwritten bytes per stream.
const SEND_BUFFER: usize = 64 << 10;
const STREAMS: u32 = 100;
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long, and how often, a connection waits for the slot of one that was told to leave.
const WAIT: Duration = Duration::from_millis(100);
const WAITS: usize = 20;
/// How long a connection that is told to make room is checked once more: its client's latest bytes may not have been
/// seen yet.
const LAST_LOOK: Duration = Duration::from_millis(5);
/// Pause after accepting has failed, for example because descriptors ran out.
const PAUSE: Duration = Duration::from_millis(50);
/// For this long, requests without progress protect their connection from making room before others.
const GRACE: Duration = Duration::from_secs(1);

/// One of the ports.
#[derive(Debug)]
pub(crate) struct Port {
    pub(super) name: &'static str,
    pub(super) doors: Arc<Doors>,
    speaks: Speaks,
    pub(super) router: Router,
    http: auto::Builder<TokioExecutor>,
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    all: HashMap<u64, Arc<Seat>>,
    of_address: HashMap<IpAddr, usize>,
}

/// A connection with a slot.
struct Seated {
    port: Arc<Port>,
    number: u64,
    seat: Arc<Seat>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut seats = self.port.seats.lock();
        seats.all.remove(&self.number);
        if let Some(count) = seats.of_address.get_mut(&self.seat.address) {
            *count -= 1;
            if *count == 0 {
                seats.of_address.remove(&self.seat.address);
            }
        }
        self.port.open_connections().dec();
    }
}

/// What a request holds until it is answered.
struct Held {
    doors: Arc<Doors>,
    head: u64,
    _course: Arc<Course>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.doors.heads.fetch_sub(self.head, Relaxed);
        self.doors.requests.fetch_sub(1, Relaxed);
    }
}

impl Port {
    pub(super) fn new(name: &'static str, doors: Arc<Doors>, speaks: Speaks, router: Router) -> Port {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // The doors enforce timeouts, without a timer per request.
        http.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES_HTTP2)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        if speaks == Speaks::Http2 {
            http = http.http2_only();
        }
        for reason in super::REFUSALS {
            // Present from the start, so that the first one is seen as an increase.
            drop(
                doors
                    .counts
                    .refused
                    .get_or_create(&super::ReasonLabels { port: name, reason }),
            );
        }
        Port {
            name,
            speaks,
            router,
            http,
            places: Arc::new(Semaphore::new(doors.budget.connections_per_port)),
            waiting: Arc::new(Semaphore::new(doors.budget.waiting_per_port)),
            seats: Mutex::default(),
            doors,
        }
    }

    /// Accepts until the stop. While the maximum number wait for a slot, the others wait in the kernel's queue.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let stop = self.doors.stop.clone();
        loop {
            let next = async {
                let waits = Arc::clone(&self.waiting).acquire_owned().await;
                (waits, listener.accept().await)
            };
            let (waits, accepted) = tokio::select! {
                next = next => next,
                () = stop.cancelled() => return,
            };
            let Ok(waits) = waits else { return };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, waits),
                Err(error) => {
                    tracing::debug!(%error, "{}: cannot accept a connection", self.name);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Gives a connection a slot, if necessary by making room, or a short response.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, waits: OwnedSemaphorePermit) {
        // Responses are written in whole pieces.
        let _ = stream.set_nodelay(true);
        let address = host_of(peer.ip());
        let has_its_share = {
            let seats = self.seats.lock();
            let held = seats.of_address.get(&address);
            held.is_some_and(|&held| held >= self.doors.budget.connections_per_address)
        };
        let tasks = &self.doors.tasks;
        if !has_its_share && let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            drop(waits);
            let seated = self.sit(address, place);
            tasks.spawn(self.serve(stream, peer, seated));
            return;
        }
        let of = has_its_share.then_some(address);
        let port = Arc::clone(self);
        tasks.spawn(async move {
            for _ in 0..WAITS {
                let makes_room = port.make_room(of, false);
                let place = tokio::time::timeout(WAIT, Arc::clone(&port.places).acquire_owned()).await;
                if let Ok(Ok(place)) = place {
                    drop(waits);
                    let seated = port.sit(address, place);
                    return port.serve(stream, peer, seated).await;
                }
                if !makes_room {
                    break;
                }
            }
            port.count_refused(FULL);
            if port.speaks == Speaks::Http {
                health::answer_shortly(stream, &port.router).await;
            }
            drop(waits);
        });
    }

    fn sit(self: &Arc<Self>, address: IpAddr, place: OwnedSemaphorePermit) -> Seated {
        let seat = Arc::new(Seat::new(address, self.doors.now()));
        if self.speaks == Speaks::Http2 {
            seat.set_framed();
        }
        self.open_connections().inc();
        let mut seats = self.seats.lock();
        let number = seats.next;
        seats.next += 1;
        *seats.of_address.entry(address).or_default() += 1;
        seats.all.insert(number, Arc::clone(&seat));
        Seated {
            port: Arc::clone(self),
            number,
            seat,
            _place: place,
        }
    }

    /// Tells a connection that keeps the server waiting to leave: of the address with the most slots (or of the given
    /// one), the first in [`Seat::order`]. With `of_requests`, one that holds requests.
    fn make_room(&self, of: Option<IpAddr>, of_requests: bool) -> bool {
        let now = self.doors.now();
        let seats = self.seats.lock();
        let found = seats
            .all
            .values()
            .filter(|seat| of.is_none_or(|address| address == seat.address))
            .filter_map(|seat| {
                let since = seat.keeps_waiting_since()?;
                if of_requests && seat.requests() == 0 {
                    return None;
                }
                let order = seat.order(since, now, ticks(GRACE));
                let held = seats.of_address.get(&seat.address).copied().unwrap_or_default();
                Some((Reverse(held), order, since, seat))
            })
            .min_by_key(|&(held, order, since, _)| (held, order, since));
        found.is_some_and(|(.., seat)| seat.tell(Told::Yield, now))
    }

    /// Checks all connections for exceeded timeouts.
    pub(super) fn sweep(&self, now: u64) {
        let budget = &self.doors.budget;
        let scarce = self.places.available_permits() < budget.connections_per_port / 4
            || self.doors.heads.load(Relaxed) > budget.head_bytes / 2;
        let seats = self.seats.lock();
        for seat in seats.all.values() {
            if let Some((told, reason)) = seat.overdue(now, scarce, ticks)
                && seat.tell(told, now)
                && !(told == Told::Leave && reason == Reason::Idle)
            {
                self.doors.count_ended(self.name, reason);
            }
        }
    }

    pub(super) fn tell_all(&self, what: Told) {
        for seat in self.seats.lock().all.values() {
            seat.tell(what, self.doors.now());
        }
    }

    /// Serves a connection to its end.
    fn serve(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        seated: Seated,
    ) -> impl Future<Output = ()> + Send + use<> {
        let port = Arc::clone(self);
        async move {
            let seat = &seated.seat;
            let io = Watched::new(stream, Arc::clone(&port.doors), port.name, Arc::clone(seat));
            let service = service_fn(|request| {
                let (port, seat) = (Arc::clone(&port), Arc::clone(seat));
                async move { Ok::<_, Infallible>(port.answer(&seat, peer, request).await) }
            });
            let mut connection = pin!(port.http.serve_connection(TokioIo::new(io), service));
            let mut finishing = false;
            loop {
                tokio::select! {
                    // How it ended concerns only its client.
                    _ = connection.as_mut() => return,
                    told = seat.told() => match told {
                        Told::Leave => return,
                        Told::Finish => connection.as_mut().graceful_shutdown(),
                        Told::Yield => {
                            let before = seat.steps();
                            if tokio::time::timeout(LAST_LOOK, connection.as_mut()).await.is_ok() {
                                return;
                            }
                            if seat.steps() == before {
                                port.doors.count_ended(port.name, Reason::MadeRoom);
                                return;
                            }
                            seat.stays();
                        }
                    },
                    () = port.doors.stop.cancelled(), if !finishing => {
                        finishing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }

    async fn answer(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let doors = &self.doors;
        doors.heads.fetch_sub(seat.end_head(), Relaxed);
        let course = Course::begin(seat, &doors.clock);
        let head = head_bytes(request.uri().path().len(), request.headers());
        let held = Held {
            doors: Arc::clone(doors),
            head,
            _course: Arc::clone(&course),
        };
        let heads = doors.heads.fetch_add(head, Relaxed);
        let requests = doors.requests.fetch_add(1, Relaxed);
        let full = if requests >= doors.budget.requests {
            Some(REQUESTS_FULL)
        } else if heads > doors.budget.head_bytes {
            Some(HEADS_FULL)
        } else {
            None
        };
        if let Some(reason) = full {
            self.count_refused(reason);
            self.make_room(None, true);
            return refuse();
        }
        let mut request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&course))));
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut router = self.router.clone();
        let Ok(response) = router.call(request).await;
        course.answered();
        response.map(|body| Body::new(Leaving::new(body, held)))
    }
}

/// What a head takes in memory, roughly.
fn head_bytes(path: usize, headers: &HeaderMap) -> u64 {
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 64);
    (path + fields.sum::<usize>()) as u64
}

/// For a request without room; gRPC reads the status as UNAVAILABLE.
fn refuse() -> Response<Body> {
    let mut response = Response::new(Body::from(health::FULL_IN_WORDS));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static(health::RETRY_AFTER));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

//! What callers may make this process hold: one limit on memory and one on connections for all listeners and workers.
//!
//! Policy: nothing queues for a slot. When slots or memory run out, connections without a request are closed: first
//! those that never had one (silent, or with half a head), then those that have been idle the longest. A connection
//! that still gets no slot is closed, a request without memory is answered 503, a head without memory ends its
//! connection; each is counted by cause. On inbound listeners, one caller's address gets at most a share of the total,
//! so that a caller who uses up its share leaves the others theirs.
//!
//! Memory is charged by what things cost at most in this process ([`CONNECTION`], [`REQUEST`], ...), not by what the
//! allocator reports, so that the result is the same on every machine. Bodies are streamed, and the buffers they pass
//! through are part of these costs; once half of the memory is in use, buffers are kept at their smallest
//! ([`Budget::is_tight`]).
//!
//! Wrong on purpose: the end of a response over HTTP/1 stays in the library's buffer until the caller reads it, after
//! its request was counted as finished; a connection in that state is closed to make room like an idle one, and ends
//! after `limits.body_idle_ms`.

pub(crate) mod guard;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http::HeaderMap;
use parking_lot::Mutex;
use slab::Slab;

use emberline_model::host::host_of;

pub(crate) use self::guard::Guard;
use crate::{
    config::Limits,
    counters::{Counters, Full},
    machine,
};

/// A caller's connection: its task, the library's two buffers of 8 KiB, and what the kernel keeps.
pub(crate) const CONNECTION: usize = 20 << 10;
/// What HTTP/2 adds to a connection: its buffers, header compression tables, and a window of bodies.
pub(crate) const HTTP2: usize = 192 << 10;
/// What TLS adds to a connection: 9 KiB of keys and buffers as measured while idle, and a 16 KiB record being
/// assembled.
pub(crate) const TLS: usize = 25 << 10;
/// A request in flight: the connection to its endpoint, and the response's buffers.
pub(crate) const REQUEST: usize = 40 << 10;
/// A request that the application itself answers.
pub(crate) const SERVED: usize = 16 << 10;
/// A connection of opaque bytes: two buffers and the connection to the endpoint.
pub(crate) const TCP: usize = 40 << 10;
/// A header in a map, besides the bytes of its name and value.
const HEADER: usize = 128;

/// What the process needs apart from callers: its code, its tables of names, and the queue of batches.
const OWN_BYTES: u64 = 24 << 20;
/// Assumed if nothing limits memory.
const UNLIMITED_BYTES: u64 = 512 << 20;
/// Descriptors of this process's own: listeners, the exporter, the admin port, files.
const OWN_DESCRIPTORS: u64 = 128;

/// What a machine has available for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Connections.
    pub(crate) connections: usize,
    /// Idle connections to endpoints that may be kept.
    pub(crate) idle_upstreams: usize,
}

impl Room {
    /// From this machine and the configuration; warns if the two do not fit.
    pub(crate) fn of(limits: &Limits) -> Room {
        let memory = machine::memory_limit_bytes().unwrap_or(UNLIMITED_BYTES);
        let descriptors = machine::raise_descriptors();
        let room = Room::within(limits, memory, descriptors);
        if limits.max_connections.is_some_and(|wanted| wanted > room.connections) {
            tracing::warn!(
                descriptors,
                allowed = room.connections,
                "limits.max_connections is more than file descriptors allow: raise LimitNOFILE or lower limits.max_connections"
            );
        }
        tracing::info!(
            bytes = room.bytes,
            connections = room.connections,
            "effective caller limits"
        );
        room
    }

    fn within(limits: &Limits, memory: u64, descriptors: u64) -> Room {
        let derived = (memory.saturating_sub(OWN_BYTES) / 2).max(4 << 20);
        let free = descriptors.saturating_sub(OWN_DESCRIPTORS).max(descriptors / 2);
        // Every caller's connection may need one to an endpoint, and a few idle ones are kept.
        let connections = usize::try_from(free * 2 / 5).unwrap_or(usize::MAX).max(1);
        Room {
            bytes: limits
                .memory_bytes
                .unwrap_or(usize::try_from(derived).unwrap_or(usize::MAX)),
            connections: limits.max_connections.unwrap_or(connections).min(connections),
            idle_upstreams: usize::try_from(free / 5).unwrap_or(usize::MAX).max(1),
        }
    }
}

/// The totals.
#[derive(Debug)]
pub(crate) struct Budget {
    room: Room,
    share: f64,
    bytes: AtomicUsize,
    connections: AtomicUsize,
    /// Windows of HTTP/2 connections to endpoints, in bytes.
    windows: AtomicUsize,
    callers: Mutex<HashMap<IpAddr, Weak<Account>>>,
    places: Mutex<Slab<Arc<Guard>>>,
    counters: Arc<Counters>,
    /// Incremented with every request: the connection idle for longest has the smallest value.
    clock: AtomicUsize,
}

/// A share of the windows; given back when dropped.
#[derive(Debug)]
pub(crate) struct Windows {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.budget.windows.fetch_sub(self.bytes, Relaxed);
    }
}

/// What one caller's address holds.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    /// If the caller has a share.
    caller: Option<IpAddr>,
    most_bytes: usize,
    most_connections: usize,
    bytes: AtomicUsize,
    connections: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits, counters: &Arc<Counters>) -> Arc<Budget> {
        Budget::with(Room::of(limits), limits, counters)
    }

    pub(crate) fn with(room: Room, limits: &Limits, counters: &Arc<Counters>) -> Arc<Budget> {
        Arc::new(Budget {
            room,
            share: limits.share_of_caller,
            bytes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            windows: AtomicUsize::new(0),
            callers: Mutex::default(),
            places: Mutex::default(),
            counters: Arc::clone(counters),
            clock: AtomicUsize::new(0),
        })
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// More than half of the memory is in use: buffers should stay small.
    pub(crate) fn is_tight(&self) -> bool {
        self.bytes.load(Relaxed) > self.room.bytes / 2
    }

    /// Slots are running out.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_tight() || self.connections.load(Relaxed) > self.room.connections / 2
    }

    /// Whether one more connection to an endpoint may hold `bytes` of unread responses.
    pub(crate) fn has_windows(&self, bytes: u32) -> bool {
        self.windows.load(Relaxed).saturating_add(bytes as usize) <= self.room.bytes / 4
    }

    /// Counts the window of a connection to an endpoint, even if there is no room for it: each endpoint has at least
    /// one.
    pub(crate) fn reserve_windows(self: &Arc<Self>, bytes: u32) -> Windows {
        self.windows.fetch_add(bytes as usize, Relaxed);
        Windows {
            budget: Arc::clone(self),
            bytes: bytes as usize,
        }
    }

    /// The time, counted in requests.
    pub(crate) fn tick(&self) -> usize {
        self.clock.fetch_add(1, Relaxed)
    }

    /// A slot for a new connection. `caller` is given if callers have shares.
    pub(crate) fn admit(self: &Arc<Self>, caller: Option<IpAddr>) -> Result<Arc<Guard>, Full> {
        let account = self.account(caller.map(host_of));
        if account.connections.load(Relaxed) >= account.most_connections
            && !self.make_room(|guard| Arc::ptr_eq(guard.account(), &account))
        {
            return Err(Full("connections_of_caller"));
        }
        if self.connections.load(Relaxed) >= self.room.connections && !self.make_room(|_| true) {
            return Err(Full("connections"));
        }
        if let Err(full) = account.take(CONNECTION) {
            let own = full.0 == "memory_of_caller";
            if !self.make_room(|guard| !own || Arc::ptr_eq(guard.account(), &account))
                || account.take(CONNECTION).is_err()
            {
                return Err(full);
            }
        }
        account.connections.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        let mut places = self.places.lock();
        let place = places.vacant_entry();
        let guard = Arc::new(Guard::at(account, place.key(), self.tick()));
        place.insert(Arc::clone(&guard));
        Ok(guard)
    }

    fn account(self: &Arc<Self>, caller: Option<IpAddr>) -> Arc<Account> {
        let new = |share: f64| {
            let part = |of: usize| ((of as f64 * share) as usize).max(1);
            Arc::new(Account {
                budget: Arc::clone(self),
                caller,
                most_bytes: part(self.room.bytes),
                most_connections: part(self.room.connections),
                bytes: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
            })
        };
        let Some(address) = caller else { return new(1.0) };
        let mut callers = self.callers.lock();
        if let Some(known) = callers.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        let account = new(self.share);
        callers.insert(address, Arc::downgrade(&account));
        account
    }

    /// Ends connections without a request, a few at a time because finding them means scanning all. Returns whether
    /// there were any.
    fn make_room(&self, of: impl Fn(&Guard) -> bool) -> bool {
        let mut quiet: Vec<(bool, usize, Arc<Guard>)> = Vec::new();
        let places = self.places.lock();
        let most = (places.len() / 64).clamp(1, 32);
        for (_, guard) in &*places {
            if !guard.is_busy() && of(guard) {
                quiet.push((guard.has_served(), guard.quiet_since(), Arc::clone(guard)));
            }
        }
        drop(places);
        let most = most.min(quiet.len());
        if most == 0 {
            return false;
        }
        quiet.select_nth_unstable_by_key(most - 1, |(served, since, _)| (*served, *since));
        for (_, _, guard) in &quiet[..most] {
            self.leave(guard);
            guard.ask_to_leave();
            self.counters.connection_broke("made_place");
        }
        true
    }

    /// Gives back a connection's slot, once.
    pub(crate) fn leave(&self, guard: &Guard) {
        let Some(place) = guard.take_place() else { return };
        self.places.lock().try_remove(place);
        let account = guard.account();
        account.connections.fetch_sub(1, Relaxed);
        self.connections.fetch_sub(1, Relaxed);
        account.give(CONNECTION + guard.take_head());
    }

    /// Bytes in use.
    #[cfg(test)]
    fn used(&self) -> (usize, usize) {
        (self.connections.load(Relaxed), self.bytes.load(Relaxed))
    }
}

impl Account {
    /// Takes bytes, or says whose limit they exceed.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Full> {
        let own = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        let all = self.budget.bytes.fetch_add(bytes, Relaxed) + bytes;
        if own <= self.most_bytes && all <= self.budget.room.bytes {
            return Ok(());
        }
        self.give(bytes);
        Err(Full(if all > self.budget.room.bytes {
            "memory"
        } else {
            "memory_of_caller"
        }))
    }

    /// Gives bytes back.
    pub(crate) fn give(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.budget.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Takes bytes for a request; if there are none, connections without a request are closed.
    pub(crate) fn take_for_request(&self, bytes: usize) -> Result<(), Full> {
        let mut taken = self.take(bytes);
        for _ in 0..4 {
            let Err(full) = taken else { break };
            let own = full.0 == "memory_of_caller";
            if !self
                .budget
                .make_room(|guard| !own || std::ptr::eq(Arc::as_ptr(guard.account()), self))
            {
                break;
            }
            taken = self.take(bytes);
        }
        taken
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            let mut callers = self.budget.callers.lock();
            // Another connection of the same caller may have replaced it.
            if callers.get(&caller).is_some_and(|known| known.strong_count() == 0) {
                callers.remove(&caller);
            }
        }
    }
}

/// What a list of headers costs in memory; a few compressed bytes may have become this.
pub(crate) fn cost_of(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| HEADER + name.as_str().len() + value.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize, connections: usize) -> Arc<Budget> {
        let room = Room {
            bytes,
            connections,
            idle_upstreams: 1,
        };
        Budget::with(room, &Limits::default(), &Arc::default())
    }

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn limits_follow_from_the_machine_and_fit_it() {
        let limits = Limits::default();
        let small = Room::within(&limits, 64 << 20, 1024);
        assert_eq!(
            (small.bytes, small.connections, small.idle_upstreams),
            (20 << 20, 358, 179)
        );
        // Callers, their endpoints, idle connections and the process's own.
        assert!(2 * small.connections + small.idle_upstreams + 128 <= 1024);
        let unit = Room::within(&limits, 256 << 20, 65_536);
        assert_eq!((unit.bytes, unit.connections), (116 << 20, 26_163));
        let written = Limits {
            memory_bytes: Some(5 << 20),
            max_connections: Some(50),
            ..limits
        };
        let room = Room::within(&written, 64 << 20, 1024);
        assert_eq!((room.bytes, room.connections), (5 << 20, 50));
        assert_eq!(Room::within(&limits, 1, 1).connections, 1);
    }

    #[test]
    fn a_new_connection_takes_the_place_of_one_that_never_had_a_request() {
        let budget = budget(1 << 20, 3);
        let served = budget.admit(None).unwrap();
        served.begin();
        served.end();
        let busy = budget.admit(None).unwrap();
        busy.begin();
        let silent = budget.admit(None).unwrap();
        let fourth = budget.admit(None).unwrap();
        assert_eq!(
            [&served, &busy, &silent, &fourth].map(|guard| guard.is_to_leave()),
            [false, false, true, false]
        );
        fourth.begin();
        // Then the one that has been idle, and then none.
        let fifth = budget.admit(None).unwrap();
        assert!(served.is_to_leave());
        fifth.begin();
        assert_eq!(budget.admit(None).unwrap_err(), Full("connections"));
        assert_eq!(budget.used(), (3, 3 * CONNECTION));
        for guard in [served, busy, silent, fourth, fifth] {
            budget.leave(&guard);
        }
        assert_eq!(budget.used(), (0, 0), "each place is given back once");
    }

    #[test]
    fn one_caller_leaves_the_others_their_part() {
        let budget = budget(100 * CONNECTION, 8);
        let mut greedy = Vec::new();
        for _ in 0..6 {
            let guard = budget.admit(ip(1)).unwrap();
            guard.begin();
            greedy.push(guard);
        }
        assert_eq!(budget.admit(ip(1)).unwrap_err(), Full("connections_of_caller"));
        let other = budget.admit(ip(2)).unwrap();
        let account = greedy[0].account();
        assert!(account.take(69 * CONNECTION).is_ok());
        assert_eq!(account.take(CONNECTION), Err(Full("memory_of_caller")));
        assert!(other.account().take(20 * CONNECTION).is_ok());
        assert_eq!(other.account().take(20 * CONNECTION), Err(Full("memory")));
    }

    #[test]
    fn accounts_of_callers_that_left_are_forgotten() {
        let budget = budget(1 << 20, 8);
        for last in 0..200 {
            let guard = budget.admit(ip(last)).unwrap();
            budget.leave(&guard);
        }
        assert_eq!(budget.callers.lock().len(), 0);
    }
}

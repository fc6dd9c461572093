//! What requests did: counted per label set in windows of 10 s, without holding up the data path.
//!
//! Guarantees:
//! - **Exactly once.** A [`RequestRecord`] counts in exactly one window: the one in which it was recorded by this
//!   process's clock, read under the same lock that a cut takes. However late a window is cut, nothing moves to another
//!   window, is lost or counted twice.
//! - **Bounded.** Routes, peers, labels and series have limits ([`TelemetryOptions`]); what exceeds them is counted
//!   under the peer `other@other` and its own route, never dropped. Overflowing HTTP statuses fold into their class.
//!   `/metrics` shows how much was folded and why, and a warning is logged at most once a minute.
//! - **Forgetting.** Once per window the tables are reviewed (triggered by [`Telemetry::record`]): names unused for an
//!   hour are removed, and when a table is full, those that have not lasted are removed first (`peers`, `names`).
//! - **Cheap.** No allocation and no shared lock for what was seen before: every thread has its own shard, whose lock
//!   is otherwise taken only by the cut every 10 s.
//!
//! Long-lived requests (`open`) count their bytes in each window, and themselves once they have ended.
//!
//! Wrong on purpose: totals of a forgotten peer continue as totals of `other@other`. A request counts in the window in
//! which it *ended*; the two ends of one request may see different windows.
//!
//! Locks are taken in this order: a shard, names, peers.
//!
//! One file because it is the only way in and out: recording, cutting and totals take the same locks in one order.
//! Names, cells, peers and open requests have files of their own.

mod cells;
mod metrics;
mod names;
mod open;
mod peer_table;
mod peers;
mod record;
mod series;
mod shard;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use emberline_profiler::Label;

/// What requests speak.
pub use emberline_model::protocol::Protocol;
use emberline_model::{
    LabelSet, RequestSeries, Side,
    time::{Clock, WINDOW_SECONDS, window_start},
};
use names::Names;
pub use names::{DestinationId, RouteId};
pub(crate) use open::{Meters, OpenId};
use parking_lot::RwLock;
pub use peer_table::PeerTable;
pub use peers::{InvalidPeer, PEER_HEADER, PeerId, Source, encode_peer, parse_peer};
pub use record::{RequestRecord, ResponseFlags};
pub use series::SeriesId;
use shard::Shard;

use crate::access_log::{AccessLog, Head};

/// Limits of one process's telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelemetryOptions {
    /// Series (label, method, protocol, status, error) kept separate per window; the rest counts under its route,
    /// without peer and method.
    pub max_series: usize,
    /// Peer releases tracked at a time; the rest counts as `other@other`.
    pub max_peers: usize,
    /// Route templates kept separate over the life of the process; the rest is route `other`.
    pub max_routes: usize,
    /// Labels (side, route, peer) with a peer kept separate at a time; the rest has the peer `other@other`.
    pub max_labels: usize,
    /// Finished windows kept per shard until they are taken; older ones are dropped from the windows (and counted)
    /// but stay in the totals. 0 for a process without an exporter.
    pub windows_kept: usize,
    /// Independent tables, one per thread when there are enough; 0 = twice the number of cores.
    pub shards: usize,
}

impl Default for TelemetryOptions {
    fn default() -> TelemetryOptions {
        TelemetryOptions {
            max_series: 2000,
            max_peers: 500,
            max_routes: 1000,
            max_labels: 2000,
            windows_kept: 60,
            shards: 0,
        }
    }
}

/// How long an unused name is kept, in seconds.
const FORGET_AFTER_S: i64 = 3600;
const WINDOW_S: i64 = WINDOW_SECONDS as i64;
/// Time between two warnings of the same kind, in seconds.
const WARN_EVERY_S: i64 = 60;

/// Which windows [`Telemetry::take_windows`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Only windows that have ended by the clock.
    Ended,
    /// The current window, too: for the last export before the process ends.
    All,
}

/// The process's telemetry: a cheap handle to clone, for any thread.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    names: RwLock<Names>,
    peers: PeerTable,
    shards: Box<[Shard]>,
    /// The last window whose end has counted what is open.
    counted_open: AtomicI64,
    /// Start of the window in which names were last reviewed.
    looked_over: AtomicI64,
    /// When the last warning about folded names was logged, and of how many.
    warned: parking_lot::Mutex<(i64, u64)>,
    /// Whatever is dropped from now on was cut off by this process.
    cut_off: AtomicBool,
    access_log: OnceLock<AccessLog>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("shards", &self.shared.shards.len())
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Number of this thread among those that have recorded something; `usize::MAX` until it has.
    static THREAD_NUMBER: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// Combinations that a shard remembers without consulting the shared tables; those folded into `other` can be many
/// more.
const MOST_CACHED: usize = 8192;

/// Threads numbered so far.
static THREADS: AtomicUsize = AtomicUsize::new(0);

fn thread_number() -> usize {
    THREAD_NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

impl Telemetry {
    /// Empty telemetry. `clock` defines the windows.
    pub fn new(options: TelemetryOptions, clock: Arc<dyn Clock>) -> Telemetry {
        let shards = match options.shards {
            0 => 2 * std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        };
        let now_ns = clock.now_unix_ns();
        let window = window_start(clock.now_unix_s());
        let shards = (0..shards.next_power_of_two())
            .map(|_| Shard::new(&options, now_ns))
            .collect();
        let shared = Shared {
            clock,
            names: RwLock::new(Names::new(&options, window)),
            peers: PeerTable::new(options.max_peers, window),
            shards,
            counted_open: AtomicI64::new(i64::MIN),
            looked_over: AtomicI64::new(window),
            warned: parking_lot::Mutex::new((i64::MIN, 0)),
            cut_off: AtomicBool::new(false),
            access_log: OnceLock::new(),
        };
        Telemetry {
            shared: Arc::new(shared),
        }
    }

    fn shard_number(&self) -> usize {
        // The number of shards is a power of two.
        thread_number() & (self.shared.shards.len() - 1)
    }

    fn shard(&self) -> &Shard {
        &self.shared.shards[self.shard_number()]
    }

    /// The clock that defines the windows.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The peers that identified themselves.
    pub fn peers(&self) -> &PeerTable {
        &self.shared.peers
    }

    /// The id of a route template, for templates known before traffic (configuration); interned, so the same template
    /// gives the same id. Over the limit: [`RouteId::OTHER`]. Takes a shared lock; keep the id.
    pub fn route(&self, template: &str) -> RouteId {
        if let Some(known) = self.shared.names.read().find_route(template) {
            return known;
        }
        self.shared.names.write().route(template)
    }

    /// The id of a destination's name, for names known before traffic (configuration); interned like a route.
    pub fn destination(&self, name: &str) -> DestinationId {
        self.shared.names.write().destination(name)
    }

    /// The label for work on (side, route, peer), which joins stacks and requests. Interned; costs one hash lookup on
    /// integers if seen before.
    pub fn label(&self, side: Side, route: RouteId, peer: Option<PeerId>) -> Label {
        let key = names::LabelKey { side, route, peer };
        let mut state = self.shard().state.lock();
        if let Some(label) = state.labels.get(&key.packed()) {
            return *label;
        }
        let known = self.shared.names.read().find_label(key);
        let label = known.unwrap_or_else(|| self.shared.names.write().label(key, &self.shared.peers));
        if state.labels.len() < MOST_CACHED {
            state.labels.insert(key.packed(), label);
        }
        label
    }

    /// The series of requests with a label, a method (`""` if there is none; methods that HTTP does not define become
    /// `_OTHER`) and a protocol. Interned like [`Telemetry::label`].
    pub fn series(&self, label: Label, method: &str, protocol: Protocol) -> SeriesId {
        self.series_to(label, method, protocol, DestinationId::NONE)
    }

    /// Like [`Telemetry::series`], for requests to a destination.
    pub fn series_to(&self, label: Label, method: &str, protocol: Protocol, destination: DestinationId) -> SeriesId {
        let key = names::SeriesKey {
            label,
            method: names::method_code(method),
            protocol,
            destination,
        };
        let mut state = self.shard().state.lock();
        if let Some(series) = state.series.get(&key.packed()) {
            return *series;
        }
        let (series, fold) = {
            let mut names = self.shared.names.write();
            let series = names.series(key, &self.shared.peers);
            (series, names.fold_of(series, &self.shared.peers))
        };
        if state.series.len() < MOST_CACHED {
            state.series.insert(key.packed(), series);
            state.folds.insert(series.bits(), fold);
        }
        series
    }

    /// Counts one finished request into the current window. Call it exactly once per request, when its response body
    /// ended or was given up.
    pub fn record(&self, record: &RequestRecord) {
        if self.shard().record(&*self.shared.clock, record) {
            self.look_over();
        }
    }

    /// From now on, requests are also written to `log`; only the first call has an effect.
    pub(crate) fn log_to(&self, log: AccessLog) {
        // A second log is ignored.
        let _ = self.shared.access_log.set(log);
    }

    /// Where requests are logged.
    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.shared.access_log.get()
    }

    /// Writes a finished request to the access log, if there is one and it wants it. `bytes` is everything received and
    /// sent.
    pub(crate) fn log(
        &self,
        head: Head,
        (label, protocol): (Label, Protocol),
        record: RequestRecord,
        bytes: (u64, u64),
        lasted: Duration,
    ) {
        if let Some(log) = self.access_log().filter(|log| log.wants(&record)) {
            let now_unix_ms = self.shared.clock.now_unix_ms();
            log.write(
                head,
                (self.label_set(label), protocol),
                record,
                bytes,
                now_unix_ms,
                lasted,
            );
        }
    }

    /// Reviews the tables of names, once per window.
    #[cold]
    fn look_over(&self) {
        let shared = &*self.shared;
        let now_s = shared.clock.now_unix_s();
        let window = window_start(now_s);
        if shared.looked_over.swap(window, Ordering::Relaxed) == window {
            return;
        }
        let mut last = HashMap::new();
        let mut open = BTreeMap::new();
        for shard in &shared.shards {
            shard.note_last(&mut last);
            shard.open.note(&mut open);
        }
        last.extend(open.into_keys().map(|series| (series, window)));
        // Windows before this one counted what their requests reported.
        let heard = shared
            .names
            .read()
            .peers_of(last.iter().filter(|(_, at)| **at >= window - WINDOW_S).map(|(s, _)| s));
        let forgot_peers = shared.peers.look_over(window, &heard);
        let (is_new, renames) = {
            let mut names = shared.names.write();
            let is_new = names.look_over(window, &last, &shared.peers) || forgot_peers;
            let renames: HashMap<SeriesId, SeriesId> =
                last.keys().map(|series| (*series, names.canonical(*series))).collect();
            (is_new, renames)
        };
        if is_new {
            for shard in &shared.shards {
                shard.rename(|series| renames.get(&series).copied().unwrap_or(series));
            }
        }
        self.warn_of_folded(now_s);
    }

    /// Logs, at most once a minute, that names are folded.
    fn warn_of_folded(&self, now_s: i64) {
        let shared = &*self.shared;
        let (peers, names) = (shared.peers.folded(), shared.names.read().folded());
        let folded = peers.iter().sum::<u64>() + names.labels + names.series;
        let mut warned = shared.warned.lock();
        if folded <= warned.1 || now_s < warned.0.saturating_add(WARN_EVERY_S) {
            return;
        }
        *warned = (now_s, folded);
        drop(warned);
        let counts = peer_table::CAUSES.into_iter().zip(peers);
        let causes: Vec<String> = counts
            .filter(|(_, n)| *n > 0)
            .map(|(cause, n)| format!("{cause} {n}"))
            .collect();
        tracing::warn!(
            peers = causes.join(", "),
            labels = names.labels,
            series = names.series,
            "too many peer releases or label combinations: some requests are counted as `other@other`; if callers are not yours, set the listener's `trusted_callers`"
        );
    }

    /// Replaces the series of forgotten peers by what they are folded into.
    fn fold_forgotten(&self) {
        self.shared.names.write().forget_peers(&self.shared.peers);
    }

    /// Counts a request as in flight until the guard is dropped, on any thread.
    pub fn start_request(&self, side: Side) -> InFlight {
        self.shard().add_in_flight(side, 1);
        InFlight {
            telemetry: self.clone(),
            side,
        }
    }

    /// Counts something as open in every window that it outlives, with the bytes shown by its meters; `status` is what
    /// they count under. Has to be closed.
    pub(crate) fn open(&self, series: SeriesId, status: u16, meters: Meters) -> OpenId {
        let shard = self.shard_number();
        self.shared.shards[shard]
            .open
            .insert(shard as u32, series, status, meters)
    }

    /// Changes what is known about something open.
    pub(crate) fn update_open(&self, id: &OpenId, series: SeriesId, status: u16, meters: Meters) {
        self.shared.shards[id.shard as usize]
            .open
            .update(id, series, status, meters);
    }

    /// Ends something open; returns the bytes of it that windows have already counted.
    pub(crate) fn close(&self, id: &OpenId) -> open::Bytes {
        self.shared.shards[id.shard as usize].open.remove(id)
    }

    /// From now on, whatever is dropped counts as cut off by this process, not as abandoned by its caller.
    pub(crate) fn cut_off(&self) {
        self.shared.cut_off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.shared.cut_off.load(Ordering::Relaxed)
    }

    /// Requests in flight now.
    pub fn in_flight(&self, side: Side) -> i64 {
        self.shared.shards.iter().map(|shard| shard.in_flight(side)).sum()
    }

    /// What a label stands for; [`LabelSet::none`] for [`Label::NONE`] and for labels this telemetry never gave out.
    pub fn label_set(&self, label: Label) -> LabelSet {
        self.shared.names.read().label_set(label, &self.shared.peers)
    }

    /// Takes the windows that ended (or all), merged over threads: start in seconds since the Unix epoch → request
    /// series, each label combination once. Windows without requests are not included. What is taken is removed from
    /// the windows; totals keep it.
    pub fn take_windows(&self, cut: Cut) -> BTreeMap<i64, Vec<RequestSeries>> {
        let mut merged: BTreeMap<i64, cells::Cells> = BTreeMap::new();
        for shard in &self.shared.shards {
            for window in shard.take(&*self.shared.clock, cut) {
                match merged.entry(window.start_unix_s()) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(window.cells);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        entry.get_mut().merge(&window.cells, SeriesId::other);
                    }
                }
            }
        }
        self.add_open(cut, &mut merged);
        self.fold_forgotten();
        let names = self.shared.names.read();
        merged
            .into_iter()
            .filter(|(_, cells)| !cells.is_empty())
            .map(|(start, cells)| (start, names.describe(&cells, &self.shared.peers)))
            .collect()
    }

    /// Adds what is open to the last window that has ended, or to the current one if that is taken too.
    fn add_open(&self, cut: Cut, windows: &mut BTreeMap<i64, cells::Cells>) {
        let running = window_start(self.shared.clock.now_unix_s());
        let start = match cut {
            Cut::Ended => running - i64::from(WINDOW_SECONDS),
            Cut::All => running,
        };
        if self.shared.counted_open.swap(start, Ordering::Relaxed) == start && cut == Cut::Ended {
            return;
        }
        let mut open = BTreeMap::new();
        for shard in &self.shared.shards {
            shard.open.count(&mut open);
        }
        if open.is_empty() {
            return;
        }
        let mut state = self.shared.shards[0].state.lock();
        let cells = windows.entry(start).or_insert_with(|| state.totals.empty_like());
        for ((series, status), count) in open {
            cells.add_open(series, status, count, SeriesId::other);
            // The number of open requests must not be added up.
            let moved = open::OpenCount { open: 0, ..count };
            state.totals.add_open(series, status, moved, SeriesId::other);
        }
    }

    /// Everything recorded since the start, up to now: one entry per label combination.
    pub fn totals(&self) -> Vec<RequestSeries> {
        let mut totals = cells::Cells::unlimited();
        for shard in &self.shared.shards {
            let state = shard.state.lock();
            totals.merge(&state.totals, SeriesId::other);
            totals.merge(&state.current.cells, SeriesId::other);
        }
        self.fold_forgotten();
        self.shared.names.read().describe(&totals, &self.shared.peers)
    }

    /// Counters that belong to no window.
    pub fn counters(&self) -> Counters {
        let names = self.shared.names.read().folded();
        let mut counters = Counters {
            peers_invalid: self.shared.peers.invalid(),
            peers: self.shared.peers.len(),
            peers_folded: std::array::from_fn(|at| (peer_table::CAUSES[at], self.shared.peers.folded()[at])),
            labels_folded: names.labels,
            series_folded: names.series,
            ..Counters::default()
        };
        for shard in &self.shared.shards {
            let state = shard.state.lock();
            counters.windows_lost += state.windows_lost;
            counters.upstream_count += state.upstream_count;
            counters.upstream_seconds += state.upstream_ns as f64 / 1e9;
            for (sum, n) in counters.flags.iter_mut().zip(state.flags) {
                *sum += n;
            }
        }
        counters
    }
}

/// Counters since the start that are read only from the metrics page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Windows of a thread dropped because they were not collected.
    pub windows_lost: u64,
    /// Invalid identity headers.
    pub peers_invalid: u64,
    /// Peers currently tracked.
    pub peers: usize,
    /// Requests whose peer could not be tracked, by cause.
    pub peers_folded: [(&'static str, u64); 3],
    /// Combinations of route and peer that could not be tracked.
    pub labels_folded: u64,
    /// Combinations of route, peer, method, protocol and destination that could not be tracked.
    pub series_folded: u64,
    /// Requests that waited for an upstream.
    pub upstream_count: u64,
    /// Their total waiting time, in seconds.
    pub upstream_seconds: f64,
    /// Requests per response flag, in the order of [`ResponseFlags::ALL`].
    pub flags: [u64; ResponseFlags::ALL.len()],
}

/// A request in flight; ends when dropped.
#[derive(Debug)]
#[must_use = "the request is in flight until this is dropped"]
pub struct InFlight {
    telemetry: Telemetry,
    side: Side,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.telemetry.shard().add_in_flight(self.side, -1);
    }
}

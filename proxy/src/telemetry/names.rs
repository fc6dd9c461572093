//! Small numbers for routes, labels and series, so that the data path hashes integers and formats nothing.
//!
//! Guarantees: equal things get equal numbers for as long as they are known. Numbers are never reused: a window, an
//! open request or a sampled stack that still holds the number of something forgotten finds what it was folded into,
//! not somebody else. Every table is bounded. What exceeds it loses its peer first (`other@other`), then its method,
//! and keeps its route: for every configured route, the label without a peer, the one with `other@other` and one series
//! of each protocol have reserved places, whatever strangers do. Those of peers are forgotten with their peer, or after
//! an hour without a request, or when room is needed and they were not in the last two windows.
//!
//! A label's lowest bit is its side, so that even one forgotten long ago reveals that much. Labels 2 and 3 are `other`
//! of the client and the server side; series with index 0 are `other` of their side and protocol.
//!
//! One file because routes, labels and series are numbered and forgotten together: a series has a label, which has a
//! route. Peers, which have a life of their own, are in `peer_table`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use emberline_model::{
    LabelSet, RequestSeries, Side,
    workload::{ROUTE_OTHER, clean_name},
};

use super::{
    FORGET_AFTER_S, Label, PeerId, PeerTable, Protocol, SeriesId, TelemetryOptions, WINDOW_S,
    cells::{CellKey, Cells},
};

/// A route template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u32);

impl RouteId {
    /// The route of requests that match no template, and of templates over the limit.
    pub const OTHER: RouteId = RouteId(0);
}

/// The destination of requests, by the name that their caller uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(u16);

impl DestinationId {
    /// Requests without a destination: those that a service receives.
    pub const NONE: DestinationId = DestinationId(0);
}

/// Methods kept separate; the first stands for "none", the last for all others (OpenTelemetry's name for them).
const METHODS: [&str; 12] = [
    "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "_OTHER",
];

/// Index into [`METHODS`].
pub(super) fn method_code(method: &str) -> u8 {
    METHODS
        .iter()
        .position(|known| *known == method)
        .unwrap_or(METHODS.len() - 1) as u8
}

/// The code of `_OTHER`.
const OTHER_METHOD: u8 = METHODS.len() as u8 - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LabelKey {
    pub(super) side: Side,
    pub(super) route: RouteId,
    pub(super) peer: Option<PeerId>,
}

impl LabelKey {
    pub(super) fn packed(self) -> u64 {
        // Peers are far fewer than 2^31 ([`TelemetryOptions::max_peers`] is clamped), so plus one fits in 31 bits.
        let peer = self.peer.map_or(0, |p| u64::from(p.index()) + 1);
        (u64::from(self.side == Side::Server) << 63) | (peer << 32) | u64::from(self.route.0)
    }

    /// What it becomes when its peer has no slot. There are two of these for each side of a route, and both always have
    /// a slot.
    fn folded(self) -> LabelKey {
        LabelKey {
            peer: self.peer.map(|_| PeerId::OTHER),
            ..self
        }
    }

    fn is_folded(self) -> bool {
        self == self.folded()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeriesKey {
    pub(super) label: Label,
    pub(super) method: u8,
    pub(super) protocol: Protocol,
    pub(super) destination: DestinationId,
}

impl SeriesKey {
    pub(super) fn packed(self) -> u64 {
        (u64::from(self.destination.0) << 48)
            | (u64::from(self.label.get()) << 12)
            | (u64::from(self.method) << 4)
            | self.protocol as u64
    }
}

/// Something that has a number.
#[derive(Debug)]
struct Entry<K> {
    key: K,
    /// Start of the last window with it, in seconds.
    last: i64,
}

/// What the numbers of forgotten things stand for; the oldest are forgotten as well.
#[derive(Debug)]
struct Gone<K, V> {
    by_number: HashMap<K, V>,
    in_order: VecDeque<K>,
    most: usize,
}

impl<K: Copy + Eq + std::hash::Hash, V> Gone<K, V> {
    fn new(most: usize) -> Gone<K, V> {
        Gone {
            by_number: HashMap::new(),
            in_order: VecDeque::new(),
            most,
        }
    }

    fn push(&mut self, number: K, value: V) {
        if self.in_order.len() >= self.most
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_number.remove(&oldest);
        }
        self.in_order.push_back(number);
        self.by_number.insert(number, value);
    }
}

/// What was folded since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folded {
    /// Labels, each counted once per window for every thread that met it.
    pub(super) labels: u64,
    /// Series, likewise.
    pub(super) series: u64,
}

/// The tables behind the numbers.
#[derive(Debug)]
pub(super) struct Names {
    routes: Vec<Arc<str>>,
    route_ids: HashMap<Arc<str>, RouteId>,
    /// The first is the empty name of [`DestinationId::NONE`].
    destinations: Vec<String>,
    labels: HashMap<u32, Entry<LabelKey>>,
    label_ids: HashMap<u64, Label>,
    gone_labels: Gone<u32, LabelKey>,
    last_label: u32,
    series: HashMap<u64, Entry<SeriesKey>>,
    series_ids: HashMap<u64, SeriesId>,
    gone_series: Gone<u64, SeriesId>,
    last_series: u64,
    /// Those that are not folded, to which the limits apply.
    own_labels: usize,
    own_series: usize,
    /// New in the current window.
    new_labels: usize,
    new_series: usize,
    /// Room was already made in this window.
    made_room: bool,
    /// Start of the current window, in seconds.
    window: i64,
    folded: Folded,
    folded_before: Folded,
    max_routes: usize,
    max_labels: usize,
    max_series: usize,
}

/// Destinations kept separate; further ones have no name.
const MOST_DESTINATIONS: usize = 1 << 12;

/// Limit on the size of every table, whatever the settings say, so that packed keys stay unique.
const MOST_NUMBERS: usize = 1 << 28;

/// The last number of a label, not counting its side.
const LAST_LABEL: u32 = (1 << 31) - 2;

impl Names {
    pub(super) fn new(options: &TelemetryOptions, window: i64) -> Names {
        let other: Arc<str> = Arc::from(ROUTE_OTHER);
        let mut names = Names {
            routes: vec![Arc::clone(&other)],
            route_ids: HashMap::from([(other, RouteId::OTHER)]),
            destinations: vec![String::new()],
            labels: HashMap::new(),
            label_ids: HashMap::new(),
            gone_labels: Gone::new(options.max_labels.clamp(16, MOST_NUMBERS) * 4),
            last_label: 0,
            series: HashMap::new(),
            series_ids: HashMap::new(),
            gone_series: Gone::new(options.max_series.clamp(16, MOST_NUMBERS) * 4),
            // Index 0 is `other` of each side and protocol.
            last_series: 0,
            own_labels: 0,
            own_series: 0,
            new_labels: 0,
            new_series: 0,
            made_room: false,
            window,
            folded: Folded::default(),
            folded_before: Folded::default(),
            max_routes: options.max_routes.min(MOST_NUMBERS),
            max_labels: options.max_labels.min(MOST_NUMBERS),
            max_series: options.max_series.min(MOST_NUMBERS),
        };
        for side in [Side::Client, Side::Server] {
            let number = Names::other_label(side).get();
            let key = LabelKey {
                side,
                route: RouteId::OTHER,
                peer: None,
            };
            names.labels.insert(number, Entry { key, last: window });
            names.label_ids.insert(key.packed(), Label::new(number));
        }
        names.last_label = 1;
        names
    }

    pub(super) fn find_route(&self, template: &str) -> Option<RouteId> {
        self.route_ids.get(template).copied()
    }

    pub(super) fn route(&mut self, template: &str) -> RouteId {
        let name: Arc<str> = Arc::from(clean_name(template));
        if let Some(known) = self.route_ids.get(&name) {
            return *known;
        }
        if self.routes.len() > self.max_routes || name.is_empty() {
            return RouteId::OTHER;
        }
        let id = RouteId(self.routes.len() as u32);
        self.routes.push(Arc::clone(&name));
        self.route_ids.insert(name, id);
        id
    }

    /// Destinations come from the configuration, so they are few enough for a linear search.
    pub(super) fn destination(&mut self, name: &str) -> DestinationId {
        let name = clean_name(name);
        if let Some(known) = self.destinations.iter().position(|d| *d == name) {
            return DestinationId(known as u16);
        }
        if self.destinations.len() >= MOST_DESTINATIONS {
            return DestinationId::NONE;
        }
        self.destinations.push(name);
        DestinationId((self.destinations.len() - 1) as u16)
    }

    fn other_label(side: Side) -> Label {
        Label::new(2 + u32::from(side == Side::Server))
    }

    fn side_of(label: Label) -> Side {
        if label.get() & 1 == 0 {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// The label of a key, if there is one.
    pub(super) fn find_label(&self, key: LabelKey) -> Option<Label> {
        self.label_ids.get(&key.packed()).copied()
    }

    /// The label of a key, or of what it is folded into.
    pub(super) fn label(&mut self, key: LabelKey, peers: &PeerTable) -> Label {
        let key = match key.peer {
            Some(peer) if !peers.is_known(peer) => key.folded(),
            _ => key,
        };
        if let Some(known) = self.find_label(key) {
            return known;
        }
        if !key.is_folded() {
            if self.own_labels >= self.max_labels {
                self.make_room(peers);
            }
            let has_room = self.own_labels < self.max_labels && self.new_labels < 2 * self.max_labels;
            if !has_room {
                self.folded.labels += 1;
                return self.label(key.folded(), peers);
            }
            self.own_labels += 1;
        }
        if self.last_label >= LAST_LABEL {
            return Names::other_label(key.side);
        }
        self.new_labels += 1;
        // The profiler reserves 0 for "no label".
        self.last_label += 1;
        let label = Label::new((self.last_label << 1) | u32::from(key.side == Side::Server));
        self.labels.insert(label.get(), Entry { key, last: self.window });
        self.label_ids.insert(key.packed(), label);
        label
    }

    /// What a label that was given out stands for.
    fn label_key(&self, label: Label) -> Option<LabelKey> {
        let number = label.get();
        if let Some(known) = self.labels.get(&number) {
            return Some(known.key);
        }
        if let Some(folded) = self.gone_labels.by_number.get(&number) {
            return Some(*folded);
        }
        // Forgotten long ago: only its side is left.
        (number > 3 && number >> 1 <= self.last_label).then(|| LabelKey {
            side: Names::side_of(label),
            route: RouteId::OTHER,
            peer: None,
        })
    }

    /// The series of a key, if there is one.
    pub(super) fn find_series(&self, key: SeriesKey) -> Option<SeriesId> {
        if let Some(known) = self.series_ids.get(&key.packed()) {
            return Some(*known);
        }
        let side = Names::side_of(key.label);
        let says_other =
            key.method == 0 && key.label == Names::other_label(side) && key.destination == DestinationId::NONE;
        (says_other || self.label_key(key.label).is_none()).then_some(SeriesId::new(0, side, key.protocol))
    }

    /// The series of a key, or of what it is folded into.
    pub(super) fn series(&mut self, key: SeriesKey, peers: &PeerTable) -> SeriesId {
        if let Some(known) = self.find_series(key) {
            return known;
        }
        let folded = self.folded_key(key, peers);
        if key != folded {
            let is_gone = !self.labels.contains_key(&key.label.get());
            if self.own_series >= self.max_series {
                self.make_room(peers);
            }
            let has_room = !is_gone && self.own_series < self.max_series && self.new_series < 2 * self.max_series;
            if !has_room {
                self.folded.series += u64::from(!is_gone);
                return self.series(folded, peers);
            }
            self.own_series += 1;
        }
        self.new_series += 1;
        self.last_series += 1;
        let id = SeriesId::new(self.last_series, Names::side_of(key.label), key.protocol);
        self.series.insert(id.index(), Entry { key, last: self.window });
        self.series_ids.insert(key.packed(), id);
        id
    }

    /// What a series becomes without a slot: that of its route, without peer and method.
    fn folded_key(&mut self, key: SeriesKey, peers: &PeerTable) -> SeriesKey {
        let label = match self.label_key(key.label) {
            Some(label) => self.label(label.folded(), peers),
            None => Names::other_label(Names::side_of(key.label)),
        };
        SeriesKey {
            label,
            method: OTHER_METHOD,
            ..key
        }
    }

    /// What a series folds into, for use before it has to.
    pub(super) fn fold_of(&mut self, series: SeriesId, peers: &PeerTable) -> SeriesId {
        let Some(key) = self.series.get(&series.index()).map(|known| known.key) else {
            return self.canonical(series);
        };
        let folded = self.folded_key(key, peers);
        if folded == key {
            return series;
        }
        self.series(folded, peers)
    }

    /// The series itself while it is known, otherwise what it was folded into.
    pub(super) fn canonical(&self, series: SeriesId) -> SeriesId {
        if self.series.contains_key(&series.index()) {
            return series;
        }
        let folded = self.gone_series.by_number.get(&series.index()).copied();
        // A folded series is never forgotten.
        folded.unwrap_or_else(|| series.other())
    }

    /// Forgets what was not in the last two windows, at most once per window.
    fn make_room(&mut self, peers: &PeerTable) {
        if !std::mem::replace(&mut self.made_room, true) {
            self.forget(self.window - WINDOW_S, true, peers);
        }
    }

    /// Forgets labels and series whose peers are no longer known, or that were in no window since `oldest`; those
    /// without a peer only when room is needed. Returns whether there were any.
    fn forget(&mut self, oldest: i64, needs_room: bool, peers: &PeerTable) -> bool {
        let is_known = |key: &LabelKey| key.peer.is_none_or(|peer| peers.is_known(peer));
        let labels: Vec<(u32, LabelKey)> = self
            .labels
            .iter()
            .filter(|(_, label)| !label.key.is_folded() && (label.last < oldest || !is_known(&label.key)))
            .map(|(number, label)| (*number, label.key))
            .collect();
        let gone: HashSet<u32> = labels.iter().map(|(number, _)| *number).collect();
        let mut series: Vec<u64> = Vec::new();
        for (index, known) in &self.series {
            let number = known.key.label.get();
            let has_no_peer = self.labels.get(&number).is_some_and(|label| label.key.is_folded());
            let is_folded = has_no_peer && known.key.method == OTHER_METHOD;
            let is_old = known.last < oldest && (needs_room || !has_no_peer);
            if !is_folded && (is_old || gone.contains(&number)) {
                series.push(*index);
            }
        }
        for index in &series {
            if let Some(key) = self.series.get(index).map(|known| known.key) {
                // Before its label is removed, which says what it folds into.
                let folded_key = self.folded_key(key, peers);
                let folded = self.series(folded_key, peers);
                self.series.remove(index);
                self.series_ids.remove(&key.packed());
                self.gone_series.push(*index, folded);
                self.own_series -= 1;
            }
        }
        for (number, key) in &labels {
            self.labels.remove(number);
            self.label_ids.remove(&key.packed());
            self.gone_labels.push(*number, key.folded());
            self.own_labels -= 1;
        }
        !(labels.is_empty() && series.is_empty())
    }

    /// Folds what belongs to peers that are no longer known.
    pub(super) fn forget_peers(&mut self, peers: &PeerTable) {
        self.forget(i64::MIN, false, peers);
    }

    /// Records what was in the windows until `window` (`last`: start of the last window of each series), and forgets
    /// what has not been used for long. Returns whether caches of numbers have to be emptied.
    pub(super) fn look_over(&mut self, window: i64, last: &HashMap<SeriesId, i64>, peers: &PeerTable) -> bool {
        for (series, at) in last {
            if let Some(known) = self.series.get_mut(&series.index()) {
                known.last = known.last.max(*at);
                if let Some(label) = self.labels.get_mut(&known.key.label.get()) {
                    label.last = label.last.max(*at);
                }
            }
        }
        self.window = window;
        let (forgot, made_room) = (self.forget(window - FORGET_AFTER_S, false, peers), self.made_room);
        (self.made_room, self.new_labels, self.new_series) = (false, 0, 0);
        let folded = self.folded != std::mem::replace(&mut self.folded_before, self.folded);
        forgot || made_room || folded
    }

    /// Peers of the labels of series.
    pub(super) fn peers_of<'a>(&self, series: impl Iterator<Item = &'a SeriesId>) -> HashSet<PeerId> {
        series
            .filter_map(|series| self.series.get(&series.index()))
            .filter_map(|series| self.label_key(series.key.label)?.peer)
            .collect()
    }

    /// What was folded since the start.
    pub(super) fn folded(&self) -> Folded {
        self.folded
    }

    pub(super) fn label_set(&self, label: Label, peers: &PeerTable) -> LabelSet {
        if label == Label::OVERFLOW {
            // The profiler saw more labels in one window than it keeps; their sides are unknown.
            return LabelSet {
                side: None,
                route: ROUTE_OTHER.to_owned(),
                peer: None,
            };
        }
        match self.label_key(label) {
            None => LabelSet::none(),
            Some(key) => LabelSet {
                side: Some(key.side),
                route: self.routes[key.route.0 as usize].to_string(),
                peer: key.peer.map(|peer| peers.release(peer)),
            },
        }
    }

    /// The cells with their names spelled out. Those of forgotten series are added to what they were folded into.
    pub(super) fn describe(&self, cells: &Cells, peers: &PeerTable) -> Vec<RequestSeries> {
        let renamed = cells.renamed(|series| self.canonical(series));
        let cells = renamed.as_ref().unwrap_or(cells);
        let describe = |(key, cell): (CellKey, &super::cells::Cell)| {
            // Index 0 is `other`; an index that this telemetry never gave out can only be counted there, too.
            let (label, method, destination) = match self.series.get(&key.series.index()) {
                Some(series) => (
                    series.key.label,
                    METHODS[usize::from(series.key.method)],
                    series.key.destination,
                ),
                None => (Names::other_label(key.series.side()), "", DestinationId::NONE),
            };
            let labels = self.label_set(label, peers);
            RequestSeries {
                side: key.series.side(),
                route: labels.route,
                method: method.to_owned(),
                peer: labels.peer,
                destination: self.destinations[usize::from(destination.0)].clone(),
                protocol: key.series.protocol().name().to_owned(),
                status: key.status,
                error: key.error,
                duration: cell.histogram(),
                streaming_s: cell.streaming_ns as f64 / 1e9,
                request_bytes: cell.request_bytes,
                response_bytes: cell.response_bytes,
                open: cell.open,
            }
        };
        cells.sorted().into_iter().map(describe).collect()
    }
}

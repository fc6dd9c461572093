//! Small numbers for routes, labels and series, so that the data path hashes integers and formats nothing.
//!
//! Guarantees: equal things get equal numbers, numbers are never reused, every table is bounded and folds what exceeds
//! it into `other`. Labels 1 and 2 are `other` of the client and the server side; series with index 0 are `other` of
//! their side and protocol.

use std::{collections::HashMap, sync::Arc};

use emberline_model::{
    LabelSet, RequestSeries, Side,
    workload::{ROUTE_OTHER, clean_name},
};

use super::{Label, PeerId, PeerTable, Protocol, TelemetryOptions, cells::Cells};

/// A route template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u32);

impl RouteId {
    /// The route of requests that match no template, and of templates over the limit.
    pub const OTHER: RouteId = RouteId(0);
}

/// Whom requests are meant for, by the name their caller uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(u16);

impl DestinationId {
    /// Requests that say no destination: those that a service gets.
    pub const NONE: DestinationId = DestinationId(0);
}

/// Requests that agree in label, method, protocol and destination. Holds side and protocol in its low bits, so that a full table
/// can fold it without looking anything up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(u32);

impl SeriesId {
    fn new(index: u32, side: Side, protocol: Protocol) -> SeriesId {
        let side = u32::from(side == Side::Server);
        SeriesId((index << 3) | (side << 2) | protocol as u32)
    }

    fn index(self) -> u32 {
        self.0 >> 3
    }

    fn side(self) -> Side {
        if self.0 & 4 == 0 { Side::Client } else { Side::Server }
    }

    pub(super) fn protocol(self) -> Protocol {
        Protocol::from_bits(self.0)
    }

    /// The series `other` of the same side and protocol.
    pub(super) fn other(self) -> SeriesId {
        SeriesId(self.0 & 7)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> SeriesId {
        SeriesId(bits)
    }
}

/// Methods kept apart; the first stands for "none", the last for every other one (OpenTelemetry's name for it).
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
        // Labels are fewer than 2^28.
        (u64::from(self.destination.0) << 48)
            | (u64::from(self.label.get()) << 12)
            | (u64::from(self.method) << 4)
            | self.protocol as u64
    }
}

/// The tables behind the numbers.
#[derive(Debug)]
pub(super) struct Names {
    routes: Vec<Arc<str>>,
    route_ids: HashMap<Arc<str>, RouteId>,
    /// The first is the empty name of [`DestinationId::NONE`].
    destinations: Vec<String>,
    labels: Vec<LabelKey>,
    label_ids: HashMap<u64, Label>,
    series: Vec<SeriesKey>,
    series_ids: HashMap<u64, SeriesId>,
    max_routes: usize,
    max_labels: usize,
    max_series: usize,
}

/// Destinations kept apart; those of further ones are not said.
const MOST_DESTINATIONS: usize = 1 << 12;

/// Numbers that no table may exceed, whatever the settings say, so that packed keys stay unique.
const MOST_NUMBERS: usize = 1 << 28;

impl Names {
    pub(super) fn new(options: &TelemetryOptions) -> Names {
        let other: Arc<str> = Arc::from(ROUTE_OTHER);
        let mut names = Names {
            routes: vec![Arc::clone(&other)],
            route_ids: HashMap::from([(other, RouteId::OTHER)]),
            destinations: vec![String::new()],
            labels: Vec::new(),
            label_ids: HashMap::new(),
            // Index 0 is `other` of each side and protocol; its key is never read.
            series: vec![SeriesKey {
                label: Label::NONE,
                method: 0,
                protocol: Protocol::Http1,
                destination: DestinationId::NONE,
            }],
            series_ids: HashMap::new(),
            max_routes: options.max_routes.min(MOST_NUMBERS),
            max_labels: options.max_labels.clamp(2, MOST_NUMBERS),
            max_series: options.max_series.min(MOST_NUMBERS),
        };
        for side in [Side::Client, Side::Server] {
            names.label(LabelKey {
                side,
                route: RouteId::OTHER,
                peer: None,
            });
        }
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

    /// Destinations come from the configuration, so they are few and looked for one by one.
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
        Label::new(match side {
            Side::Client => 1,
            Side::Server => 2,
        })
    }

    /// The label of a key, if it has one or can never get one.
    pub(super) fn find_label(&self, key: LabelKey) -> Option<Label> {
        let known = self.label_ids.get(&key.packed()).copied();
        known.or_else(|| (self.labels.len() >= self.max_labels).then(|| Names::other_label(key.side)))
    }

    pub(super) fn label(&mut self, key: LabelKey) -> Label {
        if let Some(known) = self.find_label(key) {
            return known;
        }
        self.labels.push(key);
        // 0 is the profiler's word for "no label".
        let label = Label::new(self.labels.len() as u32);
        self.label_ids.insert(key.packed(), label);
        label
    }

    fn label_key(&self, label: Label) -> Option<&LabelKey> {
        self.labels.get((label.get() as usize).checked_sub(1)?)
    }

    /// The series of a key, if it has one or can never get one.
    pub(super) fn find_series(&self, key: SeriesKey) -> Option<SeriesId> {
        if let Some(known) = self.series_ids.get(&key.packed()) {
            return Some(*known);
        }
        let side = self.label_key(key.label).map_or(Side::Server, |label| label.side);
        let other = SeriesId::new(0, side, key.protocol);
        let says_other =
            key.method == 0 && key.label == Names::other_label(side) && key.destination == DestinationId::NONE;
        (says_other || self.label_key(key.label).is_none() || self.series.len() > self.max_series).then_some(other)
    }

    pub(super) fn series(&mut self, key: SeriesKey) -> SeriesId {
        if let Some(known) = self.find_series(key) {
            return known;
        }
        let side = self.label_key(key.label).map_or(Side::Server, |label| label.side);
        let id = SeriesId::new(self.series.len() as u32, side, key.protocol);
        self.series.push(key);
        self.series_ids.insert(key.packed(), id);
        id
    }

    pub(super) fn label_set(&self, label: Label, peers: &PeerTable) -> LabelSet {
        if label == Label::OVERFLOW {
            // The profiler saw more labels in one window than it keeps; which sides they were on is not known.
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

    /// The cells with their names written out.
    pub(super) fn describe(&self, cells: &Cells, peers: &PeerTable) -> Vec<RequestSeries> {
        let describe = |(key, cell): (super::cells::CellKey, &super::cells::Cell)| {
            // Index 0 is `other`; an index that this telemetry never gave out can only be counted there too.
            let (label, method, destination) = match self.series.get(key.series.index() as usize) {
                Some(series) if key.series.index() > 0 => {
                    (series.label, METHODS[usize::from(series.method)], series.destination)
                }
                _ => (Names::other_label(key.series.side()), "", DestinationId::NONE),
            };
            let labels = self.label_set(label, peers);
            RequestSeries {
                side: key.series.side(),
                route: labels.route,
                method: method.to_owned(),
                peer: labels.peer,
                destination: self.destinations[usize::from(destination.0)].clone(),
                protocol: key.series.protocol().as_str().to_owned(),
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

//! The table of peers: which releases have a slot, and which have to give it up.
//!
//! Guarantees and limits are those of [`super::peers`]. Its lock is the innermost of the telemetry's: while it is held,
//! no other is taken.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
};

use emberline_model::{Release, workload::ROUTE_OTHER};
use parking_lot::RwLock;

use super::{
    FORGET_AFTER_S,
    peers::{PeerId, Source, parse_peer},
};

/// Raw header values remembered per known release (instances of a release have values of their own).
const RAW_VALUES_PER_PEER: usize = 8;
/// Sources counted separately in a window; later ones share one entry.
const MOST_SOURCES: usize = 1024;
/// The largest number that fits where peers are packed with routes.
const LAST_NUMBER: u32 = (1 << 31) - 2;

/// Releases that introduced themselves.
#[derive(Debug)]
pub struct PeerTable {
    tables: RwLock<Tables>,
    max_peers: usize,
    invalid: AtomicU64,
    folded: [AtomicU64; 3],
}

/// Why a release has no slot of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Every release with a slot has lasted.
    Full,
    /// Its source has introduced as many names in this window as it may.
    Share,
    /// All sources together have.
    Rate,
}

/// Names of the causes in metrics, in the order of [`PeerTable::folded`].
pub(super) const CAUSES: [&str; 3] = ["full", "share_of_caller", "rate"];

#[derive(Debug)]
struct Known {
    release: Release,
    source: Source,
    /// Requests since the last review.
    requests: AtomicU32,
    /// It was heard in at least two windows.
    lasted: AtomicBool,
    was_heard: AtomicBool,
    /// Start of the last window in which it was heard, in seconds.
    last: AtomicI64,
}

impl Known {
    fn lasted(&self) -> bool {
        self.lasted.load(Ordering::Relaxed)
    }

    fn last(&self) -> i64 {
        self.last.load(Ordering::Relaxed)
    }
}

fn other() -> Release {
    Release {
        namespace: String::new(),
        service: ROUTE_OTHER.to_owned(),
        version: ROUTE_OTHER.to_owned(),
    }
}

#[derive(Debug)]
struct Tables {
    by_id: HashMap<PeerId, Arc<Known>>,
    ids: HashMap<Release, PeerId>,
    // The keys come from the network: this map keeps the standard hasher, which resists crafted collisions.
    by_raw_value: HashMap<Box<[u8]>, (PeerId, Arc<Known>)>,
    last_number: u32,
    /// Start of the current window, in seconds.
    window: i64,
    /// Names that were new in this window, by source.
    new_of: HashMap<Source, usize>,
    new: usize,
    forgotten: u64,
}

impl PeerTable {
    pub(super) fn new(max_peers: usize, window: i64) -> PeerTable {
        let tables = Tables {
            by_id: HashMap::new(),
            ids: HashMap::new(),
            by_raw_value: HashMap::new(),
            last_number: PeerId::OTHER.index(),
            window,
            new_of: HashMap::new(),
            new: 0,
            forgotten: 0,
        };
        PeerTable {
            tables: RwLock::new(tables),
            max_peers: max_peers.min(1 << 20),
            invalid: AtomicU64::new(0),
            folded: Default::default(),
        }
    }

    /// Places for names from one source that have not lasted.
    fn share(&self) -> usize {
        (self.max_peers / 4).max(1)
    }

    /// The peer introduced by a header value; `None` (and counted) if the value is invalid. A value seen before costs
    /// one hash lookup.
    pub fn resolve(&self, header_value: &[u8], source: Source) -> Option<PeerId> {
        if let Some((peer, known)) = self.tables.read().by_raw_value.get(header_value) {
            known.requests.fetch_add(1, Ordering::Relaxed);
            return Some(*peer);
        }
        let Ok(workload) = parse_peer(header_value) else {
            self.invalid.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let peer = self.intern_from(&workload.release(), source);
        let mut tables = self.tables.write();
        // A name without a slot may get one later, so it is not remembered.
        if let Some(known) = tables.by_id.get(&peer).cloned() {
            if tables.by_raw_value.len() >= self.max_peers.max(1) * RAW_VALUES_PER_PEER {
                tables.by_raw_value.clear();
            }
            tables.by_raw_value.insert(header_value.into(), (peer, known));
        }
        Some(peer)
    }

    /// The id of a release that did not come from a header; [`PeerId::OTHER`] if there is no slot.
    pub fn intern(&self, release: &Release) -> PeerId {
        self.intern_from(release, Source::OWN)
    }

    fn intern_from(&self, release: &Release, source: Source) -> PeerId {
        if *release == other() {
            return PeerId::OTHER;
        }
        {
            let tables = self.tables.read();
            if let Some(known) = tables.ids.get(release) {
                if let Some(known) = tables.by_id.get(known) {
                    known.requests.fetch_add(1, Ordering::Relaxed);
                }
                return *known;
            }
            if let Some(cause) = self.refusal(&tables, source) {
                return self.fold(cause);
            }
        }
        let mut tables = self.tables.write();
        if let Some(known) = tables.ids.get(release) {
            return *known;
        }
        if let Some(cause) = self.refusal(&tables, source) {
            return self.fold(cause);
        }
        if !self.make_room(&mut tables, source) {
            return self.fold(Cause::Full);
        }
        tables.new += 1;
        let source_or_rest = tables.source_or_rest(source);
        *tables.new_of.entry(source_or_rest).or_default() += 1;
        tables.last_number += 1;
        let id = PeerId::new(tables.last_number);
        let known = Known {
            release: release.clone(),
            source,
            requests: AtomicU32::new(1),
            lasted: AtomicBool::new(false),
            was_heard: AtomicBool::new(false),
            last: AtomicI64::new(tables.window),
        };
        tables.by_id.insert(id, Arc::new(known));
        tables.ids.insert(release.clone(), id);
        id
    }

    /// Why a new name from this source is refused in this window without a search for room.
    fn refusal(&self, tables: &Tables, source: Source) -> Option<Cause> {
        if tables.new >= 2 * self.max_peers || tables.last_number >= LAST_NUMBER {
            return Some(Cause::Rate);
        }
        let new_of_source = tables.new_of.get(&tables.source_or_rest(source)).copied();
        (source != Source::OWN && new_of_source.is_some_and(|new| new >= 2 * self.share())).then_some(Cause::Share)
    }

    fn fold(&self, cause: Cause) -> PeerId {
        self.folded[cause as usize].fetch_add(1, Ordering::Relaxed);
        PeerId::OTHER
    }

    /// Makes room if there is none: of the names that have not lasted, those with the fewest requests are dropped
    /// first, then, of those that have, the one that has been silent longest.
    fn make_room(&self, tables: &mut Tables, source: Source) -> bool {
        let fresh = |known: &Known| !known.lasted() && (source == Source::OWN || known.source == source);
        let is_over_share =
            source != Source::OWN && tables.by_id.values().filter(|known| fresh(known)).count() >= self.share();
        if is_over_share {
            tables.forget_fresh(self.share() / 4 + 1, |known| known.source == source);
        }
        if tables.by_id.len() < self.max_peers {
            return true;
        }
        // In batches, so that a stranger who fills the table does not cause a search for every name.
        if tables.forget_fresh(self.max_peers / 8 + 1, |_| true) > 0 {
            return true;
        }
        let running = tables.window;
        let silent = tables.by_id.iter().filter(|(_, known)| known.last() < running);
        let Some(longest) = silent.min_by_key(|(id, known)| (known.last(), **id)).map(|(id, _)| *id) else {
            return false;
        };
        tables.forget(&HashSet::from([longest]));
        true
    }

    /// Records which peers were heard in the window that ended, and forgets those that have been silent for long.
    /// `heard` also has those of requests that are still open. Returns whether a peer was forgotten since the last
    /// review.
    pub(super) fn look_over(&self, window: i64, heard: &HashSet<PeerId>) -> bool {
        let mut tables = self.tables.write();
        let ended = tables.window;
        for (id, known) in &tables.by_id {
            if known.requests.swap(0, Ordering::Relaxed) > 0 || heard.contains(id) {
                known.last.store(ended, Ordering::Relaxed);
                if known.was_heard.swap(true, Ordering::Relaxed) {
                    known.lasted.store(true, Ordering::Relaxed);
                }
            }
        }
        let silent: HashSet<PeerId> = tables
            .by_id
            .iter()
            .filter(|(_, known)| known.last() < window - FORGET_AFTER_S)
            .map(|(id, _)| *id)
            .collect();
        tables.forget(&silent);
        tables.window = window;
        tables.new_of.clear();
        tables.new = 0;
        std::mem::take(&mut tables.forgotten) > 0
    }

    /// False once a peer has been forgotten.
    pub(super) fn is_known(&self, peer: PeerId) -> bool {
        peer == PeerId::OTHER || self.tables.read().by_id.contains_key(&peer)
    }

    /// The release of an id; `other@other` once it has been forgotten.
    pub fn release(&self, peer: PeerId) -> Release {
        let known = self.tables.read().by_id.get(&peer).map(|known| known.release.clone());
        known.unwrap_or_else(other)
    }

    /// Releases with a slot.
    pub(super) fn len(&self) -> usize {
        self.tables.read().by_id.len()
    }

    /// Header values that did not parse.
    pub fn invalid(&self) -> u64 {
        self.invalid.load(Ordering::Relaxed)
    }

    /// Requests whose peer could not be tracked, by cause.
    pub(super) fn folded(&self) -> [u64; 3] {
        std::array::from_fn(|at| self.folded[at].load(Ordering::Relaxed))
    }
}

impl Tables {
    fn source_or_rest(&self, source: Source) -> Source {
        if self.new_of.len() >= MOST_SOURCES && !self.new_of.contains_key(&source) {
            return Source::OWN;
        }
        source
    }

    /// Forgets up to `most` names that have not lasted; returns how many.
    fn forget_fresh(&mut self, most: usize, of: impl Fn(&Known) -> bool) -> usize {
        let mut fresh: Vec<(u32, PeerId)> = self
            .by_id
            .iter()
            .filter(|(_, known)| !known.lasted() && of(known))
            .map(|(id, known)| (known.requests.load(Ordering::Relaxed), *id))
            .collect();
        fresh.sort_unstable();
        fresh.truncate(most);
        let gone: HashSet<PeerId> = fresh.into_iter().map(|(_, id)| id).collect();
        self.forget(&gone);
        gone.len()
    }

    fn forget(&mut self, gone: &HashSet<PeerId>) {
        if gone.is_empty() {
            return;
        }
        for id in gone {
            if let Some(known) = self.by_id.remove(id) {
                self.ids.remove(&known.release);
            }
        }
        self.by_raw_value.retain(|_, (id, _)| !gone.contains(id));
        self.forgotten += gone.len() as u64;
    }
}

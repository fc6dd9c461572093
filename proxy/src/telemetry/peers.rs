//! Who is at the other end: the identity header that proxies exchange, and small numbers for releases.
//!
//! Guarantees: the same release always has the same [`PeerId`]; both tables are bounded (unknown releases over the limit
//! become `other@other`; the cache of raw header values is emptied when full, which costs a parse and nothing else);
//! a value that does not parse is no peer and is counted.
//!
//! Wrong on purpose: the instance in the header is read but not kept, because edges are between releases.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use emberline_model::{
    Release, Workload,
    batch::percent_encode,
    workload::{ROUTE_OTHER, UNKNOWN, clean_name},
};
use parking_lot::RwLock;

/// The header by which a workload introduces itself: `v1;<namespace>;<service>;<version>;<instance>`, each
/// percent-encoded. On requests from caller to callee; on responses back when the request carried one.
pub const PEER_HEADER: &str = "x-emberline-peer";

/// Longest header value read.
const MAX_HEADER_BYTES: usize = 4096;

/// Raw header values remembered per known release (instances of a release have values of their own).
const RAW_VALUES_PER_PEER: usize = 8;

/// A release at the other end of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u32);

impl PeerId {
    /// Stands for all releases over the limit.
    pub const OTHER: PeerId = PeerId(0);

    pub(super) fn index(self) -> u32 {
        self.0
    }
}

/// A header value that does not introduce anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{PEER_HEADER}` is not `v1;<namespace>;<service>;<version>;<instance>`: {0}; the sender has to be corrected, until then its requests count as coming from nobody known"
)]
pub struct InvalidPeer(&'static str);

fn percent_decode(text: &[u8]) -> Result<String, InvalidPeer> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'%' {
            bytes.push(text[at]);
            at += 1;
            continue;
        }
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err(InvalidPeer("a `%` without two hexadecimal digits"));
        };
        bytes.push((high * 16 + low) as u8);
        at += 3;
    }
    let name = String::from_utf8(bytes).map_err(|_| InvalidPeer("a name is not UTF-8"))?;
    Ok(clean_name(&name))
}

/// The value of [`PEER_HEADER`] by which `workload` introduces itself: visible ASCII. Make it once and keep it.
pub fn encode_peer(workload: &Workload) -> String {
    let mut value = String::from("v1");
    for name in [
        &workload.namespace,
        &workload.service,
        &workload.version,
        &workload.instance,
    ] {
        value.push(';');
        percent_encode(&clean_name(name), &mut value);
    }
    value
}

/// Reads a value of [`PEER_HEADER`]. A missing version or instance is [`UNKNOWN`]; a service there must be.
pub fn parse_peer(value: &[u8]) -> Result<Workload, InvalidPeer> {
    if value.len() > MAX_HEADER_BYTES {
        return Err(InvalidPeer("longer than 4096 bytes"));
    }
    let mut parts = value.split(|b| *b == b';');
    if parts.next() != Some(b"v1") {
        return Err(InvalidPeer("it does not begin with `v1;`"));
    }
    let mut name = || {
        parts
            .next()
            .ok_or(InvalidPeer("it has fewer than five parts"))
            .and_then(percent_decode)
    };
    let mut workload = Workload {
        namespace: name()?,
        service: name()?,
        version: name()?,
        instance: name()?,
    };
    if parts.next().is_some() {
        return Err(InvalidPeer("it has more than five parts"));
    }
    if workload.service.is_empty() {
        return Err(InvalidPeer("the service is empty"));
    }
    for part in [&mut workload.version, &mut workload.instance] {
        if part.is_empty() {
            UNKNOWN.clone_into(part);
        }
    }
    Ok(workload)
}

/// Releases that introduced themselves.
#[derive(Debug)]
pub struct PeerTable {
    tables: RwLock<Tables>,
    max_peers: usize,
    invalid: AtomicU64,
}

#[derive(Debug)]
struct Tables {
    releases: Vec<Release>,
    ids: HashMap<Release, PeerId>,
    // The keys come from the network: this map keeps the standard hasher, which is proof against chosen collisions.
    by_raw_value: HashMap<Box<[u8]>, PeerId>,
}

impl PeerTable {
    pub(super) fn new(max_peers: usize) -> PeerTable {
        let other = Release {
            namespace: String::new(),
            service: ROUTE_OTHER.to_owned(),
            version: ROUTE_OTHER.to_owned(),
        };
        let tables = Tables {
            releases: vec![other.clone()],
            ids: HashMap::from([(other, PeerId::OTHER)]),
            by_raw_value: HashMap::new(),
        };
        PeerTable {
            tables: RwLock::new(tables),
            max_peers: max_peers.min(1 << 28),
            invalid: AtomicU64::new(0),
        }
    }

    /// The peer that a header value introduces; `None` (and counted) when the value is not one. A value seen before
    /// costs one hash lookup.
    pub fn resolve(&self, header_value: &[u8]) -> Option<PeerId> {
        if let Some(known) = self.tables.read().by_raw_value.get(header_value) {
            return Some(*known);
        }
        let Ok(workload) = parse_peer(header_value) else {
            self.invalid.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let peer = self.intern(&workload.release());
        let mut tables = self.tables.write();
        if tables.by_raw_value.len() >= self.max_peers.max(1) * RAW_VALUES_PER_PEER {
            tables.by_raw_value.clear();
        }
        tables.by_raw_value.insert(header_value.into(), peer);
        Some(peer)
    }

    /// The id of a release known in another way than by a header; over the limit [`PeerId::OTHER`].
    pub fn intern(&self, release: &Release) -> PeerId {
        if let Some(known) = self.tables.read().ids.get(release) {
            return *known;
        }
        let mut tables = self.tables.write();
        if let Some(known) = tables.ids.get(release) {
            return *known;
        }
        if tables.releases.len() > self.max_peers {
            return PeerId::OTHER;
        }
        let id = PeerId(tables.releases.len() as u32);
        tables.releases.push(release.clone());
        tables.ids.insert(release.clone(), id);
        id
    }

    /// The release of an id.
    pub fn release(&self, peer: PeerId) -> Release {
        let tables = self.tables.read();
        // Ids of another table than this one are answered as `other` rather than with a panic.
        tables
            .releases
            .get(peer.0 as usize)
            .unwrap_or(&tables.releases[0])
            .clone()
    }

    /// Header values that did not parse.
    pub fn invalid(&self) -> u64 {
        self.invalid.load(Ordering::Relaxed)
    }
}

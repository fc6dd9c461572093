//! Who is at the other end: the identity header that proxies exchange, and small numbers for releases.
//!
//! Guarantees: a release has the same [`PeerId`] for as long as it is known, and no number is given out twice; all
//! tables are bounded. Names are claims of others, so they have to last to be kept: one that was heard in a single
//! window is evicted for the next one, one that lasted keeps its slot until it has been silent for an hour. One
//! [`Source`] never holds more than a quarter of the slots for names that have not lasted, and introduces at most twice
//! as many per window. A release without a slot is `other@other`, counted by cause. A value that does not parse is not
//! a peer, and is counted.
//!
//! Wrong on purpose: the instance in the header is read but not kept, because edges are between releases. Numbers run
//! out after 2^31 releases, which would take a stranger two hundred days; from then on, new ones are `other@other`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use emberline_model::{
    Workload,
    batch::percent_encoded,
    workload::{UNKNOWN, clean_name},
};
use percent_encoding::percent_decode;

/// Header in which a workload identifies itself: `v1;<namespace>;<service>;<version>;<instance>`, each percent-encoded.
/// Sent on requests from caller to callee, and on responses if the request had one.
pub const PEER_HEADER: &str = "x-emberline-peer";

/// Longest header value read.
const MAX_HEADER_BYTES: usize = 4096;

/// A release at the other end of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u32);

impl PeerId {
    /// Stands for all releases over the limit.
    pub const OTHER: PeerId = PeerId(0);

    pub(super) fn new(number: u32) -> PeerId {
        PeerId(number)
    }

    pub(super) fn index(self) -> u32 {
        self.0
    }
}

/// Where a name was heard: shares of the tables are counted per source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(u64);

impl Source {
    /// This process itself, which is not limited to a share.
    pub const OWN: Source = Source(0);

    /// A caller. IPv6 callers are identified by their /64 prefix; they control the rest.
    pub fn of_caller(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(v4) => Source(u64::from(u32::from(v4)) | (1 << 32)),
            IpAddr::V6(v6) => Source((u128::from(v6) >> 64) as u64 | (1 << 63)),
        }
    }

    /// An endpoint, by its configured address.
    pub fn of_destination(address: &impl Hash) -> Source {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        Source(hasher.finish() | 1)
    }
}

/// A header value that does not introduce a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{PEER_HEADER}` is not `v1;<namespace>;<service>;<version>;<instance>`: {0}; fix the sender: until then, its requests count as an unknown peer's"
)]
pub struct InvalidPeer(&'static str);

fn decode_name(text: &[u8]) -> Result<String, InvalidPeer> {
    let has_digits = |after: &[u8]| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit);
    if !text.split(|byte| *byte == b'%').skip(1).all(has_digits) {
        return Err(InvalidPeer("a `%` without two hexadecimal digits"));
    }
    let name = percent_decode(text).decode_utf8();
    Ok(clean_name(&name.map_err(|_| InvalidPeer("a name is not UTF-8"))?))
}

/// The value of [`PEER_HEADER`] with which `workload` introduces itself: visible ASCII. Make it once and keep it.
pub fn encode_peer(workload: &Workload) -> String {
    let mut value = String::from("v1");
    for name in [
        &workload.namespace,
        &workload.service,
        &workload.version,
        &workload.instance,
    ] {
        value.push(';');
        value.extend(percent_encoded(&clean_name(name)));
    }
    value
}

/// Parses a value of [`PEER_HEADER`]. A missing version or instance is [`UNKNOWN`]; the service is required.
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
            .ok_or(InvalidPeer("it has fewer than five fields"))
            .and_then(decode_name)
    };
    let mut workload = Workload {
        namespace: name()?,
        service: name()?,
        version: name()?,
        instance: name()?,
    };
    if parts.next().is_some() {
        return Err(InvalidPeer("it has more than five fields"));
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

//! Content hashes: 64-bit identifiers that every process computes identically.
//!
//! Guarantee: an identifier depends only on content, never on order of arrival; identifiers are never rewritten. Fields
//! are hashed with their length first, so that ("ab", "c") and ("a", "bc") differ.
//!
//! Wrong on purpose: XXH3-64 has no key and does not resist deliberate collisions. Anyone who chooses names can
//! construct one with a given identifier in seconds. So an identifier alone never proves that two rows are one: a store
//! compares their [`Content`] by a check of its own, with a key that no sender knows (`storage/src/checks.rs`).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Component, LabelSet, Release, Workload, profile::Location};

/// An identifier, written as 16 hexadecimal digits in JSON, because numbers there have 53 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HexId(pub u64);

impl std::fmt::Display for HexId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for HexId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HexId, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(HexId).map_err(D::Error::custom)
    }
}

/// What an identifier is the hash of: fields with their lengths. They are hashed in one go, because they are short, and
/// the state of an incremental hash is not.
#[derive(Debug)]
pub struct Content(Vec<u8>);

impl Content {
    fn new(domain: &str) -> Content {
        Content(Vec::with_capacity(512)).text(domain)
    }

    fn text(mut self, text: &str) -> Content {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(mut self, number: u64) -> Content {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn release(self, release: Option<&Release>) -> Content {
        match release {
            None => self.number(0),
            Some(r) => self.number(1).text(&r.namespace).text(&r.service).text(&r.version),
        }
    }

    /// A native location: the key of its file ([`crate::Mapping::key`]) and the offset in it.
    pub fn native_location(build: &str, offset: u64) -> Content {
        Content::new("native").text(build).number(offset)
    }

    /// A location; `build` is the key of its mapping ([`crate::Mapping::key`]).
    pub fn location(location: &Location, build: &str) -> Content {
        match location {
            Location::Native { offset, .. } => Content::native_location(build, *offset),
            Location::Named { frames } => frames.iter().fold(Content::new("named"), |h, f| {
                h.text(&f.function).text(&f.file).number(u64::from(f.line))
            }),
        }
    }

    /// A stack: identifiers of its locations, leaf first.
    pub fn stack(locations: &[u64]) -> Content {
        locations.iter().fold(Content::new("stack"), |h, &l| h.number(l))
    }

    /// A label set.
    pub fn label_set(labels: &LabelSet) -> Content {
        Content::new("labels")
            .number(labels.side.map_or(0, |s| u64::from(s.code())))
            .text(&labels.route)
            .release(labels.peer.as_ref())
    }

    /// A series: workload, component and profile type (`requests` for request series).
    pub fn series(workload: &Workload, component: Component, profile_type: &str) -> Content {
        Content::new("series")
            .text(&workload.namespace)
            .text(&workload.service)
            .text(&workload.version)
            .text(&workload.instance)
            .number(u64::from(component.code()))
            .text(profile_type)
    }

    /// A list of names in a domain of its own.
    pub fn names(domain: &str, names: &[&str]) -> Content {
        names.iter().fold(Content::new(domain), |h, n| h.text(n))
    }

    /// The identifier.
    pub fn id(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// The bytes, for another hash of the same content.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Identifier of a native location: key of its file ([`crate::Mapping::key`]) and file offset.
pub fn native_location_id(build: &str, offset: u64) -> u64 {
    Content::native_location(build, offset).id()
}

/// Identifier of a location; `build` is the key of its mapping ([`crate::Mapping::key`]).
pub fn location_id(location: &Location, build: &str) -> u64 {
    Content::location(location, build).id()
}

/// Identifier of a stack: its location identifiers, leaf first.
pub fn stack_id(locations: &[u64]) -> u64 {
    Content::stack(locations).id()
}

/// Identifier of a function: its normalised name and language, so that two builds of one source agree.
pub fn function_id(normalised_name: &str, language: &str) -> u64 {
    Content::new("function").text(normalised_name).text(language).id()
}

/// Identifier of a node of a flame tree: its parent's and its function's.
pub fn node_id(parent: u64, function: u64) -> u64 {
    Content::new("node").number(parent).number(function).id()
}

/// Identifier of a label set.
pub fn label_set_id(labels: &LabelSet) -> u64 {
    Content::label_set(labels).id()
}

/// Identifier of a series: workload, component and profile type (`requests` for request series).
pub fn series_id(workload: &Workload, component: Component, profile_type: &str) -> u64 {
    Content::series(workload, component, profile_type).id()
}

/// Identifier of a release.
pub fn release_id(release: &Release) -> u64 {
    Content::new("release").release(Some(release)).id()
}

/// Hash of a list of names in a domain of its own; for keys that are not stored rows.
pub fn key(domain: &str, names: &[&str]) -> u64 {
    Content::names(domain, names).id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_borders_matter() {
        assert_ne!(key("t", &["ab", "c"]), key("t", &["a", "bc"]));
        assert_ne!(function_id("a", "rust"), function_id("a", "go"));
    }

    /// A stored identifier must mean the same after an upgrade: this value may never change.
    #[test]
    fn identifiers_are_pinned() {
        assert_eq!(native_location_id("abc123", 0x10), PINNED_LOCATION);
    }

    const PINNED_LOCATION: u64 = 6_982_591_514_616_843_932;
}

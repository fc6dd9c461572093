//! Content hashes: 64-bit identifiers that any process computes alike.
//!
//! Guarantee: an identifier depends on content alone, never on order of arrival; identifiers are never
//! rewritten. XXH3-64 is not proof against deliberate collisions: a sender can only confuse its own names.
//! Fields are hashed with their length in front, so that ("ab", "c") and ("a", "bc") differ.

use xxhash_rust::xxh3::xxh3_64;

use crate::{Component, LabelSet, Release, Workload, profile::Location};

/// Fields with their lengths, hashed in one go: they are short, and the state of a running hash is not.
struct Fields(Vec<u8>);

impl Fields {
    fn new(domain: &str) -> Fields {
        Fields(Vec::with_capacity(512)).text(domain)
    }

    fn text(mut self, text: &str) -> Fields {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(mut self, number: u64) -> Fields {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn release(self, release: Option<&Release>) -> Fields {
        match release {
            None => self.number(0),
            Some(r) => self.number(1).text(&r.namespace).text(&r.service).text(&r.version),
        }
    }

    fn finish(self) -> u64 {
        xxh3_64(&self.0)
    }
}

/// Identifier of a native location: build id (or the file's path where there is none) and file offset.
pub fn native_location_id(build: &str, offset: u64) -> u64 {
    Fields::new("native").text(build).number(offset).finish()
}

/// Identifier of a location; `build` is the key of its mapping ([`crate::Mapping::key`]).
pub fn location_id(location: &Location, build: &str) -> u64 {
    match location {
        Location::Native { offset, .. } => native_location_id(build, *offset),
        Location::Named { frames } => frames
            .iter()
            .fold(Fields::new("named"), |h, f| {
                h.text(&f.function).text(&f.file).number(u64::from(f.line))
            })
            .finish(),
    }
}

/// Identifier of a stack: its location identifiers, leaf first.
pub fn stack_id(locations: &[u64]) -> u64 {
    locations
        .iter()
        .fold(Fields::new("stack"), |h, &l| h.number(l))
        .finish()
}

/// Identifier of a function: its normalised name and language, so that two builds of one source agree.
pub fn function_id(normalised_name: &str, language: &str) -> u64 {
    Fields::new("function").text(normalised_name).text(language).finish()
}

/// Identifier of a node of a flame tree: its parent's and its function's.
pub fn node_id(parent: u64, function: u64) -> u64 {
    Fields::new("node").number(parent).number(function).finish()
}

/// Identifier of a label set.
pub fn label_set_id(labels: &LabelSet) -> u64 {
    Fields::new("labels")
        .number(labels.side.map_or(0, |s| u64::from(s.code())))
        .text(&labels.route)
        .release(labels.peer.as_ref())
        .finish()
}

/// Identifier of a series: workload, component and profile type (`requests` for request series).
pub fn series_id(workload: &Workload, component: Component, profile_type: &str) -> u64 {
    Fields::new("series")
        .text(&workload.namespace)
        .text(&workload.service)
        .text(&workload.version)
        .text(&workload.instance)
        .number(u64::from(component.code()))
        .text(profile_type)
        .finish()
}

/// Identifier of a release.
pub fn release_id(release: &Release) -> u64 {
    Fields::new("release").release(Some(release)).finish()
}

/// Hash of any list of names under a domain of its own; for keys that are not stored rows.
pub fn key(domain: &str, names: &[&str]) -> u64 {
    names.iter().fold(Fields::new(domain), |h, n| h.text(n)).finish()
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

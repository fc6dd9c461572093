//! The records of dictionary parts.

use emberline_model::{Component, LabelSet, Mapping, Release, Side, Workload};
use prost::Message;

use crate::parts::codec::Record;

/// Everything but locations and stacks.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Names {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<SeriesName>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) label_sets: Vec<LabelSetName>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) mappings: Vec<MappingName>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) builds: Vec<BuildName>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) spans: Vec<WorkloadSpan>,
    /// Identifiers, of names here or of stacks, that are not the hash of their content because that was taken.
    #[prost(fixed64, repeated, tag = "6")]
    pub(crate) salted: Vec<u64>,
}

/// A series.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SeriesName {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) service: String,
    #[prost(string, tag = "3")]
    pub(crate) version: String,
    #[prost(string, tag = "4")]
    pub(crate) instance: String,
    #[prost(uint32, tag = "5")]
    pub(crate) component: u32,
    #[prost(string, tag = "6")]
    pub(crate) profile_type: String,
}

/// A label set; without a peer, the peer's three names are absent.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LabelSetName {
    #[prost(uint32, tag = "1")]
    pub(crate) side: u32,
    #[prost(string, tag = "2")]
    pub(crate) route: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) peer_namespace: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) peer_service: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(crate) peer_version: Option<String>,
}

/// A file that code was loaded from.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MappingName {
    #[prost(string, tag = "1")]
    pub(crate) build_id: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

/// "This workload runs code of this file".
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BuildName {
    #[prost(fixed64, tag = "1")]
    pub(crate) workload_id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) component: u32,
    /// Index of the mapping.
    #[prost(uint32, tag = "3")]
    pub(crate) mapping: u32,
}

/// First and last window start of a workload.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WorkloadSpan {
    #[prost(fixed64, tag = "1")]
    pub(crate) workload_id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) first_s: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) last_s: u32,
}

/// Some locations: the native ones, then the named ones.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Locations {
    /// Index of the mapping of each native location.
    #[prost(uint32, repeated, tag = "1")]
    pub(super) mappings: Vec<u32>,
    /// Its offset, less the previous one if the mapping is the same.
    #[prost(uint64, repeated, tag = "2")]
    pub(super) offsets: Vec<u64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) named: Vec<NamedLocation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedLocation {
    #[prost(message, repeated, tag = "1")]
    pub(super) frames: Vec<NamedFrame>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedFrame {
    #[prost(string, tag = "1")]
    pub(super) function: String,
    #[prost(string, tag = "2")]
    pub(super) file: String,
    #[prost(uint32, tag = "3")]
    pub(super) line: u32,
}

/// Some stacks, root first, each as how much it shares with the one before it and what it adds.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stacks {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) shared: Vec<u32>,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) added: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub(super) locations: Vec<u32>,
}

impl Record for Names {
    const STAMP: u32 = 1;
}

impl Record for Locations {
    const STAMP: u32 = 2;
}

impl Record for Stacks {
    const STAMP: u32 = 3;
}

impl SeriesName {
    pub(crate) fn workload(&self) -> Workload {
        Workload {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            version: self.version.clone(),
            instance: self.instance.clone(),
        }
    }

    pub(crate) fn component(&self) -> Component {
        Component::from_code(self.component)
    }
}

impl LabelSetName {
    pub(crate) fn label_set(&self) -> LabelSet {
        LabelSet {
            side: Side::from_code(self.side),
            route: self.route.clone(),
            peer: self.peer_service.as_ref().map(|service| Release {
                namespace: self.peer_namespace.clone().unwrap_or_default(),
                service: service.clone(),
                version: self.peer_version.clone().unwrap_or_default(),
            }),
        }
    }
}

impl MappingName {
    pub(crate) fn mapping(&self) -> Mapping {
        Mapping {
            build_id: self.build_id.clone(),
            path: self.path.clone(),
        }
    }
}

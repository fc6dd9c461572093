//! Emberline's data types and their wire formats.
//!
//! Guarantees: everything here is pure (no I/O, no clock, no async of its own), so the same input gives the same output
//! in the proxy, the collector and a test. Identifiers are content hashes ([`id`]): any process computes the same one,
//! and no identifier is ever rewritten.

pub mod alert;
pub mod batch;
pub mod comparison;
pub mod coverage;
pub mod elf;
pub mod flamebearer;
pub mod formats;
pub mod function;
pub mod histogram;
pub mod host;
pub mod id;
mod int_map;
mod lossy;
pub mod merge;
pub mod metric;
pub mod otlp;
pub mod path_tree;
mod positions;
pub mod pprof;
pub mod profile;
pub mod profile_builder;
pub mod protocol;
mod raw_codec;
pub mod resolve;
pub mod route;
pub mod sandwich;
pub mod subtree;
pub mod time;
pub mod tree;
pub mod unpack;
pub mod version;
pub mod weight;
pub mod wire;
pub mod workload;

pub use batch::{Batch, BatchId, RequestSeries, Signal, WorkloadWindow};
pub use histogram::Histogram;
pub use profile::{Exemplar, Frame, Location, Mapping, Profile, ProfileStats, ProfileType, Sample};
pub use raw_codec::RawCodec;
pub use workload::{Component, LabelSet, Release, Side, Workload};

/// Types generated from `proto/`; only wire formats, never used as the data types themselves.
pub mod proto {
    /// Package `emberline.v1`: the journal's batch and the debug information service.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("emberline.v1");
    }
    /// Package `perftools.profiles`: the pprof format.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
    pub mod pprof {
        tonic::include_proto!("perftools.profiles");
    }
    /// Package `push.v1`: what Pyroscope's clients push.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
    pub mod push {
        tonic::include_proto!("push.v1");
    }
    /// Package `parca.profilestore.v1alpha1`: what Parca's agents write.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
    pub mod parca {
        tonic::include_proto!("parca.profilestore.v1alpha1");
    }
}

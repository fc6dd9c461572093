//! What a sender ships and the store accepts: one batch, with an identity that survives retries.

use std::fmt::Write;

use percent_encoding::{AsciiSet, CONTROLS, PercentEncode, utf8_percent_encode};

use crate::{
    histogram::Histogram,
    profile::Profile,
    workload::{Component, Release, Side, Workload, clean_name},
};

/// The signal of a window that a batch contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Request histograms.
    Requests,
    /// Profiles.
    Profiles,
}

impl Signal {
    /// Number on the wire: 1 requests, 2 profiles.
    pub fn code(self) -> u32 {
        match self {
            Signal::Requests => 1,
            Signal::Profiles => 2,
        }
    }

    /// The signal of a code.
    pub fn from_code(code: u32) -> Option<Signal> {
        match code {
            1 => Some(Signal::Requests),
            2 => Some(Signal::Profiles),
            _ => None,
        }
    }
}

/// Identity of a batch, stable across retries: a batch that arrives twice is stored once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// Sender, unique per process (workload and component): [`BatchId::sender_of`] all windows of the batch.
    pub sender: String,
    /// Random number chosen by the sending process: sequences restart with it, and others cannot guess it.
    pub epoch: u64,
    /// 1, 2, 3, ... within (sender, epoch, signal).
    pub sequence: u64,
    /// Requests or profiles.
    pub signal: Signal,
}

/// Longest name of a sender.
const MAX_SENDER_BYTES: usize = 512;

impl BatchId {
    /// Sender name of a process: `namespace/service/version/instance/component` in visible ASCII. A collector keeps
    /// only IDs under this name, so that a sender cannot use up another's sequence numbers.
    pub fn sender_of(workload: &Workload, component: Component) -> String {
        let mut name = String::new();
        for part in [
            &workload.namespace,
            &workload.service,
            &workload.version,
            &workload.instance,
        ] {
            name.extend(percent_encoded(&clean_name(part)));
            name.push('/');
        }
        name.push_str(component.as_str());
        if name.len() > MAX_SENDER_BYTES {
            // ASCII, so any byte is a boundary. The hash distinguishes long names with a common prefix.
            let hash = crate::id::series_id(workload, component, "sender");
            name.truncate(MAX_SENDER_BYTES - 17);
            // Writing to a string cannot fail.
            let _ = write!(name, "#{hash:016x}");
        }
        name
    }
}

/// What is percent-encoded in names: everything but visible ASCII, and the separators and quotes of headers.
const NOT_IN_NAMES: &AsciiSet = &CONTROLS.add(b' ').add(b';').add(b'%').add(b',').add(b'"').add(b'\\');

/// A name encoded so that it contains only visible ASCII without `;` and `%`, whatever it was.
pub fn percent_encoded(name: &str) -> PercentEncode<'_> {
    utf8_percent_encode(name, NOT_IN_NAMES)
}

/// Request metadata key (gRPC metadata, HTTP header) that carries a [`BatchId`].
pub const BATCH_ID_HEADER: &str = "emberline-batch-id";

impl std::fmt::Display for BatchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{};{};{};{}",
            self.epoch,
            self.sequence,
            self.signal.code(),
            self.sender
        )
    }
}

/// A batch id header that is not `epoch;sequence;signal;sender`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{BATCH_ID_HEADER}: {0}` is not `epoch;sequence;signal;sender` (signal 1 = requests, 2 = profiles, sender of 1 to 512 characters)"
)]
pub struct InvalidBatchId(pub String);

impl std::str::FromStr for BatchId {
    type Err = InvalidBatchId;

    fn from_str(text: &str) -> Result<BatchId, InvalidBatchId> {
        let parse = || {
            let mut parts = text.splitn(4, ';');
            let epoch = parts.next()?.parse().ok()?;
            let sequence = parts.next()?.parse().ok()?;
            let signal = Signal::from_code(parts.next()?.parse().ok()?)?;
            let sender = parts
                .next()
                .filter(|s| !s.is_empty() && s.len() <= MAX_SENDER_BYTES)?
                .to_owned();
            Some(BatchId {
                sender,
                epoch,
                sequence,
                signal,
            })
        };
        parse().ok_or_else(|| InvalidBatchId(text.chars().take(80).collect()))
    }
}

/// Requests of one window with identical labels: one histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestSeries {
    /// The end of the edge that observed them.
    pub side: Side,
    /// Route template.
    pub route: String,
    /// HTTP method; empty if there is none.
    pub method: String,
    /// The peer release, if it identified itself.
    pub peer: Option<Release>,
    /// Destination as the caller names it; empty when unknown and on the server side.
    pub destination: String,
    /// The name of a [`Protocol`](crate::protocol::Protocol), or that of what others report.
    pub protocol: String,
    /// As the protocol's [`StatusKind`](crate::protocol::StatusKind) says; 0 without a response.
    pub status: u16,
    /// The request failed: status 5xx, a gRPC server error, or no response.
    pub error: bool,
    /// Latencies, one per finished request: from its head to the end of its response, minus the time the caller took
    /// to read it; for streams to the response head, for gRPC to the first message, for TCP until the destination is
    /// connected.
    pub duration: Histogram,
    /// Total time they continued beyond their latency, in seconds: streams, slow readers, connections.
    pub streaming_s: f64,
    /// Body bytes received from the caller.
    pub request_bytes: u64,
    /// Body bytes sent to the caller.
    pub response_bytes: u64,
    /// Streams, gRPC calls and connections open at the end of the window. Those with the same side, route, peer,
    /// destination and protocol are counted in one of their series, because their outcome is not known yet.
    pub open: u64,
}

/// What one workload did in one window.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadWindow {
    /// The workload.
    pub workload: Workload,
    /// Whose process reports.
    pub component: Component,
    /// Start of the window, seconds since the Unix epoch.
    pub start_unix_s: i64,
    /// Length in seconds.
    pub length_s: u32,
    /// This batch contains the window's requests signal, even if there were no requests.
    pub has_requests: bool,
    /// This batch contains the window's profiles signal, even if there were no samples.
    pub has_profiles: bool,
    /// Request histograms.
    pub requests: Vec<RequestSeries>,
    /// Profiles.
    pub profiles: Vec<Profile>,
}

/// One accepted unit, stored as a whole or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Identity; `None` for senders without one (they get at-least-once).
    pub id: Option<BatchId>,
    /// Arrival by the collector's clock, milliseconds since the Unix epoch.
    pub received_unix_ms: i64,
    /// Contents.
    pub windows: Vec<WorkloadWindow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_ids_round_trip_and_senders_may_hold_semicolons() {
        let id = BatchId {
            sender: "demo/cart;v1".into(),
            epoch: 5,
            sequence: 9,
            signal: Signal::Profiles,
        };
        assert_eq!(id.to_string().parse::<BatchId>().unwrap(), id);
        for bad in ["", "1;2;3;x", "1;2;1;", "a;1;1;s", "1;1;1"] {
            assert!(bad.parse::<BatchId>().is_err(), "{bad}");
        }
    }
}

//! What each part of the server may hold: the default of every limit on memory, on connections and on what they carry.
//!
//! Guarantees: derived from the memory of the process's cgroup and its file descriptors, so that from 512 MiB on, all
//! memory limits reached at once fit into it together with the program itself; shown at start-up and in
//! `/api/v1/status`.
//!
//! Wrong on purpose: if nothing limits the memory, [`USUAL_MEMORY`] is assumed instead of the machine's size: other
//! programs run there, too.

use serde::Serialize;

/// Memory assumed if nothing limits it; the systemd unit grants as much.
const USUAL_MEMORY: u64 = 1 << 30;
/// What a connection takes, measured with idle HTTP/2 ones, rounded up.
const CONNECTION_BYTES: u64 = 48 << 10;
/// What a request in flight takes apart from its body, rounded up.
const REQUEST_BYTES: u64 = 64 << 10;
/// The query engine can answer any range with this much; larger sorts go to disk.
const MOST_ENGINE_MB: u64 = 192;
/// Stacks of a busy mesh for an hour.
const MOST_DICTIONARY_CACHE: u64 = 64 << 20;
/// The largest profiles of real programs are a few megabytes.
const MOST_REQUEST_MB: u64 = 16;
/// Ports that share the connections.
const PORTS: usize = 3;
/// The most connections that one process is assumed to need.
const MOST_OF_PORT: usize = 4_096;
/// The fewest that can be served with.
const LEAST_OF_PORT: usize = 8;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Budget {
    /// The memory that limits are derived from, in bytes.
    pub(crate) memory_bytes: u64,
    /// File descriptors of the process.
    pub(crate) descriptors: u64,
    /// Those reserved for the store, the log and outgoing connections.
    pub(crate) reserved_descriptors: u64,
    /// Connections per port.
    pub(crate) connections_per_port: usize,
    /// Additional slots per port, for waiting connections and health checks.
    pub(crate) waiting_per_port: usize,
    /// Connections of one address per port.
    pub(crate) connections_per_address: usize,
    /// Bytes of all heads that are incomplete, or whose requests are in flight.
    pub(crate) head_bytes: u64,
    /// Requests in flight on all connections.
    pub(crate) requests: usize,
    /// Bytes of large responses not read yet.
    pub(crate) answer_bytes: u64,
    /// Bytes that responses to heavy queries take while they are built.
    pub(crate) answer_memory_bytes: u64,
    /// Memory of the query engine, in MiB.
    pub(crate) engine_mb: u64,
    /// Bytes of the cache of stacks and locations.
    pub(crate) dictionary_cache_bytes: u64,
    /// Largest request, in MiB. All bodies together take four times as much, and decoded requests eight times.
    pub(crate) request_mb: u64,
}

impl Budget {
    /// Limits for a process that may use this much.
    pub(crate) fn of(memory: Option<u64>, descriptors: u64) -> Budget {
        let memory = memory.unwrap_or(USUAL_MEMORY);
        let reserved = (descriptors / 4).clamp(64, 1024).min(descriptors / 2);
        let by_descriptors = (descriptors - reserved) as usize / PORTS;
        let by_memory = (memory / 12 / CONNECTION_BYTES) as usize / PORTS;
        let places = by_descriptors.min(by_memory).clamp(LEAST_OF_PORT, MOST_OF_PORT);
        let waiting = (places / 8).clamp(2, 32);
        let connections = places - waiting;
        Budget {
            memory_bytes: memory,
            descriptors,
            reserved_descriptors: reserved,
            connections_per_port: connections,
            waiting_per_port: waiting,
            connections_per_address: connections - connections / 8,
            head_bytes: (memory / 32).max(1 << 20),
            requests: ((memory / 32 / REQUEST_BYTES) as usize).max(64),
            answer_bytes: (memory / 32).max(4 << 20),
            answer_memory_bytes: (memory / 8).max(16 << 20),
            engine_mb: ((memory / 6) >> 20).clamp(32, MOST_ENGINE_MB),
            dictionary_cache_bytes: (memory / 8).clamp(4 << 20, MOST_DICTIONARY_CACHE),
            request_mb: ((memory / 64) >> 20).clamp(1, MOST_REQUEST_MB),
        }
    }

    /// As text, for the log.
    pub(crate) fn in_words(&self) -> String {
        format!(
            "{} connections on each port, derived from {} MiB of memory and {} file descriptors",
            self.connections_per_port,
            self.memory_bytes >> 20,
            self.descriptors
        )
    }
}

#[cfg(test)]
mod tests {
    use emberline_model::weight::MEMORY_FACTOR;

    use super::*;

    /// The default of `queue_bytes`.
    const QUEUE_BYTES: u64 = 32 << 20;
    /// The program, its tables of names, an hour being sealed, and what the allocators have not returned yet.
    const PROGRAM_BYTES: u64 = 80 << 20;

    #[test]
    fn all_limits_together_fit_into_the_machine() {
        for memory in [512 << 20, 1 << 30, 64 << 30] {
            for descriptors in [64, 256, 1_024, 65_536, 1 << 20] {
                let budget = Budget::of(Some(memory), descriptors);
                let places = (budget.connections_per_port + budget.waiting_per_port) as u64 * PORTS as u64;
                assert!(places + budget.reserved_descriptors <= descriptors, "{budget:?}");
                let connections =
                    places * CONNECTION_BYTES + budget.requests as u64 * REQUEST_BYTES + budget.head_bytes;
                let answers = budget.answer_memory_bytes + budget.answer_bytes;
                let ingest = (4 + MEMORY_FACTOR) * (budget.request_mb << 20) + QUEUE_BYTES;
                let store = (budget.engine_mb << 20) + budget.dictionary_cache_bytes;
                let sum = connections + answers + ingest + store;
                assert!(sum + PROGRAM_BYTES <= memory, "{sum} {budget:?}");
                assert!(
                    budget.connections_per_address < budget.connections_per_port,
                    "{budget:?}"
                );
            }
        }
    }

    #[test]
    fn a_container_of_512_mib_with_1024_descriptors_has_room_for_two_hundred_senders() {
        let budget = Budget::of(Some(512 << 20), 1_024);
        assert!(budget.connections_per_port >= 200, "{budget:?}");
        assert_eq!(Budget::of(None, 65_536).memory_bytes, USUAL_MEMORY);
    }
}

//! What each part of the server may hold: every limit of memory, of connections and of what they carry comes from here, where
//! the configuration sets none.
//!
//! Guarantees: derived from the memory of the process's cgroup and its file descriptors, so that from 512 MiB on all limits of memory reached at
//! once fit into it with the program itself; printed at the start and in `/api/v1/status`.
//!
//! Wrong on purpose: where nothing limits the memory, [`USUAL_MEMORY`] is assumed and not what the machine has: others live
//! there, too.

use serde::Serialize;

/// Memory that is assumed where nothing limits it; the unit for systemd gives as much.
const USUAL_MEMORY: u64 = 1 << 30;
/// What a connection takes, measured with idle ones of HTTP/2, rounded up.
const CONNECTION_BYTES: u64 = 48 << 10;
/// What a request under way takes beside its body, rounded up.
const REQUEST_BYTES: u64 = 64 << 10;
/// The query engine answers whatever range from as much; what does not fit it sorts on disk.
const MOST_ENGINE_MB: u64 = 192;
/// Stacks of a busy mesh for an hour.
const MOST_DICTIONARY_CACHE: u64 = 64 << 20;
/// The largest profiles of real programs are a few megabytes.
const MOST_REQUEST_MB: u64 = 16;
/// Ports that share the connections.
const PORTS: usize = 3;
/// More connections than this are not asked for from one process.
const MOST_OF_PORT: usize = 4_096;
/// Fewer than this cannot be served by.
const LEAST_OF_PORT: usize = 8;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Budget {
    /// Memory that limits are derived from, in bytes.
    pub(crate) memory_bytes: u64,
    /// File descriptors of the process.
    pub(crate) descriptors: u64,
    /// Of these, what the store, the log and outgoing connections need.
    pub(crate) reserved_descriptors: u64,
    /// Connections of each port.
    pub(crate) connections_per_port: usize,
    /// Places of each port beyond these, for connections that wait and for who asks whether the server lives.
    pub(crate) waiting_per_port: usize,
    /// Connections of one address on a port.
    pub(crate) connections_per_address: usize,
    /// Bytes of heads of all connections that are not whole, or whose requests are under way.
    pub(crate) head_bytes: u64,
    /// Requests of all connections under way.
    pub(crate) requests: usize,
    /// Bytes of large answers that nobody has taken yet.
    pub(crate) answer_bytes: u64,
    /// Bytes that answers to heavy questions hold while they are put together.
    pub(crate) answer_memory_bytes: u64,
    /// Memory of the query engine, in MiB.
    pub(crate) engine_mb: u64,
    /// Bytes of the cache of stacks and locations.
    pub(crate) dictionary_cache_bytes: u64,
    /// Largest request, in MiB. Bodies hold four times as much together, and what is decoded of them eight times.
    pub(crate) request_mb: u64,
}

impl Budget {
    /// Limits for a process that may have so much.
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

    /// In words, for the log.
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
    /// The program, its tables of names, an hour that is being sealed, and what the allocators have not given back yet.
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

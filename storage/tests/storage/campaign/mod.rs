//! Campaigns of faults against the store: kill it, damage its files, fill its disk; then compare what it answers with a
//! ledger kept by another process, which is never killed.
//!
//! The store's obligation begins when the ledger has read the acknowledgement. From then on a batch is there whole,
//! once, with the values that were sent, until it is past retention; one that was sent but not acknowledged is there
//! whole or not at all. Every run prints its seed. The short forms are tests (`campaigns.rs`), the full ones benches
//! (`make bench NAME=kill`); both use this code.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // A panic is how a campaign fails.

pub mod child;
pub mod corruption;
pub mod disk_full;
pub mod failpoints;
pub mod kill;
pub mod ledger;
pub mod load;
pub mod process;
pub mod replay;

use std::{path::Path, time::Duration};

use emberline_storage::Options;

/// The allocator of a server, since it determines how much stays resident.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The most memory that a store with [`options`] may have resident: DuckDB's limit, the queue twice (journal and hot
/// store), the dictionary, and what the program, its libraries and its threads take.
pub const MEMORY_CAP_MB: u64 = 256;

/// A store in which every mechanism runs after a few batches.
pub fn options(dir: &Path, retention_hours: i64) -> Options {
    let mut options = Options::new(dir);
    options.memory_limit_mb = 64;
    options.queue_bytes = 8 << 20;
    options.max_batch_bytes = 4 << 20;
    options.dictionary_cache_bytes = 8 << 20;
    options.segment_bytes = 8 << 10;
    options.checkpoint_bytes = 32 << 10;
    options.retention = Duration::from_secs(retention_hours as u64 * 3600);
    options.rollup_retention = Duration::from_secs((retention_hours as u64 + 40) * 3600);
    options.seal_after = Duration::from_secs(600);
    options.compact_after = Duration::ZERO;
    options.apply_interval = Duration::from_millis(5);
    options.group_wait = Duration::ZERO;
    options.min_free_mb = 0;
    options
}

/// Pseudo-random numbers, reproducible by seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

/// The seed of this run: `EMBERLINE_SEED`, or a new one.
pub fn seed() -> u64 {
    let given = std::env::var("EMBERLINE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64 % 1_000_000_007
    });
    println!("seed {seed} (EMBERLINE_SEED={seed} repeats it)");
    seed
}

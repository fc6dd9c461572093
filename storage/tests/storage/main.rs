//! The store through its public API: answers, crashes, damage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod answers_match_memory;
mod append_and_ask;
mod campaign;
mod campaigns;
mod catalogue;
mod collisions;
mod common;
mod compaction;
mod deleting;
mod exemplars;
mod faults;
mod gauges;
mod older_parts;
mod recovery;
mod releases;
mod sealing;
mod selected_sums;
mod sums;

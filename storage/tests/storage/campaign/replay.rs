//! The replay of a large journal in little memory: the hot store is gone, and the journal is many times the size that a
//! store may have resident.

use std::{fs, path::Path};

use emberline_model::{Batch, BatchId, Component, Signal};
use emberline_storage::{Options, Store};

use super::{
    child::{self, Orders},
    load,
    process::{Process, command, peak_rss_kb},
};
use crate::common::{T0, TestClock, batch, labels, profile, window, workload};

/// Stacks per batch, and how deep they are.
const STACKS: u64 = 3000;
const DEPTH: u64 = 24;
/// Number of distinct addresses in them.
const LOCATIONS: u64 = 1 << 17;

/// What a replay cost.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub journal_mb: u64,
    pub peak_rss_mb: u64,
    pub batches: u64,
    pub problems: Vec<String>,
}

fn options(dir: &Path) -> Options {
    let mut options = super::options(dir, load::RETENTION_HOURS);
    // A server's setting.
    options.segment_bytes = Options::new(dir).segment_bytes;
    options.checkpoint_bytes = Options::new(dir).checkpoint_bytes;
    options
}

/// A large batch: with stacks of its own, so that nothing about it is already known.
fn large(number: u64) -> Batch {
    let mut random = super::Random::new(number);
    let stacks: Vec<Vec<u64>> = (0..STACKS)
        .map(|_| (0..DEPTH).map(|_| random.below(LOCATIONS)).collect())
        .collect();
    let labels = labels("/pay");
    let samples: Vec<_> = stacks.iter().map(|s| (s.as_slice(), labels.clone(), 1)).collect();
    let who = workload("checkout", "v1", &number.to_string());
    let mut window = window(&who, Component::Application, T0 - 10 * (number % 360) as i64);
    window.has_profiles = true;
    window.profiles = vec![profile(load::NAMELESS_BUILD, &samples)];
    Batch {
        id: Some(BatchId {
            sender: "demo/large".into(),
            epoch: 1,
            sequence: number + 1,
            signal: Signal::Profiles,
        }),
        ..batch(number, vec![window])
    }
}

/// Writes a journal of about `journal_mb`, deletes the hot store, and measures the start that follows.
pub fn run(dir: &Path, journal_mb: u64) -> Outcome {
    let mut outcome = Outcome::default();
    for phase in ["write", "read"] {
        let mut process = Process::start(command());
        process.order(&format!("dir {}", dir.display()));
        process.order(&format!("megabytes {journal_mb}"));
        process.order(&format!("phase {phase}"));
        process.order("replay");
        process.end_orders();
        let mut finished = false;
        while let Some(line) = process.line() {
            match line.split_once(' ') {
                Some(("batches", n)) if phase == "write" => outcome.batches = n.parse().unwrap(),
                Some(("value", value)) => {
                    finished = value.parse() == Ok(outcome.batches * STACKS);
                    if !finished {
                        outcome
                            .problems
                            .push(format!("{value} where {} was sent", outcome.batches * STACKS));
                    }
                }
                Some(("journal", mb)) => outcome.journal_mb = mb.parse().unwrap(),
                Some(("failed", _)) => outcome.problems.push(line),
                _ => {}
            }
        }
        if !process.wait().success() || (phase == "read" && !finished) {
            outcome
                .problems
                .push(format!("the process did not get to its end: {phase}"));
        }
        if phase == "write" {
            let _ = fs::remove_file(dir.join("hot.duckdb"));
            let _ = fs::remove_file(dir.join("hot.duckdb.wal"));
        } else {
            outcome.peak_rss_mb = process.peak_rss_kb >> 10;
        }
    }
    if outcome.peak_rss_mb > super::MEMORY_CAP_MB {
        outcome
            .problems
            .push(format!("{} MiB were resident", outcome.peak_rss_mb));
    }
    outcome
}

/// What the process under test does.
pub async fn replay(orders: &Orders) {
    let dir = child::folder(orders);
    let store = Store::open(options(&dir), TestClock::at(T0)).unwrap();
    if orders["phase"] == "write" {
        let mut batches = 0;
        while store.stats().journal_bytes < child::number(orders, "megabytes") << 20 {
            store.append(large(batches)).await.unwrap();
            batches += 1;
        }
        child::say(&format!(
            "batches {batches}\njournal {}",
            store.stats().journal_bytes >> 20
        ));
        // What is not applied yet is left to the next start.
        return;
    }
    if let Err(error) = store.flush_applied().await {
        return child::say(&format!("failed to apply: {error}"));
    }
    let total = store.ask(child::totals()).await.unwrap();
    let value: i64 = total.iter().map(|row| row.value).sum();
    child::say(&format!("rss {}\nvalue {value}", peak_rss_kb("self").unwrap_or(0)));
    store.close();
}

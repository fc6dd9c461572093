//! Kill -9, again and again: what was acknowledged is there, and nothing is there twice.
//!
//! `EMBERLINE_KILLS` sets the number of kills (default 10). The child is this same test binary.
#![allow(clippy::unwrap_used)] // A panic is how a test fails, in its helpers, too.

mod common;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

use common::*;
use emberline_model::ProfileType;
use emberline_storage::{Appended, Range, StackQuery, Store, WorkloadFilter};

const DIR: &str = "EMBERLINE_CRASH_DIR";
const FIRST: &str = "EMBERLINE_CRASH_FIRST";

fn small_options(dir: &std::path::Path) -> emberline_storage::Options {
    let mut options = options(dir);
    // Many segments, many checkpoints of senders.
    options.segment_bytes = 8 << 10;
    options
}

/// Not a test by itself: what the parent starts and kills. Sends from a sequence on, says what was acknowledged.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(small_options(dir.as_ref()), TestClock::at(T0)).unwrap();
        println!("open");
        for start in (first..).step_by(8) {
            let sent = (start..start + 8).map(|sequence| {
                let at = T0 - (sequence % 500) as i64 * 10;
                let w = full_window(
                    &workload("checkout", "v1", "a"),
                    at,
                    "/pay",
                    &[1],
                    &[sequence],
                    sequence as i64,
                );
                (sequence, store.append(batch(sequence, vec![w])))
            });
            for (sequence, appended) in sent.collect::<Vec<_>>() {
                let word = match appended.await.unwrap() {
                    Appended::Stored { .. } => "stored",
                    Appended::Duplicate => "duplicate",
                };
                println!("{word} {sequence}");
            }
            std::io::stdout().flush().unwrap();
        }
    });
}

#[test]
fn acknowledged_batches_survive_kill_nine() {
    let kills: u64 = std::env::var("EMBERLINE_KILLS")
        .ok()
        .and_then(|k| k.parse().ok())
        .unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut duplicates = 0;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for kill in 0..kills {
        let first = (1..).find(|s| !acknowledged.contains(s)).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // The time of the kill is what varies; nothing depends on how much got done by then.
        let lines = 1 + random % 97;
        let extra = Duration::from_micros(random >> 32 & 0x3fff);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in output.by_ref().take(lines as usize + 4) {
            note(&line.unwrap(), &mut acknowledged, &mut duplicates);
        }
        std::thread::sleep(extra);
        child.kill().unwrap();
        child.wait().unwrap();
        for line in output.map_while(Result::ok) {
            note(&line, &mut acknowledged, &mut duplicates);
        }
        if kill % 3 == 2 {
            // Sometimes the hot store is gone as well.
            let _ = std::fs::remove_file(dir.path().join("hot.duckdb"));
            let _ = std::fs::remove_file(dir.path().join("hot.duckdb.wal"));
        }
    }
    assert!(
        acknowledged.len() as u64 >= kills,
        "{} acknowledged",
        acknowledged.len()
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(small_options(dir.path()), TestClock::at(T0)).unwrap();
        store.flush_applied().await.unwrap();
        let query = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
        let rows = store.stacks(query).await.unwrap().rows;
        // Each batch has a stack of its own, whose value is its sequence: twice the batch would be twice the value.
        let mut found = BTreeSet::new();
        let ids: Vec<u64> = rows.iter().map(|r| r.stack_id).collect();
        let resolved = store.resolve(&ids).await.unwrap();
        for row in rows {
            let name = &resolved.functions[resolved.frames(row.stack_id)[0] as usize].name;
            let sequence = u64::from_str_radix(&name[2..], 16).unwrap();
            assert_eq!(
                (row.value as u64, row.samples),
                (sequence, 1),
                "sequence {sequence} is there twice"
            );
            found.insert(sequence);
        }
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let stats = store.stats();
        assert_eq!(stats.journal_records_lost, 0, "{stats:?}");
        println!(
            "{kills} kills: {} acknowledged, {} found, {duplicates} retries answered as duplicates, 0 lost, 0 doubled",
            acknowledged.len(),
            found.len()
        );
    });
}

fn note(line: &str, acknowledged: &mut BTreeSet<u64>, duplicates: &mut u64) {
    let mut words = line.split(' ');
    let (Some(word @ ("stored" | "duplicate")), Some(sequence)) = (words.next(), words.next()) else {
        return;
    };
    // A number that the kill cut short is a smaller one, and those were acknowledged before: they come in order.
    if let Ok(sequence) = sequence.parse() {
        *duplicates += u64::from(word == "duplicate");
        acknowledged.insert(sequence);
    }
}

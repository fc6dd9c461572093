//! A disk that is really full, under DuckDB as well: reads come back, nothing acknowledged is lost, and no restart is
//! needed. Runs when `EMBERLINE_SMALL_DISK` names a folder on a file system of its own of about 32 MB:
//!
//! `mount -t tmpfs -o size=32m none /mnt/small && EMBERLINE_SMALL_DISK=/mnt/small cargo test --release -p
//! emberline-storage --test full_disk -- --nocapture`
#![allow(clippy::unwrap_used)] // A panic is how a test fails, in its helpers, too.

mod common;

use std::time::{Duration, Instant};

use common::*;
use emberline_model::ProfileType;
use emberline_storage::{AppendError, Range, StackQuery, Store, WorkloadFilter};

async fn total(store: &Store) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let query = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
        match store.stacks(query).await {
            Ok(stacks) => return stacks.value,
            Err(error) => {
                assert!(error.is_retryable() && Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_really_full_needs_room_and_no_restart() {
    let Some(disk) = std::env::var_os("EMBERLINE_SMALL_DISK") else {
        return;
    };
    let dir = tempfile::tempdir_in(&disk).unwrap();
    let filler = dir.path().join("filler");
    std::fs::write(&filler, vec![1; 22 << 20]).unwrap();
    let data = dir.path().join("data");
    let store = Store::open(options(&data), TestClock::at(T0)).unwrap();
    let sent = |n: u64| {
        // Large in the journal, too: numbers that do not compress well.
        let mut offsets: Vec<u64> = (0..300).map(|at| at * at * 7919 % 100_003).collect();
        offsets[0] = n * 1_000_000;
        batch(
            n,
            vec![full_window(
                &workload("checkout", "v1", "a"),
                T0 - (n % 2000) as i64 * 10,
                "/",
                &[1],
                &offsets,
                1,
            )],
        )
    };
    let mut acknowledged = 0i64;
    let mut refused = 0;
    let mut n = 1;
    while refused < 20 {
        match store.append(sent(n)).await {
            Ok(_) => (acknowledged, n) = (acknowledged + 1, n + 1),
            Err(error) => {
                assert!(matches!(error, AppendError::DiskFull { .. }), "{error}");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let visible = total(&store).await;
    let full = store.stats();
    println!("full after {acknowledged} batches, {visible} visible: {full:?}");
    std::fs::remove_file(&filler).unwrap();
    let started = Instant::now();
    store.append(sent(n)).await.unwrap();
    acknowledged += 1;
    let flushed = tokio::time::timeout(Duration::from_secs(120), store.flush_applied()).await;
    assert!(flushed.is_ok(), "{:?}", store.stats());
    println!("resumed within {:?}: {:?}", started.elapsed(), store.stats());
    assert_eq!(total(&store).await, acknowledged);
    store.close();
    let store = Store::open(options(&data), TestClock::at(T0)).unwrap();
    store.flush_applied().await.unwrap();
    assert_eq!(total(&store).await, acknowledged);
}

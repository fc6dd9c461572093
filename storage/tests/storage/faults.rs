//! A disk that fails under the running store.

use std::sync::Arc;

use crate::common::*;
use emberline_model::ProfileType;
use emberline_storage::{
    AppendError, Appended, Range, StackQuery, Store, WorkloadFilter,
    disk::{DiskEvent, FaultyDisk, RealDisk},
};

async fn total(store: &Store) -> i64 {
    store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
    store.ask(query).await.unwrap().value
}

fn sent(sequence: u64) -> emberline_model::Batch {
    let w = full_window(
        &workload("checkout", "v1", "a"),
        T0,
        "/pay",
        &[1],
        &[sequence],
        1 << sequence,
    );
    batch(sequence, vec![w])
}

#[tokio::test]
async fn a_full_disk_keeps_answering_and_accepts_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(options(dir.path()), TestClock::at(T0), Arc::new(disk.clone())).unwrap();
    store.append(sent(1)).await.unwrap();
    disk.set_budget(Some(30));
    for _ in 0..3 {
        let error = store.append(sent(2)).await.unwrap_err();
        assert!(
            matches!(error, AppendError::DiskFull { .. }) && error.is_retryable(),
            "{error}"
        );
        assert_eq!(total(&store).await, 2, "reads stay up");
    }
    disk.set_budget(None);
    assert!(matches!(store.append(sent(2)).await.unwrap(), Appended::Stored { .. }));
    assert_eq!(total(&store).await, 6);
    assert_eq!(store.stats().rejected["disk_full"], 3);
    store.close();
    let store = open(dir.path());
    assert_eq!(total(&store).await, 6);
    assert_eq!(store.append(sent(2)).await.unwrap(), Appended::Duplicate);
}

#[tokio::test]
async fn a_failed_sync_is_reported_and_its_retry_counts_once_also_after_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(options(dir.path()), TestClock::at(T0), Arc::new(disk.clone())).unwrap();
    store.append(sent(1)).await.unwrap();
    disk.fail_syncs(2);
    for _ in 0..2 {
        let error = store.append(sent(2)).await.unwrap_err();
        assert!(
            matches!(error, AppendError::Io { .. }) && error.is_retryable(),
            "{error}"
        );
    }
    store.append(sent(2)).await.unwrap();
    store.append(sent(3)).await.unwrap();
    assert_eq!(total(&store).await, 14);
    assert_eq!(store.stats().journal_sync_failures, 2);
    store.close();
    std::fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = open(dir.path());
    assert_eq!(total(&store).await, 14);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(options(dir.path()), TestClock::at(T0), Arc::new(disk.clone())).unwrap();
    for sequence in 1..=20 {
        store.append(sent(sequence)).await.unwrap();
        disk.mark("acknowledged");
    }
    let mut unsynced = 0;
    let mut acknowledged = 0;
    for event in disk.events() {
        match event {
            DiskEvent::Append(path, _) if path.extension().is_some_and(|e| e == "log") => unsynced += 1,
            DiskEvent::Sync(path) if path.extension().is_some_and(|e| e == "log") => unsynced = 0,
            DiskEvent::Mark(_) => {
                assert_eq!(unsynced, 0);
                acknowledged += 1;
            }
            _ => {}
        }
    }
    assert_eq!(acknowledged, 20);
}

#[tokio::test]
async fn many_senders_at_once_share_syncs_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    // So small that most batches do not fit into memory and are read back from the journal.
    options.queue_bytes = 64 << 10;
    options.group_wait = std::time::Duration::from_millis(5);
    let store = Store::open(options, TestClock::at(T0)).unwrap();
    let mut tasks = Vec::new();
    for instance in 0..8u64 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for n in 1..=25u64 {
                let w = full_window(
                    &workload("checkout", "v1", &instance.to_string()),
                    T0,
                    "/",
                    &[1],
                    &[n],
                    1,
                );
                let mut sent = batch(n, vec![w]);
                sent.id.as_mut().unwrap().sender = format!("sender {instance}");
                loop {
                    match store.append(sent.clone()).await {
                        Ok(_) => break,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(total(&store).await, 200);
    let stats = store.stats();
    assert!(stats.journal_groups < 200, "{stats:?}");
    assert_eq!(stats.lsn_durable, 200);
}

//! The power fails at each change that sealing makes on disk, in turn.

use super::*;

/// The power fails at each change that sealing makes on disk, in turn. `lane` takes every third.
fn power_goes(lane: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for changes in (lane..).step_by(3) {
            assert!(changes < 400, "sealing never ends");
            if !power_goes_after(changes).await {
                break;
            }
        }
    });
}

/// False if everything was done before the power failed.
async fn power_goes_after(changes: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(small_segments(dir.path()), clock.clone(), Arc::new(disk.clone())).unwrap();
    let mut acknowledged = BTreeSet::new();
    for (sequence, start) in [(1, T0 - 3600), (2, T0), (3, T0 - 3590), (4, T0 + 10)] {
        store.append(sent(sequence, start)).await.unwrap();
        acknowledged.insert(1i64 << sequence);
    }
    store.flush_applied().await.unwrap();
    disk.lose_power_after(changes);
    clock.set(T0 + 600);
    store.seal().await.unwrap();
    if store.append(sent(5, T0 - 3580)).await.is_ok() {
        acknowledged.insert(1 << 5);
    }
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let went = disk.has_lost_power();
    store.close();
    disk.drop_unsynced().unwrap();

    // The machine comes back with its hot store, or without it.
    if changes.is_multiple_of(2) {
        let _ = fs::remove_file(dir.path().join("hot.duckdb"));
        let _ = fs::remove_file(dir.path().join("hot.duckdb.wal"));
    }
    let store = Store::open(small_segments(dir.path()), clock).unwrap();
    let found = values(&store).await;
    let distinct: BTreeSet<i64> = found.iter().copied().collect();
    assert_eq!(found.len(), distinct.len(), "power gone after {changes}: {found:?}");
    assert!(
        distinct.is_superset(&acknowledged),
        "power gone after {changes}: {found:?} of {acknowledged:?}"
    );
    assert!(found.iter().all(|v| v.count_ones() == 1), "{found:?}");
    assert_eq!(request_count(&store).await, 2 * found.len() as u64, "after {changes}");
    store.seal().await.unwrap();
    assert_eq!(values(&store).await, found, "sealing what was left, after {changes}");
    let stats = store.stats();
    assert_eq!((stats.seal_failures, stats.parts_quarantined), (0, 0), "{stats:?}");
    assert!(
        part_files(dir.path())
            .iter()
            .all(|p| p.extension().is_some_and(|e| e != "tmp")),
        "nothing half written stays"
    );
    store.close();
    went
}

#[test]
fn no_power_cut_while_sealing_loses_or_doubles_a_row_first_third() {
    power_goes(0);
}

#[test]
fn no_power_cut_while_sealing_loses_or_doubles_a_row_second_third() {
    power_goes(1);
}

#[test]
fn no_power_cut_while_sealing_loses_or_doubles_a_row_last_third() {
    power_goes(2);
}

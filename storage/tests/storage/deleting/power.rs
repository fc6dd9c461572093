//! The power fails at each change that a deletion makes on disk, in turn.

use super::*;

/// The power fails at each change that a deletion makes on disk, in turn; each time in a copy of a store.
async fn power_goes_after(changes: u64, of: &Path, before: &str, expected: &str) -> bool {
    let mut world = World::copy_of(of).await;
    world.disk.lose_power_after(changes);
    let deleted = delete(&world.store).await;
    let went = world.disk.has_lost_power();
    world.store.close();
    world.disk.drop_unsynced().unwrap();
    world.disk = FaultyDisk::new(Arc::new(RealDisk));
    if changes.is_multiple_of(2) {
        remove_hot(world.dir.path());
    }
    world.reopen();
    until_made_good(&world.store).await;
    let left = told_briefly(&world.store).await;
    assert!(
        left == expected || (left == before && deleted.is_err()),
        "power gone after {changes}, {deleted:?}: {left}"
    );
    if left != expected {
        delete(&world.store).await.unwrap();
        assert_eq!(told_briefly(&world.store).await, expected, "after {changes}");
    }
    let stats = world.store.stats();
    assert_eq!(
        (stats.parts_quarantined, stats.deletions_lost, stats.deletion_failures),
        (0, 0, 0),
        "after {changes}: {stats:?}"
    );
    let names = parts(world.dir.path());
    assert!(
        names.iter().all(|name| !name.ends_with(".tmp")),
        "after {changes}: {names:?}"
    );
    world.store.close();
    went
}

fn power_goes(lane: u64, lanes: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // An hour in two groups of parts, one of them only the service's, and tables.
        let filled = async |make| {
            let dir = tempfile::tempdir().unwrap();
            let clock = TestClock::at(T0 + 4300);
            let store = Store::open(World::options(dir.path()), clock).unwrap();
            fill_with(&store, &SEALED[2..], make).await;
            let told = told_briefly(&store).await;
            store.close();
            (dir, told)
        };
        let (of, before) = filled(|batch| batch).await;
        let (_, expected) = filled(without).await;
        for changes in (lane..).step_by(lanes) {
            assert!(changes < 400, "deleting never ends");
            if !power_goes_after(changes, of.path(), &before, &expected).await {
                break;
            }
        }
    });
}

#[test]
fn no_power_cut_while_deleting_loses_or_brings_back_a_row_even() {
    power_goes(0, 2);
}

#[test]
fn no_power_cut_while_deleting_loses_or_brings_back_a_row_odd() {
    power_goes(1, 2);
}

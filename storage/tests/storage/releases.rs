//! When a release was first seen is kept: through restarts, retention, damage and the end of its processes.

use std::{fs, path::Path, sync::Arc, time::Duration};

use emberline_model::Batch;
use emberline_storage::{
    Range, ServicesQuery, StateError, Store,
    disk::RealDisk,
    inspect::{self, Damage},
};

use crate::common::*;

const HOUR: i64 = 3600;

fn sent(sequence: u64, version: &str, instance: &str, start: i64) -> Batch {
    let window = full_window(
        &workload("pay", version, instance),
        start,
        "/",
        &[1],
        &[sequence],
        sequence as i64,
    );
    Batch {
        received_unix_ms: (start + 12) * 1000,
        ..batch(sequence, vec![window])
    }
}

/// Version and when it was first seen, newest first.
async fn releases(store: &Store) -> Vec<(String, i64)> {
    store.flush_applied().await.unwrap();
    let services = store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services;
    let releases = services.into_iter().flat_map(|service| service.releases);
    releases
        .map(|release| (release.version, release.first_seen_s))
        .collect()
}

fn expected(releases: &[(&str, i64)]) -> Vec<(String, i64)> {
    releases.iter().map(|&(version, at)| (version.to_owned(), at)).collect()
}

fn verify(dir: &Path) -> Vec<Damage> {
    inspect::verify(dir, &RealDisk, 64, &mut |_, _, _| {}).unwrap().damage
}

/// v1 in one process at first and in another later; v2 in between. Only the data of the last hours is left.
async fn aged(dir: &Path) -> (Store, Arc<TestClock>) {
    let clock = TestClock::at(T0);
    let mut options = options(dir);
    (options.retention, options.rollup_retention) = (Duration::from_secs(4 * 3600), Duration::from_secs(6 * 3600));
    let store = Store::open(options, clock.clone()).unwrap();
    for (sequence, version, instance, hour) in [
        (1, "v1", "a", 0),
        (2, "v1", "a", 1),
        (3, "v2", "c", 2),
        (4, "v2", "c", 7),
        (5, "v1", "b", 7),
    ] {
        clock.set(T0 + hour * HOUR + 20);
        store
            .append(sent(sequence, version, instance, T0 + hour * HOUR))
            .await
            .unwrap();
        store.flush_applied().await.unwrap();
        store.seal().await.unwrap();
        store.apply_retention().await.unwrap();
    }
    clock.set(T0 + 9 * HOUR);
    store.append(sent(6, "v1", "b", T0 + 9 * HOUR - 60)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    store.apply_retention().await.unwrap();
    (store, clock)
}

#[tokio::test]
async fn a_release_keeps_its_place_when_its_processes_and_their_windows_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = aged(dir.path()).await;
    let known = expected(&[("v2", T0 + 2 * HOUR), ("v1", T0)]);
    assert_eq!(releases(&store).await, known);
    let services = store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services;
    let v1 = &services[0].releases[1];
    assert_eq!(
        (v1.first_window_s, v1.instances.as_slice()),
        (T0 + 7 * HOUR, ["b".to_owned()].as_slice())
    );
    store.close();
    for without_hot_store in [false, true] {
        if without_hot_store {
            fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
        }
        let store = Store::open(options(dir.path()), clock.clone()).unwrap();
        assert_eq!(releases(&store).await, known, "after a restart");
        store.close();
    }
}

#[tokio::test]
async fn damage_costs_what_it_hits_is_told_and_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = aged(dir.path()).await;
    store.close();
    let file = dir.path().join("releases.bin");
    let whole = fs::read(&file).unwrap();
    assert!(verify(dir.path()).is_empty());
    // Missing, cut, and damaged: what is left of the windows says when the releases were seen.
    let mut flipped = whole.clone();
    let last = flipped.len() - 3;
    flipped[last] ^= 1;
    for (bytes, is_told) in [(None, false), (Some(Vec::new()), true), (Some(flipped), true)] {
        match &bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let damage = verify(dir.path());
        assert_eq!(
            damage.iter().any(|one| one.file == "releases.bin"),
            is_told,
            "{damage:?}"
        );
        let store = Store::open(options(dir.path()), clock.clone()).unwrap();
        let found = releases(&store).await;
        assert_eq!(found.len(), 2);
        assert!(
            found.iter().all(|(_, at)| (T0..=T0 + 7 * HOUR).contains(at)),
            "{found:?}"
        );
        assert_eq!(store.stats().releases_forgotten > 0, is_told);
        store.close();
        assert!(verify(dir.path()).is_empty(), "told once");
        fs::write(&file, &whole).unwrap();
    }
}

#[tokio::test]
async fn what_was_stated_is_there_after_a_crash_and_goes_with_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + HOUR);
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    for (sequence, version) in [(1, "v1"), (2, "v2")] {
        let start = T0 + sequence as i64 * 60;
        store.append(sent(sequence, version, "a", start)).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    // Whoever deployed v2 says that its clock was a little off: v1 is the newer one.
    let stated = store.state_release(&release("pay", "v2"), T0 - HOUR).unwrap();
    assert_eq!((stated.first_seen_s, stated.is_stated), (T0 - HOUR, true));
    let known = expected(&[("v1", T0 + 60), ("v2", T0 - HOUR)]);
    assert_eq!(releases(&store).await, known);
    for time_s in [0, T0 + 9 * HOUR] {
        let refused = store.state_release(&release("pay", "v3"), time_s);
        assert!(matches!(refused, Err(StateError::OutOfRange { .. })), "{time_s}");
    }
    // As a killed process leaves it.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("releases.bin"), copy.path().join("releases.bin")).unwrap();
    fs::create_dir(copy.path().join("journal")).unwrap();
    for entry in fs::read_dir(dir.path().join("journal")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join("journal").join(entry.file_name())).unwrap();
    }
    let killed = Store::open(options(copy.path()), clock.clone()).unwrap();
    assert_eq!(releases(&killed).await, known);
    killed.close();
    store.delete_service("demo", "pay", &mut |_| {}).await.unwrap();
    store.append(sent(3, "v2", "a", T0 + 1800)).await.unwrap();
    assert_eq!(releases(&store).await, expected(&[("v2", T0 + 1800)]));
    store.close();
    let store = Store::open(options(dir.path()), clock).unwrap();
    assert_eq!(releases(&store).await, expected(&[("v2", T0 + 1800)]));
    store.close();
}

#[tokio::test]
async fn what_is_remembered_of_alerts_is_there_after_a_restart_and_damage_costs_what_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    assert!(store.remembered_alerts().is_empty());
    let records = [b"one".to_vec(), b"two".to_vec()];
    store.remember_alerts(&records).unwrap();
    store.close();
    let file = dir.path().join("alerts.bin");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    assert_eq!(store.remembered_alerts(), records);
    store.close();
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(verify(dir.path())[0].file, "alerts.bin");
    let store = Store::open(options(dir.path()), clock).unwrap();
    assert_eq!(store.remembered_alerts(), records[..1]);
    assert_eq!(store.stats().alerts_forgotten, 1);
    assert_eq!(store.remembered_alerts(), records[..1]);
    assert_eq!(store.stats().alerts_forgotten, 1, "told once");
    store.close();
}

//! Finished hours become sealed parts: no answer changes, no crash shows a row twice or loses one, and damage costs
//! what it hit.
//!
//! One file because every test seals the same hours and asks the same questions before and after. What differs is what
//! goes wrong in between.

mod damage;
mod power;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::common::*;
use emberline_model::{Batch, ProfileType};
use emberline_storage::{
    Options, Range, SampleSeries, SampleSeriesQuery, SelectedQuery, SelectedRow, ServicesQuery, SideQuery, StackQuery,
    Store, WorkloadFilter,
    disk::{DiskEvent, FaultyDisk, RealDisk},
};

/// A batch of one window, with a stack of its own whose value is a power of two: a sum shows which are there, and how
/// often.
fn sent(sequence: u64, start: i64) -> Batch {
    let who = workload("checkout", ["v1", "v2"][(sequence % 2) as usize], "a");
    let route = ["/pay", "/cart/{id}"][(sequence % 3 / 2) as usize];
    batch(
        sequence,
        vec![full_window(
            &who,
            start,
            route,
            &[3, 9],
            &[sequence, 1000],
            1 << sequence,
        )],
    )
}

fn part_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("parts"))
        .map(|entries| entries.map(|e| e.unwrap().path()).collect())
        .unwrap_or_default();
    files.sort();
    files
}

fn small_segments(dir: &Path) -> Options {
    let mut options = options(dir);
    options.segment_bytes = 1;
    options
}

/// Windows whose CPU can be divided by requests.
async fn complete_windows(store: &Store) -> u64 {
    let mut windows = 0;
    for version in ["v1", "v2"] {
        let query = SideQuery::new(release("checkout", version), Range::ALL);
        let data = store.side_data(query).await.unwrap();
        windows += data.windows.iter().map(|w| w.windows).sum::<u64>();
    }
    windows
}

#[tokio::test]
async fn no_answer_changes_when_hours_are_sealed_and_the_hot_store_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    for n in 1..=12u64 {
        store.append(sent(n, T0 - 1200 * (12 - n as i64))).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    let before = answers(&store).await;
    store.seal().await.unwrap();
    assert_eq!(answers(&store).await, before, "hours that are over");
    let stats = store.stats();
    assert_eq!(
        (stats.hours, stats.sealed_hours, stats.seals),
        (5, 3, 3),
        "an hour waits for late windows"
    );
    clock.set(T0 + 3600 + 600);
    store.seal().await.unwrap();
    assert_eq!(answers(&store).await, before, "all hours");
    let stats = store.stats();
    assert_eq!((stats.hours, stats.sealed_hours, stats.sealed_rows), (5, 5, 36));
    assert_eq!(
        stats.journal_segments, 1,
        "the journal holds what is not sealed, and its last segment"
    );
    assert_eq!(stats.dictionary_stacks, 0, "stacks of sealed hours lie with them");
    store.close();

    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    assert_eq!(answers(&store).await, before, "after a restart");
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(small_segments(dir.path()), clock).unwrap();
    store.flush_applied().await.unwrap();
    assert_eq!(answers(&store).await, before, "from parts alone");
    assert_eq!(store.stats().hours, 5);
}

#[tokio::test]
async fn late_windows_make_another_part_of_their_hour_after_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    store.append(sent(1, T0)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    store.append(sent(2, T0 + 10)).await.unwrap();
    store.append(sent(3, T0 - 3600)).await.unwrap();
    assert_eq!(values(&store).await, [2, 4, 8]);
    assert_eq!(request_count(&store).await, 6);
    let before = answers(&store).await;
    store.seal().await.unwrap();
    assert_eq!(answers(&store).await, before);
    let sequences: Vec<String> = part_files(dir.path())
        .iter()
        .map(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .split('-')
                .take(4)
                .collect::<Vec<_>>()
                .join("-")
        })
        .filter(|name| name.starts_with("samples"))
        .collect();
    assert_eq!(
        sequences,
        [
            "samples-2026111811-01-0001",
            "samples-2026111812-01-0001",
            "samples-2026111812-01-0002"
        ]
    );
    // An older hot store, from before the second seal, holds rows that are sealed by now.
    store.close();
    let store = Store::open(options(dir.path()), clock).unwrap();
    assert_eq!(answers(&store).await, before);
}

#[tokio::test]
async fn an_older_hot_store_shows_no_sealed_row_twice() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    for n in 1..=6u64 {
        store.append(sent(n, T0 + 10 * n as i64)).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    let before = answers(&store).await;
    store.close();
    let old = fs::read(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    clock.set(T0 + 4200);
    store.seal().await.unwrap();
    store.append(sent(7, T0 + 70)).await.unwrap();
    let after = {
        store.flush_applied().await.unwrap();
        answers(&store).await
    };
    assert_ne!(after, before);
    store.close();
    fs::write(dir.path().join("hot.duckdb"), old).unwrap();
    let store = Store::open(small_segments(dir.path()), clock).unwrap();
    store.flush_applied().await.unwrap();
    assert_eq!(answers(&store).await, after);
}

#[tokio::test]
async fn parts_are_durable_before_they_have_a_name_and_named_before_the_journal_goes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let clock = TestClock::at(T0);
    let store = Store::open_on(small_segments(dir.path()), clock.clone(), Arc::new(disk.clone())).unwrap();
    for n in 1..=3u64 {
        store.append(sent(n, T0 - 3600)).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    clock.set(T0 + 600);
    store.seal().await.unwrap();
    store.close();
    let (mut unsynced, mut named, mut folder_synced, mut removed) = (BTreeSet::new(), 0, true, 0);
    for event in disk.events() {
        match event {
            DiskEvent::Append(path, _) => drop(unsynced.insert(path)),
            DiskEvent::Sync(path) => drop(unsynced.remove(&path)),
            DiskEvent::Rename(from, to) if to.parent().unwrap().ends_with("parts") => {
                assert!(!unsynced.contains(&from), "{}", to.display());
                (named, folder_synced) = (named + 1, false);
            }
            DiskEvent::SyncDir(path) if path.ends_with("parts") => folder_synced = true,
            DiskEvent::Remove(path) if path.extension().is_some_and(|e| e == "log") => {
                assert!(named == 9 && folder_synced, "the journal went first");
                removed += 1;
            }
            _ => {}
        }
    }
    assert_eq!((named, removed), (9, 2));
}

#[tokio::test]
async fn sealed_hours_go_by_age_and_by_size_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let mut options = options(dir.path());
    options.retention = Duration::from_secs(6 * 3600);
    options.rollup_retention = options.retention;
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    for n in 1..=5u64 {
        store.append(sent(n, T0 - 3600 * (6 - n as i64))).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    clock.set(T0 + 600);
    store.seal().await.unwrap();
    assert_eq!(store.stats().sealed_hours, 5);
    store.append(sent(6, T0 + 600)).await.unwrap();
    store.flush_applied().await.unwrap();
    clock.set(T0 + 3600);
    store.apply_retention().await.unwrap();
    assert_eq!(values(&store).await, [2, 4, 8, 16, 32, 64], "nothing is too old yet");
    clock.set(T0 + 2 * 3600);
    store.append(sent(7, T0 + 2 * 3600)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(values(&store).await, [4, 8, 16, 32, 64, 128], "by age");
    assert_eq!(part_files(dir.path()).len(), 36, "its files are unlinked");
    assert_eq!(store.stats().hours_dropped, 1);
    store.close();

    options.samples_limit_mb = 0;
    options.rollup_limit_mb = 0;
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    store.flush_applied().await.unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(values(&store).await, [64, 128], "by size");
    assert!(part_files(dir.path()).is_empty());
    assert_eq!(
        store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services[0]
            .releases
            .len(),
        2
    );
    store.close();
    let store = Store::open(options, clock).unwrap();
    assert_eq!(values(&store).await, [64, 128], "it does not come back");
}

/// Each hour has two windows; the sums of three hours outlive their samples.
#[tokio::test]
async fn sums_of_hours_outlive_their_samples() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let mut options = options(dir.path());
    options.retention = Duration::from_secs(2 * 3600);
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    for n in 1..=8u64 {
        let (hour, window) = ((n as i64 - 1) / 2, (n as i64 - 1) % 2);
        clock.set(T0 + hour * 3600 + 20);
        store.append(sent(n, T0 + hour * 3600 + window * 10)).await.unwrap();
        // Before the clock moves on: what is past retention when it is applied is left out.
        store.flush_applied().await.unwrap();
    }
    clock.set(T0 + 4 * 3600 + 1000);
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let (services, requests) = (
        store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services,
        request_count(&store).await,
    );
    let types = store.ask(SampleSeriesQuery { range: Range::ALL }).await.unwrap();
    store.apply_retention().await.unwrap();
    let check = async |store: &Store| {
        assert_eq!(values(store).await, [2, 4, 8, 16, 32, 64, 128, 256], "whole hours");
        assert_eq!(values_by_window(store).await, [32, 64, 128, 256], "windows");
        assert_eq!(
            store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services,
            services
        );
        assert_eq!(request_count(store).await, requests);
        let windows = complete_windows(store).await;
        assert_eq!(windows, 4, "CPU is not divided by requests whose samples are gone");
        let series = store.ask(SampleSeriesQuery { range: Range::ALL }).await.unwrap();
        let samples = |all: &[SampleSeries]| all.iter().map(|s| s.samples).sum::<u64>();
        assert_eq!(samples(&series), samples(&types), "what can be selected");
        for (from, to, expected) in [
            (0, 3600, vec![2, 4]),
            (3600, 7200, vec![8, 16]),
            (10, 7200, vec![8, 16]),
            (0, 7190, vec![2, 4]),
            (7200 + 10, 4 * 3600, vec![64, 128, 256]),
            (7200, 3 * 3600 + 10, vec![32, 64, 128]),
        ] {
            let range = Range {
                from_unix_s: T0 + from,
                to_unix_s: T0 + to,
            };
            let query = StackQuery::new(WorkloadFilter::service("checkout"), ProfileType::CPU, range);
            let mut found: Vec<i64> = store.ask(query).await.unwrap().rows.iter().map(|r| r.value).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{from}..{to}");
        }
    };
    check(&store).await;
    assert_eq!(
        (store.stats().sample_parts_dropped, store.stats().hours_dropped),
        (2, 0)
    );
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(options, clock).unwrap();
    check(&store).await;
}

/// Windows that lack a kind of rows (no requests, no exemplars) are sealed without a part for it; after a rebuild
/// nothing waits for such rows.
#[tokio::test]
async fn a_rebuild_waits_for_no_rows_that_a_window_never_had() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 2 * 3600);
    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    let mut last = sent(2, T0);
    last.windows[0].requests.clear();
    for batch in [sent(1, T0 - 3600), last] {
        store.append(batch).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    store.append(sent(3, T0 + 3600)).await.unwrap();
    store.append(sent(4, T0 + 3600)).await.unwrap();
    store.flush_applied().await.unwrap();
    clock.set(T0 + 4 * 3600);
    store.seal().await.unwrap();
    assert_eq!(values(&store).await, [2, 4, 8, 16]);
    assert_eq!(
        store.stats().journal_segments,
        1,
        "the journal goes as far as everything is sealed"
    );
}

/// Two processes that report a gauge every minute for two hours, 4 and 6: together 10, however an hour is answered.
#[tokio::test]
async fn a_gauge_means_the_same_from_samples_and_from_sums_of_hours() {
    const GOROUTINES: &str = "goroutine:goroutine:count:goroutine:count";
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 3 * 3600);
    let mut options = options(dir.path());
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    let windows = |minute: i64| {
        [("a", 4), ("b", 6)].map(|(instance, value)| {
            let who = workload("checkout", "v1", instance);
            let mut window = full_window(&who, T0 + minute * 60, "/pay", &[], &[7], value);
            window.profiles[0].profile_type = ProfileType(GOROUTINES.into());
            window
        })
    };
    let all = (0..120).flat_map(windows).collect();
    store.append(batch(1, all)).await.unwrap();
    store.flush_applied().await.unwrap();
    let ask = async |store: &Store, when: &str| {
        let query = SelectedQuery::new(GOROUTINES, Vec::new(), Range::ALL);
        let by_hour = SelectedQuery {
            step_s: 3600,
            ..query.clone()
        };
        let means = |rows: Vec<SelectedRow>| rows.iter().map(|row| row.value).collect::<Vec<_>>();
        assert_eq!(means(store.ask(query).await.unwrap()), [10], "{when}");
        assert_eq!(means(store.ask(by_hour).await.unwrap()), [10, 10], "{when}");
        let stacks = StackQuery::new(WorkloadFilter::default(), GOROUTINES, Range::ALL);
        assert_eq!(store.ask(stacks).await.unwrap().value, 10, "{when}");
    };
    ask(&store, "in tables").await;
    store.seal().await.unwrap();
    ask(&store, "in parts").await;
    store.close();
    options.samples_limit_mb = 0;
    let store = Store::open(options, clock).unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(
        (store.stats().sample_parts_dropped, store.stats().hours_dropped),
        (2, 0)
    );
    ask(&store, "as sums of hours").await;
}

#[tokio::test]
async fn a_full_disk_leaves_an_hour_where_it_is_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(options(dir.path()), TestClock::at(T0 + 4200), Arc::new(disk.clone())).unwrap();
    for n in 1..=3u64 {
        store.append(sent(n, T0)).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    let before = answers(&store).await;
    for room in [0, 200, 2000] {
        disk.set_budget(Some(room));
        store.seal().await.unwrap();
        assert_eq!(answers(&store).await, before, "{room} bytes of room");
        assert!(part_files(dir.path()).is_empty(), "what was half written is removed");
    }
    assert_eq!((store.stats().seal_failures, store.stats().seals), (3, 0));
    disk.set_budget(None);
    store.seal().await.unwrap();
    assert_eq!(answers(&store).await, before);
    assert_eq!((store.stats().seal_failures, store.stats().seals), (3, 1));
}

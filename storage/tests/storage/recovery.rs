//! Damage, deletion, age: the store starts, reports what it lost, and answers with the rest.

use std::{fs, path::Path};

use crate::common::*;
use emberline_model::ProfileType;
use emberline_storage::{OpenError, Range, ServicesQuery, StackQuery, Store, WorkloadFilter};

/// `n` batches, a minute apart over several hours, each with its own stack.
async fn fill(dir: &Path, n: u64) {
    let store = open(dir);
    for sequence in 1..=n {
        let start = T0 - (n as i64 - sequence as i64) * 600;
        let w = full_window(
            &workload("checkout", "v1", "a"),
            start,
            "/pay",
            &[3, 9],
            &[sequence],
            sequence as i64,
        );
        store.append(batch(sequence, vec![w])).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    store.close();
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "log"));
    files.sort();
    files
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn deleting_the_hot_store_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 12).await;
    let store = open(dir.path());
    let before = answers(&store).await;
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = open(dir.path());
    store.flush_applied().await.unwrap();
    assert_eq!(answers(&store).await, before);
    assert_eq!(store.stats().hot_rebuilds, 0, "a file that is absent is no damage");
}

#[tokio::test]
async fn an_older_hot_store_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 5).await;
    let old = fs::read(dir.path().join("hot.duckdb")).unwrap();
    fill(dir.path(), 12).await;
    let store = open(dir.path());
    let before = answers(&store).await;
    store.close();
    fs::write(dir.path().join("hot.duckdb"), old).unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().lsn_applied.min(5), 5);
    store.flush_applied().await.unwrap();
    assert_eq!(answers(&store).await, before);
}

#[tokio::test]
async fn a_damaged_hot_store_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 12).await;
    let store = open(dir.path());
    let before = answers(&store).await;
    store.close();
    let path = dir.path().join("hot.duckdb");
    let length = fs::metadata(&path).unwrap().len() as usize;
    // Headers, the first blocks, and places throughout the file: not all of them are in use.
    let places = [0, 10, 4096 + 20, 8192 + 20]
        .into_iter()
        .chain((1..12).map(|n| length / 12 * n + 777));
    let mut repaired = 0;
    for at in places.filter(|&at| at < length) {
        let good = fs::read(&path).unwrap();
        damage(&path, |bytes| {
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 0x10;
        });
        let store = open(dir.path());
        // A damaged block that is not read at the start is found by the first question that needs it.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            store.flush_applied().await.unwrap();
            let Err(error) = try_answers(&store).await else { break };
            assert!(error.is_retryable(), "byte {at}: {error}");
            assert!(std::time::Instant::now() < deadline, "byte {at}: {error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        store.flush_applied().await.unwrap();
        assert_eq!(answers(&store).await, before, "byte {at}");
        repaired += store.stats().hot_rebuilds;
        store.close();
        fs::write(&path, good).unwrap();
        let _ = fs::remove_file(dir.path().join("hot.duckdb.wal"));
    }
    assert!(repaired > 0, "no damage was noticed at all");
}

#[tokio::test]
async fn a_damaged_write_ahead_log_of_the_hot_store_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 6).await;
    let store = open(dir.path());
    let before = answers(&store).await;
    store.close();
    for garbage in [vec![0u8; 5000], vec![0x5a; 5000]] {
        fs::write(dir.path().join("hot.duckdb.wal"), garbage).unwrap();
        let store = open(dir.path());
        store.flush_applied().await.unwrap();
        assert_eq!(answers(&store).await, before);
        store.close();
    }
}

#[tokio::test]
async fn damage_of_the_journal_costs_what_it_hit_and_is_counted() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, u64); 4] = [
        (
            "a flipped bit in the middle",
            |b| {
                let at = b.len() / 2;
                b[at] ^= 1;
            },
            1,
        ),
        (
            "a flipped bit in the last record",
            |b| {
                let at = b.len() - 3;
                b[at] ^= 1;
            },
            1,
        ),
        ("a zero tail", |b| b.resize(b.len() + 4096, 0), 0),
        ("a torn end", |b| b.truncate(b.len() - 5), 1),
    ];
    for (name, change, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 9).await;
        damage(&segments(dir.path())[0], change);
        // With the hot store gone, the journal is all there is.
        fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
        let store = open(dir.path());
        let left = values(&store).await;
        assert_eq!(left.len() as u64, 9 - expected, "{name}: {left:?}");
        let stats = store.stats();
        let noticed = stats.journal_records_lost + stats.journal_tail_bytes_cut + stats.journal_bytes_damaged;
        assert!(noticed > 0, "{name}: {stats:?}");
        // New batches do not get the numbers of lost ones.
        let w = full_window(&workload("checkout", "v1", "a"), T0, "/", &[1], &[99], 99);
        store.append(batch(100, vec![w])).await.unwrap();
        assert!(values(&store).await.contains(&99), "{name}");
    }
}

#[tokio::test]
async fn a_journal_that_lost_its_end_does_not_hide_new_batches() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 6).await;
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let store = open(dir.path());
    let w = full_window(&workload("checkout", "v1", "a"), T0, "/", &[1], &[99], 99);
    store.append(batch(100, vec![w])).await.unwrap();
    assert_eq!(values(&store).await, [1, 2, 3, 4, 5, 6, 99]);
    assert_eq!(store.stats().lsn_durable, 7);
}

#[tokio::test]
async fn a_second_store_on_the_same_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(options(dir.path()), TestClock::at(T0));
    match second.err() {
        Some(OpenError::LockedByOther { path, pid }) => {
            assert_eq!((path.as_path(), pid), (dir.path(), std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    store.close();
    assert!(Store::open(options(dir.path()), TestClock::at(T0)).is_ok());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(options(&file.join("data")), TestClock::at(T0))
        .err()
        .unwrap();
    assert!(matches!(&error, OpenError::NotWritable { .. }), "{error}");
    assert!(error.to_string().contains("data_dir"), "{error}");
}

#[tokio::test]
async fn what_is_past_retention_goes_and_a_clock_that_jumps_takes_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0);
    let mut options = options(dir.path());
    options.retention = std::time::Duration::from_secs(4 * 3600);
    options.segment_bytes = 1;
    let store = Store::open(options.clone(), clock.clone()).unwrap();
    let at = |sequence: u64, start| {
        batch(
            sequence,
            vec![full_window(
                &workload("checkout", "v1", "a"),
                start,
                "/",
                &[1],
                &[sequence],
                sequence as i64,
            )],
        )
    };
    for n in 0..3u64 {
        store.append(at(n + 1, T0 - 3600 * (3 - n as i64))).await.unwrap();
    }
    assert_eq!(values(&store).await, [1, 2, 3]);
    clock.set(T0 + 1_000_000_000);
    store.apply_retention().await.unwrap();
    assert_eq!(
        values(&store).await,
        [1, 2, 3],
        "nothing newer arrived: the clock may be wrong"
    );
    clock.set(T0 + 2 * 3600);
    store.append(at(4, T0 + 2 * 3600)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(values(&store).await, [2, 3, 4]);
    let stats = store.stats();
    assert_eq!((stats.hours_dropped, stats.journal_segments_removed), (1, 1));
    assert_eq!(
        (stats.dictionary_stacks, stats.dictionary_locations),
        (3, 3),
        "what nothing mentions is gone"
    );
    assert_eq!(store.unresolved(9)[0].1, [2, 3, 4]);
    assert_eq!(segments(dir.path()).len(), 3);
    let release = store.ask(ServicesQuery::new(Range::ALL)).await.unwrap().services[0].releases[0].clone();
    assert_eq!(
        (release.first_seen_s, release.first_window_s),
        (T0 - 3 * 3600, T0 - 2 * 3600),
        "a fact does not age"
    );
    // A stack that was swept comes back whole.
    clock.set(T0 + 2 * 3600);
    store
        .append(batch(
            5,
            vec![full_window(
                &workload("checkout", "v1", "a"),
                T0 + 7200,
                "/",
                &[1],
                &[1],
                1,
            )],
        ))
        .await
        .unwrap();
    assert_eq!(values(&store).await, [1, 2, 3, 4]);
    let all = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
    let ids: Vec<u64> = store.ask(all).await.unwrap().rows.iter().map(|r| r.stack_id).collect();
    let resolved = store.resolve(&ids).await.unwrap();
    assert!(ids.iter().all(|&id| resolved.frames(id).count() == 1));
    // The batch is gone, but its sender is not forgotten.
    clock.set(T0);
    assert_eq!(
        store.append(at(1, T0 - 3 * 3600)).await.unwrap(),
        emberline_storage::Appended::Duplicate
    );
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    clock.set(T0 + 2 * 3600);
    let store = Store::open(options, clock).unwrap();
    assert_eq!(
        values(&store).await,
        [1, 2, 3, 4],
        "a rebuild keeps to retention: 1 is the later one"
    );
}

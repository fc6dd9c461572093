//! Faults of disks, clocks, versions and neighbours that the campaigns do not cause by themselves. `README.md` in the
//! directory above says which test covers which row of the catalogue.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use crate::common::*;
use emberline_model::Batch;
use emberline_storage::{
    AppendError, Appended, OpenError, Store,
    disk::{DiskEvent, FaultyDisk, RealDisk},
};

const HOLD: &str = "EMBERLINE_HOLD_DIR";

/// A batch with a stack of its own, whose value is a power of two.
fn sent(sequence: u64, start: i64) -> Batch {
    let who = workload("checkout", "v1", "a");
    batch(
        sequence,
        vec![full_window(&who, start, "/pay", &[3], &[sequence], 1 << sequence)],
    )
}

/// A store with a sealed hour and one that is not, on a disk that can fail.
async fn half_sealed(dir: &Path) -> (Store, FaultyDisk, Arc<TestClock>) {
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let clock = TestClock::at(T0 + 600);
    let store = Store::open_on(options(dir), clock.clone(), Arc::new(disk.clone())).unwrap();
    store.append(sent(1, T0 - 3600)).await.unwrap();
    store.append(sent(2, T0)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    assert_eq!(store.stats().sealed_hours, 1);
    (store, disk, clock)
}

#[tokio::test]
async fn a_disk_that_takes_no_changes_refuses_batches_and_goes_on_answering() {
    for kind in [
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::Other,
        ErrorKind::QuotaExceeded,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (store, disk, clock) = half_sealed(dir.path()).await;
        let before = answers(&store).await;
        disk.fail_changes(Some(kind));
        for _ in 0..3 {
            let error = store.append(sent(3, T0 + 10)).await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
            let is_full = matches!(error, AppendError::DiskFull { .. });
            assert_eq!(is_full, kind == ErrorKind::QuotaExceeded, "{error}");
        }
        clock.set(T0 + 3600 + 600);
        store.seal().await.unwrap();
        store.apply_retention().await.unwrap();
        assert_eq!(answers(&store).await, before, "{kind:?}");
        assert_eq!(store.stats().seal_failures, 1, "{kind:?}");
        disk.fail_changes(None);
        assert!(matches!(
            store.append(sent(3, T0 + 10)).await,
            Ok(Appended::Stored { .. })
        ));
        assert_eq!(values(&store).await, [2, 4, 8], "{kind:?}");
        store.seal().await.unwrap();
        assert_eq!(values(&store).await, [2, 4, 8], "{kind:?}");
        store.close();
        assert_eq!(values(&open(dir.path())).await, [2, 4, 8], "{kind:?}");
    }
}

#[tokio::test]
async fn a_part_that_cannot_be_read_for_once_is_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, clock) = half_sealed(dir.path()).await;
    store.close();
    // A start reads the parts again.
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(options(dir.path()), clock, Arc::new(disk.clone())).unwrap();
    store.flush_applied().await.unwrap();
    disk.fail_reads(1);
    let error = try_answers(&store).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("parts"), "{error}");
    assert_eq!(values(&store).await, [2, 4]);
    let stats = store.stats();
    assert_eq!((stats.parts_quarantined, stats.sealed_rows_lost), (0, 0), "{stats:?}");
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = half_sealed(dir.path()).await;
    store.close();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    disk.fail_reads(u32::MAX);
    let opened = Store::open_on(options(dir.path()), TestClock::at(T0 + 600), Arc::new(disk));
    match opened.err() {
        Some(error @ OpenError::Unreadable { .. }) => assert!(error.to_string().contains("journal"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(values(&open(dir.path())).await, [2, 4], "the disk was repaired");
}

#[tokio::test]
async fn a_slow_sync_holds_up_acknowledgements_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let mut options = options(dir.path());
    options.queue_bytes = 4 << 10;
    let store = Store::open_on(options, TestClock::at(T0 + 600), Arc::new(disk.clone())).unwrap();
    store.append(sent(1, T0)).await.unwrap();
    store.flush_applied().await.unwrap();
    disk.hold_syncs(true);
    let mut waiting = Vec::new();
    let mut busy = 0;
    for sequence in 2..60 {
        let mut appended = Box::pin(store.append(sent(sequence, T0)));
        // A refusal comes at once; an accepted batch is not acknowledged before its sync.
        match tokio::time::timeout(Duration::from_millis(1), &mut appended).await {
            Ok(Err(error)) => {
                assert!(matches!(error, AppendError::Busy { .. }), "{error}");
                busy += 1;
            }
            Ok(Ok(acknowledged)) => panic!("{acknowledged:?} without a sync"),
            Err(_) => waiting.push((sequence, appended)),
        }
    }
    assert!(busy > 0 && !waiting.is_empty(), "the queue is bounded: {busy} refused");
    assert_eq!(values(&store).await, [2], "questions are answered meanwhile");
    disk.hold_syncs(false);
    let mut expected = vec![2];
    for (sequence, appended) in waiting {
        appended.await.unwrap();
        expected.push(1 << sequence);
    }
    assert_eq!(values(&store).await, expected);
}

/// Not a test by itself: holds a data directory open until it is killed.
#[test]
fn holder() {
    let Some(dir) = std::env::var_os(HOLD) else { return };
    let store = Store::open(options(dir.as_ref()), TestClock::at(T0)).unwrap();
    println!("\nheld");
    loop {
        std::thread::park();
        drop(store.stats());
    }
}

#[tokio::test]
async fn another_process_is_named_and_a_dead_one_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "catalogue::holder", "--nocapture", "--test-threads=1"])
        .env(HOLD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    let refused = Store::open(options(dir.path()), TestClock::at(T0)).err();
    other.kill().unwrap();
    other.wait().unwrap();
    match refused {
        Some(error @ OpenError::LockedByOther { pid, .. }) => {
            assert_eq!(pid, other.id());
            assert!(error.to_string().contains("data_dir"), "{error}");
        }
        refused => panic!("{refused:?}"),
    }
    // The file left behind names a process that is gone; its id may have been reused, or come from another process
    // namespace. Only the kernel's lock counts.
    for text in [
        other.id().to_string(),
        "1".into(),
        std::process::id().to_string(),
        "x".into(),
    ] {
        fs::write(dir.path().join("LOCK"), &text).unwrap();
        let store = Store::open(options(dir.path()), TestClock::at(T0)).unwrap_or_else(|e| panic!("`{text}`: {e}"));
        store.close();
    }
}

#[tokio::test]
async fn a_journal_of_a_newer_format_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = half_sealed(dir.path()).await;
    store.close();
    let segment = files(dir.path(), "journal", "log").pop().unwrap();
    let good = fs::read(&segment).unwrap();
    let mut newer = good.clone();
    newer[8..12].copy_from_slice(&2u32.to_le_bytes());
    let checksum = crc32c::crc32c(&newer[..20]).to_le_bytes();
    newer[20..24].copy_from_slice(&checksum);
    fs::write(&segment, &newer).unwrap();
    let error = Store::open(options(dir.path()), TestClock::at(T0)).err().unwrap();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!(fs::read(&segment).unwrap(), newer);
    fs::write(&segment, good).unwrap();
    assert_eq!(values(&open(dir.path())).await, [2, 4]);
}

#[tokio::test]
async fn a_hot_store_of_an_older_or_newer_layout_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = half_sealed(dir.path()).await;
    let before = answers(&store).await;
    store.close();
    for layout in [1, 1000] {
        let file = duckdb::Connection::open(dir.path().join("hot.duckdb")).unwrap();
        file.execute("UPDATE layout SET version = ?", [layout]).unwrap();
        drop(file);
        let store = Store::open(options(dir.path()), TestClock::at(T0 + 600)).unwrap();
        store.flush_applied().await.unwrap();
        assert_eq!(answers(&store).await, before, "layout {layout}");
        assert_eq!(store.stats().hot_rebuilds, 1, "layout {layout}");
        store.close();
    }
}

fn files(dir: &Path, folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_file_that_vanishes_under_the_running_store_costs_what_it_held() {
    let source = tempfile::tempdir().unwrap();
    let (store, ..) = half_sealed(source.path()).await;
    let mut victims = vec![PathBuf::from("hot.duckdb")];
    for (folder, extension) in [("journal", "log"), ("parts", "parquet"), ("parts", "dict")] {
        let found = files(source.path(), folder, extension);
        victims.extend(
            found
                .iter()
                .map(|path| path.strip_prefix(source.path()).unwrap().to_owned()),
        );
    }
    store.close();
    assert!(victims.len() >= 6, "{victims:?}");
    for (at, victim) in victims.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ..) = half_sealed(dir.path()).await;
        let found = dir.path().join(victim);
        if at % 2 == 0 {
            fs::remove_file(&found).unwrap();
        } else {
            fs::rename(&found, found.with_extension("away")).unwrap();
        }
        store.append(sent(3, T0 + 10)).await.unwrap();
        let running = values_by_window(&store).await;
        assert!(running.ends_with(&[4, 8]), "{}: {running:?}", victim.display());
        store.close();
        let store = open(dir.path());
        let after = values_by_window(&store).await;
        // If a journal file is taken away, what was written to it is gone, too: only what was already visible is left.
        assert!(
            after.contains(&4) && after.iter().all(|v| [2, 4, 8].contains(v)),
            "{after:?}"
        );
        let of_samples = victim.to_str().unwrap().contains("samples");
        assert_eq!(after.contains(&2), !of_samples, "{}: {after:?}", victim.display());
        store.append(sent(4, T0 + 20)).await.unwrap();
        assert!(values_by_window(&store).await.contains(&16), "{}", victim.display());
    }
}

#[tokio::test]
async fn a_clock_that_jumps_past_retention_and_back_takes_no_sealed_hour_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, clock) = half_sealed(dir.path()).await;
    let year_s = 365 * 86_400;
    for now in [T0 + year_s, T0 - year_s, T0 + 600] {
        clock.set(now);
        store.apply_retention().await.unwrap();
        store.seal().await.unwrap();
        assert_eq!(values(&store).await, [2, 4], "the clock says {now}");
    }
    clock.set(T0 + year_s);
    assert!(
        matches!(store.append(sent(3, T0)).await, Err(AppendError::TooOld { .. })),
        "a sender whose clock is right is told"
    );
    store.close();
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    store.apply_retention().await.unwrap();
    assert_eq!(values(&store).await, [2, 4], "a start with the wrong clock");
    clock.set(T0 + 700);
    store.append(sent(3, T0 + 600)).await.unwrap();
    assert_eq!(values(&store).await, [2, 4, 8]);
}

#[tokio::test]
async fn without_room_for_the_engine_batches_wait_and_questions_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk, clock) = half_sealed(dir.path()).await;
    // Enough space for the journal, but not for DuckDB, which would become unusable if it ran out.
    disk.set_free(Some(1 << 20));
    store.append(sent(3, T0 + 10)).await.unwrap();
    let applied = tokio::time::timeout(Duration::from_millis(300), store.flush_applied()).await;
    assert!(applied.is_err(), "it was written without room");
    clock.set(T0 + 3600 + 600);
    store.seal().await.unwrap();
    store.apply_retention().await.unwrap();
    answers(&store).await;
    let stats = store.stats();
    assert_eq!((stats.lsn_durable, stats.lsn_applied, stats.sealed_hours), (3, 2, 1));
    assert!(stats.hot_error.unwrap().contains("free space"));
    assert_eq!((stats.hot_failures, stats.hot_reopens), (0, 0));
    disk.set_free(None);
    assert_eq!(values(&store).await, [2, 4, 8]);
    assert_eq!(store.stats().hot_error, None);
    store.seal().await.unwrap();
    assert_eq!(values(&store).await, [2, 4, 8]);
}

#[tokio::test]
async fn retention_removes_rows_before_the_names_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = half_sealed(dir.path()).await;
    store.close();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let mut options = options(dir.path());
    options.samples_limit_mb = 0;
    options.rollup_limit_mb = 0;
    let store = Store::open_on(options, TestClock::at(T0 + 600), Arc::new(disk.clone())).unwrap();
    store.apply_retention().await.unwrap();
    let removed = disk.events().into_iter().filter_map(|event| match event {
        DiskEvent::Remove(path) if path.parent().unwrap().ends_with("parts") => Some(path),
        _ => None,
    });
    let are_names: Vec<bool> = removed.map(|path| path.extension().unwrap() == "dict").collect();
    assert_eq!(are_names, [[false; 7].as_slice(), &[true, true]].concat());
}

#[tokio::test]
async fn a_journal_whose_end_is_gone_says_how_many_batches_that_were() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ends = Vec::new();
    for n in 1..=6 {
        store.append(sent(n, T0)).await.unwrap();
        ends.push(store.stats().journal_bytes);
    }
    store.flush_applied().await.unwrap();
    store.close();
    let segment = files(dir.path(), "journal", "log").remove(0);
    // Cut between two batches: nothing in the file itself shows it.
    fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap()
        .set_len(ends[1])
        .unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().journal_records_lost, 4);
    assert_eq!(values(&store).await, [2, 4, 8, 16, 32, 64], "the hot store has them");
    store.append(sent(7, T0)).await.unwrap();
    assert_eq!(values(&store).await.len(), 7);
    store.close();
    let store = open(dir.path());
    assert_eq!(
        store.stats().journal_records_lost,
        4,
        "and is asked again at every start"
    );
}

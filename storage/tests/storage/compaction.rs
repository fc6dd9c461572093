//! The parts of a day are merged: no answer changes, no crash shows a row twice or loses one, and late data finds its
//! place.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::common::*;
use emberline_model::{Batch, Exemplar, ProfileType};
use emberline_storage::{
    ExemplarQuery, Label, Options, Range, SampleSeriesQuery, SelectedQuery, StackQuery, Store, WorkloadFilter,
    disk::{FaultyDisk, RealDisk},
};

/// Midnight after the day that the tests write.
const NEXT_DAY: i64 = T0 + 12 * 3600;

/// A batch of one window; its value is a power of two, so that a sum shows which are there, and how often. Some stacks
/// are shared between hours.
fn sent(sequence: u64, start: i64) -> Batch {
    let who = workload("checkout", ["v1", "v2"][(sequence % 2) as usize], "a");
    let route = ["/pay", "/cart/{id}"][(sequence % 3 / 2) as usize];
    let mut window = full_window(&who, start, route, &[3, 9], &[sequence, 1000], 1 << sequence);
    let shared = full_window(&who, start, route, &[], &[7, 8, 1000], 1 << 40);
    window.profiles.extend(shared.profiles);
    window.profiles[0].push_exemplar(Exemplar {
        stack: 0,
        label_set: 0,
        value: sequence as i64,
        unix_ns: start * 1_000_000_000,
        trace_id: [sequence as u8; 16],
        span_id: sequence,
    });
    window.profiles[1].profile_type = ProfileType("wall:wall:nanoseconds:wall:nanoseconds".into());
    batch(sequence, vec![window])
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("parts"))
        .map(|entries| entries.map(|e| e.unwrap().path()).collect())
        .unwrap_or_default();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(kind));
    files.sort();
    files
}

fn small_segments(dir: &Path) -> Options {
    let mut options = options(dir);
    options.segment_bytes = 1;
    options
}

/// Which traces have an exemplar, and with which value.
async fn traces(store: &Store) -> Vec<(u8, i64)> {
    let found = store.ask(ExemplarQuery::new(Range::ALL, 100)).await.unwrap();
    let mut traces: Vec<(u8, i64)> = found.rows.iter().map(|row| (row.trace_id[0], row.value)).collect();
    traces.sort_unstable();
    traces
}

/// A day of three sealed hours, in five groups of parts.
async fn a_sealed_day(options: Options, clock: &Arc<TestClock>, disk: FaultyDisk) -> Store {
    let store = Store::open_on(options, clock.clone(), Arc::new(disk)).unwrap();
    for sequence in 1..=6u64 {
        store
            .append(sent(sequence, T0 - 3600 * (sequence as i64 % 3)))
            .await
            .unwrap();
        if sequence % 3 == 0 {
            store.flush_applied().await.unwrap();
            store.seal().await.unwrap();
        }
    }
    store
}

#[tokio::test]
async fn no_answer_changes_when_a_day_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = a_sealed_day(small_segments(dir.path()), &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
    // Of the next day.
    clock.set(NEXT_DAY + 7200);
    store.append(sent(7, NEXT_DAY + 10)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let before = (
        answers(&store).await,
        values(&store).await,
        store.ask(SampleSeriesQuery { range: Range::ALL }).await.unwrap(),
    );
    assert_eq!(files(dir.path(), "samples").len(), 7);
    let hours = store.stats().hours;
    let bytes = store.stats().sealed_bytes;
    store.compact().await.unwrap();
    let check = async |store: &Store, when: &str| {
        assert_eq!(answers(store).await, before.0, "{when}");
        assert_eq!(values(store).await, before.1, "{when}");
        assert_eq!(
            store.ask(SampleSeriesQuery { range: Range::ALL }).await.unwrap(),
            before.2,
            "{when}"
        );
        assert_eq!(
            traces(store).await,
            (1..=7).map(|n| (n as u8, n)).collect::<Vec<_>>(),
            "{when}"
        );
        assert_eq!(store.stats().hours, hours, "{when}");
        for kind in [
            "names",
            "stacks",
            "windows",
            "requests",
            "samples",
            "rollup",
            "exemplars",
        ] {
            assert_eq!(files(dir.path(), kind).len(), 2, "{kind} {when}");
        }
    };
    check(&store, "at once").await;
    let stats = store.stats();
    assert_eq!(
        (stats.compactions, stats.compaction_failures, stats.sealed_rows),
        (1, 0, 7 * 5)
    );
    assert!(stats.sealed_bytes < bytes, "{} of {bytes} bytes", stats.sealed_bytes);
    assert_eq!(files(dir.path(), "samples-2026111810-03-0003").len(), 1);
    store.compact().await.unwrap();
    assert_eq!(store.stats().compactions, 1, "nothing is left to do");
    assert!(
        files(dir.path(), "compacted").is_empty(),
        "the commit went when everything was replaced"
    );
    store.close();

    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    check(&store, "after a restart").await;
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(small_segments(dir.path()), clock).unwrap();
    store.flush_applied().await.unwrap();
    check(&store, "from parts alone").await;
}

/// Whole hours from the middle of a compacted day are answered from its roll-up, ragged ends from its samples.
#[tokio::test]
async fn ranges_inside_a_compacted_day_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = a_sealed_day(options(dir.path()), &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
    let ranges = [
        (-7200, 3600),
        (-3600, 0),
        (-3590, 3600),
        (-7200, -3590),
        (-3600, 10),
        (0, 3600),
        (10, 3600),
    ];
    let ask = async || {
        let mut found = Vec::new();
        for (from, to) in ranges {
            let range = Range {
                from_unix_s: T0 + from,
                to_unix_s: T0 + to,
            };
            let query = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, range);
            found.push(store.ask(query).await.unwrap());
        }
        found
    };
    let before = ask().await;
    assert_eq!(before[1].value, 2 + 16);
    clock.set(NEXT_DAY + 7200);
    store.compact().await.unwrap();
    assert_eq!(store.stats().compactions, 1);
    assert_eq!(ask().await, before);
}

#[tokio::test]
async fn windows_that_come_after_compaction_are_added_and_never_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = a_sealed_day(small_segments(dir.path()), &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
    clock.set(NEXT_DAY + 7200);
    store.compact().await.unwrap();
    for sequence in 7..=9u64 {
        store
            .append(sent(sequence, T0 - 3600 * (sequence as i64 % 3) + 20))
            .await
            .unwrap();
    }
    store.flush_applied().await.unwrap();
    let all: Vec<i64> = (1..=9).map(|n| 1 << n).collect();
    assert_eq!(values(&store).await, all, "beside the compacted parts");
    store.close();
    fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = Store::open(small_segments(dir.path()), clock.clone()).unwrap();
    assert_eq!(values(&store).await, all, "replayed");
    store.seal().await.unwrap();
    assert_eq!(values(&store).await, all, "in parts of their own");
    store.compact().await.unwrap();
    assert_eq!(
        store.stats().compactions,
        0,
        "a few late parts are not worth a day's work"
    );
    for sequence in 10..=14u64 {
        store
            .append(sent(sequence, T0 - 3600 * (sequence as i64 % 3) + 20))
            .await
            .unwrap();
        store.flush_applied().await.unwrap();
        store.seal().await.unwrap();
    }
    store.compact().await.unwrap();
    assert_eq!(store.stats().compactions, 1, "many are");
    assert_eq!(files(dir.path(), "samples").len(), 1);
    let all: Vec<i64> = (1..=14).map(|n| 1 << n).collect();
    assert_eq!(values(&store).await, all);
    assert_eq!(request_count(&store).await, 28);
}

/// The power fails at each change that a compaction makes on disk, in turn.
async fn power_goes_after(changes: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = a_sealed_day(small_segments(dir.path()), &clock, disk.clone()).await;
    let before = values(&store).await;
    disk.lose_power_after(changes);
    clock.set(NEXT_DAY + 7200);
    store.compact().await.unwrap();
    store.compact().await.unwrap();
    let went = disk.has_lost_power();
    store.close();
    disk.drop_unsynced().unwrap();
    if changes.is_multiple_of(2) {
        let _ = fs::remove_file(dir.path().join("hot.duckdb"));
        let _ = fs::remove_file(dir.path().join("hot.duckdb.wal"));
    }
    let store = Store::open(small_segments(dir.path()), clock).unwrap();
    assert_eq!(values(&store).await, before, "power gone after {changes}");
    assert_eq!(request_count(&store).await, 12, "power gone after {changes}");
    store.compact().await.unwrap();
    assert_eq!(
        values(&store).await,
        before,
        "compacting what was left, after {changes}"
    );
    let stats = store.stats();
    assert_eq!(
        (stats.compaction_failures, stats.parts_quarantined),
        (0, 0),
        "after {changes}: {stats:?}"
    );
    assert_eq!(files(dir.path(), "samples").len(), 1, "after {changes}");
    let names: BTreeSet<String> = files(dir.path(), "")
        .iter()
        .map(|p| p.extension().unwrap().to_str().unwrap().to_owned())
        .filter(|e| e != "parquet" && e != "dict" && e != "commit")
        .collect();
    assert!(names.is_empty(), "nothing half written stays: {names:?}");
    store.close();
    went
}

fn power_goes(lane: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for changes in (lane..).step_by(2) {
            assert!(changes < 200, "compacting never ends");
            if !power_goes_after(changes).await {
                break;
            }
        }
    });
}

#[test]
fn no_power_cut_while_compacting_loses_or_doubles_a_row_even() {
    power_goes(0);
}

#[test]
fn no_power_cut_while_compacting_loses_or_doubles_a_row_odd() {
    power_goes(1);
}

#[tokio::test]
async fn a_day_that_does_not_fit_into_memory_becomes_several_parts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let mut options = options(dir.path());
    // A stack of two locations per CPU sample, one of three per wall sample: five for each batch, ten for each hour.
    options.compaction_locations = 24;
    let store = a_sealed_day(options, &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
    let before = (answers(&store).await, values(&store).await);
    clock.set(NEXT_DAY + 7200);
    store.compact().await.unwrap();
    assert_eq!((answers(&store).await, values(&store).await), before);
    let left = files(dir.path(), "samples").len();
    assert_eq!(left, 3, "two hours together, and one with its two");
    assert_eq!(store.stats().compactions, 1);
}

/// A damaged part is set aside when compaction reads it; the others of its hour stay as they are.
#[tokio::test]
async fn damage_found_while_compacting_costs_what_it_hit() {
    for kind in ["names", "stacks", "samples", "requests", "windows", "rollup"] {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::at(T0 + 4200);
        let store = a_sealed_day(options(dir.path()), &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
        let file = &files(dir.path(), kind)[2];
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
        clock.set(NEXT_DAY + 7200);
        store.compact().await.unwrap();
        let stats = store.stats();
        assert_eq!(
            (stats.parts_quarantined, stats.compaction_failures),
            (1, 0),
            "{kind}: {stats:?}"
        );
        let found = values(&store).await;
        let all: Vec<i64> = (1..=6).map(|n| 1 << n).collect();
        assert_eq!(found, all, "{kind}: sums need no names, and are kept twice");
        assert!(!file.exists());
    }
}

/// A part that cannot be compacted with the others of its hour must not be treated as if it had been: the hour waits.
#[tokio::test]
async fn an_hour_is_compacted_with_everything_that_lies_in_it_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = a_sealed_day(options(dir.path()), &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
    let before = values(&store).await;
    store.close();
    // Of the second part of an hour in the middle, only the sums are left.
    fs::remove_file(&files(dir.path(), "samples-2026111811-01-0002")[0]).unwrap();
    clock.set(NEXT_DAY + 7200);
    for when in ["before", "after a restart"] {
        let store = Store::open(options(dir.path()), clock.clone()).unwrap();
        store.compact().await.unwrap();
        assert_eq!(values(&store).await, before, "{when}");
        store.close();
    }
}

/// Questions that run while parts are replaced see one state or the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_go_on_while_a_day_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = a_sealed_day(options(dir.path()), &clock, FaultyDisk::new(Arc::new(RealDisk))).await;
    let before = answers(&store).await;
    clock.set(NEXT_DAY + 7200);
    let compacting = tokio::spawn({
        let store = store.clone();
        async move { store.compact().await }
    });
    let mut asked = 0;
    while !compacting.is_finished() || asked == 0 {
        assert_eq!(answers(&store).await, before);
        asked += 1;
    }
    compacting.await.unwrap().unwrap();
    assert_eq!(answers(&store).await, before);
    assert_eq!(store.stats().compactions, 1);
}

/// Ranges that begin and end anywhere, at whole hours, and at whole quarters of the day.
fn ranges() -> Vec<Range> {
    let morning = NEXT_DAY - 24 * 3600;
    let ends = [
        0,
        10,
        3600,
        5 * 3600,
        6 * 3600,
        9 * 3600 + 77,
        12 * 3600,
        13 * 3600,
        18 * 3600,
        24 * 3600,
    ];
    let mut ranges = Vec::new();
    for (at, from) in ends.iter().enumerate() {
        for to in &ends[at + 1..] {
            ranges.push(Range {
                from_unix_s: morning + from,
                to_unix_s: morning + to,
            });
        }
    }
    ranges
}

#[tokio::test]
async fn sums_over_quarters_of_a_day_are_the_sums_of_their_hours() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 3600 * 12);
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(small_segments(dir.path()), clock.clone(), Arc::new(disk)).unwrap();
    // Hours 2 to 15 of the day: neither the first nor the last quarter is complete.
    for sequence in 1..=14u64 {
        let start = NEXT_DAY - 24 * 3600 + 3600 * (sequence as i64 + 1);
        store.append(sent(sequence, start)).await.unwrap();
        store.append(sent(sequence + 20, start + 1800)).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let ask = async |store: &Store| {
        let mut answers = Vec::new();
        for range in ranges() {
            let who = WorkloadFilter::service("checkout");
            let rows = store
                .ask(StackQuery::new(who, ProfileType::CPU, range))
                .await
                .unwrap()
                .rows;
            let by_step = SelectedQuery {
                step_s: 12 * 3600,
                by: vec![Label::Version, Label::Route],
                ..SelectedQuery::new(ProfileType::CPU, Vec::new(), range)
            };
            answers.push((rows, store.ask(by_step).await.unwrap()));
        }
        answers
    };
    let before = ask(&store).await;
    assert!(files(dir.path(), "quarters").is_empty());
    clock.set(NEXT_DAY + 7200);
    store.compact().await.unwrap();
    assert_eq!(
        (files(dir.path(), "quarters").len(), files(dir.path(), "rollup").len()),
        (1, 1)
    );
    assert_eq!(ask(&store).await, before);
    // Whole quarters are answered without the hours: these may be gone without anybody noticing.
    let rollup = files(dir.path(), "rollup").remove(0);
    let kept = fs::read(&rollup).unwrap();
    fs::write(&rollup, b"nothing").unwrap();
    let whole = Range {
        from_unix_s: NEXT_DAY - 24 * 3600,
        to_unix_s: NEXT_DAY,
    };
    let who = WorkloadFilter::service("checkout");
    let all = store
        .ask(StackQuery::new(who.clone(), ProfileType::CPU, whole))
        .await
        .unwrap();
    let of_whole = ranges().iter().position(|range| *range == whole).unwrap();
    assert_eq!(all.rows, before[of_whole].0);
    fs::write(&rollup, kept).unwrap();
    // A damaged part of quarters is set aside, and the hours answer.
    fs::write(files(dir.path(), "quarters").remove(0), b"nothing").unwrap();
    store.close();
    drop(store);
    let store = Store::open(small_segments(dir.path()), clock).unwrap();
    assert_eq!(ask(&store).await, before);
    assert!(files(dir.path(), "quarters").is_empty());
}

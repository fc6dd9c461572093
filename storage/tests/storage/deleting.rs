//! A service is deleted by name: nothing of it is left, everything of others is, and no crash changes that. Answers
//! afterwards are compared with a store that never knew the service.
//!
//! One file because every test deletes the same service from the same store, and compares with one that never knew it.
//! Power cuts, full disks and restarts are judged by that comparison.

mod faults;
mod power;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::common::*;
use emberline_model::{Batch, Exemplar, LabelSet, WorkloadWindow};
use emberline_storage::{
    DeleteError, DeleteProgress, Deleted, ExemplarQuery, Label, LabelFilter, Options, Range, SampleSeriesQuery,
    SelectedQuery, ServicesQuery, StackCountsQuery, Store,
    disk::{FaultyDisk, RealDisk},
    inspect,
};

/// Midnight after the day that the tests write.
const NEXT_DAY: i64 = T0 + 12 * 3600;
const GONE: &str = "checkout";

/// A batch with a window of each of two services, except that every fourth has only checkout's. Values are powers of
/// two, so that a sum shows which are there, and how often. Cart calls checkout, and they share stacks.
fn sent(sequence: u64, start: i64) -> Batch {
    let full = |service: &str, extra: u64| -> WorkloadWindow {
        let who = workload(service, ["v1", "v2"][(sequence % 2) as usize], "a");
        let route = format!("/{service}/{}", sequence % 3);
        let mut window = full_window(&who, start, &route, &[3, 9], &[sequence + extra, 1000], 1 << sequence);
        let called = LabelSet {
            peer: Some(release(GONE, "v1")),
            ..labels("/pay")
        };
        window.profiles.push(profile(
            "00112233aabbccdd",
            &[(&[7, 1000], called, 1 << (20 + sequence))],
        ));
        window.profiles[0].exemplars = vec![Exemplar {
            stack: 0,
            label_set: 0,
            value: 1 << sequence,
            unix_ns: start * 1_000_000_000,
            trace_id: [7; 16],
            span_id: sequence,
        }];
        window
    };
    let mut windows = vec![full(GONE, 0)];
    if !sequence.is_multiple_of(4) {
        windows.push(full("cart", 500));
    }
    batch(sequence, windows)
}

/// The batch without the service.
fn without(mut batch: Batch) -> Batch {
    batch.windows.retain(|window| window.workload.service != GONE);
    batch
}

/// Everything that can be asked, as text. Builds are left out: code belongs to no service.
async fn told(store: &Store) -> String {
    let all = told_briefly(store).await;
    let mut sums = Vec::new();
    for (by_stack, step_s) in [(true, 0), (false, 10), (false, 3600)] {
        let query = SelectedQuery {
            by_stack,
            step_s,
            by: vec![Label::Service, Label::Version, Label::Route],
            ..SelectedQuery::new(emberline_model::ProfileType::CPU, Vec::new(), Range::ALL)
        };
        sums.push(store.ask(query).await.unwrap());
    }
    let exemplars = store.ask(ExemplarQuery::new(Range::ALL, 100)).await.unwrap();
    let series = store.ask(SampleSeriesQuery { range: Range::ALL }).await.unwrap();
    let stacks = store.ask(StackCountsQuery { range: Range::ALL }).await.unwrap();
    format!("{all:#?}\n{sums:#?}\n{exemplars:#?}\n{series:#?}\n{stacks:#?}")
}

/// Stacks with their names, requests, services, windows, totals and profile types.
async fn told_briefly(store: &Store) -> String {
    store.flush_applied().await.unwrap();
    let all = answers(store).await;
    all.lines().take(8).collect::<Vec<_>>().join("\n")
}

/// The sum of a service's samples.
async fn sum_of(store: &Store, service: &str) -> i64 {
    store.flush_applied().await.unwrap();
    let filter = LabelFilter {
        label: Label::Service,
        values: vec![service.to_owned()],
        negated: false,
    };
    let query = SelectedQuery::new(emberline_model::ProfileType::CPU, vec![filter], Range::ALL);
    store.ask(query).await.unwrap().iter().map(|row| row.value).sum()
}

async fn delete(store: &Store) -> Result<Deleted, DeleteError> {
    store.delete_service("demo", GONE, &mut |_| {}).await
}

fn is_unknown(result: &Result<Deleted, DeleteError>) -> bool {
    matches!(result, Err(DeleteError::UnknownService { namespace, service }) if namespace == "demo" && service == GONE)
}

fn parts(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("parts")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn remove_hot(dir: &Path) {
    for name in ["hot.duckdb", "hot.duckdb.wal"] {
        let _ = fs::remove_file(dir.join(name));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Batches of two hours that get sealed, one of them in two groups of parts, the second only checkout's; and of an hour
/// that is not over.
const SEALED: [(u64, i64); 3] = [(1, T0), (2, T0 + 10), (3, T0 - 3600)];
const SEALED_LATER: (u64, i64) = (4, T0 - 3600);
const OPEN: (u64, i64) = (5, T0 + 3600);

fn open_on(options: Options, clock: &Arc<TestClock>, disk: &FaultyDisk) -> Store {
    Store::open_on(options, clock.clone(), Arc::new(disk.clone())).unwrap()
}

async fn fill(store: &Store, make: fn(Batch) -> Batch) {
    fill_with(store, &SEALED, make).await;
}

async fn fill_with(store: &Store, sealed: &[(u64, i64)], make: fn(Batch) -> Batch) {
    let append = async |(sequence, start): (u64, i64)| {
        store.append(make(sent(sequence, start))).await.unwrap();
        store.flush_applied().await.unwrap();
    };
    for &one in sealed {
        append(one).await;
    }
    store.seal().await.unwrap();
    append(SEALED_LATER).await;
    store.seal().await.unwrap();
    append(OPEN).await;
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
    disk: FaultyDisk,
    store: Store,
}

impl World {
    async fn new(make: fn(Batch) -> Batch) -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::at(T0 + 4300);
        let disk = FaultyDisk::new(Arc::new(RealDisk));
        let store = open_on(World::options(dir.path()), &clock, &disk);
        fill(&store, make).await;
        World {
            dir,
            clock,
            disk,
            store,
        }
    }

    /// A copy, in a folder of its own, of a store that is not open.
    async fn copy_of(of: &Path) -> World {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(of, dir.path());
        let clock = TestClock::at(T0 + 4300);
        let disk = FaultyDisk::new(Arc::new(RealDisk));
        let store = open_on(World::options(dir.path()), &clock, &disk);
        store.flush_applied().await.unwrap();
        World {
            dir,
            clock,
            disk,
            store,
        }
    }

    /// Small segments: what is sealed leaves the journal.
    fn options(dir: &Path) -> Options {
        let mut options = options(dir);
        options.segment_bytes = 1;
        options
    }

    fn reopen(&mut self) {
        self.store.close();
        self.store = open_on(World::options(self.dir.path()), &self.clock, &self.disk);
    }

    async fn compact(&self) {
        self.clock.set(NEXT_DAY + 7200);
        self.store.seal().await.unwrap();
        self.store.compact().await.unwrap();
        assert_eq!(self.store.stats().compactions, 1);
    }
}

#[tokio::test]
async fn nothing_of_a_deleted_service_is_told_and_everything_of_others_is() {
    let mut world = World::new(|batch| batch).await;
    let other = World::new(without).await;
    let expected = told(&other.store).await;
    assert_ne!(told(&world.store).await, expected);
    for (namespace, service) in [("demo", "chekout"), ("", GONE)] {
        let wrong = world.store.delete_service(namespace, service, &mut |_| {}).await;
        let wrong = wrong.unwrap_err();
        assert!(matches!(wrong, DeleteError::UnknownService { .. }), "{wrong}");
    }

    let before = world.store.stats();
    let mut steps: Vec<DeleteProgress> = Vec::new();
    let deleted = world
        .store
        .delete_service("demo", GONE, &mut |step| steps.push(step))
        .await
        .unwrap();
    let after = world.store.stats();
    assert_eq!(told(&world.store).await, expected, "at once");
    // A window, a row of requests, two samples and an exemplar of each of five batches.
    assert_eq!(deleted.rows, 5 * 5);
    assert_eq!(before.sealed_rows - after.sealed_rows, 4 * 5);
    assert_eq!(deleted.bytes_freed, before.sealed_bytes - after.sealed_bytes);
    assert!(deleted.bytes_freed > 0 && deleted.files > 0);
    assert!(
        steps.iter().all(|step| step.done_bytes <= step.all_bytes) && steps.iter().any(|step| step.all_bytes > 0),
        "{steps:?}"
    );
    assert_eq!(
        (
            after.services_deleted,
            after.deletion_failures,
            after.parts_quarantined,
            after.deletion_files_left
        ),
        (1, 0, 0, 0)
    );
    assert!(is_unknown(&delete(&world.store).await), "a second time");
    for place in ["parts", "deleted.bin"] {
        let path = world.dir.path().join(place);
        let bytes: Vec<u8> = match place {
            "parts" => parts(world.dir.path())
                .iter()
                .filter(|name| name.starts_with("names") || name.starts_with("requests"))
                .flat_map(|name| fs::read(path.join(name)).unwrap())
                .collect(),
            _ => fs::read(&path).unwrap(),
        };
        let is_there = bytes.windows(10).any(|bytes| bytes == b"/checkout/");
        assert!(!is_there, "a route of its own is left in {place}");
    }

    // What comes later is new, even in hours, and with batch numbers, that existed before.
    for world in [&world, &other] {
        world.store.append(sent(8, T0 + 3620)).await.unwrap();
        world.store.append(sent(9, T0)).await.unwrap();
    }
    let expected = told(&other.store).await;
    assert_eq!(told(&world.store).await, expected, "new data is kept");
    for restart in ["with the engine's file", "without it", "once more"] {
        if restart == "without it" {
            world.store.close();
            remove_hot(world.dir.path());
        }
        world.reopen();
        assert_eq!(told(&world.store).await, expected, "{restart}");
    }
    for world in [&world, &other] {
        world.compact().await;
    }
    assert_eq!(told(&world.store).await, expected, "sealed and compacted");
}

#[tokio::test]
async fn a_service_is_deleted_from_tables_before_anything_is_sealed() {
    for remove_file in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for sequence in 1..=5 {
            store.append(sent(sequence, T0 + 10 * sequence as i64)).await.unwrap();
        }
        // Acknowledged, but perhaps not applied yet.
        let deleted = delete(&store).await.unwrap();
        assert_eq!((deleted.rows, deleted.files), (25, 0));
        let other_dir = tempfile::tempdir().unwrap();
        let other = open(other_dir.path());
        for sequence in 1..=5 {
            other
                .append(without(sent(sequence, T0 + 10 * sequence as i64)))
                .await
                .unwrap();
        }
        let expected = told(&other).await;
        assert_eq!(told(&store).await, expected);
        store.close();
        // The journal still holds what was deleted.
        if remove_file {
            remove_hot(dir.path());
        }
        let store = open(dir.path());
        assert_eq!(told(&store).await, expected, "replayed: {remove_file}");
        assert!(is_unknown(&delete(&store).await));
    }
}

#[tokio::test]
async fn a_service_is_deleted_from_compacted_parts() {
    let mut world = World::new(|batch| batch).await;
    world.compact().await;
    let other = World::new(without).await;
    other.compact().await;
    let expected = told(&other.store).await;
    delete(&world.store).await.unwrap();
    assert_eq!(told(&world.store).await, expected);
    let names = parts(world.dir.path());
    assert_eq!(names.len(), 12, "one part of each kind: {names:?}");
    world.store.close();
    remove_hot(world.dir.path());
    world.reopen();
    assert_eq!(told(&world.store).await, expected, "from parts alone");
    // When the service comes back, nothing that was deleted comes with it, not even from sums over quarters of the day.
    for store in [&world.store, &other.store] {
        store.append(sent(9, OPEN.1 + 20)).await.unwrap();
    }
    assert_eq!(told(&world.store).await, told(&other.store).await, "it came back");
}

#[tokio::test]
async fn the_only_service_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4300);
    let only = |batch: Batch| Batch {
        windows: batch.windows[..1].to_vec(),
        ..batch
    };
    let store = Store::open(World::options(dir.path()), clock.clone()).unwrap();
    fill(&store, only).await;
    delete(&store).await.unwrap();
    let empty = |store: &Store| {
        let stats = store.stats();
        (
            stats.sealed_files,
            stats.sealed_bytes,
            stats.dictionary_stacks,
            stats.deletion_files_left,
        )
    };
    assert_eq!(empty(&store), (0, 0, 0, 0));
    assert!(parts(dir.path()).is_empty());
    assert!(
        store.builds().is_empty()
            && store
                .ask(ServicesQuery::new(Range::ALL))
                .await
                .unwrap()
                .services
                .is_empty()
    );
    store.close();
    remove_hot(dir.path());
    let store = Store::open(World::options(dir.path()), clock.clone()).unwrap();
    store.flush_applied().await.unwrap();
    assert!(
        store
            .ask(ServicesQuery::new(Range::ALL))
            .await
            .unwrap()
            .services
            .is_empty()
    );
    // Batch numbers continue above that of the deletion, or the next batch would count as deleted.
    store.append(only(sent(9, T0 + 3600))).await.unwrap();
    assert_eq!(sum_of(&store, GONE).await, (1 << 9) + (1 << 29));
}

#[tokio::test]
async fn deletions_of_several_services_at_a_time_wait_for_each_other() {
    let world = World::new(|batch| batch).await;
    let mut quietly = |_| {};
    let (first, same, second) = tokio::join!(
        delete(&world.store),
        delete(&world.store),
        world.store.delete_service("demo", "cart", &mut quietly)
    );
    assert!(first.is_ok() && (same.is_ok() || is_unknown(&same)), "{same:?}");
    assert_eq!(second.unwrap().rows, 4 * 5);
    assert!(
        world
            .store
            .ask(ServicesQuery::new(Range::ALL))
            .await
            .unwrap()
            .services
            .is_empty()
    );
    assert!(parts(world.dir.path()).is_empty());
}

/// Waits until the store has finished what a crash left.
async fn until_made_good(store: &Store) {
    let since = Instant::now();
    store.flush_applied().await.unwrap();
    while store.stats().deletion_files_left > 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "it is never gone on with");
        // Joins the current deletion, or finds nothing.
        let _ = delete(store).await;
    }
}

/// As `emberline store delete` does.
#[tokio::test]
async fn a_service_is_deleted_from_a_store_that_is_not_open() {
    let mut world = World::new(|batch| batch).await;
    let expected = told(&World::new(without).await.store).await;
    let delete = async |namespace: Option<&str>, service: &str| {
        let options = World::options(world.dir.path());
        let clock = TestClock::at(T0 + 4300);
        inspect::delete(options, clock, namespace, service, &mut |_| {}).await
    };
    let in_use = delete(None, GONE).await.unwrap_err();
    assert!(matches!(in_use, inspect::DeleteFromError::Open(_)), "{in_use}");
    world.store.close();
    for (namespace, service) in [(None, "chekout"), (Some(""), GONE)] {
        let unknown = delete(namespace, service).await.unwrap_err();
        assert!(unknown.to_string().contains("no data of service"), "{unknown}");
    }
    let (namespace, deleted) = delete(None, GONE).await.unwrap();
    assert_eq!((namespace.as_str(), deleted.rows), ("demo", 25));
    world.reopen();
    assert_eq!(told(&world.store).await, expected);
}

/// Questions that run while parts are replaced see one state or the other of each, and those about other services see
/// no change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_about_others_go_on_while_a_service_is_deleted() {
    let world = World::new(|batch| batch).await;
    let cart = sum_of(&world.store, "cart").await;
    let deleting = tokio::spawn({
        let store = world.store.clone();
        async move { delete(&store).await }
    });
    let mut asked = 0;
    while !deleting.is_finished() || asked == 0 {
        assert_eq!(sum_of(&world.store, "cart").await, cart);
        asked += 1;
    }
    deleting.await.unwrap().unwrap();
    assert_eq!(sum_of(&world.store, GONE).await, 0);
}

#[tokio::test]
async fn a_store_that_is_closed_deletes_nothing() {
    let mut world = World::new(|batch| batch).await;
    let before = told(&world.store).await;
    world.store.close();
    let refused = delete(&world.store).await.unwrap_err();
    assert!(matches!(refused, DeleteError::Closed), "{refused}");
    world.reopen();
    assert_eq!(told(&world.store).await, before);
}

//! Answers from sums equal those from windows: a store that seals, compacts, deletes and gets late data is compared
//! with one that holds the same windows one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::common::*;
use emberline_model::{Batch, Component, Histogram, RequestSeries, Side, WorkloadWindow, comparison::SideData};
use emberline_storage::{
    Options, Range, ServicesQuery, SideQuery, Step, Store, UsualWindowQuery, WorkloadFilter,
    disk::{FaultyDisk, RealDisk},
};
use proptest::prelude::*;

/// Midnight of the day of most windows, and of the next.
const DAY: i64 = T0 - 12 * 3600;
const NEXT_DAY: i64 = DAY + 24 * 3600;
const GONE: &str = "cart";

/// Windows of one process over some time.
#[derive(Debug, Clone)]
struct Stay {
    service: usize,
    version: usize,
    instance: usize,
    component: Component,
    start_s: i64,
    /// The number of consecutive windows, and their length in seconds.
    windows: i64,
    length_s: i64,
    has_requests: bool,
    has_profiles: bool,
    /// Every how many windows one lacks its profile.
    lacks_every: i64,
    batch: usize,
}

impl Stay {
    fn windows(&self) -> Vec<WorkloadWindow> {
        let who = workload(
            ["checkout", GONE][self.service],
            ["v1", "v2"][self.version],
            ["a", "b", "c"][self.instance],
        );
        let window = |n: i64| {
            let start_s = self.start_s + n * self.length_s;
            let mut duration = Histogram::new();
            (0..n % 3 + 1)
                .for_each(|at| duration.record_ns(1_000 + 77_777 * (n.unsigned_abs() + at.unsigned_abs()) % 5_000_000));
            let series = |side, route: &str| RequestSeries {
                status: if n % 5 == 0 { 503 } else { 200 },
                error: n % 5 == 0,
                duration: duration.clone(),
                peer: (n % 2 == 0).then(|| release("frontend", "v1")),
                request_bytes: n.unsigned_abs(),
                ..requests(side, route, &[])
            };
            let mut window = WorkloadWindow {
                length_s: self.length_s as u32,
                has_requests: self.has_requests,
                ..window(&who, self.component, start_s)
            };
            if self.has_requests && n % 7 > 0 {
                window.requests = vec![series(Side::Server, "/pay"), series(Side::Client, "/stock/{sku}")];
            }
            window.has_profiles = self.has_profiles && (self.lacks_every == 0 || n % self.lacks_every > 0);
            if window.has_profiles {
                let (stack, value) = ([n.unsigned_abs() % 4, 9], 1_000 + n);
                window.profiles = vec![profile(
                    "aabbccdd",
                    &[
                        (&stack, labels("/pay"), value),
                        (&[8, 9], emberline_model::LabelSet::none(), 5),
                    ],
                )];
            }
            window
        };
        (0..self.windows).map(window).collect()
    }
}

prop_compose! {
    fn a_stay()(
        service in 0usize..2, version in 0usize..2, instance in 0usize..3, is_proxy in prop::bool::weighted(0.2),
        at in 0i64..26 * 12, off in prop_oneof![3 => Just(0i64), 1 => 1i64..60], windows in 1i64..150,
        length_s in prop_oneof![4 => Just(60i64), 1 => Just(10), 1 => Just(15), 1 => Just(300)],
        signals in prop_oneof![4 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, true))],
        lacks_every in prop_oneof![3 => Just(0i64), 1 => 20i64..90], batch in 0usize..3,
    ) -> Stay {
        Stay {
            service, version, instance, windows, length_s, lacks_every, batch,
            component: if is_proxy { Component::Proxy } else { Component::Application },
            start_s: DAY - 3600 + at * 300 + off,
            has_requests: signals.0,
            has_profiles: signals.1,
        }
    }
}

/// Everything from a stay, split into two signals as an exporter does; in batches that are sent one after another.
fn batches(stays: &[Stay], nth: usize) -> Vec<Batch> {
    let windows: Vec<WorkloadWindow> = stays
        .iter()
        .filter(|stay| stay.batch == nth)
        .flat_map(Stay::windows)
        .collect();
    let sent = windows.chunks(200).enumerate();
    sent.map(|(at, windows)| batch((nth * 1_000 + at + 1) as u64, windows.to_vec()))
        .collect()
}

fn patient(dir: &std::path::Path) -> Options {
    let mut options = options(dir);
    options.retention = Duration::from_secs(20 * 24 * 3600);
    options.rollup_retention = options.retention;
    options.max_future = Duration::from_secs(48 * 3600);
    options.segment_bytes = 1;
    options
}

/// Stacks by name would be long: their sums over all pieces, and everything else piece by piece where windows are
/// aligned.
fn told(side: &SideData) -> String {
    let mut stacks: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    let (mut requests, mut seconds, mut windows) = (0.0, 0.0, 0);
    for piece in &side.windows {
        (requests, seconds, windows) = (
            requests + piece.requests,
            seconds + piece.instance_seconds,
            windows + piece.windows,
        );
        for &(stack, value, samples) in &piece.stacks {
            let sum = stacks.entry(stack).or_default();
            *sum = (sum.0 + value, sum.1 + samples);
        }
    }
    let (requests, seconds) = ((requests * 1e6_f64).round(), (seconds * 1e6_f64).round());
    format!(
        "{stacks:?} {requests} {seconds} {windows} {:?} {:?} {:?} {:?}",
        side.latency.buckets(),
        side.coverage,
        side.build_ids,
        side.windows
            .iter()
            .map(|piece| piece.start_unix_s)
            .collect::<Vec<_>>()
            .len()
            <= 101,
    )
}

async fn asked(store: &Store, range: Range, step: Step) -> String {
    let mut all = Vec::new();
    for service in ["checkout", GONE] {
        let who = WorkloadFilter::service(service);
        all.push(sums(store, who.clone(), range, step).await.unwrap());
        all.push(format!(
            "{:?}",
            store.ask(UsualWindowQuery { who, range }).await.unwrap()
        ));
        for component in [Component::Application, Component::Proxy] {
            let query = SideQuery {
                component,
                ..SideQuery::new(release(service, "v1"), range)
            };
            all.push(told(&store.side_data(query).await.unwrap()));
        }
        let who = WorkloadFilter {
            instance: Some("a".into()),
            ..WorkloadFilter::service(service)
        };
        all.push(sums(store, who, range, step).await.unwrap());
    }
    all.push(format!(
        "{:?}",
        store.ask(ServicesQuery::new(range)).await.unwrap().services
    ));
    all.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn sums_say_what_windows_say(
        stays in prop::collection::vec(a_stay(), 1..9),
        ranges in prop::collection::vec((0i64..26 * 3600, 1i64..30 * 3600, 0usize..4, 0usize..5), 4),
        compacts: bool, deletes: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let clock = TestClock::at(T0);
            let store = Store::open(patient(dir.path()), clock.clone()).unwrap();
            let mut one_by_one = patient(other.path());
            one_by_one.seal_after = Duration::from_secs(365 * 24 * 3600);
            let windows = Store::open(one_by_one, clock.clone()).unwrap();
            for nth in 0..3 {
                if deletes && nth == 2 {
                    for store in [&store, &windows] {
                        let _ = store.delete_service("demo", GONE, &mut |_| {}).await;
                    }
                }
                for sent in batches(&stays, nth) {
                    store.append(sent.clone()).await.unwrap();
                    windows.append(sent).await.unwrap();
                }
                // The first time, before most of it is over; what comes afterwards is late.
                clock.set([T0, NEXT_DAY + 3600, NEXT_DAY + 30 * 3600][nth]);
                for store in [&store, &windows] {
                    store.flush_applied().await.unwrap();
                }
                if nth < 2 || compacts {
                    store.seal().await.unwrap();
                }
                if compacts {
                    store.compact().await.unwrap();
                }
            }
            for &(from, length, round, step) in &ranges {
                // Whole seconds, quarters of hours, hours, quarters of days.
                let round = [1, 900, 3600, 6 * 3600][round];
                let from = (DAY + from) / round * round;
                let range = Range { from_unix_s: from, to_unix_s: from + (length / round + 1) * round };
                let step = [Step::Range, Step::Seconds(60), Step::Seconds(900), Step::Seconds(3600), Step::Seconds(6 * 3600)][step];
                assert_eq!(asked(&store, range, step).await, asked(&windows, range, step).await, "{range:?} {step:?}");
            }
        });
    }
}

/// Two instances of a release, day and night, and a second service.
fn a_day() -> Vec<Stay> {
    let stay = |service, instance| Stay {
        service,
        version: 0,
        instance,
        component: Component::Application,
        start_s: DAY,
        windows: 24 * 60,
        length_s: 60,
        has_requests: true,
        has_profiles: true,
        lacks_every: 0,
        batch: 0,
    };
    vec![stay(0, 0), stay(0, 1), stay(1, 0)]
}

async fn sealed_day(dir: &std::path::Path) -> (Store, Arc<TestClock>, FaultyDisk) {
    let clock = TestClock::at(NEXT_DAY);
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let store = Store::open_on(patient(dir), clock.clone(), Arc::new(disk.clone())).unwrap();
    for sent in batches(&a_day(), 0) {
        store.append(sent).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    clock.set(NEXT_DAY + 6 * 3600);
    store.seal().await.unwrap();
    (store, clock, disk)
}

fn parts(dir: &std::path::Path, kinds: &[&str]) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(dir.join("parts"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_of = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        kinds.iter().any(|kind| name.starts_with(&format!("{kind}-")))
    };
    paths.filter(is_of).collect()
}

const WHOLE: Range = Range {
    from_unix_s: DAY,
    to_unix_s: NEXT_DAY,
};

/// A store from before sums existed answers as before, and gets sums once its day is compacted.
#[tokio::test]
async fn hours_of_before_there_were_sums_are_answered_and_get_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, _) = sealed_day(dir.path()).await;
    let expected = asked(&store, WHOLE, Step::Seconds(3600)).await;
    store.close();
    let kinds = ["sums", "totals", "runs"];
    for path in parts(dir.path(), &kinds) {
        std::fs::remove_file(path).unwrap();
    }
    let store = Store::open(patient(dir.path()), clock.clone()).unwrap();
    store.flush_applied().await.unwrap();
    assert_eq!(
        asked(&store, WHOLE, Step::Seconds(3600)).await,
        expected,
        "from windows"
    );
    store.compact().await.unwrap();
    assert_eq!(parts(dir.path(), &["sums", "daysums", "totals", "runs"]).len(), 4);
    assert_eq!(asked(&store, WHOLE, Step::Seconds(3600)).await, expected, "from sums");
    assert_eq!(
        asked(&store, WHOLE, Step::Range).await,
        {
            for path in parts(dir.path(), &["sums", "daysums", "totals", "runs"]) {
                std::fs::remove_file(path).unwrap();
            }
            store.close();
            let store = Store::open(patient(dir.path()), clock.clone()).unwrap();
            store.flush_applied().await.unwrap();
            asked(&store, WHOLE, Step::Range).await
        },
        "over quarters of the day"
    );
}

/// A day of whole hours is answered without opening the files of single windows.
#[tokio::test]
async fn a_day_reads_no_window_and_its_ends_read_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, _) = sealed_day(dir.path()).await;
    store.compact().await.unwrap();
    let expected = asked(&store, WHOLE, Step::Seconds(900)).await;
    store.close();
    let singles = parts(dir.path(), &["requests", "samples", "windows"]);
    assert_eq!(singles.len(), 3);
    for path in &singles {
        std::fs::write(path, b"nothing that can be read").unwrap();
    }
    let store = Store::open(patient(dir.path()), clock.clone()).unwrap();
    store.flush_applied().await.unwrap();
    let who = WorkloadFilter::service("checkout");
    let told = sums(&store, who.clone(), WHOLE, Step::Seconds(900)).await.unwrap();
    assert!(expected.contains(&told) && told.len() > 10_000);
    store
        .side_data(SideQuery::new(release("checkout", "v1"), WHOLE))
        .await
        .unwrap();
    assert_eq!(store.stats().parts_quarantined, 0);
    // A second more, and its windows are read.
    let ragged = Range {
        from_unix_s: DAY + 1,
        ..WHOLE
    };
    sums(&store, who, ragged, Step::Seconds(900)).await.unwrap();
    assert!(store.stats().parts_quarantined > 0);
}

/// What both sides of a comparison have in common is named once, and each reports what only it has: a stack of a piece
/// of time once, whether it comes from sums or from windows.
#[tokio::test]
async fn sides_that_are_compared_have_one_dictionary_and_each_stack_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, _) = sealed_day(dir.path()).await;
    // The ends of one are within hours.
    let ragged = Range {
        from_unix_s: DAY + 1_234,
        to_unix_s: NEXT_DAY - 1_234,
    };
    let query = |range| SideQuery::new(release("checkout", "v1"), range);
    let sides = store.both_sides(query(WHOLE), query(ragged), true).await.unwrap();
    assert!(Arc::ptr_eq(&sides.baseline.resolved, &sides.candidate.resolved));
    for (side, range) in [(&sides.baseline, WHOLE), (&sides.candidate, ragged)] {
        let alone = store.side_data(query(range)).await.unwrap();
        assert_eq!(told(side), told(&alone));
        assert_eq!(side.windows.len(), 12);
        for piece in &side.windows {
            let stacks: BTreeSet<u64> = piece.stacks.iter().map(|stack| stack.0).collect();
            assert_eq!(stacks.len(), piece.stacks.len(), "a stack twice");
            assert_eq!(stacks.len(), 5);
            assert!(stacks.iter().all(|&stack| !side.resolved.frames(stack).is_empty()));
        }
    }
}

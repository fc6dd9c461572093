//! Batches, clocks and stores for the tests of this crate.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // Each test file uses its own part.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use emberline_model::{
    Batch, BatchId, Component, Histogram, LabelSet, Location, Mapping, Profile, ProfileStats, ProfileType, Release,
    RequestSeries, Sample, Side, Signal, Workload, WorkloadWindow, time::Clock,
};
use emberline_storage::{
    AppendError, Appended, CostQuery, Dividing, Options, ProfileTypesQuery, QueryError, Range, ReportQuery,
    RequestQuery, ServicesQuery, StackQuery, Step, Store, TotalsQuery, WindowQuery, WorkloadFilter,
};

/// A whole hour: 2026-11-18T12:00:00Z.
pub const T0: i64 = 1_795_003_200;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn at(unix_s: i64) -> Arc<TestClock> {
        Arc::new(TestClock(AtomicI64::new(unix_s)))
    }

    pub fn set(&self, unix_s: i64) {
        self.0.store(unix_s, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_unix_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed) * 1_000_000_000
    }
}

pub fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.apply_interval = Duration::from_millis(5);
    options.group_wait = Duration::ZERO;
    options.min_free_mb = 0;
    options
}

pub fn open(dir: &Path) -> Store {
    Store::open(options(dir), TestClock::at(T0 + 3600)).unwrap()
}

pub fn workload(service: &str, version: &str, instance: &str) -> Workload {
    Workload {
        namespace: "demo".into(),
        service: service.into(),
        version: version.into(),
        instance: instance.into(),
    }
}

pub fn release(service: &str, version: &str) -> Release {
    Release {
        namespace: "demo".into(),
        service: service.into(),
        version: version.into(),
    }
}

pub fn labels(route: &str) -> LabelSet {
    LabelSet {
        side: Some(Side::Server),
        route: route.into(),
        peer: None,
    }
}

pub fn window(workload: &Workload, component: Component, start_unix_s: i64) -> WorkloadWindow {
    WorkloadWindow {
        workload: workload.clone(),
        component,
        start_unix_s,
        length_s: 10,
        has_requests: false,
        has_profiles: false,
        requests: Vec::new(),
        profiles: Vec::new(),
    }
}

pub fn requests(side: Side, route: &str, milliseconds: &[u64]) -> RequestSeries {
    let mut duration = Histogram::new();
    milliseconds.iter().for_each(|&ms| duration.record_ns(ms * 1_000_000));
    RequestSeries {
        side,
        route: route.into(),
        method: "GET".into(),
        peer: None,
        destination: String::new(),
        protocol: "http/1.1".into(),
        status: 200,
        error: false,
        duration,
        streaming_s: 0.0,
        request_bytes: 10,
        response_bytes: 100,
        open: 0,
    }
}

pub fn mapping(build: &str) -> Mapping {
    Mapping {
        build_id: build.into(),
        path: "/opt/shop/checkout".into(),
    }
}

/// A CPU profile: each sample is (offsets of its stack, leaf first; labels; value).
pub fn profile(build: &str, samples: &[(&[u64], LabelSet, i64)]) -> Profile {
    let mut profile = Profile {
        profile_type: ProfileType::cpu(),
        start_unix_ns: 0,
        duration_ns: 10_000_000_000,
        period: 10_000_000,
        mappings: vec![mapping(build)],
        locations: Vec::new(),
        stacks: Vec::new(),
        label_sets: Vec::new(),
        samples: Vec::new(),
        exemplars: Vec::new(),
        exemplars_cut: 0,
        stats: ProfileStats {
            rate_hz: 99.0,
            cpu_ns: 5,
            ..ProfileStats::default()
        },
    };
    for (offsets, labels, value) in samples {
        let stack = offsets
            .iter()
            .map(|&offset| {
                profile.locations.push(Location::Native { mapping: 0, offset });
                (profile.locations.len() - 1) as u32
            })
            .collect();
        profile.stacks.push(stack);
        profile.label_sets.push(labels.clone());
        let index = (profile.stacks.len() - 1) as u32;
        profile.samples.push(Sample {
            stack: index,
            label_set: index,
            value: *value,
            count: 1,
        });
    }
    profile
}

pub fn batch(sequence: u64, windows: Vec<WorkloadWindow>) -> Batch {
    Batch {
        id: Some(BatchId {
            sender: "demo/checkout".into(),
            epoch: 1,
            sequence,
            signal: Signal::Profiles,
        }),
        received_unix_ms: T0 * 1000,
        windows,
    }
}

/// Both signals of a window.
pub fn full_window(
    workload: &Workload,
    start: i64,
    route: &str,
    ms: &[u64],
    stack: &[u64],
    value: i64,
) -> WorkloadWindow {
    WorkloadWindow {
        has_requests: true,
        has_profiles: true,
        requests: vec![requests(Side::Server, route, ms)],
        profiles: vec![profile("00112233aabbccdd", &[(stack, labels(route), value)])],
        ..window(workload, Component::Application, start)
    }
}

/// Everything that can be asked, as text.
pub async fn answers(store: &Store) -> String {
    try_answers(store).await.unwrap()
}

/// Like [`answers`], for a store that may be under repair.
pub async fn try_answers(store: &Store) -> Result<String, QueryError> {
    let who = WorkloadFilter::default();
    let stacks = StackQuery {
        step: Step::Window,
        ..StackQuery::new(who.clone(), ProfileType::CPU, Range::ALL)
    };
    let stacks = store.ask(stacks).await?;
    let ids: Vec<u64> = stacks.rows.iter().map(|r| r.stack_id).collect();
    let resolved = store.resolve(&ids).await?;
    let names: Vec<Vec<&str>> = ids
        .iter()
        .map(|&id| {
            resolved
                .frames(id)
                .map(|f| resolved.functions[f as usize].name.as_str())
                .collect()
        })
        .collect();
    let requests = store
        .ask(RequestQuery {
            step: Step::Window,
            ..RequestQuery::new(who, Range::ALL)
        })
        .await?;
    let services = store.ask(ServicesQuery::new(Range::ALL)).await?.services;
    let windows = WindowQuery {
        who: WorkloadFilter::default(),
        component: None,
        range: Range::ALL,
    };
    let windows = store.ask(windows).await?;
    let totals = TotalsQuery {
        who: WorkloadFilter::default(),
        component: None,
        profile_type: ProfileType::CPU.into(),
        only_complete: true,
        step: Step::Window,
        by_route: true,
        range: Range::ALL,
    };
    let totals = store.ask(totals).await?;
    let types = store
        .ask(ProfileTypesQuery {
            who: WorkloadFilter::default(),
            range: Range::ALL,
        })
        .await?;
    let sums = sums(store, WorkloadFilter::default(), Range::ALL, Step::Seconds(900)).await?;
    let month = sums_of_requests(store, WorkloadFilter::default(), Range::ALL, Step::Range).await?;
    Ok(format!(
        "{stacks:?}\n{names:?}\n{requests:?}\n{services:?}\n{windows:?}\n{totals:?}\n{types:?}\n{sums} {month}\n{:?}\n{:?}",
        store.builds(),
        store.unresolved(99)
    ))
}

/// Values added up over steps: requests, CPU, what both cover. Without sums of fractions, whose last digit depends on
/// the order of addition.
pub async fn sums(store: &Store, who: WorkloadFilter, range: Range, step: Step) -> Result<String, QueryError> {
    let requests = sums_of_requests(store, who.clone(), range, step).await?;
    let mut told = vec![requests];
    for only_complete in [false, true] {
        let totals = TotalsQuery {
            who: who.clone(),
            component: None,
            profile_type: ProfileType::CPU.into(),
            only_complete,
            step,
            by_route: true,
            range,
        };
        told.push(format!("{:?}", store.ask(totals).await?));
    }
    let (of_costs, of_reports) = (who.clone(), who);
    let who = of_costs;
    let mut costs = store.ask(CostQuery { who, step, range }).await?;
    // Shares of requests are fractions, too.
    costs
        .iter_mut()
        .for_each(|row| row.requests = (row.requests * 1e6).round());
    let who = of_reports;
    let reports = store.ask(ReportQuery { who, step, range }).await?;
    told.push(format!("{costs:?}"));
    told.push(format!("{reports:?}"));
    Ok(told.join(" "))
}

/// The requests of steps: all, and those that divide CPU.
pub async fn sums_of_requests(
    store: &Store,
    who: WorkloadFilter,
    range: Range,
    step: Step,
) -> Result<String, QueryError> {
    let mut told = Vec::new();
    for dividing in [
        None,
        Some(Dividing::cpu(Component::Application)),
        Some(Dividing::cpu(Component::Proxy)),
    ] {
        let query = RequestQuery {
            step,
            dividing,
            ..RequestQuery::new(who.clone(), range)
        };
        told.extend(store.ask(query).await?.into_iter().map(|mut row| {
            let duration = std::mem::take(&mut row.duration);
            (row.counted, row.streaming_s) = ((row.counted * 1e6).round(), (row.streaming_s * 1e6).round());
            let (min, max) = (duration.min(), duration.max());
            format!("{row:?} {min} {max} {} {:?}", duration.zero_count(), duration.buckets())
        }));
    }
    Ok(told.join(" "))
}

/// The values of all stacks, sorted.
pub async fn values(store: &Store) -> Vec<i64> {
    store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
    let mut values: Vec<i64> = store.ask(query).await.unwrap().rows.iter().map(|r| r.value).collect();
    values.sort_unstable();
    values
}

/// Like [`values`], but from single samples instead of sums over hours.
pub async fn values_by_window(store: &Store) -> Vec<i64> {
    store.flush_applied().await.unwrap();
    let query = StackQuery {
        step: Step::Window,
        ..StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL)
    };
    let mut values: Vec<i64> = store.ask(query).await.unwrap().rows.iter().map(|r| r.value).collect();
    values.sort_unstable();
    values
}

/// Where the rows are when a test asks its questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the tables of the hot store.
    Hot,
    /// In several parts for each hour, and in tables.
    Mixed,
    /// In parts.
    Sealed,
}

pub const PLACES: [Place; 3] = [Place::Hot, Place::Mixed, Place::Sealed];

/// A store that moves its rows to where a test wants them.
#[derive(Clone)]
pub struct Placing {
    store: Store,
    place: Place,
    appended: Arc<AtomicI64>,
}

impl std::ops::Deref for Placing {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Placing {
    pub fn open(dir: &Path, place: Place) -> Placing {
        let mut options = options(dir);
        options.seal_after = Duration::ZERO;
        Placing {
            store: Store::open(options, TestClock::at(T0 + 7200)).unwrap(),
            place,
            appended: Arc::default(),
        }
    }

    pub async fn append(&self, batch: Batch) -> Result<Appended, AppendError> {
        let result = self.store.append(batch).await;
        // Every second batch starts another part.
        if self.place == Place::Mixed && self.appended.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
            self.store.flush_applied().await.unwrap();
            self.store.seal().await.unwrap();
        }
        result
    }

    pub async fn flush_applied(&self) -> Result<(), QueryError> {
        self.store.flush_applied().await?;
        if self.place == Place::Sealed {
            self.store.seal().await?;
            assert_eq!(self.store.stats().hours, self.store.stats().sealed_hours);
        }
        assert_eq!(self.store.stats().seal_failures, 0);
        Ok(())
    }
}

/// Requests of all services and hours.
pub async fn request_count(store: &Store) -> u64 {
    let query = RequestQuery::new(WorkloadFilter::default(), Range::ALL);
    store.ask(query).await.unwrap().iter().map(|r| r.duration.count()).sum()
}

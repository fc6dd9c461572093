//! Random batches, queried through the store and added up independently in memory: the answers are equal.
//!
//! One file because the computation in memory and the questions it is compared with are two sides of one property.
//! Apart, neither could be understood.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::*;
use emberline_model::{
    Batch, Component, Histogram, LabelSet, ProfileType, Release, RequestSeries, Side, Workload, WorkloadWindow,
};
use emberline_storage::{
    Dividing, NO_LABEL, Range, ReportQuery, RequestQuery, SideQuery, StackQuery, Step, Store, TotalsQuery,
    WorkloadFilter,
};
use proptest::prelude::*;

const ROUTES: [&str; 3] = ["/pay", "/cart/{id}", "/"];
const COMPONENTS: [Component; 2] = [Component::Application, Component::Proxy];
const SIDES: [Side; 2] = [Side::Server, Side::Client];

fn peer(n: usize) -> Option<Release> {
    [None, Some(release("frontend", "v1")), Some(release("frontend", "v2"))][n].clone()
}

prop_compose! {
    fn request()(side in 0usize..2, route in 0usize..3, peer_at in 0usize..3, status in prop_oneof![Just(200u16), Just(503)],
                 ns in prop::collection::vec(0u64..3_000_000_000, 1..6)) -> RequestSeries {
        let mut duration = Histogram::new();
        ns.iter().for_each(|&ns| duration.record_ns(ns));
        RequestSeries {
            status, error: status >= 500, duration, peer: peer(peer_at),
            ..requests(SIDES[side], ROUTES[route], &[])
        }
    }
}

prop_compose! {
    fn sample()(label in 0usize..5, stack in prop::collection::vec(0u64..5, 1..4), value in 0i64..1_000_000) -> (Vec<u64>, LabelSet, i64) {
        let set = match label {
            0 => LabelSet::none(),
            1 => LabelSet { peer: peer(1), ..labels(ROUTES[0]) },
            2 => LabelSet { side: Some(Side::Client), ..labels(ROUTES[1]) },
            n => labels(ROUTES[n - 3]),
        };
        (stack, set, value)
    }
}

prop_compose! {
    fn a_window()(service in 0usize..2, version in 0usize..2, instance in 0usize..2, component in 0usize..2, at in 0i64..6,
                has_requests: bool, has_profiles: bool, series in prop::collection::vec(request(), 0..4),
                samples in prop::collection::vec(sample(), 0..5)) -> WorkloadWindow {
        let who = workload(["checkout", "cart"][service], ["v1", "v2"][version], ["a", "b"][instance]);
        // Over three hours, so that several tables take part.
        let mut window = window(&who, COMPONENTS[component], T0 - at / 2 * 3600 - at % 2 * 10);
        window.has_requests = has_requests;
        window.has_profiles = has_profiles;
        if has_requests {
            window.requests = series;
        }
        if has_profiles {
            let rows: Vec<(&[u64], LabelSet, i64)> = samples.iter().map(|(s, l, v)| (s.as_slice(), l.clone(), *v)).collect();
            window.profiles = vec![profile(["aabbccdd", "eeff0011"][version], &rows)];
        }
        window
    }
}

/// (Window, names) of a stack → value, samples.
type StackSums = BTreeMap<(i64, Vec<String>), (i64, u64)>;
/// Key of requests → count, buckets, bytes.
type RequestSums = BTreeMap<String, (u64, Vec<(i16, u64)>, u64)>;

/// The independent computation: loops over windows.
struct Memory<'a>(&'a [WorkloadWindow]);

impl Memory<'_> {
    /// Windows of a release in a range for which `says` holds.
    fn windows(&self, release: &Release, range: Range, says: impl Fn(&WorkloadWindow) -> bool) -> Vec<&WorkloadWindow> {
        let within = |w: &&WorkloadWindow| (range.from_unix_s..range.to_unix_s).contains(&w.start_unix_s);
        let of_release = self.0.iter().filter(|w| w.workload.release() == *release);
        of_release.filter(within).filter(|w| says(w)).collect()
    }

    /// Both signals arrived for a window's time: from its instance, or from its release if no instance reports both.
    fn complete(&self, of: &WorkloadWindow, component: Component, range: Range) -> bool {
        let release = of.workload.release();
        let spent = self.windows(&release, range, |w| w.component == component && w.has_profiles);
        let served = self.windows(&release, range, |w| {
            w.has_requests && (component == Component::Application || w.component == component)
        });
        let reports =
            |windows: &[&WorkloadWindow], instance: &str| windows.iter().any(|w| w.workload.instance == instance);
        let by_instance = spent.iter().any(|w| reports(&served, &w.workload.instance));
        let at = |windows: &[&WorkloadWindow]| {
            windows.iter().any(|w| {
                w.start_unix_s == of.start_unix_s && (!by_instance || w.workload.instance == of.workload.instance)
            })
        };
        at(&spent) && at(&served)
    }

    /// The component whose report of a side counts.
    fn reporter(&self, of: &WorkloadWindow, side: Side, range: Range, by_instance: Option<bool>) -> Component {
        let release = of.workload.release();
        let counts = |w: &WorkloadWindow| w.requests.iter().any(|r| r.side == side);
        let any = self.windows(&release, range, |w| {
            w.component == Component::Application && !w.requests.is_empty()
        });
        let application = self.windows(&release, range, |w| w.component == Component::Application && counts(w));
        let proxies = self.windows(&release, range, |w| w.component == Component::Proxy && w.has_requests);
        let both = |w: &&WorkloadWindow| proxies.iter().any(|p| p.workload.instance == w.workload.instance);
        let by_instance = by_instance.unwrap_or_else(|| any.iter().any(both));
        let counted = application.iter().any(|w| {
            w.start_unix_s == of.start_unix_s && (!by_instance || w.workload.instance == of.workload.instance)
        });
        match counted {
            true => Component::Application,
            false => Component::Proxy,
        }
    }

    /// Whether an application's CPU is joined with the requests of its own instance.
    fn joins_instances(&self, of: &WorkloadWindow, range: Range) -> bool {
        let release = of.workload.release();
        let spent = self.windows(&release, range, |w| {
            w.component == Component::Application && w.has_profiles
        });
        let served = self.windows(&release, range, |w| w.has_requests);
        spent
            .iter()
            .any(|w| served.iter().any(|s| s.workload.instance == w.workload.instance))
    }

    fn stacks(&self, query: &StackQuery) -> StackSums {
        let mut sums = BTreeMap::new();
        for w in self.0.iter().filter(|w| selected(&query.who, &w.workload)) {
            if query.component.is_some_and(|c| c != w.component)
                || !(query.range.from_unix_s..query.range.to_unix_s).contains(&w.start_unix_s)
                || (query.only_complete && !self.complete(w, w.component, query.range))
            {
                continue;
            }
            for sample in w.profiles.iter().flat_map(|p| p.samples.iter().map(move |s| (p, s))) {
                let (profile, sample) = sample;
                let set = &profile.label_sets[sample.label_set as usize];
                let matches = match query.route.as_deref() {
                    Some(NO_LABEL) => set.is_none(),
                    route => route.is_none_or(|r| r == set.route) && query.side.is_none_or(|s| Some(s) == set.side),
                };
                if matches {
                    let window = start_of(query.step, w);
                    let names = names(profile, sample.stack);
                    let sum: &mut (i64, u64) = sums.entry((window, names)).or_default();
                    sum.0 += sample.value;
                    sum.1 += sample.count;
                }
            }
        }
        sums
    }

    fn requests(&self, query: &RequestQuery) -> RequestSums {
        let mut sums: BTreeMap<String, (Histogram, u64)> = BTreeMap::new();
        for w in self.0.iter().filter(|w| selected(&query.who, &w.workload)) {
            for r in &w.requests {
                let dividing = query.dividing.as_ref().map(|of| of.component);
                let by_instance = dividing.map(|_| self.joins_instances(w, query.range));
                let reporter = match (query.component, dividing) {
                    (_, Some(Component::Proxy)) | (Some(Component::Proxy), None) => Component::Proxy,
                    (Some(Component::Application), None) => Component::Application,
                    // What is reported twice counts once; the application's own report always counts.
                    _ if w.component == Component::Application => Component::Application,
                    _ => self.reporter(w, r.side, query.range, by_instance),
                };
                let complete = dividing.is_none_or(|component| self.complete(w, component, query.range));
                if w.component != reporter
                    || !complete
                    || query.side.is_some_and(|s| s != r.side)
                    || query.route.as_ref().is_some_and(|route| *route != r.route)
                    || query
                        .source
                        .as_ref()
                        .is_some_and(|source| r.peer.as_ref() != Some(source))
                    || !(query.range.from_unix_s..query.range.to_unix_s).contains(&w.start_unix_s)
                {
                    continue;
                }
                let window = start_of(query.step, w);
                let instance = if query.by_instance {
                    w.workload.instance.as_str()
                } else {
                    ""
                };
                let key = format!(
                    "{window} {} {instance} {:?} {:?} {} {:?} {} {}",
                    w.workload.release(),
                    w.component,
                    r.side,
                    r.route,
                    r.peer,
                    r.status,
                    r.error
                );
                let sum = sums.entry(key).or_default();
                sum.0.merge(&r.duration);
                sum.1 += r.response_bytes;
            }
        }
        sums.into_iter()
            .map(|(key, (h, bytes))| (key, (h.count(), h.buckets().to_vec(), bytes)))
            .collect()
    }
}

/// The start that rows have for a window.
fn start_of(step: Step, w: &WorkloadWindow) -> i64 {
    match step {
        Step::Range => 0,
        Step::Window => w.start_unix_s,
        Step::Seconds(seconds) => w.start_unix_s.div_euclid(i64::from(seconds)) * i64::from(seconds),
    }
}

fn selected(who: &WorkloadFilter, w: &Workload) -> bool {
    let same = |filter: &Option<String>, value: &String| filter.as_ref().is_none_or(|f| f == value);
    same(&who.namespace, &w.namespace)
        && same(&who.service, &w.service)
        && same(&who.version, &w.version)
        && same(&who.instance, &w.instance)
}

/// A stack as text, so that the test need not compute ids: the build and the offsets.
fn names(profile: &emberline_model::Profile, stack: u32) -> Vec<String> {
    let name = |&l: &u32| match &profile.locations[l as usize] {
        emberline_model::Location::Native { offset, .. } => format!("{}:0x{offset:x}", profile.mappings[0].build_id),
        emberline_model::Location::Named { .. } => unreachable!("not generated"),
    };
    profile.stacks[stack as usize].iter().map(name).collect()
}

fn windows_of(batches: &[Batch]) -> Vec<WorkloadWindow> {
    batches.iter().flat_map(|b| b.windows.clone()).collect()
}

async fn ask_stacks(store: &Store, query: StackQuery) -> StackSums {
    let answer = store.ask(query).await.unwrap();
    let ids: Vec<u64> = answer.rows.iter().map(|r| r.stack_id).collect();
    let resolved = store.resolve(&ids).await.unwrap();
    assert_eq!(answer.value, answer.rows.iter().map(|r| r.value).sum::<i64>());
    assert_eq!(answer.samples, answer.rows.iter().map(|r| r.samples).sum::<u64>());
    let builds = ["aabbccdd", "eeff0011"];
    let by_id: BTreeMap<u64, String> = builds
        .iter()
        .flat_map(|b| (0..5).map(move |o| (emberline_model::id::native_location_id(b, o), format!("{b}:0x{o:x}"))))
        .collect();
    let rows = answer.rows.iter().map(|row| {
        let frames = resolved.frames(row.stack_id);
        let names = frames
            .map(|f| by_id[&resolved.functions[f as usize].id].clone())
            .collect();
        ((row.window_start_s, names), (row.value, row.samples))
    });
    rows.collect()
}

async fn ask_requests(store: &Store, query: RequestQuery) -> RequestSums {
    let rows = store.ask(query).await.unwrap();
    let rows = rows.iter().map(|r| {
        let key = format!(
            "{} {} {} {:?} {:?} {} {:?} {} {}",
            r.window_start_s, r.reporter, r.instance, r.component, r.side, r.route, r.peer, r.status, r.error
        );
        (
            key,
            (r.duration.count(), r.duration.buckets().to_vec(), r.response_bytes),
        )
    });
    rows.collect()
}

async fn check(batches: Vec<Batch>, picks: [usize; 9]) {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 3600);
    let store = Store::open(options(dir.path()), clock.clone()).unwrap();
    for batch in &batches {
        store.append(batch.clone()).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    let windows = windows_of(&batches);
    let memory = Memory(&windows);
    check_answers(&store, &memory, picks).await;

    // The same again with older hours sealed, then all, then with only what is on disk.
    for now in [T0 + 600, T0 + 3600 + 600] {
        clock.set(now);
        store.seal().await.unwrap();
        check_answers(&store, &memory, picks).await;
    }
    let stats = store.stats();
    assert_eq!((stats.seal_failures, stats.sealed_hours), (0, stats.hours));
    store.close();
    std::fs::remove_file(dir.path().join("hot.duckdb")).unwrap();
    let store = open(dir.path());
    store.flush_applied().await.unwrap();
    check_answers(&store, &memory, picks).await;
}

async fn check_answers(store: &Store, memory: &Memory<'_>, picks: [usize; 9]) {
    let profiles = memory.0.iter().flat_map(|w| &w.profiles);
    let expected_total = profiles.map(|p| p.total()).sum::<i64>();
    let everything = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
    assert_eq!(
        store.ask(everything).await.unwrap().value,
        expected_total,
        "no value is lost or invented"
    );

    let [service, version, component, side, route, complete, step, range, source] = picks;
    let who = WorkloadFilter {
        service: [None, Some("checkout"), Some("cart")][service].map(str::to_owned),
        version: [None, Some("v1"), Some("v2")][version].map(str::to_owned),
        ..WorkloadFilter::default()
    };
    let component = [None, Some(Component::Application), Some(Component::Proxy)][component];
    let side = [None, Some(Side::Server), Some(Side::Client)][side];
    let route = [None, Some("/pay"), Some("/cart/{id}"), Some(NO_LABEL)][route].map(str::to_owned);
    let range = [
        Range::ALL,
        Range {
            from_unix_s: T0 - 3600,
            to_unix_s: T0,
        },
        Range {
            from_unix_s: T0 - 10,
            to_unix_s: T0 + 1,
        },
    ][range];
    let only_complete = complete == 1;
    let step = [Step::Range, Step::Window, Step::Seconds(900)][step];
    let query = StackQuery {
        component,
        side,
        route: route.clone(),
        only_complete,
        step,
        ..StackQuery::new(who.clone(), ProfileType::CPU, range)
    };
    assert_eq!(
        ask_stacks(store, query.clone()).await,
        memory.stacks(&query),
        "{query:?}"
    );

    let query = RequestQuery {
        component,
        side,
        route,
        dividing: component.filter(|_| only_complete).map(Dividing::cpu),
        step,
        source: (source > 0).then(|| release("frontend", ["v1", "v2"][source - 1])),
        by_instance: step == Step::Window,
        ..RequestQuery::new(who.clone(), range)
    };
    assert_eq!(
        ask_requests(store, query.clone()).await,
        memory.requests(&query),
        "{query:?}"
    );

    // Totals add up to the stacks of the same windows.
    let totals = TotalsQuery {
        who: who.clone(),
        component,
        profile_type: ProfileType::CPU.into(),
        only_complete,
        step,
        by_route: true,
        range,
    };
    let mut by_start: BTreeMap<i64, (i64, u64)> = BTreeMap::new();
    for row in store.ask(totals).await.unwrap() {
        let sum = by_start.entry(row.window_start_s).or_default();
        *sum = (sum.0 + row.value, sum.1 + row.samples);
    }
    let stacks = StackQuery {
        component,
        only_complete,
        step,
        ..StackQuery::new(who, ProfileType::CPU, range)
    };
    let mut expected: BTreeMap<i64, (i64, u64)> = BTreeMap::new();
    for ((start, _), (value, samples)) in memory.stacks(&stacks) {
        let sum = expected.entry(start).or_default();
        *sum = (sum.0 + value, sum.1 + samples);
    }
    assert_eq!(by_start, expected);

    check_reports(store, memory, &stacks.who, step, range).await;
    check_side(store, memory, range).await;
}

/// Windows of each release; those of its instances that start at the same second count as one.
async fn check_reports(store: &Store, memory: &Memory<'_>, who: &WorkloadFilter, step: Step, range: Range) {
    #[derive(Debug, Default, PartialEq)]
    struct Counted {
        windows: BTreeSet<i64>,
        requests: BTreeSet<i64>,
        complete: [BTreeSet<i64>; 2],
    }
    let mut expected: BTreeMap<(i64, Release), Counted> = BTreeMap::new();
    for w in memory.0.iter().filter(|w| selected(who, &w.workload)) {
        if !(range.from_unix_s..range.to_unix_s).contains(&w.start_unix_s) {
            continue;
        }
        let counted = expected.entry((start_of(step, w), w.workload.release())).or_default();
        counted.windows.insert(w.start_unix_s);
        counted.requests.extend(w.has_requests.then_some(w.start_unix_s));
        for (component, complete) in COMPONENTS.into_iter().zip(&mut counted.complete) {
            if w.component == component && w.has_profiles && memory.complete(w, component, range) {
                complete.insert(w.start_unix_s);
            }
        }
    }
    let query = ReportQuery {
        who: who.clone(),
        step,
        range,
    };
    let rows = store.ask(query).await.unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, ((start, release), counted)) in rows.iter().zip(expected) {
        let [application, proxy] = counted.complete.map(|complete| complete.len() as u64);
        let windows = counted.windows.len() as u64;
        assert_eq!((row.window_start_s, &row.release), (start, &release));
        assert_eq!(
            (row.windows, row.requests_s),
            (windows, 10 * counted.requests.len() as u64)
        );
        assert_eq!((row.application.windows, row.proxy.windows), (application, proxy));
        assert_eq!(
            (row.application.covered_s, row.proxy.covered_s),
            (10 * application, 10 * proxy)
        );
    }
}

/// One side of a comparison has the stacks and requests of exactly the complete windows.
async fn check_side(store: &Store, memory: &Memory<'_>, range: Range) {
    for component in COMPONENTS {
        let query = SideQuery {
            component,
            ..SideQuery::new(release("checkout", "v1"), range)
        };
        let who = WorkloadFilter::release(&query.release);
        let data = store.side_data(query).await.unwrap();
        let in_range = |w: &&WorkloadWindow| {
            selected(&who, &w.workload) && (range.from_unix_s..range.to_unix_s).contains(&w.start_unix_s)
        };
        let complete = |w: &&WorkloadWindow| in_range(w) && memory.complete(w, component, range);
        let profiled = |w: &&WorkloadWindow| complete(w) && w.component == component && w.has_profiles;
        let profiles: BTreeSet<(i64, &Workload)> = memory
            .0
            .iter()
            .filter(profiled)
            .map(|w| (w.start_unix_s, &w.workload))
            .collect();
        let starts: BTreeSet<i64> = profiles.iter().map(|c| c.0).collect();
        assert_eq!(
            data.windows.iter().map(|w| w.start_unix_s).collect::<BTreeSet<_>>(),
            starts
        );
        assert_eq!(data.coverage.covered_s, 10 * starts.len() as u64);
        for window in &data.windows {
            let instances = profiles.iter().filter(|c| c.0 == window.start_unix_s).count();
            assert_eq!(window.instance_seconds, 10.0 * instances as f64);
            let mut value = 0;
            let mut requests = 0;
            for w in memory
                .0
                .iter()
                .filter(complete)
                .filter(|w| w.start_unix_s == window.start_unix_s)
            {
                if w.component == component {
                    for p in &w.profiles {
                        let counted = |s: &&emberline_model::Sample| {
                            p.label_sets[s.label_set as usize].side != Some(Side::Client)
                        };
                        value += p.samples.iter().filter(counted).map(|s| s.value).sum::<i64>();
                    }
                }
                let reporter = match component {
                    Component::Proxy => Component::Proxy,
                    Component::Application if w.component == Component::Application => w.component,
                    Component::Application => {
                        memory.reporter(w, Side::Server, range, Some(memory.joins_instances(w, range)))
                    }
                };
                if w.component == reporter {
                    requests += w
                        .requests
                        .iter()
                        .filter(|r| r.side == Side::Server)
                        .map(|r| r.duration.count())
                        .sum::<u64>();
                }
            }
            assert_eq!(window.stacks.iter().map(|s| s.1).sum::<i64>(), value);
            assert_eq!(window.requests, requests as f64);
            assert!(window.stacks.iter().all(|s| !data.resolved.frames(s.0).is_empty()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn answers_equal_an_independent_computation(
        batches in prop::collection::vec(prop::collection::vec(a_window(), 1..6), 1..8),
        picks in (0usize..3, 0usize..3, 0usize..3, 0usize..3, 0usize..4, 0usize..2, 0usize..3, 0usize..3, 0usize..3),
    ) {
        let batches = batches.into_iter().enumerate().map(|(n, windows)| batch(n as u64 + 1, windows)).collect();
        let picks = picks.into();
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(check(batches, picks));
    }
}

//! What sealed profiles cost on disk: generates profiles of a stated shape, seals them, and prints bytes per sample.
//!
//! `cargo run --release -p emberline-storage --example seal -- [profiles] [series] [samples] [stacks] [functions] [depth]`
//!
//! The defaults are 10,000 profiles of 362 series in 30 minutes, 148 samples each, 85,000 distinct stacks of a depth
//! around 40 over 19,000 functions. The shape beside these numbers: 36 services that share a fifth of their stacks, each
//! in two releases with nine tenths of the stacks in common; a stack shares its root side with an earlier one; stacks and
//! functions are picked with weights 1/rank; a value is the number of hits times a period of 10 ms; twelve routes.
#![allow(clippy::unwrap_used, reason = "a program for one figure fails by panicking")]

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use emberline_model::{
    Batch, BatchId, Component, LabelSet, Location, Mapping, Profile, Sample, Side, Signal, Workload, WorkloadWindow,
    time::Clock,
};
use emberline_storage::{Options, Range, StackQuery, Store, WorkloadFilter};

/// A whole hour: 2026-11-18T12:00:00Z.
const START: i64 = 1_795_003_200;
const SERVICES: usize = 36;
const ROUTES: usize = 12;
const PERIOD_NS: i64 = 10_000_000;

#[derive(Debug)]
struct At(i64);

impl Clock for At {
    fn now_unix_ns(&self) -> i64 {
        self.0 * 1_000_000_000
    }
}

/// Xorshift: the same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Picks 0..n with weights 1/rank.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize) -> Zipf {
        let mut sum = 0.0;
        Zipf(
            (1..=n)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn pick(&self, random: &mut Random) -> usize {
        let total = self.0.last().copied().unwrap_or(1.0);
        let at = random.unit() * total;
        self.0.partition_point(|&sum| sum < at).min(self.0.len() - 1)
    }
}

/// Stacks, leaf first, as numbers of functions.
fn stacks(random: &mut Random, count: usize, functions: usize, depth: usize) -> Vec<Vec<u32>> {
    let popular = Zipf::new(functions);
    // The most frequent function is not the first of its file.
    let place: Vec<u32> = {
        let mut place: Vec<u32> = (0..functions as u32).collect();
        (1..functions).for_each(|at| place.swap(at, random.below(at + 1)));
        place
    };
    let mut all: Vec<Vec<u32>> = Vec::with_capacity(count);
    while all.len() < count {
        let length = depth * 3 / 4 + random.below(depth / 2 + 1);
        // Root first: what an earlier stack began with, then on its own for about ten frames.
        let mut stack: Vec<u32> = match all.len() {
            0 => Vec::new(),
            n => {
                let earlier = &all[random.below(n)];
                let shared = length.saturating_sub(5 + random.below(11)).min(earlier.len());
                earlier[..shared].to_vec()
            }
        };
        while stack.len() < length {
            stack.push(place[popular.pick(random)]);
        }
        all.push(stack);
    }
    all.iter_mut().for_each(|stack| stack.reverse());
    all
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<usize>().unwrap());
    let mut next = |default: usize| numbers.next().unwrap_or(default);
    let (profiles, series, samples) = (next(10_000), next(362), next(148));
    let (stack_count, functions, depth) = (next(85_000), next(19_000), next(40));

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let all = stacks(&mut random, stack_count, functions, depth);
    let per_service = stack_count * 4 / 5 / SERVICES;
    let shared = stack_count - per_service * SERVICES;
    let popular = Zipf::new(per_service + shared / 4);

    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    options.min_free_mb = 0;
    let store = Store::open(options, Arc::new(At(START + 3600 + 600))).unwrap();
    let windows = profiles.div_ceil(series);
    let step = (1800 / windows as i64).max(10) / 10 * 10;
    let mut rows = 0u64;
    let mut hits = 0u64;
    let mut made = 0;
    for window in 0..windows {
        let count = series.min(profiles - made);
        let of_window: Vec<WorkloadWindow> = (0..count)
            .map(|number| {
                let service = number % SERVICES;
                let release = number / SERVICES % 2;
                let mut picked: BTreeMap<(u32, u32), u64> = BTreeMap::new();
                while picked.len() < samples {
                    let rank = popular.pick(&mut random);
                    // A permutation of its own for each service; a release differs in every tenth stack.
                    let moved = if release == 1 && rank % 10 == 9 { rank / 2 } else { rank };
                    let at = (moved * 7919 + service * 31) % (per_service + shared / 4);
                    let stack = if at < per_service {
                        service * per_service + at
                    } else {
                        SERVICES * per_service + (at - per_service) * 4 + service % 4
                    };
                    let route = if stack % 4 == 0 {
                        random.below(ROUTES)
                    } else {
                        stack % ROUTES
                    };
                    *picked
                        .entry((stack.min(stack_count - 1) as u32, route as u32))
                        .or_default() += 1;
                }
                rows += picked.len() as u64;
                hits += picked.values().sum::<u64>();
                profile_window(START + window as i64 * step, number, service, release, &picked, &all)
            })
            .collect();
        made += count;
        let batch = Batch {
            id: Some(BatchId {
                sender: "seal".into(),
                epoch: 1,
                sequence: window as u64 + 1,
                signal: Signal::Profiles,
            }),
            received_unix_ms: START * 1000,
            windows: of_window,
        };
        store.append(batch).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    let query = StackQuery::new(WorkloadFilter::default(), emberline_model::ProfileType::CPU, Range::ALL);
    let before = store.stacks(query.clone()).await.unwrap();
    let started = Instant::now();
    store.seal().await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let stats = store.stats();
    assert_eq!((stats.seal_failures, stats.hours), (0, stats.sealed_hours));
    assert_eq!(store.stacks(query).await.unwrap(), before, "no answer changes");

    let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
    for entry in std::fs::read_dir(dir.path().join("parts")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = name.split('-').next().unwrap_or_default().to_owned();
        *by_kind.entry(kind).or_default() += entry.metadata().unwrap().len();
    }
    println!(
        "{made} profiles, {series} series, {rows} samples (rows), {hits} hits, {} stacks seen",
        before.rows.len()
    );
    for (kind, bytes) in &by_kind {
        println!(
            "{kind:9} {bytes:>10} bytes  {:.3} per sample",
            *bytes as f64 / rows as f64
        );
    }
    let samples_bytes = by_kind.get("samples").copied().unwrap_or(0);
    println!(
        "sealed in {seconds:.2} s; hot store {} bytes, journal {} bytes",
        stats.hot_bytes, stats.journal_bytes
    );
    println!("store_bytes_per_sample {:.3}", stats.sealed_bytes as f64 / rows as f64);
    println!("store_bytes_per_row {:.3}", samples_bytes as f64 / rows as f64);
}

fn profile_window(
    start_unix_s: i64,
    number: usize,
    service: usize,
    release: usize,
    picked: &BTreeMap<(u32, u32), u64>,
    all: &[Vec<u32>],
) -> WorkloadWindow {
    let mut profile = Profile::empty_cpu(start_unix_s * 1_000_000_000, 10_000_000_000);
    profile.mappings = vec![Mapping {
        build_id: format!("{service:08x}{release:08x}"),
        path: format!("/opt/mesh/service-{service}"),
    }];
    profile.label_sets = (0..ROUTES)
        .map(|route| LabelSet {
            side: Some(Side::Server),
            route: format!("/route/{route}/{{id}}"),
            peer: None,
        })
        .collect();
    let mut known: BTreeMap<u32, u32> = BTreeMap::new();
    for (&(stack, route), &count) in picked {
        let locations = all[stack as usize]
            .iter()
            .map(|&function| {
                *known.entry(function).or_insert_with(|| {
                    profile.locations.push(Location::Named {
                        frames: vec![emberline_model::Frame {
                            function: format!("service::module_{}::function_{function}", function % 97),
                            file: format!("src/module_{}.rs", function % 97),
                            line: function % 900,
                        }],
                    });
                    profile.locations.len() as u32 - 1
                })
            })
            .collect();
        profile.stacks.push(locations);
        profile.samples.push(Sample {
            stack: profile.stacks.len() as u32 - 1,
            label_set: route,
            value: count as i64 * PERIOD_NS,
            count,
        });
    }
    WorkloadWindow {
        workload: Workload {
            namespace: "mesh".into(),
            service: format!("service-{service}"),
            version: format!("v{release}"),
            instance: format!("instance-{number}"),
        },
        component: Component::Application,
        start_unix_s,
        length_s: 10,
        has_requests: false,
        has_profiles: true,
        requests: Vec::new(),
        profiles: vec![profile],
    }
}

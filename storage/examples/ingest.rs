//! Measures the store on this machine: acknowledgement, rows made visible, questions, start. One JSON object per line.
//!
//! `cargo run --release -p emberline-storage --example ingest -- [batches] [data dir]`

use std::{collections::HashMap, sync::Arc, time::Instant};

use emberline_model::{
    Batch, BatchId, Component, Histogram, LabelSet, Location, Mapping, Profile, ProfileType, Release, RequestSeries,
    Sample, Side, Signal, Workload, WorkloadWindow,
    time::{Clock, SystemClock},
};
use emberline_storage::{Options, Range, RequestQuery, SideQuery, StackQuery, Store, WorkloadFilter};

/// Stacks per release, rows per window: a service with two busy cores.
const STACKS: u64 = 20_000;
const ROWS: u64 = 870;

fn batch(sequence: u64, start: i64) -> Batch {
    let mut random = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut profile = Profile::empty_cpu(start * 1_000_000_000, 10_000_000_000);
    profile.mappings = vec![Mapping {
        build_id: "00112233445566778899".into(),
        path: "/opt/shop/checkout".into(),
    }];
    profile.label_sets = (0..12)
        .map(|route| LabelSet {
            side: Some(Side::Server),
            route: format!("/route/{route}"),
            peer: None,
        })
        .collect();
    let (mut stacks, mut locations) = (HashMap::new(), HashMap::new());
    for _ in 0..ROWS {
        // Squared: some stacks are common, most are rare.
        let pick = next(1 << 20);
        let stack = pick * pick / (1 << 20) * STACKS / (1 << 20);
        let index = *stacks.entry(stack).or_insert_with(|| {
            let frames = (0..20 + stack % 35).map(|at| {
                // Callers are shared, the two innermost frames are the stack's own.
                let offset = 16
                    * if at > 1 {
                        (stack / 64 + at) % 4000
                    } else {
                        stack * 2 + at + 8000
                    };
                *locations.entry(offset).or_insert_with(|| {
                    profile.locations.push(Location::Native { mapping: 0, offset });
                    (profile.locations.len() - 1) as u32
                })
            });
            let frames = frames.collect();
            profile.stacks.push(frames);
            (profile.stacks.len() - 1) as u32
        });
        profile.samples.push(Sample {
            stack: index,
            label_set: next(12) as u32,
            value: 10_101_010,
            count: 1,
        });
    }
    let requests = (0..12)
        .map(|route| {
            let mut duration = Histogram::new();
            (0..25).for_each(|_| duration.record_ns(1_000_000 + next(20_000_000)));
            RequestSeries {
                side: Side::Server,
                route: format!("/route/{route}"),
                method: "GET".into(),
                peer: Some(Release {
                    namespace: "demo".into(),
                    service: "frontend".into(),
                    version: "v1".into(),
                }),
                protocol: "http/1.1".into(),
                status: 200,
                error: false,
                duration,
                request_bytes: 100,
                response_bytes: 1000,
            }
        })
        .collect();
    Batch {
        id: Some(BatchId {
            sender: format!("instance {}", sequence % 8),
            epoch: 1,
            sequence: sequence / 8 + 1,
            signal: Signal::Profiles,
        }),
        received_unix_ms: start * 1000,
        windows: vec![WorkloadWindow {
            workload: Workload {
                namespace: "demo".into(),
                service: "checkout".into(),
                version: "v1".into(),
                instance: (sequence % 8).to_string(),
            },
            component: Component::Application,
            start_unix_s: start,
            length_s: 10,
            has_requests: true,
            has_profiles: true,
            requests,
            profiles: vec![profile],
        }],
    }
}

fn cpu_seconds() -> f64 {
    // User and system ticks are the 14th and 15th field; the command's name may hold spaces, so count from its end.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{{\"name\": \"{name}\", \"value\": {value:.3}, \"unit\": \"{unit}\"}}");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let batches: u64 = arguments.next().map_or(Ok(1000), |n| n.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = arguments
        .next()
        .map_or_else(|| temporary.path().to_owned(), std::path::PathBuf::from);
    let clock = Arc::new(SystemClock);
    let newest = clock.now_unix_s() / 10 * 10;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Store::open(Options::new(&dir), clock.clone())?;
        let made: Vec<Batch> = (0..batches)
            .map(|n| batch(n, newest - ((batches - 1 - n) / 8) as i64 * 10))
            .collect();
        let rows = batches as f64 * ROWS as f64;
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut waits = Vec::new();
        for chunk in made.chunks(8) {
            let asked = Instant::now();
            let appended: Vec<_> = chunk.iter().map(|b| store.append(b.clone())).collect();
            for appended in appended {
                appended.await?;
                waits.push(asked.elapsed().as_secs_f64() * 1e3);
            }
        }
        waits.sort_by(f64::total_cmp);
        report("ack_ms_p50", waits[waits.len() / 2], "ms");
        report("ack_ms_p99", waits[waits.len() * 99 / 100], "ms");
        report(
            "acknowledged_batches_per_second",
            batches as f64 / started.elapsed().as_secs_f64(),
            "1/s",
        );
        store.flush_applied().await?;
        report(
            "visible_rows_per_second",
            rows / started.elapsed().as_secs_f64(),
            "rows/s",
        );
        report(
            "visible_rows_per_cpu_second",
            rows / (cpu_seconds() - cpu),
            "rows/cpu-s",
        );

        let who = WorkloadFilter::service("checkout");
        let release = Release {
            namespace: "demo".into(),
            service: "checkout".into(),
            version: "v1".into(),
        };
        for round in ["first", "again"] {
            let asked = Instant::now();
            let stacks = store
                .stacks(StackQuery::new(who.clone(), ProfileType::CPU, Range::ALL))
                .await?;
            report(&format!("stacks_ms_{round}"), asked.elapsed().as_secs_f64() * 1e3, "ms");
            let ids: Vec<u64> = stacks.rows.iter().map(|r| r.stack_id).collect();
            let asked = Instant::now();
            store.resolve(&ids).await?;
            report(
                &format!("resolve_ms_{round}"),
                asked.elapsed().as_secs_f64() * 1e3,
                "ms",
            );
            report("resolved_stacks", ids.len() as f64, "stacks");
            let asked = Instant::now();
            store.requests(RequestQuery::new(who.clone(), Range::ALL)).await?;
            report(
                &format!("requests_ms_{round}"),
                asked.elapsed().as_secs_f64() * 1e3,
                "ms",
            );
            let asked = Instant::now();
            store.side_data(SideQuery::new(release.clone(), Range::ALL)).await?;
            report(
                &format!("side_data_ms_{round}"),
                asked.elapsed().as_secs_f64() * 1e3,
                "ms",
            );
        }
        let stats = store.stats();
        report("journal_bytes_per_row", stats.journal_bytes as f64 / rows, "bytes");
        report("hot_bytes_per_row", stats.hot_bytes as f64 / rows, "bytes");
        let asked = Instant::now();
        store.close();
        report("close_ms", asked.elapsed().as_secs_f64() * 1e3, "ms");
        drop(store);

        let asked = Instant::now();
        let store = Store::open(Options::new(&dir), clock.clone())?;
        store.flush_applied().await?;
        report("open_ms", asked.elapsed().as_secs_f64() * 1e3, "ms");
        store.close();
        std::fs::remove_file(dir.join("hot.duckdb"))?;
        let asked = Instant::now();
        let store = Store::open(Options::new(&dir), clock)?;
        report("open_without_hot_ms", asked.elapsed().as_secs_f64() * 1e3, "ms");
        store.flush_applied().await?;
        report(
            "rebuild_rows_per_second",
            rows / asked.elapsed().as_secs_f64(),
            "rows/s",
        );
        store.close();
        Ok(())
    })
}

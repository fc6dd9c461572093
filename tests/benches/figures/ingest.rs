//! What taking in a profile costs: OTLP protobuf through the collector's own router into a store on disk, until questions
//! see its rows. The parts of it are measured apart, on the same profiles: decoding, computing identifiers (interning),
//! journal and tables. The rest is limits and HTTP.

use std::{collections::HashSet, sync::Arc};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Body};
use emberline_collector::{Collector, CollectorConfig};
use emberline_model::{Batch, Location, WorkloadWindow, id, otlp};
use emberline_storage::{Options, Store};
use emberline_tests::{
    bulk::HandClock,
    generator::{
        Random,
        mesh::{Build, Shape},
        pinned::{self, Pinned},
    },
};
use prost::Message;
use tokio::{runtime::Runtime, task::JoinSet};
use tower::ServiceExt;

use crate::{
    Figure,
    cost::{Cost, Watch},
    mesh_store::runtime,
};

const COMMAND: &str = "make bench NAME=ingest";
/// Profiles that make the dictionary known, and profiles that are measured.
const FIRST: usize = 1_000;
const MEASURED: usize = 2_000;
/// Requests under way at the same time, as from as many senders.
const AT_ONCE: usize = 16;

/// CPU-ms per profile.
struct Measured {
    first: f64,
    whole: Cost,
    decode: f64,
    intern: f64,
    store: f64,
    samples: f64,
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let runtime = runtime()?;
    let shape = Pinned::default();
    let named: Vec<WorkloadWindow> = shape
        .batches()
        .flat_map(|batch| batch.windows)
        .take(FIRST + MEASURED)
        .collect();
    println!("named: as other profilers send: {shape}");
    let named = measure(&runtime, &named)?;
    let builds: Vec<Build> = (0..20)
        .map(|n| Build::new(&format!("small-{n}"), 1, &Shape::SMALL))
        .collect();
    let mut random = Random::new(1);
    let native: Vec<WorkloadWindow> = (0..FIRST + MEASURED)
        .map(|n| {
            let start_s = pinned::START + (n / 200) as i64 * 10;
            builds[n % builds.len()].window(&mut random, n / builds.len() % 10, start_s)
        })
        .collect();
    println!("native: as Emberline's sampler sends: {}", Shape::SMALL);
    let native = measure(&runtime, &native)?;
    for (what, m) in [("named", &named), ("native", &native)] {
        let whole = m.whole.cpu_ms;
        println!(
            "{what}: {whole:.3} CPU-ms per profile of {:.0} samples ({:.3} while its stacks are new): decode {:.3}, \
             intern {:.3}, store {:.3}, limits and HTTP {:.3}",
            m.samples,
            m.first,
            m.decode,
            m.intern,
            m.store,
            whole - m.decode - m.intern - m.store
        );
    }
    let n = MEASURED;
    let per_second = |m: &Measured| 1e3 / m.whole.cpu_ms;
    Ok(vec![
        Figure::plain("ingest_cpu_ms_per_profile", named.whole.cpu_ms, "CPU-ms", n, COMMAND),
        Figure::plain("ingest_decode_cpu_ms", named.decode, "CPU-ms", n, COMMAND),
        Figure::plain("ingest_intern_cpu_ms", named.intern, "CPU-ms", n, COMMAND),
        Figure::plain("ingest_store_cpu_ms", named.store, "CPU-ms", n, COMMAND),
        Figure::plain(
            "ingest_profiles_per_cpu_second",
            per_second(&named),
            "profiles",
            n,
            COMMAND,
        ),
        Figure::plain(
            "ingest_samples_per_cpu_second",
            per_second(&named) * named.samples,
            "samples",
            n,
            COMMAND,
        ),
        Figure::plain(
            "ingest_native_cpu_ms_per_profile",
            native.whole.cpu_ms,
            "CPU-ms",
            n,
            COMMAND,
        ),
    ])
}

fn measure(runtime: &Runtime, windows: &[WorkloadWindow]) -> Result<Measured> {
    let payloads: Vec<Vec<u8>> = windows
        .iter()
        .map(|window| otlp::encode_profiles(window).encode_to_vec())
        .collect();
    let count = MEASURED as f64;
    let samples: usize = windows[FIRST..]
        .iter()
        .flat_map(|w| &w.profiles)
        .map(|p| p.samples.len())
        .sum();
    let bytes: usize = payloads[FIRST..].iter().map(Vec::len).sum();
    println!("  {:.0} bytes of OTLP per profile", bytes as f64 / count);
    let clock = Arc::new(HandClock::at(pinned::START + 1800));

    let dir = tempfile::tempdir()?;
    let store = Store::open(Options::new(dir.path()), clock.clone())?;
    let collector = Collector::new(CollectorConfig::new(dir.path()), store.clone(), clock.clone())?;
    let router = collector.http_router();
    let mut watch = Watch::start();
    runtime.block_on(post_all(&router, &payloads[..FIRST]))?;
    runtime.block_on(store.flush_applied())?;
    let first = watch.lap().cpu_ms / FIRST as f64;
    runtime.block_on(post_all(&router, &payloads[FIRST..]))?;
    runtime.block_on(store.flush_applied())?;
    let whole = watch.lap();
    let expected: u64 = windows
        .iter()
        .flat_map(|w| &w.profiles)
        .map(|p| p.samples.len() as u64)
        .sum();
    let stored = store.stats().sample_rows;
    ensure!(stored == expected, "{expected} samples were sent and {stored} stored");
    store.close();

    drop(collector);

    let (mut decode, mut intern) = (0.0, 0.0);
    let mut seen = HashSet::new();
    for payload in &payloads[FIRST..] {
        let mut watch = Watch::start();
        let decoded = otlp::decode_profiles(&otlp::read_profiles(payload)?)?;
        decode += watch.lap().cpu_ms / count;
        decoded
            .windows
            .iter()
            .for_each(|window| look_up_identifiers(window, &mut seen));
        intern += watch.lap().cpu_ms / count;
    }

    let dir = tempfile::tempdir()?;
    let store = Store::open(Options::new(dir.path()), clock)?;
    runtime.block_on(append_all(&store, windows[..FIRST].to_vec()))?;
    let rest = windows[FIRST..].to_vec();
    let mut watch = Watch::start();
    runtime.block_on(append_all(&store, rest))?;
    let store_and_intern = watch.lap().cpu_ms / count;
    store.close();
    Ok(Measured {
        first,
        whole: Cost {
            cpu_ms: whole.cpu_ms / count,
            wall_ms: whole.wall_ms / count,
        },
        decode,
        intern,
        store: (store_and_intern - intern).max(0.0),
        samples: samples as f64 / count,
    })
}

async fn post_all(router: &Router, payloads: &[Vec<u8>]) -> Result<()> {
    for chunk in payloads.chunks(AT_ONCE) {
        let mut asked = JoinSet::new();
        for payload in chunk {
            let request = http::Request::post("/v1development/profiles")
                .header("content-type", "application/x-protobuf")
                .body(Body::from(payload.clone()))?;
            asked.spawn(router.clone().oneshot(request));
        }
        while let Some(answer) = asked.join_next().await {
            let status = answer?.context("the router does not answer")?.status();
            ensure!(status.is_success(), "a profile was refused: {status}");
        }
    }
    Ok(())
}

async fn append_all(store: &Store, windows: Vec<WorkloadWindow>) -> Result<()> {
    let mut on_their_way = Vec::new();
    for window in windows {
        on_their_way.push(store.append(Batch {
            id: None,
            received_unix_ms: window.start_unix_s * 1000,
            windows: vec![window],
        }));
        if on_their_way.len() == AT_ONCE {
            for appended in on_their_way.drain(..) {
                appended.await?;
            }
        }
    }
    for appended in on_their_way {
        appended.await?;
    }
    Ok(store.flush_applied().await?)
}

/// What the store does with every profile before it knows what is new: identifiers of all locations, label sets and stacks,
/// each looked up.
fn look_up_identifiers(window: &WorkloadWindow, seen: &mut HashSet<u64>) {
    for profile in &window.profiles {
        let locations: Vec<u64> = profile
            .locations
            .iter()
            .map(|location| {
                let build = match location {
                    Location::Native { mapping, .. } => Some(profile.mappings[*mapping as usize].key()),
                    Location::Named { .. } => None,
                };
                id::location_id(location, build.as_deref().unwrap_or_default())
            })
            .collect();
        seen.extend(&locations);
        seen.extend(profile.label_sets.iter().map(id::label_set_id));
        for stack in &profile.stacks {
            let ids: Vec<u64> = stack.iter().map(|&location| locations[location as usize]).collect();
            seen.insert(id::stack_id(&ids));
        }
    }
}

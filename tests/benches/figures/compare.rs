//! What the Compare page costs over hours of two releases of a busy service: both sides from the store, named, and the
//! comparison with its function table and its tree; and how much memory that takes beside the store's own.
//!
//! Guarantees: totals are compared with what the generator put in, at every range.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use emberline_analysis::compare::{CompareOptions, Comparison, compare};
use emberline_model::{ProfileType, Release, comparison::Per};
use emberline_storage::{Options, Range, SideQuery, Store};
use emberline_tests::{
    bulk::{self, HandClock, Loaded, Phase, Plan},
    generator::{
        mesh::{NAMESPACE, Shape},
        pinned,
    },
};

use crate::{
    Figure,
    cost::{Cost, Watch, memory_mb},
    mesh_store::{SERVICE, runtime},
    setting,
};

const COMMAND: &str = "make bench NAME=compare";
const ROUNDS: usize = 3;
/// What the page shows of a tree.
const LIMIT: usize = 8192;
const HOUR_S: i64 = 3600;

/// Each release for so many hours; `EMBERLINE_BENCH_HOURS` sets another number.
fn hours() -> i64 {
    setting("EMBERLINE_BENCH_HOURS").unwrap_or(6).max(1)
}

async fn ask(store: &Store, sides: [(u32, Range); 2]) -> Result<Comparison> {
    let mut answers = Vec::new();
    for (version, range) in sides {
        let release = Release {
            namespace: NAMESPACE.to_owned(),
            service: SERVICE.to_owned(),
            version: format!("v{version}"),
        };
        answers.push(store.side_data(SideQuery::new(release, range)).await?);
    }
    let cpu = ProfileType::cpu();
    let options = CompareOptions {
        profile_type: &cpu,
        whole_service: false,
        per: Per::Request,
        route: None,
        own: &[],
        tree_limit: Some(LIMIT),
    };
    Ok(compare(&answers[0], &answers[1], options))
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let hours = hours();
    let phase = |version| Phase {
        version,
        hours,
        instances: 2,
        every_s: 10,
    };
    let plan = Plan {
        service: SERVICE.to_owned(),
        shape: Shape::BUSY,
        phases: vec![phase(1), phase(2)],
        neighbours: 0,
        requests: true,
        start_s: pinned::START - 2 * hours * HOUR_S,
    };
    println!("{plan}");
    let folder = tempfile::tempdir_in(emberline_tests::binaries())?;
    let clock = Arc::new(HandClock::at(plan.start_s));
    let store = Store::open(Options::new(folder.path()), clock.clone()).context("the store does not open")?;
    let runtime = runtime()?;
    let loaded = runtime.block_on(bulk::load(&store, &clock, &plan, |_| {}))?;
    let release_at = plan.start_s + hours * HOUR_S;
    let mut figures = Vec::new();
    for (length_s, cpu, memory) in [
        (900, "compare_15m_cpu_ms", "compare_15m_rss_mb"),
        (HOUR_S, "compare_1h_cpu_ms", "compare_1h_rss_mb"),
        (hours * HOUR_S, "compare_hours_cpu_ms", "compare_hours_rss_mb"),
    ] {
        let range = |to_unix_s| Range {
            from_unix_s: to_unix_s - length_s,
            to_unix_s,
        };
        let sides = [(1, range(release_at)), (2, range(release_at + hours * HOUR_S))];
        let (cost, peak_mb, comparison) = measure(&store, &runtime, sides)?;
        if length_s >= HOUR_S {
            check(&loaded, sides, &comparison)?;
        }
        println!(
            "{} min of each: {cost}, resident at most {peak_mb:.0} MiB, {} windows, {} functions",
            length_s / 60,
            comparison.baseline.windows + comparison.candidate.windows,
            comparison.functions.len(),
        );
        figures.push(Figure::plain(cpu, cost.cpu_ms, "CPU-ms", ROUNDS, COMMAND));
        figures.push(Figure::plain(memory, peak_mb, "MiB resident at most", ROUNDS, COMMAND));
    }
    store.close();
    Ok(figures)
}

fn measure(
    store: &Store,
    runtime: &tokio::runtime::Runtime,
    sides: [(u32, Range); 2],
) -> Result<(Cost, f64, Comparison)> {
    // Names come once; the most memory from here on.
    runtime.block_on(ask(store, sides))?;
    std::fs::write("/proc/self/clear_refs", "5").context("the kernel does not forget the most memory so far")?;
    let mut least: Option<(Cost, Comparison)> = None;
    for _ in 0..ROUNDS {
        let mut watch = Watch::start();
        let comparison = runtime.block_on(ask(store, sides))?;
        let cost = watch.lap();
        if least.as_ref().is_none_or(|least| cost.cpu_ms < least.0.cpu_ms) {
            least = Some((cost, comparison));
        }
    }
    let (cost, comparison) = least.context("not asked")?;
    Ok((cost, memory_mb(std::process::id(), "VmHWM"), comparison))
}

fn check(loaded: &Loaded, sides: [(u32, Range); 2], comparison: &Comparison) -> Result<()> {
    let told = [&comparison.baseline, &comparison.candidate];
    for ((version, range), told) in sides.into_iter().zip(told) {
        let (_, value) = loaded.sum(range.from_unix_s, range.to_unix_s, Some(version));
        let (windows, requests) = ((range.to_unix_s - range.from_unix_s) / 10, told.requests);
        ensure!(
            told.total == value && told.windows == windows.unsigned_abs() && requests > 0,
            "v{version}: {value} ns were put in, the comparison says {} of {} windows and {requests} requests",
            told.total,
            told.windows,
        );
    }
    Ok(())
}

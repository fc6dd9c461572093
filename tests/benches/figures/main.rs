//! The figures that `docs/figures.md` states. `make bench` runs all, `make bench NAME=proxy` one; each prints what it measured and
//! replaces its entries in `target/figures.json`: `[{name, value, unit, peer, ratio, n, command}]`.
//!
//! Guarantees: what is compared with a peer runs beside it, interleaved, in one run; the figures are CPU time per unit
//! of work, because wall-clock time on a shared machine measures the neighbours.

mod answers;
mod build;
mod campaign;
mod clients;
mod compare;
mod cost;
mod demo;
mod hostile;
mod hostile_proxy;
mod ingest;
mod languages;
mod load;
mod mesh_store;
mod overload;
mod peers;
mod profiler;
mod proxy;
mod queries;
mod ranges;
mod service;
mod soak;
mod store;
mod tree;
mod verdicts;

use std::path::PathBuf;

use serde_json::{Value, json};

/// What a server allocates with: stores and trees that are measured in this process shall cost what they cost there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One measured number.
pub(crate) struct Figure {
    /// Its name in `docs/figures.md`.
    pub(crate) name: &'static str,
    /// As measured.
    pub(crate) value: f64,
    /// Of `value`.
    pub(crate) unit: &'static str,
    /// What it was measured beside.
    pub(crate) peer: Option<&'static str>,
    /// `value` over the peer's.
    pub(crate) ratio: Option<f64>,
    /// How many runs `value` is the median of.
    pub(crate) n: usize,
    /// What prints it.
    pub(crate) command: &'static str,
}

impl Figure {
    /// A figure without a peer.
    pub(crate) fn plain(name: &'static str, value: f64, unit: &'static str, n: usize, command: &'static str) -> Figure {
        Figure {
            name,
            value,
            unit,
            peer: None,
            ratio: None,
            n,
            command,
        }
    }
}

/// A number from the environment, where somebody set one.
pub(crate) fn setting(name: &str) -> Option<i64> {
    std::env::var(name).ok()?.parse().ok()
}

type Bench = (&'static str, fn() -> anyhow::Result<Vec<Figure>>);

const BENCHES: [Bench; 24] = [
    ("proxy", proxy::run),
    ("profiler", profiler::run),
    ("demo", demo::run),
    ("tree", tree::run),
    ("store", store::run),
    ("queries", queries::run),
    ("compare", compare::run),
    ("service", service::run),
    ("ranges", ranges::run),
    ("answers", answers::run),
    ("ingest", ingest::run),
    ("load", load::run),
    ("hostile", hostile::run),
    ("hostile_proxy", hostile_proxy::run),
    ("overload", overload::run),
    ("disk_full", campaign::disk_full),
    ("replay", campaign::replay),
    ("kill", campaign::kill),
    ("corruption", campaign::corruption),
    ("build", build::run),
    ("clients", clients::run),
    ("languages", languages::run),
    ("verdicts", verdicts::run),
    ("soak", soak::run),
];

/// Answers are compared with another program's; a cold build, a server under load and a soak take many minutes of two cores, and clients are fetched from the network.
const ONLY_WHEN_ASKED: [&str; 6] = ["answers", "build", "load", "clients", "languages", "soak"];

fn main() {
    // `cargo bench` adds flags of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|w| BENCHES.iter().all(|b| b.0 != w.as_str())) {
        let names = BENCHES.map(|b| b.0).join(", ");
        eprintln!("no bench is called `{unknown}`: choose among {names}");
        std::process::exit(2);
    }
    let mut failed = false;
    for (name, run) in BENCHES {
        let asked = wanted.iter().any(|w| w == name) || (wanted.is_empty() && !ONLY_WHEN_ASKED.contains(&name));
        if !asked {
            continue;
        }
        println!("== {name}");
        match run() {
            Ok(figures) => record(&figures),
            Err(error) => {
                failed = true;
                eprintln!("{name}: {error:#}");
            }
        }
    }
    std::process::exit(i32::from(failed));
}

/// The file that keeps all figures.
pub(crate) fn figures_path() -> PathBuf {
    // The programs lie in `<target>/release`.
    let release = emberline_tests::binaries();
    release
        .parent()
        .map_or_else(|| release.clone(), PathBuf::from)
        .join("figures.json")
}

/// Prints the figures and puts them into the file, in place of earlier ones of the same names.
fn record(figures: &[Figure]) {
    let path = figures_path();
    let before = std::fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut all: Vec<Value> = before.unwrap_or_default();
    for figure in figures {
        let ratio = figure
            .ratio
            .map(|r| format!(" = {r:.3} × {}", figure.peer.unwrap_or("peer")))
            .unwrap_or_default();
        println!(
            "{:32} {:10.3} {}{ratio}  (n = {})",
            figure.name, figure.value, figure.unit, figure.n
        );
        all.retain(|known| known["name"] != figure.name);
        all.push(json!({
            "name": figure.name,
            "value": figure.value,
            "unit": figure.unit,
            "peer": figure.peer,
            "ratio": figure.ratio,
            "n": figure.n,
            "command": figure.command,
        }));
    }
    if let Err(error) = std::fs::write(&path, format!("{:#}\n", Value::from(all))) {
        eprintln!("cannot write {}: {error}", path.display());
    }
}

/// The middle of some measurements.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

//! What questions over a month of data cost: sums from the store, names of the stacks, the tree with its exact function
//! table; beside it what the sums cost without roll-ups, from single samples. Cold is a store just opened, its files dropped from the page cache; warm is the least of several.
//!
//! Guarantees: every sum is compared with what the generator put in; the function table is the same at every limit.

use std::time::Duration;

use anyhow::{Result, ensure};
use emberline_model::{
    ProfileType,
    resolve::StackValue,
    tree::{FlameTree, TreeBuilder},
};
use emberline_storage::{Label, LabelFilter, Range, SelectedQuery, StackQuery, Store, WorkloadFilter};
use tokio::runtime::Runtime;

use crate::{
    Figure,
    cost::{Cost, Watch, memory_mb},
    mesh_store::{MeshStore, SERVICE, runtime},
};

const COMMAND: &str = "make bench NAME=queries";
const ROUNDS: usize = 15;
/// What the pages show of a tree.
const LIMIT: usize = 8192;
const LIMITS: [Option<usize>; 4] = [Some(16), Some(1024), Some(LIMIT), None];
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Days of data that the figure of a month needs.
const MONTH: i64 = 30;

/// One side of a question: a range, and a release if not all.
#[derive(Debug, Clone, Copy)]
struct Part {
    from_s: i64,
    to_s: i64,
    version: Option<u32>,
}

/// A question with the names of its figures.
struct Question {
    what: &'static str,
    parts: Vec<Part>,
    warm: &'static str,
    cold: &'static str,
    /// States wall-clock time, as the issue does for a month.
    by_wall: bool,
}

/// What it took.
#[derive(Debug, Clone, Copy, Default)]
struct Steps {
    sums: Cost,
    names: Cost,
    tree: Cost,
}

impl Steps {
    fn all(&self) -> Cost {
        self.sums + self.names + self.tree
    }
}

struct Answer {
    steps: Steps,
    tree: FlameTree,
    stacks: usize,
}

async fn ask(store: &Store, parts: &[Part], limit: Option<usize>) -> Result<Answer> {
    let mut watch = Watch::start();
    let mut sides = Vec::new();
    for part in parts {
        let who = WorkloadFilter {
            version: part.version.map(|version| format!("v{version}")),
            ..WorkloadFilter::service(SERVICE)
        };
        let range = Range {
            from_unix_s: part.from_s,
            to_unix_s: part.to_s,
        };
        sides.push(store.ask(StackQuery::new(who, ProfileType::CPU, range)).await?.rows);
    }
    let sums = watch.lap();
    let ids: Vec<u64> = sides.iter().flatten().map(|row| row.stack_id).collect();
    let resolved = store.resolve(&ids).await?;
    let names = watch.lap();
    let mut tree = TreeBuilder::new();
    let rows = sides.iter().enumerate().flat_map(|(side, rows)| {
        rows.iter().map(move |row| StackValue {
            stack_id: row.stack_id,
            side,
            value: row.value,
            samples: row.samples,
        })
    });
    tree.add_resolved(&resolved, rows);
    let tree = tree.finish(limit);
    let steps = Steps {
        sums,
        names,
        tree: watch.lap(),
    };
    ensure!(
        ids.iter().all(|&id| !resolved.frames(id).is_empty()),
        "stacks without names"
    );
    Ok(Answer {
        steps,
        tree,
        stacks: resolved.stacks.len(),
    })
}

/// Sums of the same stacks from single samples: a selection by instance cannot be answered from roll-ups.
async fn from_samples(store: &Store, parts: &[Part]) -> Result<Cost> {
    let filter = |label, value: String, negated| LabelFilter {
        label,
        values: vec![value],
        negated,
    };
    let mut watch = Watch::start();
    for part in parts {
        let range = Range {
            from_unix_s: part.from_s,
            to_unix_s: part.to_s,
        };
        let mut filters = vec![
            filter(Label::Service, SERVICE.to_owned(), false),
            filter(Label::Instance, "none".to_owned(), true),
        ];
        filters.extend(
            part.version
                .map(|version| filter(Label::Version, format!("v{version}"), false)),
        );
        let query = SelectedQuery {
            by_stack: true,
            ..SelectedQuery::new(ProfileType::CPU, filters, range)
        };
        ensure!(!store.ask(query).await?.is_empty(), "no samples");
    }
    Ok(watch.lap())
}

fn questions(mesh: &MeshStore) -> Vec<Question> {
    let end_s = mesh.end_s();
    let part = |from_s, to_s, version| Part { from_s, to_s, version };
    vec![
        Question {
            what: "merge, 1 h",
            parts: vec![part(end_s - HOUR_S, end_s, None)],
            warm: "merge_1h_cpu_ms",
            cold: "merge_1h_cold_cpu_ms",
            by_wall: false,
        },
        Question {
            what: "merge, 24 h",
            parts: vec![part(end_s - DAY_S, end_s, None)],
            warm: "merge_24h_cpu_ms",
            cold: "merge_24h_cold_cpu_ms",
            by_wall: false,
        },
        Question {
            what: "diff, v1 24 h against v2 24 h",
            parts: vec![
                part(end_s - 2 * DAY_S, end_s - DAY_S, Some(1)),
                part(end_s - DAY_S, end_s, Some(2)),
            ],
            warm: "diff_24h_cpu_ms",
            cold: "diff_24h_cold_cpu_ms",
            by_wall: false,
        },
        Question {
            what: "merge, all days",
            parts: vec![part(mesh.plan.start_s, end_s, None)],
            warm: "merge_30d_ms",
            cold: "merge_30d_cold_ms",
            by_wall: true,
        },
    ]
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let mesh = MeshStore::get()?;
    println!("{}", mesh.plan);
    let runtime = runtime()?;
    let mut figures = Vec::new();
    let days = (mesh.end_s() - mesh.plan.start_s) / DAY_S;
    for question in questions(&mesh) {
        let measured = measure(&mesh, &runtime, &question)?;
        if question.by_wall && days < MONTH {
            println!("  {days} days are no month: not recorded");
        } else {
            figures.extend(measured);
        }
    }
    println!(
        "resident at most {:.0} MiB, the generator's tables included",
        memory_mb(std::process::id(), "VmHWM")
    );
    Ok(figures)
}

fn measure(mesh: &MeshStore, runtime: &Runtime, question: &Question) -> Result<Vec<Figure>> {
    mesh.forget_pages()?;
    let mut watch = Watch::start();
    let store = mesh.open()?;
    runtime.block_on(store.flush_applied())?;
    let opening = watch.lap();
    let cold = runtime.block_on(ask(&store, &question.parts, Some(LIMIT)))?;
    let rows = check(mesh, question, &cold.tree)?;
    let mut least: Option<Steps> = None;
    for _ in 0..ROUNDS {
        // What the store does in the background after a start shall not count.
        std::thread::sleep(Duration::from_millis(50));
        let steps = runtime.block_on(ask(&store, &question.parts, Some(LIMIT)))?.steps;
        let is_less = least.is_none_or(|least| steps.all().cpu_ms < least.all().cpu_ms);
        if is_less {
            least = Some(steps);
        }
    }
    let warm = least.unwrap_or_default();
    for limit in LIMITS {
        let tree = runtime.block_on(ask(&store, &question.parts, limit))?.tree;
        check(mesh, question, &tree)?;
        ensure!(
            table(&tree) == table(&cold.tree),
            "the function table depends on the limit {limit:?}"
        );
    }
    // The first makes the files known.
    let mut single = Cost::default();
    for _ in 0..2 {
        single = runtime.block_on(from_samples(&store, &question.parts))?;
    }
    store.close();
    println!(
        "{}: {rows} rows, {} stacks; opening took {opening}",
        question.what, cold.stacks
    );
    for (name, steps) in [("cold", cold.steps), ("warm", warm)] {
        println!(
            "  {name}: {} = sums {} + names {} + tree {}",
            steps.all(),
            steps.sums,
            steps.names,
            steps.tree
        );
    }
    println!("  sums from single samples, warm: {single}");
    let stated = |cost: Cost| if question.by_wall { cost.wall_ms } else { cost.cpu_ms };
    let unit = if question.by_wall { "ms" } else { "CPU-ms" };
    let mut figures = vec![
        Figure::plain(question.warm, stated(warm.all()), unit, ROUNDS, COMMAND),
        Figure::plain(question.cold, stated(cold.steps.all()), unit, 1, COMMAND),
    ];
    if question.by_wall {
        figures.push(Figure::plain(
            "merge_30d_cpu_ms",
            warm.all().cpu_ms,
            "CPU-ms",
            ROUNDS,
            COMMAND,
        ));
    }
    Ok(figures)
}

/// Compares sums with what was put in; answers how many rows were added up.
fn check(mesh: &MeshStore, question: &Question, tree: &FlameTree) -> Result<u64> {
    let mut all_rows = 0;
    for (side, part) in question.parts.iter().enumerate() {
        let (rows, value) = mesh.loaded.sum(part.from_s, part.to_s, part.version);
        let of_nodes: i64 = tree.nodes.iter().map(|node| node.self_value[side]).sum();
        let of_functions: i64 = tree.totals.iter().map(|totals| totals.self_value[side]).sum();
        ensure!(
            tree.total()[side] == value && of_nodes == value && of_functions == value,
            "{}: {value} ns were put in, the tree says {}, its nodes {of_nodes}, its functions {of_functions}",
            question.what,
            tree.total()[side]
        );
        all_rows += rows;
    }
    Ok(all_rows)
}

/// Self, total and samples of every function on both sides.
type Row = (u64, [i64; 2], [i64; 2], [u64; 2]);

fn table(tree: &FlameTree) -> Vec<Row> {
    let rows = tree.functions.iter().zip(&tree.totals);
    let mut rows: Vec<Row> = rows
        .map(|(function, totals)| (function.id, totals.self_value, totals.total, totals.samples))
        .collect();
    rows.sort_unstable();
    rows
}

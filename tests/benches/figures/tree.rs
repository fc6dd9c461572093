//! The difference of two trees of 220,000 nodes each: adding up both sides, exact function tables, and the largest nodes.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, ensure};
use emberline_model::{
    id,
    resolve::{FunctionInfo, ResolvedStacks, StackValue},
    tree::{FlameTree, TreeBuilder},
};
use emberline_tests::generator::{Random, function_name, stacks};

use crate::{
    Figure,
    cost::{Cost, Watch},
};

const NODES: usize = 220_000;
const FUNCTIONS: usize = 19_000;
const DEPTH: usize = 40;
const ROUNDS: usize = 7;
/// One side has another leaf in every so many stacks.
const CHANGED: usize = 7;
const LIMITS: [Option<usize>; 4] = [Some(16), Some(1024), Some(8192), None];

type Rows = Vec<(u64, i64, u64)>;

/// One side: names, rows, and how many nodes its tree has.
struct SideStacks {
    resolved: ResolvedStacks,
    rows: Rows,
    nodes: usize,
}

fn side(which: u64) -> SideStacks {
    let mut random = Random::new(220);
    let all = stacks(&mut random, NODES / 8, FUNCTIONS, DEPTH);
    let mut own = Random::new(which);
    let functions = (0..FUNCTIONS as u32).map(|function| {
        let (name, file) = function_name("checkout", function);
        FunctionInfo {
            id: id::function_id(&name, "native"),
            name,
            module: "checkout".into(),
            file,
            unresolved: false,
        }
    });
    let (mut resolved, mut rows, mut nodes) = (Vec::new(), Rows::new(), 0);
    // (parent, function) → node.
    let mut numbers: HashMap<(usize, u32), usize> = HashMap::new();
    for (rank, mut stack) in all.into_iter().enumerate() {
        if nodes >= NODES {
            break;
        }
        if which > 0 && rank % CHANGED == 3 {
            stack[0] = own.below(FUNCTIONS) as u32;
        }
        let mut node = 0;
        for &function in stack.iter().rev() {
            let next = numbers.len() + 1;
            node = *numbers.entry((node, function)).or_insert(next);
        }
        nodes = numbers.len();
        let id = rank as u64 + 1;
        resolved.push((id, stack));
        // Weights 1/rank.
        rows.push((id, 10_000_000 * (1 + 400_000 / (rank as i64 + 1)), 1));
    }
    SideStacks {
        resolved: ResolvedStacks {
            functions: functions.map(Arc::new).collect(),
            stacks: resolved.into_iter().collect(),
        },
        rows,
        nodes,
    }
}

fn diff(sides: [&SideStacks; 2], limit: Option<usize>) -> (Cost, FlameTree) {
    let mut watch = Watch::start();
    let mut tree = TreeBuilder::new();
    for (at, side) in sides.into_iter().enumerate() {
        let rows = side.rows.iter().map(|&(stack_id, value, samples)| StackValue {
            stack_id,
            side: at,
            value,
            samples,
        });
        tree.add_resolved(&side.resolved, rows);
    }
    let tree = tree.finish(limit);
    (watch.lap(), tree)
}

pub(crate) fn run() -> Result<Vec<Figure>> {
    let (before, after) = (side(0), side(1));
    println!(
        "{} and {} nodes from {} and {} stacks of depth {DEPTH} over {FUNCTIONS} functions; every {CHANGED}th stack differs",
        before.nodes,
        after.nodes,
        before.rows.len(),
        after.rows.len()
    );
    let totals = [&before, &after].map(|side| side.rows.iter().map(|row| row.1).sum::<i64>());
    let exact = diff([&before, &after], None).1;
    let mut worst = Cost::default();
    for limit in LIMITS {
        let mut least = Cost {
            cpu_ms: f64::INFINITY,
            wall_ms: f64::INFINITY,
        };
        for _ in 0..ROUNDS {
            let (cost, tree) = diff([&before, &after], limit);
            for (side, total) in totals.into_iter().enumerate() {
                let sum: i64 = tree.nodes.iter().map(|node| node.self_value[side]).sum();
                ensure!(sum == total, "Σ self is {sum} and not {total} at the limit {limit:?}");
            }
            ensure!(
                tree.totals == exact.totals,
                "the function table depends on the limit {limit:?}"
            );
            least = Cost {
                cpu_ms: least.cpu_ms.min(cost.cpu_ms),
                wall_ms: least.wall_ms.min(cost.wall_ms),
            };
        }
        println!(
            "limit {:>6}: {least}",
            limit.map_or_else(|| "none".to_owned(), |l| l.to_string())
        );
        worst = Cost {
            cpu_ms: worst.cpu_ms.max(least.cpu_ms),
            wall_ms: worst.wall_ms.max(least.wall_ms),
        };
    }
    Ok(vec![
        Figure::plain("tree_diff_ms", worst.wall_ms, "ms", ROUNDS, "make bench NAME=tree"),
        Figure::plain(
            "tree_diff_cpu_ms",
            worst.cpu_ms,
            "CPU-ms",
            ROUNDS,
            "make bench NAME=tree",
        ),
    ])
}

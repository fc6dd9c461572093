//! What is shown of a whole tree: the sums of every node and function, and which nodes stay within a limit.
//!
//! Guarantee: sums cover all stacks, whatever is cut afterwards.

use std::{cmp::Reverse, sync::Arc};

use super::{End, FunctionTotals, Node, NodeKind, Own, Pair, ROOT, plus};
use crate::{
    path_tree::{Children, PathTree},
    resolve::FunctionInfo,
};

/// A node with everything below it.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    all: Own,
    nodes: u32,
}

/// Children have larger numbers than their parents: one backward pass adds everything up.
fn sums(paths: &PathTree, ends: &[End]) -> Vec<Sums> {
    let nothing = Sums {
        all: Own::default(),
        nodes: 1,
    };
    let mut sums = vec![nothing; paths.len()];
    ends.iter().for_each(|end| sums[end.node as usize].all.add(&end.own));
    for node in (1..paths.len()).rev() {
        let here = sums[node];
        if let Some(parent) = paths.parent(node as u32) {
            let above = &mut sums[parent as usize];
            above.all.add(&here.all);
            above.nodes += here.nodes;
        }
    }
    sums
}

/// All stacks, added up.
pub(super) struct Whole {
    paths: PathTree,
    children: Children,
    /// By node, ascending.
    ends: Vec<End>,
    pub(super) sums: Vec<Sums>,
}

impl Whole {
    /// From paths, and the values in them by node, ascending.
    pub(super) fn of(paths: PathTree, ends: Vec<End>) -> Whole {
        Whole {
            sums: sums(&paths, &ends),
            children: paths.children(),
            paths,
            ends,
        }
    }

    /// Sums of each function: what passes through its outermost nodes, so that recursion counts once.
    pub(super) fn function_totals(&self, functions: usize) -> Vec<FunctionTotals> {
        let mut totals = vec![FunctionTotals::default(); functions];
        for end in self.ends.iter().filter(|end| end.node != ROOT) {
            let of_function = &mut totals[self.paths.step(end.node) as usize];
            of_function.self_value = plus(of_function.self_value, end.own.value);
        }
        let outermost = self.paths.outermost(&self.children, functions, |step| step);
        for node in (1..self.paths.len()).filter(|&node| outermost[node]) {
            let of_function = &mut totals[self.paths.step(node as u32) as usize];
            let mut sum = Own {
                value: of_function.total,
                samples: of_function.samples,
            };
            sum.add(&self.sums[node].all);
            (of_function.total, of_function.samples) = (sum.value, sum.samples);
        }
        totals
    }

    /// Value of stacks that end in a node.
    fn self_value(&self, node: u32) -> Pair {
        let found = self.ends.binary_search_by_key(&node, |end| end.node);
        found.map_or([0, 0], |at| self.ends[at].own.value)
    }

    /// The nodes shown, in preorder; children ordered by name.
    pub(super) fn shown_nodes(&self, kept: &[bool], name_ranks: &[u32]) -> Vec<Node> {
        let mut shown = Vec::new();
        let mut stack = vec![(ROOT, 0)];
        while let Some((n, depth)) = stack.pop() {
            let kind = match n {
                ROOT => NodeKind::Root,
                _ => NodeKind::Function(self.paths.step(n)),
            };
            shown.push(Node {
                kind,
                depth,
                self_value: self.self_value(n),
                total: self.sums[n as usize].all.value,
            });
            let (mut cut, mut value) = (0u32, [0, 0]);
            let first = stack.len();
            for child in self.children.of(n) {
                if kept[child as usize] {
                    stack.push((child, depth + 1));
                } else {
                    cut += self.sums[child as usize].nodes;
                    value = plus(value, self.sums[child as usize].all.value);
                }
            }
            // The last one is popped first.
            stack[first..].sort_unstable_by_key(|&(child, _)| Reverse(name_ranks[self.paths.step(child) as usize]));
            if cut > 0 {
                shown.push(Node {
                    kind: NodeKind::Cut(cut),
                    depth: depth + 1,
                    self_value: value,
                    total: value,
                });
            }
        }
        shown
    }
}

/// Which nodes stay within a limit: the largest, and since a parent is never smaller than its child, sorting ties by
/// number (parents first) keeps every kept node's ancestors. The root always stays, and is not counted.
pub(super) fn kept_nodes(sums: &[Sums], limit: Option<usize>) -> Vec<bool> {
    let limit = match limit {
        Some(limit) if limit < sums.len() - 1 => limit,
        _ => return vec![true; sums.len()],
    };
    let weight = |n: usize| sums[n].all.value[0].max(sums[n].all.value[1]);
    let mut kept = vec![true; sums.len()];
    if limit == 0 {
        kept[1..].fill(false);
        return kept;
    }
    let mut weights: Vec<i64> = (1..sums.len()).map(weight).collect();
    let (_, &mut least, lighter) = weights.select_nth_unstable_by_key(limit - 1, |&weight| Reverse(weight));
    // Among those as heavy as the lightest one kept, the first ones stay.
    let mut twins_cut = lighter.iter().filter(|&&weight| weight == least).count();
    for n in (1..sums.len()).rev() {
        let weight = weight(n);
        kept[n] = weight >= least && (weight > least || twins_cut == 0);
        if weight == least && twins_cut > 0 {
            twins_cut -= 1;
        }
    }
    kept
}

/// Rank of each function by name, then by id, so that ordering children compares integers.
pub(super) fn name_ranks(functions: &[Arc<FunctionInfo>]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..functions.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| {
        let (a, b) = (&functions[a as usize], &functions[b as usize]);
        a.name.cmp(&b.name).then(a.id.cmp(&b.id))
    });
    let mut ranks = vec![0; functions.len()];
    order
        .iter()
        .enumerate()
        .for_each(|(rank, &f)| ranks[f as usize] = rank as u32);
    ranks
}

//! Flame trees of one profile or of two being compared.
//!
//! Guarantees: self and total of every function are computed on all stacks before anything is cut; a display
//! limit afterwards replaces subtrees by *cut* nodes that carry their sums, so the self values of the shown
//! nodes add up to the total at every limit, and the function table is the same at every limit. Children are
//! ordered by name, so frames keep their place when the values change.

mod trie;

use crate::{
    int_map::IntMap,
    resolve::{FunctionInfo, ResolvedStacks},
};
use trie::{NONE, ROOT, Trie, TrieNode};

/// A value per side: baseline (or the only profile) and candidate.
pub type Pair = [i64; 2];

/// Exact sums of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionTotals {
    /// Value of stacks that end in the function.
    pub self_value: Pair,
    /// Value of stacks that contain the function, each counted once however often it recurs.
    pub total: Pair,
    /// Samples of stacks that contain the function.
    pub samples: [u64; 2],
}

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Everything.
    Root,
    /// A function, by index into [`FlameTree::functions`].
    Function(u32),
    /// Subtrees left out at the display limit: how many nodes.
    Cut(u32),
}

/// One frame of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it stands for.
    pub kind: NodeKind,
    /// Distance from the root, which has 0.
    pub depth: u32,
    /// Value of stacks that end here (of a cut node: everything below).
    pub self_value: Pair,
    /// Value of stacks that pass through here.
    pub total: Pair,
}

/// A flame graph: nodes in preorder, the root first, and the functions they name.
#[derive(Debug, Clone, Default)]
pub struct FlameTree {
    /// Functions, each once; the order is that of first appearance.
    pub functions: Vec<FunctionInfo>,
    /// Exact sums, parallel to `functions`.
    pub totals: Vec<FunctionTotals>,
    /// Preorder.
    pub nodes: Vec<Node>,
}

impl FlameTree {
    /// Sum of all stacks.
    pub fn total(&self) -> Pair {
        self.nodes.first().map_or([0, 0], |root| root.total)
    }
}

/// Adds up stacks.
#[derive(Default)]
pub struct TreeBuilder {
    functions: Vec<FunctionInfo>,
    by_id: IntMap<u32>,
    stacks: Trie,
}

impl TreeBuilder {
    /// An empty tree.
    pub fn new() -> TreeBuilder {
        TreeBuilder::default()
    }

    /// The index of a function in this tree; the first description of an id wins.
    pub fn function(&mut self, info: &FunctionInfo) -> u32 {
        if let Some(&index) = self.by_id.get(&info.id) {
            return index;
        }
        let index = self.functions.len() as u32;
        self.by_id.insert(info.id, index);
        self.functions.push(info.clone());
        index
    }

    /// Adds one stack (indices from [`TreeBuilder::function`], leaf first) to a side (0 or 1). A stack without
    /// frames counts to the root's own value.
    pub fn add(&mut self, frames: &[u32], side: usize, value: i64, samples: u64) {
        self.stacks.add(frames.iter().rev().copied(), side, value, samples);
    }

    /// Adds `(stack id, value, samples)` rows to a side, with names from a dictionary.
    pub fn add_resolved(
        &mut self,
        resolved: &ResolvedStacks,
        rows: impl IntoIterator<Item = (u64, i64, u64)>,
        side: usize,
    ) {
        let mut mapped: Vec<Option<u32>> = vec![None; resolved.functions.len()];
        let mut frames = Vec::new();
        for (stack, value, samples) in rows {
            frames.clear();
            for &f in resolved.frames(stack) {
                let index = match mapped[f as usize] {
                    Some(index) => index,
                    None => *mapped[f as usize].insert(self.function(&resolved.functions[f as usize])),
                };
                frames.push(index);
            }
            self.add(&frames, side, value, samples);
        }
    }

    /// Finishes the tree. With a limit, about that many nodes remain (the largest by the greater of both sides,
    /// parents always with their children); a cut node stands for the rest below each.
    pub fn finish(self, limit: Option<usize>) -> FlameTree {
        let nodes = self.stacks.into_nodes();
        let sums = sums(&nodes);
        let totals = function_totals(&nodes, &sums, self.functions.len());
        let kept = kept_nodes(&sums, limit);
        let children = Children::of(&nodes, &kept, &name_ranks(&self.functions));
        FlameTree {
            nodes: shown_nodes(&nodes, &sums, &kept, &children),
            functions: self.functions,
            totals,
        }
    }
}

/// A node with everything below it.
#[derive(Clone, Copy)]
struct Sums {
    value: Pair,
    samples: [u64; 2],
    nodes: u32,
}

fn plus(a: Pair, b: Pair) -> Pair {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
}

fn plus_samples(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
}

/// Children have larger numbers than their parents: one backward pass adds everything up.
fn sums(nodes: &[TrieNode]) -> Vec<Sums> {
    let own = nodes.iter().map(|node| Sums {
        value: node.self_value,
        samples: node.self_samples,
        nodes: 1,
    });
    let mut sums: Vec<Sums> = own.collect();
    for index in (1..nodes.len()).rev() {
        let here = sums[index];
        let above = &mut sums[nodes[index].parent as usize];
        above.value = plus(above.value, here.value);
        above.samples = plus_samples(above.samples, here.samples);
        above.nodes += here.nodes;
    }
    sums
}

/// Sums of each function: what passes through its outermost nodes, so that recursion counts once.
fn function_totals(nodes: &[TrieNode], sums: &[Sums], functions: usize) -> Vec<FunctionTotals> {
    let mut totals = vec![FunctionTotals::default(); functions];
    // How often each function is on the path to the node being looked at.
    let mut open = vec![0u32; functions];
    let mut next = nodes[ROOT as usize].first_child;
    while next != NONE {
        let mut here = next;
        let function = nodes[here as usize].function as usize;
        let of_function = &mut totals[function];
        of_function.self_value = plus(of_function.self_value, nodes[here as usize].self_value);
        if open[function] == 0 {
            of_function.total = plus(of_function.total, sums[here as usize].value);
            of_function.samples = plus_samples(of_function.samples, sums[here as usize].samples);
        }
        open[function] += 1;
        next = nodes[here as usize].first_child;
        // At a leaf: up until there is a sibling.
        while next == NONE && here != ROOT {
            open[nodes[here as usize].function as usize] -= 1;
            next = nodes[here as usize].next_sibling;
            here = nodes[here as usize].parent;
        }
    }
    totals
}

/// Which nodes stay under a limit: the largest, and since a parent is never smaller than its child, sorting
/// ties by number (parents first) keeps every kept node's ancestors. The root always stays, and is not counted.
fn kept_nodes(sums: &[Sums], limit: Option<usize>) -> Vec<bool> {
    let limit = match limit {
        Some(limit) if limit < sums.len() - 1 => limit,
        _ => return vec![true; sums.len()],
    };
    let weighed = (1..sums.len()).map(|n| (std::cmp::Reverse(sums[n].value[0].max(sums[n].value[1])), n as u32));
    let mut order: Vec<_> = weighed.collect();
    order.select_nth_unstable(limit);
    let mut kept = vec![false; sums.len()];
    kept[ROOT as usize] = true;
    order[..limit].iter().for_each(|&(_, n)| kept[n as usize] = true);
    kept
}

/// Rank of each function by name, then by id, so that ordering children compares integers.
fn name_ranks(functions: &[FunctionInfo]) -> Vec<u32> {
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

/// Children of the kept nodes, in the order of their names.
struct Children {
    /// Where those of each node begin in `sorted`, and at last where they end.
    begins: Vec<u32>,
    sorted: Vec<u32>,
}

impl Children {
    fn of(nodes: &[TrieNode], kept: &[bool], name_ranks: &[u32]) -> Children {
        let listed = (1..nodes.len() as u32).filter(|&n| kept[nodes[n as usize].parent as usize]);
        let listed: Vec<u32> = listed.collect();
        let rank = |n: u32| name_ranks[nodes[n as usize].function as usize];
        let (by_name, _) = counting_sort(&listed, name_ranks.len(), rank);
        let (sorted, begins) = counting_sort(&by_name, nodes.len(), |n| nodes[n as usize].parent);
        Children { begins, sorted }
    }

    fn below(&self, node: u32) -> &[u32] {
        &self.sorted[self.begins[node as usize] as usize..self.begins[node as usize + 1] as usize]
    }
}

/// Sorts by a key below `keys`; equal ones stay in order. Also answers where those of each key begin.
fn counting_sort(items: &[u32], keys: usize, key: impl Fn(u32) -> u32) -> (Vec<u32>, Vec<u32>) {
    let mut begins = vec![0u32; keys + 1];
    for &item in items {
        begins[key(item) as usize + 1] += 1;
    }
    for at in 1..begins.len() {
        begins[at] += begins[at - 1];
    }
    let mut places = begins.clone();
    let mut sorted = vec![0; items.len()];
    for &item in items {
        let place = &mut places[key(item) as usize];
        sorted[*place as usize] = item;
        *place += 1;
    }
    (sorted, begins)
}

/// What is shown, in preorder.
fn shown_nodes(nodes: &[TrieNode], sums: &[Sums], kept: &[bool], children: &Children) -> Vec<Node> {
    let mut shown = Vec::new();
    let mut stack = vec![(ROOT, 0)];
    while let Some((n, depth)) = stack.pop() {
        let kind = match n {
            ROOT => NodeKind::Root,
            _ => NodeKind::Function(nodes[n as usize].function),
        };
        shown.push(Node {
            kind,
            depth,
            self_value: nodes[n as usize].self_value,
            total: sums[n as usize].value,
        });
        let (mut cut, mut value) = (0u32, [0, 0]);
        for &child in children.below(n).iter().rev() {
            if kept[child as usize] {
                stack.push((child, depth + 1));
            } else {
                cut += sums[child as usize].nodes;
                value = plus(value, sums[child as usize].value);
            }
        }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    fn info(id: u64) -> FunctionInfo {
        FunctionInfo {
            id,
            name: format!("f{id}"),
            module: String::new(),
            file: String::new(),
            unresolved: false,
        }
    }

    fn build(stacks: &[(Vec<u64>, usize, i64)]) -> TreeBuilder {
        let mut tree = TreeBuilder::new();
        for (frames, side, value) in stacks {
            let frames: Vec<u32> = frames.iter().map(|&f| tree.function(&info(f))).collect();
            tree.add(&frames, *side, *value, 1);
        }
        tree
    }

    #[test]
    fn recursion_counts_a_function_once_per_stack() {
        let tree = build(&[(vec![1, 2, 1], 0, 5)]).finish(None);
        assert_eq!(tree.totals[0].total, [5, 0]);
        assert_eq!(tree.totals[0].self_value, [5, 0]);
        assert_eq!(tree.nodes.len(), 4);
    }

    #[test]
    fn a_stack_without_frames_stays_visible_in_the_root() {
        let tree = build(&[(vec![], 0, 7), (vec![1], 0, 2)]).finish(None);
        assert_eq!(tree.nodes[0].self_value, [7, 0]);
        assert_eq!(tree.total(), [9, 0]);
    }

    /// Sums per path and per function, of one stack after the other.
    type Plain = (BTreeMap<Vec<u64>, (Pair, Pair)>, BTreeMap<u64, FunctionTotals>);

    fn plainly(stacks: &[(Vec<u64>, usize, i64)]) -> Plain {
        let mut plain = Plain::default();
        for (frames, side, value) in stacks {
            let mut path = Vec::new();
            plain.0.entry(path.clone()).or_default().1[*side] += value;
            for &function in frames.iter().rev() {
                path.push(function);
                plain.0.entry(path.clone()).or_default().1[*side] += value;
            }
            plain.0.entry(path.clone()).or_default().0[*side] += value;
            for function in BTreeSet::from_iter(frames) {
                let totals = plain.1.entry(*function).or_default();
                totals.total[*side] += value;
                totals.samples[*side] += 1;
            }
            if let Some(leaf) = frames.first() {
                plain.1.entry(*leaf).or_default().self_value[*side] += value;
            }
        }
        plain
    }

    /// The same of a tree that nothing was cut from; nodes must come in the order of names.
    fn of_tree(tree: &FlameTree) -> Plain {
        let mut plain = Plain::default();
        let mut path: Vec<u64> = Vec::new();
        for node in &tree.nodes {
            if let NodeKind::Function(function) = node.kind {
                let last = path.get(node.depth as usize - 1).copied();
                path.truncate(node.depth as usize - 1);
                let id = tree.functions[function as usize].id;
                assert!(last.is_none_or(|last| last < id), "siblings are not in order");
                path.push(id);
            }
            let twice = plain.0.insert(path.clone(), (node.self_value, node.total));
            assert!(twice.is_none(), "two nodes of one path");
        }
        let ids = tree.functions.iter().map(|f| f.id);
        plain.1 = ids.zip(tree.totals.iter().copied()).collect();
        plain
    }

    proptest! {
        /// Many more frames than wait in a batch, so that batches are merged into what earlier ones made.
        #[test]
        fn the_tree_is_what_adding_one_path_after_the_other_makes(
            stacks in prop::collection::vec((prop::collection::vec(0u64..5, 0..9), 0usize..2, 0i64..1000), 0..80),
        ) {
            let tree = build(&stacks).finish(None);
            let mut expected = plainly(&stacks);
            expected.0.entry(Vec::new()).or_default();
            prop_assert_eq!(of_tree(&tree), expected);
        }

        #[test]
        fn self_values_add_up_to_the_total_at_every_limit(
            stacks in prop::collection::vec((prop::collection::vec(0u64..8, 0..6), 0usize..2, 0i64..1000), 0..60),
            limit in 0usize..40,
        ) {
            let exact = build(&stacks).finish(None);
            let shown = build(&stacks).finish(Some(limit));
            for tree in [&exact, &shown] {
                for side in 0..2 {
                    let sum: i64 = tree.nodes.iter().map(|n| n.self_value[side]).sum();
                    let expected: i64 = stacks.iter().filter(|s| s.1 == side).map(|s| s.2).sum();
                    prop_assert_eq!(sum, expected);
                    prop_assert_eq!(tree.total()[side], expected);
                }
            }
            prop_assert_eq!(&exact.totals, &shown.totals);
            for side in 0..2 {
                let table: i64 = exact.totals.iter().map(|t| t.self_value[side]).sum();
                prop_assert_eq!(table + exact.nodes[0].self_value[side], exact.total()[side]);
            }
            // Preorder: a node's total is its self value plus its children's totals.
            for (at, node) in shown.nodes.iter().enumerate() {
                if matches!(node.kind, NodeKind::Cut(_)) { continue; }
                let children = shown.nodes[at + 1..].iter().take_while(|n| n.depth > node.depth).filter(|n| n.depth == node.depth + 1);
                let sum: i64 = children.map(|n| n.total[0]).sum();
                prop_assert_eq!(node.self_value[0] + sum, node.total[0]);
            }
            let functions = shown.nodes.iter().filter(|n| matches!(n.kind, NodeKind::Function(_))).count();
            prop_assert!(functions <= limit);
        }
    }
}

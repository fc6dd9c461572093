//! Flame trees of one profile or of two being compared.
//!
//! Guarantees: self and total of every function are computed on all stacks before anything is cut; a display
//! limit afterwards replaces subtrees by *cut* nodes that carry their sums, so the self values of the shown
//! nodes add up to the total at every limit, and the function table is the same at every limit. Children are
//! ordered by name, so frames keep their place when the values change.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::resolve::{FunctionInfo, ResolvedStacks};

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

/// Multiplicative hashing of keys that are small integers already; SipHash costs more than the tree itself.
#[derive(Default)]
struct IntHasher(u64);

impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(u64::from(b)));
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type IntMap<V> = HashMap<u64, V, BuildHasherDefault<IntHasher>>;

/// Adds up stacks.
#[derive(Default)]
pub struct TreeBuilder {
    functions: Vec<FunctionInfo>,
    by_id: IntMap<u32>,
    totals: Vec<FunctionTotals>,
    /// Stamp of the last stack that counted a function, so that recursion counts once.
    seen_in: Vec<u64>,
    stamp: u64,
    /// (parent, function) → node.
    edges: IntMap<u32>,
    nodes: Vec<BuildNode>,
    total: Pair,
}

struct BuildNode {
    parent: u32,
    function: u32,
    self_value: Pair,
}

/// The parent of a thread's outermost function.
const ROOT: u32 = u32::MAX;

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
        self.totals.push(FunctionTotals::default());
        self.seen_in.push(0);
        index
    }

    /// Adds one stack (indices from [`TreeBuilder::function`], leaf first) to a side (0 or 1). A stack without
    /// frames counts to the root's own value.
    pub fn add(&mut self, frames: &[u32], side: usize, value: i64, samples: u64) {
        self.total[side] = self.total[side].saturating_add(value);
        self.stamp += 1;
        let mut node = ROOT;
        for &function in frames.iter().rev() {
            if self.seen_in[function as usize] != self.stamp {
                self.seen_in[function as usize] = self.stamp;
                let totals = &mut self.totals[function as usize];
                totals.total[side] = totals.total[side].saturating_add(value);
                totals.samples[side] += samples;
            }
            let key = (u64::from(node) << 32) | u64::from(function);
            let next = self.nodes.len() as u32;
            let child = *self.edges.entry(key).or_insert(next);
            if child == next {
                self.nodes.push(BuildNode {
                    parent: node,
                    function,
                    self_value: [0, 0],
                });
            }
            node = child;
        }
        if let Some(&leaf) = frames.first() {
            let self_value = &mut self.totals[leaf as usize].self_value[side];
            *self_value = self_value.saturating_add(value);
            let self_value = &mut self.nodes[node as usize].self_value[side];
            *self_value = self_value.saturating_add(value);
        }
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
        // Children have larger indices than their parents: one backward pass sums totals.
        let mut totals: Vec<Pair> = self.nodes.iter().map(|n| n.self_value).collect();
        let mut below = vec![1u32; self.nodes.len()];
        for index in (0..self.nodes.len()).rev() {
            let parent = self.nodes[index].parent;
            if parent != ROOT {
                let below_here = totals[index];
                let sum = &mut totals[parent as usize];
                *sum = [
                    sum[0].saturating_add(below_here[0]),
                    sum[1].saturating_add(below_here[1]),
                ];
                below[parent as usize] += below[index];
            }
        }
        let kept = kept_nodes(&self.nodes, &totals, limit);
        let names_rank = name_ranks(&self.functions);

        // Children of each kept node in name order, through one sort of all kept nodes.
        let mut order: Vec<u32> = (0..self.nodes.len() as u32).filter(|&n| kept[n as usize]).collect();
        order.sort_unstable_by_key(|&n| {
            let node = &self.nodes[n as usize];
            (node.parent, names_rank[node.function as usize])
        });
        let mut children: IntMap<(u32, u32)> = IntMap::default();
        for (at, &n) in order.iter().enumerate() {
            let range = children
                .entry(u64::from(self.nodes[n as usize].parent))
                .or_insert((at as u32, at as u32));
            range.1 = at as u32 + 1;
        }
        let mut cut: IntMap<(u32, Pair)> = IntMap::default();
        for (index, node) in self.nodes.iter().enumerate() {
            let parent_shown = node.parent == ROOT || kept[node.parent as usize];
            if !kept[index] && parent_shown {
                let entry = cut.entry(u64::from(node.parent)).or_insert((0, [0, 0]));
                entry.0 += below[index];
                entry.1[0] = entry.1[0].saturating_add(totals[index][0]);
                entry.1[1] = entry.1[1].saturating_add(totals[index][1]);
            }
        }

        let placed: Pair = self
            .nodes
            .iter()
            .zip(&totals)
            .filter(|(n, _)| n.parent == ROOT)
            .fold([0i64, 0i64], |sum, (_, t)| {
                [sum[0].saturating_add(t[0]), sum[1].saturating_add(t[1])]
            });
        let mut nodes = vec![Node {
            kind: NodeKind::Root,
            depth: 0,
            self_value: [
                self.total[0].saturating_sub(placed[0]),
                self.total[1].saturating_sub(placed[1]),
            ],
            total: self.total,
        }];
        let mut stack: Vec<(u32, u32)> = Vec::new();
        let push_children = |stack: &mut Vec<(u32, u32)>, nodes: &mut Vec<Node>, parent: u32, depth: u32| {
            if let Some(&(count, value)) = cut.get(&u64::from(parent)) {
                nodes.push(Node {
                    kind: NodeKind::Cut(count),
                    depth,
                    self_value: value,
                    total: value,
                });
            }
            if let Some(&(from, to)) = children.get(&u64::from(parent)) {
                stack.extend(order[from as usize..to as usize].iter().rev().map(|&n| (n, depth)));
            }
        };
        push_children(&mut stack, &mut nodes, ROOT, 1);
        while let Some((n, depth)) = stack.pop() {
            let node = &self.nodes[n as usize];
            nodes.push(Node {
                kind: NodeKind::Function(node.function),
                depth,
                self_value: node.self_value,
                total: totals[n as usize],
            });
            push_children(&mut stack, &mut nodes, n, depth + 1);
        }
        FlameTree {
            functions: self.functions,
            totals: self.totals,
            nodes,
        }
    }
}

/// Which nodes stay under a limit: the largest, and since a parent is never smaller than its child, sorting
/// ties by index (parents first) keeps every kept node's ancestors.
fn kept_nodes(nodes: &[BuildNode], totals: &[Pair], limit: Option<usize>) -> Vec<bool> {
    let limit = match limit {
        Some(limit) if limit < nodes.len() => limit,
        _ => return vec![true; nodes.len()],
    };
    let mut order: Vec<u32> = (0..nodes.len() as u32).collect();
    let weight = |n: u32| totals[n as usize][0].max(totals[n as usize][1]);
    order.sort_unstable_by_key(|&n| (std::cmp::Reverse(weight(n)), n));
    let mut kept = vec![false; nodes.len()];
    order[..limit].iter().for_each(|&n| kept[n as usize] = true);
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

#[cfg(test)]
mod tests {
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

    proptest! {
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

//! Flame trees of one profile or of two being compared.
//!
//! Guarantees: self and total of every function are computed on all stacks before anything is cut; a display
//! limit afterwards replaces subtrees by *cut* nodes that carry their sums, so the self values of the shown
//! nodes add up to the total at every limit, and the function table is the same at every limit. Children are
//! ordered by name, so frames keep their place when the values change.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    int_map::IntMap,
    path_tree::{Children, PathTree, Translation},
    resolve::{FunctionInfo, ResolvedStacks, StackValue},
};

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
    pub functions: Vec<Arc<FunctionInfo>>,
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

    /// What each function is called where a name is all there is to see: two of one name, in two files, are told apart by
    /// their modules.
    pub fn told_apart(&self) -> Vec<Cow<'_, str>> {
        let mut first: HashMap<&str, &Arc<FunctionInfo>> = HashMap::with_capacity(self.functions.len());
        let mut twins: HashSet<&str> = HashSet::new();
        for function in self.functions.iter().filter(|f| !f.unresolved) {
            let known = first.entry(&function.name).or_insert(function);
            if known.id != function.id {
                twins.insert(&function.name);
            }
        }
        let name = |function: &'_ Arc<FunctionInfo>| match twins.contains(function.name.as_str())
            && !function.module.is_empty()
        {
            true => Some(format!("{} ({})", function.name, function.module)),
            false => None,
        };
        let names = self.functions.iter().map(|f| match name(f) {
            Some(name) => Cow::Owned(name),
            None => Cow::Borrowed(f.name.as_str()),
        });
        names.collect()
    }
}

/// Adds up stacks.
#[derive(Default)]
pub struct TreeBuilder {
    functions: Vec<Arc<FunctionInfo>>,
    by_id: IntMap<u32>,
    /// Steps are functions.
    paths: PathTree,
    /// What paths have in common may be there several times.
    has_twins: bool,
    ends: Vec<End>,
    /// Nodes and ends there were when equal ones were last made one.
    size_after_merge: usize,
}

/// What ends in a node.
#[derive(Debug, Clone, Copy)]
struct End {
    node: u32,
    own: Own,
}

/// Values and samples of both sides.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    value: Pair,
    samples: [u64; 2],
}

impl Own {
    fn of(side: usize, value: i64, samples: u64) -> Own {
        let mut own = Own::default();
        (own.value[side], own.samples[side]) = (value, samples);
        own
    }

    fn add(&mut self, other: &Own) {
        self.value = plus(self.value, other.value);
        self.samples = [0, 1].map(|side| self.samples[side].saturating_add(other.samples[side]));
    }
}

/// So many nodes and ends come before equal ones are made one, and at least as many as were left the last time.
#[cfg(not(test))]
const NODES_BEFORE_MERGE: usize = 1 << 20;
#[cfg(test)]
const NODES_BEFORE_MERGE: usize = 24;

const ROOT: u32 = PathTree::ROOT;

impl TreeBuilder {
    /// An empty tree.
    pub fn new() -> TreeBuilder {
        TreeBuilder::default()
    }

    /// The index of a function in this tree; the first description of an id wins.
    pub fn function(&mut self, info: &Arc<FunctionInfo>) -> u32 {
        let next = self.functions.len() as u32;
        let index = *self.by_id.entry(info.id).or_insert(next);
        if index == next {
            self.functions.push(Arc::clone(info));
        }
        index
    }

    /// Adds one stack (indices from [`TreeBuilder::function`], leaf first) to a side (0 or 1). A stack without
    /// frames counts to the root's own value.
    pub fn add(&mut self, frames: &[u32], side: usize, value: i64, samples: u64) {
        let node = self.paths.extend(ROOT, frames.iter().rev().copied());
        self.has_twins = true;
        self.ends.push(End {
            node,
            own: Own::of(side, value, samples),
        });
        let size = self.paths.len() + self.ends.len();
        if size > self.size_after_merge + NODES_BEFORE_MERGE.max(self.size_after_merge) {
            self.shrink();
        }
    }

    /// Adds rows, with names from a dictionary.
    pub fn add_resolved(&mut self, resolved: &ResolvedStacks, rows: impl IntoIterator<Item = StackValue>) {
        let leaf = |row: &StackValue| resolved.stacks.node(row.stack_id).unwrap_or(ROOT);
        self.add_ends(
            resolved,
            rows.into_iter().map(|row| End {
                node: leaf(&row),
                own: Own::of(row.side, row.value, row.samples),
            }),
        );
    }

    /// Adds what ends in nodes of a dictionary's paths: side, value and samples by node.
    pub fn add_nodes(&mut self, resolved: &ResolvedStacks, rows: impl IntoIterator<Item = (u32, (usize, i64, u64))>) {
        self.add_ends(
            resolved,
            rows.into_iter().map(|(node, (side, value, samples))| End {
                node,
                own: Own::of(side, value, samples),
            }),
        );
    }

    fn add_ends(&mut self, resolved: &ResolvedStacks, ends: impl Iterator<Item = End>) {
        if !self.functions.is_empty() || !self.ends.is_empty() {
            return self.add_paths(resolved, ends);
        }
        let ends: Vec<End> = ends.collect();
        match is_all(resolved, &ends) {
            // Usually an answer and its names are all there is.
            true => {
                self.functions = resolved.functions.clone();
                self.by_id = (0..).zip(&self.functions).map(|(index, f)| (f.id, index)).collect();
                self.paths = resolved.stacks.paths().clone();
                self.ends = ends;
            }
            false => self.add_paths(resolved, ends),
        }
    }

    /// The same; a stack that the dictionary does not know, or knows no frame of, counts under a function of its own.
    pub fn add_named(&mut self, resolved: &ResolvedStacks, rows: impl IntoIterator<Item = StackValue>) {
        let is_named = |row: &StackValue| !resolved.frames(row.stack_id).is_empty();
        let (named, unknown): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_named);
        self.add_resolved(resolved, named);
        for row in unknown {
            let function = self.function(&Arc::new(FunctionInfo::unknown()));
            self.add(&[function], row.side, row.value, row.samples);
        }
    }

    /// Adds what ends in nodes of a dictionary's paths.
    fn add_paths(&mut self, resolved: &ResolvedStacks, ends: impl IntoIterator<Item = End>) {
        self.has_twins |= !self.paths.is_empty();
        let mut functions: Vec<Option<u32>> = vec![None; resolved.functions.len()];
        let theirs = resolved.stacks.paths();
        self.paths.reserve(theirs.len());
        let mut translation = Translation::from(theirs);
        for End { node, own } in ends {
            let node = translation.node(theirs, node, |parent, f| {
                let function = match functions[f as usize] {
                    Some(function) => function,
                    None => {
                        let next = self.functions.len();
                        let function = self.function(&resolved.functions[f as usize]);
                        // Known already: then it may be there several times below the same node.
                        self.has_twins |= function as usize != next;
                        *functions[f as usize].insert(function)
                    }
                };
                self.paths.push(parent, function)
            });
            self.ends.push(End { node, own });
        }
    }

    /// Makes paths that have the same functions one.
    fn merge(&mut self) {
        if self.has_twins {
            let merged = self.paths.merged();
            self.ends
                .iter_mut()
                .for_each(|end| end.node = merged.node_of[end.node as usize]);
            self.paths = merged.tree;
            self.has_twins = false;
        }
    }

    /// Makes equal paths one, and what ends in one node; by node, ascending.
    fn shrink(&mut self) {
        self.merge();
        self.ends.sort_unstable_by_key(|end| end.node);
        self.ends.dedup_by(|next, kept| {
            let is_same = next.node == kept.node;
            if is_same {
                kept.own.add(&next.own);
            }
            is_same
        });
        self.size_after_merge = self.paths.len() + self.ends.len();
    }

    /// Finishes the tree. With a limit, about that many nodes remain (the largest by the greater of both sides,
    /// parents always with their children); a cut node stands for the rest below each.
    pub fn finish(mut self, limit: Option<usize>) -> FlameTree {
        self.shrink();
        let whole = Whole {
            sums: sums(&self.paths, &self.ends),
            children: self.paths.children(),
            paths: self.paths,
            ends: self.ends,
        };
        let totals = whole.function_totals(self.functions.len());
        let kept = kept_nodes(&whole.sums, limit);
        FlameTree {
            nodes: whole.shown_nodes(&kept, &name_ranks(&self.functions)),
            functions: self.functions,
            totals,
        }
    }
}

/// True when something ends in every path, every function is on one, and no two functions have one id: then paths and
/// functions are those of the tree.
fn is_all(resolved: &ResolvedStacks, ends: &[End]) -> bool {
    let paths = resolved.stacks.paths();
    let mut has_end = vec![false; paths.len()];
    ends.iter().for_each(|end| has_end[end.node as usize] = true);
    let mut has_path = vec![false; resolved.functions.len()];
    for (node, (parent, function)) in (1..paths.len()).zip(paths.below_root()).rev() {
        if !has_end[node] {
            return false;
        }
        has_end[parent as usize] = true;
        has_path[function as usize] = true;
    }
    let ids: IntMap<()> = resolved.functions.iter().map(|f| (f.id, ())).collect();
    has_path.iter().all(|&is_there| is_there) && ids.len() == resolved.functions.len()
}

/// A node with everything below it.
#[derive(Clone, Copy)]
struct Sums {
    all: Own,
    nodes: u32,
}

fn plus(a: Pair, b: Pair) -> Pair {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
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
struct Whole {
    paths: PathTree,
    children: Children,
    /// By node, ascending.
    ends: Vec<End>,
    sums: Vec<Sums>,
}

impl Whole {
    /// Sums of each function: what passes through its outermost nodes, so that recursion counts once.
    fn function_totals(&self, functions: usize) -> Vec<FunctionTotals> {
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

    /// What is shown, in preorder; children in the order of their names.
    fn shown_nodes(&self, kept: &[bool], name_ranks: &[u32]) -> Vec<Node> {
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
            // The last one comes first.
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

/// Which nodes stay under a limit: the largest, and since a parent is never smaller than its child, sorting
/// ties by number (parents first) keeps every kept node's ancestors. The root always stays, and is not counted.
fn kept_nodes(sums: &[Sums], limit: Option<usize>) -> Vec<bool> {
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
    // Of those that weigh as much as the lightest one kept, the first are.
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
fn name_ranks(functions: &[Arc<FunctionInfo>]) -> Vec<u32> {
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
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    fn info(id: u64) -> Arc<FunctionInfo> {
        Arc::new(FunctionInfo {
            id,
            name: format!("f{id}"),
            module: String::new(),
            file: String::new(),
            unresolved: false,
        })
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
        #[test]
        fn the_tree_is_what_adding_one_path_after_the_other_makes(
            stacks in prop::collection::vec((prop::collection::vec(0u64..5, 0..9), 0usize..2, 0i64..1000), 0..80),
        ) {
            let tree = build(&stacks).finish(None);
            let mut expected = plainly(&stacks);
            expected.0.entry(Vec::new()).or_default();
            prop_assert_eq!(of_tree(&tree), expected);
        }

        /// Rows of all stacks or of some, of functions with an id each or of some that share one, into an empty tree or
        /// after others.
        #[test]
        fn a_dictionary_s_paths_make_the_tree_that_its_stacks_make(
            stacks in prop::collection::vec(prop::collection::vec(0u32..5, 0..9), 1..40),
            rows in prop::collection::vec((any::<prop::sample::Index>(), 0usize..2, 0i64..1000), 0..80),
            (all, same_id, times) in (any::<bool>(), any::<bool>(), 1usize..3),
        ) {
            let functions: Vec<Arc<FunctionInfo>> = (0..5).map(|f| info(if same_id && f == 4 { 3 } else { f })).collect();
            let resolved = ResolvedStacks {
                stacks: (0..).zip(&stacks).map(|(id, frames)| (id, frames.iter().copied())).collect(),
                functions,
            };
            let every = (0..stacks.len()).filter(|_| all).map(|at| (at, 1, 7));
            let rows = rows.iter().map(|(index, side, value)| (index.index(stacks.len()), *side, *value));
            let rows: Vec<(usize, usize, i64)> = every.chain(rows).collect();
            let mut tree = TreeBuilder::new();
            let mut expected = Vec::new();
            for _ in 0..times {
                tree.add_resolved(&resolved, rows.iter().map(|&(at, side, value)| StackValue {
                    stack_id: at as u64,
                    side,
                    value,
                    samples: 1,
                }));
                let ids = |at: usize| stacks[at].iter().map(|&f| resolved.functions[f as usize].id).collect();
                expected.extend(rows.iter().map(|&(at, side, value)| (ids(at), side, value)));
            }
            let mut expected = plainly(&expected);
            expected.0.entry(Vec::new()).or_default();
            prop_assert_eq!(of_tree(&tree.finish(None)), expected);
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

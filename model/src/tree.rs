//! Flame trees of one profile or of two being compared.
//!
//! Guarantees: self and total of every function are computed on all stacks before anything is cut; a display limit then
//! replaces subtrees by *cut* nodes that carry their sums, so the self values of the nodes shown add up to the total at
//! every limit, and the function table is the same at every limit. Children are ordered by name, so frames keep their
//! place when the values change.
//!
//! `build` adds up stacks, `cut` sums the result and chooses what is shown.

mod build;
mod cut;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub use self::build::TreeBuilder;
use crate::{path_tree::PathTree, resolve::FunctionInfo};

const ROOT: u32 = PathTree::ROOT;

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

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// The root, with everything below it.
    Root,
    /// A function, by index into [`FlameTree::functions`].
    Function(u32),
    /// Subtrees omitted at the display limit: how many nodes.
    Cut(u32),
}

/// One frame of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it stands for.
    pub kind: NodeKind,
    /// Distance from the root, which has 0.
    pub depth: u32,
    /// Value of stacks that end here (for a cut node: everything below).
    pub self_value: Pair,
    /// Value of stacks that pass through here.
    pub total: Pair,
}

/// A flame graph: nodes in preorder, the root first, and the functions they refer to.
#[derive(Debug, Clone, Default)]
pub struct FlameTree {
    /// Functions, each once, in order of first appearance.
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

    /// Display name of each function: functions with the same name in different files are distinguished by their
    /// modules.
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

fn plus(a: Pair, b: Pair) -> Pair {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::resolve::{ResolvedStacks, StackValue};

    fn info(id: u64) -> Arc<FunctionInfo> {
        Arc::new(FunctionInfo {
            id,
            name: format!("f{id}"),
            module: String::new(),
            file: String::new(),
            unresolved: false,
        })
    }

    /// A tree of stacks with side and value, leaf first; function 7 is named `f7`.
    pub(crate) fn build(stacks: &[(Vec<u64>, usize, i64)]) -> TreeBuilder {
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

    /// Sums per path and per function, added stack by stack.
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

    /// The same for an uncut tree; nodes must be ordered by name.
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

        /// Rows of all stacks or of some, of functions with unique ids or shared ones, into an empty tree or after
        /// others.
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

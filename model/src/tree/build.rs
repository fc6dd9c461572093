//! Adding up stacks.
//!
//! Guarantee: memory depends on the number of distinct paths, not on how many stacks were added: equal paths, and
//! values in the same node, are merged as they accumulate.

use std::sync::Arc;

use super::{
    End, FlameTree, Own, ROOT,
    cut::{Whole, kept_nodes, name_ranks},
};
use crate::{
    int_map::IntMap,
    path_tree::{PathTree, Translation},
    resolve::{FunctionInfo, ResolvedStacks, StackValue},
};

/// Adds up stacks.
#[derive(Default)]
pub struct TreeBuilder {
    functions: Vec<Arc<FunctionInfo>>,
    by_id: IntMap<u32>,
    /// Steps are functions.
    paths: PathTree,
    /// Common parts of paths may occur several times.
    has_twins: bool,
    ends: Vec<End>,
    /// The number of nodes and ends after the last merge.
    size_after_merge: usize,
}

/// Nodes and ends accumulated before a merge, and at least as many as the last one left.
#[cfg(not(test))]
const NODES_BEFORE_MERGE: usize = 1 << 20;
#[cfg(test)]
const NODES_BEFORE_MERGE: usize = 24;

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

    /// Adds one stack (indices from [`TreeBuilder::function`], leaf first) to a side (0 or 1). A stack without frames
    /// counts towards the root's self value.
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

    /// Adds values by node of a dictionary's paths: side, value and samples.
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
            // Usually there is a single answer with its names.
            true => {
                self.functions = resolved.functions.clone();
                self.by_id = (0..).zip(&self.functions).map(|(index, f)| (f.id, index)).collect();
                self.paths = resolved.stacks.paths().clone();
                self.ends = ends;
            }
            false => self.add_paths(resolved, ends),
        }
    }

    /// The same; a stack unknown to the dictionary, or without any known frame, counts under a function of its own.
    pub fn add_named(&mut self, resolved: &ResolvedStacks, rows: impl IntoIterator<Item = StackValue>) {
        let is_named = |row: &StackValue| !resolved.frames(row.stack_id).is_empty();
        let (named, unknown): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_named);
        self.add_resolved(resolved, named);
        for row in unknown {
            let function = self.function(&Arc::new(FunctionInfo::unknown()));
            self.add(&[function], row.side, row.value, row.samples);
        }
    }

    /// Adds values that end in nodes of a dictionary's paths.
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
                        // Already known: then it may occur several times below the same node.
                        self.has_twins |= function as usize != next;
                        *functions[f as usize].insert(function)
                    }
                };
                self.paths.push(parent, function)
            });
            self.ends.push(End { node, own });
        }
    }

    /// Merges paths that have the same functions.
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

    /// Merges equal paths, and values in the same node; by node, ascending.
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
    /// children only with their parents); a cut node stands for the rest below each.
    pub fn finish(mut self, limit: Option<usize>) -> FlameTree {
        self.shrink();
        let whole = Whole::of(self.paths, self.ends);
        let totals = whole.function_totals(self.functions.len());
        let kept = kept_nodes(&whole.sums, limit);
        FlameTree {
            nodes: whole.shown_nodes(&kept, &name_ranks(&self.functions)),
            functions: self.functions,
            totals,
        }
    }
}

/// True if something ends in every path, every function is on one, and no two functions share an id: then paths and
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

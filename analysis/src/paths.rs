//! The stacks of a comparison as paths of functions: input of the tree, who calls whom, and the cost of each function
//! in each slice of time.
//!
//! Guarantees: a function counts once per stack, however often it occurs; sums are integers until a function has its
//! total. Common parts of stacks are visited once per slice of time, and if both sides share one dictionary, added
//! once: costs are summed up node by node, and memory is proportional to the nodes, not to the frames of all stacks.

use std::sync::Arc;

use emberline_model::{
    comparison::{SideData, WindowCost},
    path_tree::PathTree,
    resolve::{FunctionInfo, ResolvedStacks},
    tree::TreeBuilder,
};

use crate::functions::{FunctionSeries, FunctionWindow};

/// No function.
const NONE: u32 = u32::MAX;

/// What ends at or passes a node: value and samples.
type Amount = (i64, u64);

fn add(sum: &mut Amount, (value, samples): Amount) {
    *sum = (sum.0.saturating_add(value), sum.1.saturating_add(samples));
}

/// The function in the comparison's tree for each node of a dictionary's paths.
pub(crate) struct Paths<'a> {
    resolved: &'a ResolvedStacks,
    /// The sides with this dictionary; 0 is the baseline, 1 the candidate.
    sides: Vec<(usize, &'a SideData)>,
    /// [`NONE`] if no stack passes the node.
    functions: Vec<u32>,
    /// Nodes whose function is on no ancestor.
    outermost: Vec<bool>,
    /// The function for stacks unknown to the dictionary, or without any known frame.
    unknown: Option<u32>,
}

impl<'a> Paths<'a> {
    /// Adds the stacks of both sides to the tree.
    pub(crate) fn of_both(baseline: &'a SideData, candidate: &'a SideData, tree: &mut TreeBuilder) -> Vec<Paths<'a>> {
        if Arc::ptr_eq(&baseline.resolved, &candidate.resolved) {
            return vec![Paths::add(vec![(0, baseline), (1, candidate)], tree)];
        }
        [(0, baseline), (1, candidate)]
            .map(|side| Paths::add(vec![side], tree))
            .into()
    }

    /// Adds the stacks of sides that share one dictionary.
    fn add(sides: Vec<(usize, &'a SideData)>, tree: &mut TreeBuilder) -> Paths<'a> {
        let resolved = sides[0].1.resolved.as_ref();
        let paths = resolved.stacks.paths();
        let mut is_passed = vec![false; paths.len()];
        let mut rows = Vec::new();
        let mut of_unknown = Vec::new();
        for &(index, side) in &sides {
            let mut place: Vec<u32> = vec![NONE; paths.len()];
            let mut ends: Vec<(u32, Amount)> = Vec::new();
            for &(stack, value, samples) in side.windows.iter().flat_map(|window| &window.stacks) {
                let node = node_of(resolved, stack);
                match ends.get_mut(place[node] as usize) {
                    Some((_, sum)) => add(sum, (value, samples)),
                    None => {
                        place[node] = ends.len() as u32;
                        ends.push((node as u32, (value, samples)));
                    }
                }
            }
            // In memory order.
            ends.sort_unstable_by_key(|(node, _)| *node);
            let pieces = pieces_of_mean(side);
            let mean = |value: i64| match pieces {
                1 => value,
                _ => value.saturating_add(pieces / 2) / pieces,
            };
            for (node, (value, samples)) in ends {
                is_passed[node as usize] = true;
                let row = (index, mean(value), samples);
                match node {
                    PathTree::ROOT => of_unknown.push(row),
                    _ => rows.push((node, row)),
                }
            }
        }
        tree.add_nodes(resolved, rows);
        let unknown = (!of_unknown.is_empty()).then(|| tree.function(&Arc::new(FunctionInfo::unknown())));
        for (function, (side, value, samples)) in unknown.into_iter().cycle().zip(of_unknown) {
            tree.add(&[function], side, value, samples);
        }
        for node in (1..paths.len()).rev() {
            if is_passed[node]
                && let Some(parent) = paths.parent(node as u32)
            {
                is_passed[parent as usize] = true;
            }
        }
        let mut known: Vec<u32> = vec![NONE; resolved.functions.len()];
        let mut functions = vec![NONE; paths.len()];
        for node in (1..paths.len()).filter(|&node| is_passed[node]) {
            let function = paths.step(node as u32) as usize;
            if known[function] == NONE {
                known[function] = tree.function(&resolved.functions[function]);
            }
            functions[node] = known[function];
        }
        // All nodes without stacks share one index.
        let none = known.iter().filter(|&&f| f != NONE).max().map_or(0, |last| last + 1);
        let of = |function: u32| known[function as usize].min(none);
        let outermost = paths.outermost(&paths.children(), none as usize + 1, of);
        Paths {
            resolved,
            sides,
            functions,
            outermost,
            unknown,
        }
    }

    /// Adds each pair of a function and its caller, as callee and caller, possibly several times.
    pub(crate) fn add_callers(&self, pairs: &mut Vec<(u32, u32)>) {
        // Successive nodes of a function mostly have the same caller.
        let mut last: Vec<u32> = Vec::new();
        for ((parent, _), &callee) in self.resolved.stacks.paths().below_root().zip(&self.functions[1..]) {
            let caller = self.functions[parent as usize];
            if callee == NONE || caller == NONE || callee == caller {
                continue;
            }
            if last.len() <= callee as usize {
                last.resize(callee as usize + 1, NONE);
            }
            if last[callee as usize] != caller {
                last[callee as usize] = caller;
                pairs.push((callee, caller));
            }
        }
    }

    /// Adds the cost of each function of the tree in each slice of time.
    pub(crate) fn add_windows(&self, series: &mut [FunctionSeries]) {
        let mut nodes: Vec<Amount> = vec![(0, 0); self.functions.len()];
        let mut costs: Vec<FunctionCost> = vec![FunctionCost::default(); series.len()];
        for &(side, data) in &self.sides {
            for window in &data.windows {
                self.add_up(window, &mut nodes, &mut costs);
                for (cost, function) in costs.iter_mut().zip(series.iter_mut()) {
                    let cost = std::mem::take(cost);
                    if cost.total.1 == 0 && cost.total.0 <= 0 {
                        continue;
                    }
                    let rows = match side {
                        0 => &mut function.baseline,
                        _ => &mut function.candidate,
                    };
                    rows.push(FunctionWindow {
                        start: window.start_unix_s,
                        self_cost: cost.own.0 as f64,
                        total_cost: cost.total.0 as f64,
                        self_samples: cost.own.1,
                        total_samples: cost.total.1,
                    });
                }
            }
        }
    }

    /// Adds up the stacks of a slice of time; `nodes` is empty before and afterwards.
    fn add_up(&self, window: &WindowCost, nodes: &mut [Amount], costs: &mut [FunctionCost]) {
        for &(stack, value, samples) in &window.stacks {
            let (node, amount) = (node_of(self.resolved, stack), (value, samples));
            if node != PathTree::ROOT as usize {
                add(&mut costs[self.functions[node] as usize].own, amount);
                add(&mut nodes[node], amount);
            } else if let Some(unknown) = self.unknown {
                let cost = &mut costs[unknown as usize];
                add(&mut cost.own, amount);
                add(&mut cost.total, amount);
            }
        }
        // Children have larger numbers than their parents: one backward pass adds everything up.
        for (node, (parent, _)) in (1..nodes.len()).zip(self.resolved.stacks.paths().below_root()).rev() {
            let amount = std::mem::take(&mut nodes[node]);
            if amount == (0, 0) {
                continue;
            }
            if self.outermost[node] {
                add(&mut costs[self.functions[node] as usize].total, amount);
            }
            add(&mut nodes[parent as usize], amount);
        }
        nodes[PathTree::ROOT as usize] = (0, 0);
    }
}

/// The cost of one function in a slice of time.
#[derive(Debug, Clone, Copy, Default)]
struct FunctionCost {
    own: Amount,
    total: Amount,
}

/// The node in which a stack ends; the root for a stack unknown to the dictionary.
fn node_of(resolved: &ResolvedStacks, stack: u64) -> usize {
    resolved.stacks.node(stack).unwrap_or(PathTree::ROOT) as usize
}

/// The number of slices that a side's values are averaged over; 1 if they are summed.
pub(crate) fn pieces_of_mean(side: &SideData) -> i64 {
    match side.is_gauge {
        true => i64::try_from(side.windows.len()).unwrap_or(i64::MAX).max(1),
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use emberline_model::Release;
    use proptest::prelude::*;

    use super::*;

    fn resolved(stacks: &[Vec<u32>]) -> Arc<ResolvedStacks> {
        let functions = (0..6u64).map(|id| FunctionInfo {
            id,
            name: id.to_string(),
            ..FunctionInfo::unknown()
        });
        Arc::new(ResolvedStacks {
            functions: functions.map(Arc::new).collect(),
            stacks: (0..).zip(stacks.iter().map(|s| s.iter().copied())).collect(),
        })
    }

    fn side(resolved: &Arc<ResolvedStacks>, windows: &[Vec<(u64, i64, u64)>]) -> SideData {
        let windows = (0..).zip(windows).map(|(start_unix_s, stacks)| WindowCost {
            start_unix_s,
            stacks: stacks.clone(),
            ..WindowCost::default()
        });
        SideData {
            release: Release::default(),
            from_unix_s: 0,
            to_unix_s: 100,
            windows: windows.collect(),
            latency: Default::default(),
            coverage: Default::default(),
            is_gauge: false,
            has_stacks_of_routes: false,
            resolved: resolved.clone(),
            build_ids: Vec::new(),
        }
    }

    /// By function, side and start: self and total.
    type Costs = BTreeMap<(u64, usize, i64), [Amount; 2]>;

    /// Computed frame by frame. A stack that is unknown, or has no frames, is one unknown function.
    fn frame_by_frame(sides: [&SideData; 2]) -> Costs {
        let mut costs = Costs::new();
        for (index, side) in sides.into_iter().enumerate() {
            for (window, &(stack, value, samples)) in side
                .windows
                .iter()
                .flat_map(|w| w.stacks.iter().map(move |stack| (w, stack)))
            {
                let mut frames: Vec<u64> = side.resolved.frames(stack).map(u64::from).collect();
                if frames.is_empty() {
                    frames.push(FunctionInfo::unknown().id);
                }
                let mut of = |function, kind: usize| {
                    let cost = costs.entry((function, index, window.start_unix_s)).or_default();
                    add(&mut cost[kind], (value, samples));
                };
                of(frames[0], 0);
                frames
                    .into_iter()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .for_each(|f| of(f, 1));
            }
        }
        costs
    }

    fn told(sides: [&SideData; 2]) -> (Costs, BTreeSet<(u64, u64)>) {
        let mut tree = TreeBuilder::new();
        let all = Paths::of_both(sides[0], sides[1], &mut tree);
        let tree = tree.finish(None);
        let mut series = vec![FunctionSeries::default(); tree.functions.len()];
        let mut callers = Vec::new();
        for paths in &all {
            paths.add_windows(&mut series);
            paths.add_callers(&mut callers);
        }
        let mut costs = Costs::new();
        for (of, info) in series.iter().zip(&tree.functions) {
            for (index, rows) in [&of.baseline, &of.candidate].into_iter().enumerate() {
                for row in rows {
                    let own = (row.self_cost as i64, row.self_samples);
                    let total = (row.total_cost as i64, row.total_samples);
                    assert_eq!(costs.insert((info.id, index, row.start), [own, total]), None);
                }
            }
        }
        let id = |function: u32| tree.functions[function as usize].id;
        (costs, callers.into_iter().map(|(a, b)| (id(a), id(b))).collect())
    }

    proptest! {
        /// Even for recursive functions, and for stacks missing from the dictionary.
        #[test]
        fn costs_that_go_up_by_nodes_are_those_of_each_frame(
            stacks in prop::collection::vec(prop::collection::vec(0u32..6, 0..8), 1..12),
            windows in prop::collection::vec(
                prop::collection::vec(prop::collection::vec((0u64..13, 0i64..1000, 1u64..5), 0..9), 0..4), 2),
            is_shared: bool,
        ) {
            let first = resolved(&stacks);
            let second = if is_shared { first.clone() } else { resolved(&stacks) };
            let (baseline, candidate) = (side(&first, &windows[0]), side(&second, &windows[1]));
            let (costs, callers) = told([&baseline, &candidate]);
            prop_assert_eq!(costs, frame_by_frame([&baseline, &candidate]));
            let mut expected = BTreeSet::new();
            for (stack, ..) in windows.iter().flatten().flatten() {
                let frames: Vec<u64> = first.frames(*stack).map(u64::from).collect();
                expected.extend(frames.windows(2).filter(|w| w[0] != w[1]).map(|w| (w[0], w[1])));
            }
            prop_assert_eq!(callers, expected);
        }
    }
}

//! One function between its callers and its callees.
//!
//! Guarantees: a stack counts once, however often the function recurs in it: both trees are rooted at its outermost
//! occurrence, so the total of either is the function's total; direct callers, and direct callees plus the function's
//! self value, add up to that total. Computed on all stacks before a display limit applies.

use std::{collections::HashMap, sync::Arc};

use crate::{
    resolve::{FunctionInfo, ResolvedStacks, StackValue},
    tree::{FlameTree, FunctionTotals, Pair, TreeBuilder},
};

/// A caller or callee of the requested function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// `None`: no caller (the thread starts here) or no callee (the stack ends here).
    pub function: Option<Arc<FunctionInfo>>,
    /// Value of stacks that contain both.
    pub value: Pair,
    /// Samples of those stacks.
    pub samples: [u64; 2],
}

/// A function, who calls it and what it calls.
#[derive(Debug, Clone)]
pub struct Sandwich {
    /// The function.
    pub function: Arc<FunctionInfo>,
    /// Its exact sums.
    pub totals: FunctionTotals,
    /// Direct callers, the largest first.
    pub direct_callers: Vec<Neighbour>,
    /// Direct callees, the largest first.
    pub direct_callees: Vec<Neighbour>,
    /// Inverted: the function is below the root, its callers below it, and so on.
    pub callers: FlameTree,
    /// The function is below the root, its callees below it.
    pub callees: FlameTree,
}

type Sums = HashMap<Option<u32>, (Pair, [u64; 2])>;

/// Examines a function (an index into `resolved.functions`); `limit` cuts each tree.
pub fn sandwich(
    resolved: &ResolvedStacks,
    rows: impl IntoIterator<Item = StackValue>,
    wanted: u32,
    limit: Option<usize>,
) -> Sandwich {
    let (mut callers, mut callees) = (TreeBuilder::new(), TreeBuilder::new());
    let (mut direct_callers, mut direct_callees) = (Sums::new(), Sums::new());
    let mut totals = FunctionTotals::default();
    let (mut stack, mut frames): (Vec<u32>, Vec<u32>) = Default::default();
    for row in rows {
        stack.clear();
        stack.extend(resolved.frames(row.stack_id));
        // Leaf first: the last one is the outermost.
        let Some(outermost) = stack.iter().rposition(|&f| f == wanted) else {
            continue;
        };
        let side = row.side;
        totals.total[side] = totals.total[side].saturating_add(row.value);
        totals.samples[side] = totals.samples[side].saturating_add(row.samples);
        if stack[0] == wanted {
            totals.self_value[side] = totals.self_value[side].saturating_add(row.value);
        }
        let above = stack.get(outermost + 1).copied();
        let below = outermost.checked_sub(1).map(|at| stack[at]);
        for (sums, key) in [(&mut direct_callers, above), (&mut direct_callees, below)] {
            let (value, samples) = sums.entry(key).or_default();
            value[side] = value[side].saturating_add(row.value);
            samples[side] = samples[side].saturating_add(row.samples);
        }
        frames.clear();
        frames.extend(
            stack[outermost..]
                .iter()
                .rev()
                .map(|&f| callers.function(&resolved.functions[f as usize])),
        );
        callers.add(&frames, side, row.value, row.samples);
        frames.clear();
        frames.extend(
            stack[..=outermost]
                .iter()
                .map(|&f| callees.function(&resolved.functions[f as usize])),
        );
        callees.add(&frames, side, row.value, row.samples);
    }
    Sandwich {
        function: Arc::clone(&resolved.functions[wanted as usize]),
        totals,
        direct_callers: sorted(resolved, direct_callers),
        direct_callees: sorted(resolved, direct_callees),
        callers: callers.finish(limit),
        callees: callees.finish(limit),
    }
}

fn sorted(resolved: &ResolvedStacks, sums: Sums) -> Vec<Neighbour> {
    let mut neighbours: Vec<Neighbour> = sums
        .into_iter()
        .map(|(function, (value, samples))| Neighbour {
            function: function.map(|f| Arc::clone(&resolved.functions[f as usize])),
            value,
            samples,
        })
        .collect();
    let largest = |n: &Neighbour| n.value[0].max(n.value[1]);
    let name = |n: &Neighbour| n.function.as_ref().map(|f| (f.name.clone(), f.id));
    neighbours.sort_by(|a, b| largest(b).cmp(&largest(a)).then_with(|| name(a).cmp(&name(b))));
    neighbours
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::NodeKind;

    fn resolved(stacks: &[Vec<u32>], functions: u32) -> ResolvedStacks {
        let info = |id: u32| FunctionInfo {
            id: u64::from(id),
            name: format!("f{id}"),
            module: String::new(),
            file: String::new(),
            unresolved: false,
        };
        let numbered = stacks.iter().enumerate();
        ResolvedStacks {
            functions: (0..functions).map(info).map(Arc::new).collect(),
            stacks: numbered
                .map(|(id, s)| (id as u64, s.clone().into_boxed_slice()))
                .collect(),
        }
    }

    fn row(stack_id: u64, value: i64) -> StackValue {
        StackValue {
            stack_id,
            side: 0,
            value,
            samples: 1,
        }
    }

    #[test]
    fn recursion_counts_once_and_hangs_on_the_outermost_call() {
        // Leaf first: 0 called 1, which called 2, which called 1 again.
        let resolved = resolved(&[vec![1, 2, 1, 0]], 3);
        let answer = sandwich(&resolved, [row(0, 5)], 1, None);
        assert_eq!(answer.totals.total, [5, 0]);
        assert_eq!(answer.totals.self_value, [5, 0]);
        let names = |tree: &FlameTree| -> Vec<String> {
            let named = tree.nodes.iter().filter_map(|n| match n.kind {
                NodeKind::Function(f) => Some(tree.functions[f as usize].name.clone()),
                _ => None,
            });
            named.collect()
        };
        assert_eq!(names(&answer.callers), ["f1", "f0"]);
        assert_eq!(names(&answer.callees), ["f1", "f2", "f1"]);
        assert_eq!(answer.direct_callers[0].function.as_ref().unwrap().name, "f0");
        assert_eq!(answer.direct_callees[0].function.as_ref().unwrap().name, "f2");
    }

    proptest! {
        #[test]
        fn both_halves_add_up_to_the_functions_total(
            stacks in prop::collection::vec((prop::collection::vec(0u32..5, 0..7), 0i64..1000, 0usize..2), 0..40),
            limit in 0usize..12,
        ) {
            let resolved = resolved(&stacks.iter().map(|s| s.0.clone()).collect::<Vec<_>>(), 5);
            let rows = || stacks.iter().enumerate().map(|(id, (_, value, side))| StackValue {
                side: *side, ..row(id as u64, *value)
            });
            let mut whole = TreeBuilder::new();
            for side in 0..2 {
                whole.add_resolved(&resolved, rows().filter(|r| r.side == side));
            }
            let whole = whole.finish(None);
            for wanted in 0..5u32 {
                let answer = sandwich(&resolved, rows(), wanted, Some(limit));
                let place = whole.functions.iter().position(|f| f.id == u64::from(wanted));
                prop_assert_eq!(answer.totals, place.map(|at| whole.totals[at]).unwrap_or_default());
                for tree in [&answer.callers, &answer.callees] {
                    prop_assert_eq!(tree.total(), answer.totals.total);
                }
                for neighbours in [&answer.direct_callers, &answer.direct_callees] {
                    for side in 0..2 {
                        prop_assert_eq!(neighbours.iter().map(|n| n.value[side]).sum::<i64>(), answer.totals.total[side]);
                        prop_assert_eq!(neighbours.iter().map(|n| n.samples[side]).sum::<u64>(), answer.totals.samples[side]);
                    }
                }
            }
        }
    }
}

//! Flame trees as levels of numbers, the form that Grafana and other clients of the Pyroscope API draw.
//!
//! Guarantees: totals and self values are the tree's, so the self values of all levels add up to the total; a child is
//! within its parent on every side. Wrong on purpose: frames without a value on any side are omitted, since they have
//! no width, and cut nodes are one frame named `other`.

use std::collections::HashMap;

use crate::tree::{FlameTree, NodeKind, Pair};

/// Name of the root frame.
const TOTAL: &str = "total";
/// Name of the frame that stands for what was cut.
const OTHER: &str = "other";

/// Levels of a tree, from the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flamebearer {
    /// Names of frames, each once.
    pub names: Vec<String>,
    /// For one side, groups of (distance from the end of the frame to the left, total, self, name); for two, (distance,
    /// total, self) per side and the name.
    pub levels: Vec<Vec<i64>>,
    /// Sum of all sides.
    pub total: i64,
    /// Sum of each side.
    pub ticks: Pair,
    /// The largest self value of a frame on any side.
    pub max_self: i64,
}

/// Writes the first side of a tree, or both.
pub fn flamebearer(tree: &FlameTree, both: bool) -> Flamebearer {
    let sides = if both { 2 } else { 1 };
    let called = tree.told_apart();
    let mut names: Vec<String> = Vec::new();
    let mut index: HashMap<&str, i64> = HashMap::new();
    let mut answer = Flamebearer {
        ticks: tree.total(),
        total: tree.total()[..sides].iter().fold(0i64, |sum, &t| sum.saturating_add(t)),
        ..Flamebearer::default()
    };
    // Per level: where its last frame ends. Per depth of the path: where the next child begins.
    let (mut ends, mut next): (Vec<Pair>, Vec<Pair>) = (Vec::new(), Vec::new());
    for node in &tree.nodes {
        let depth = node.depth as usize;
        if depth > 0 && node.total[..sides].iter().all(|&total| total == 0) {
            continue;
        }
        let name = match node.kind {
            NodeKind::Root => TOTAL,
            NodeKind::Cut(_) => OTHER,
            NodeKind::Function(function) => &called[function as usize],
        };
        let name = *index.entry(name).or_insert_with(|| {
            names.push(name.to_owned());
            names.len() as i64 - 1
        });
        if answer.levels.len() <= depth {
            answer.levels.push(Vec::new());
            ends.push([0, 0]);
        }
        next.truncate(depth);
        let start = next.last().copied().unwrap_or([0, 0]);
        let level = &mut answer.levels[depth];
        for side in 0..sides {
            level.extend([start[side] - ends[depth][side], node.total[side], node.self_value[side]]);
            ends[depth][side] = start[side].saturating_add(node.total[side]);
            answer.max_self = answer.max_self.max(node.self_value[side]);
            if let Some(parent) = next.last_mut() {
                parent[side] = ends[depth][side];
            }
        }
        level.push(name);
        // Self time is to the left of the children.
        next.push([
            start[0].saturating_add(node.self_value[0]),
            start[1].saturating_add(node.self_value[1]),
        ]);
    }
    answer.names = names;
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(stacks: &[(Vec<u64>, usize, i64)], limit: Option<usize>) -> FlameTree {
        crate::tree::tests::build(stacks).finish(limit)
    }

    #[test]
    fn levels_are_groups_of_four() {
        // Leaf first: main calls a (5 of its own) and b (3); main itself did 2.
        let tree = build(&[(vec![1, 0], 0, 5), (vec![2, 0], 0, 3), (vec![0], 0, 2)], None);
        let answer = flamebearer(&tree, false);
        assert_eq!(answer.names, ["total", "f0", "f1", "f2"]);
        assert_eq!(
            answer.levels,
            [vec![0, 10, 0, 0], vec![0, 10, 2, 1], vec![2, 5, 5, 2, 0, 3, 3, 3]]
        );
        assert_eq!((answer.total, answer.max_self), (10, 5));
    }

    proptest! {
        #[test]
        fn frames_lie_within_their_parents_and_add_up(
            stacks in prop::collection::vec((prop::collection::vec(0u64..5, 0..6), 0usize..2, 0i64..1000), 0..40),
            limit in 0usize..30,
            both in any::<bool>(),
        ) {
            let tree = build(&stacks, Some(limit));
            let answer = flamebearer(&tree, both);
            let sides = if both { 2 } else { 1 };
            for side in 0..sides {
                let mut above: Vec<(i64, i64)> = vec![(0, tree.total()[side])];
                let mut own = 0;
                for level in &answer.levels {
                    let (mut here, mut end) = (Vec::new(), 0);
                    for group in level.chunks_exact(3 * sides + 1) {
                        let [distance, total, self_value] = group[3 * side..3 * side + 3] else { panic!() };
                        prop_assert!(distance >= 0 && self_value >= 0 && self_value <= total);
                        let start = end + distance;
                        end = start + total;
                        own += self_value;
                        prop_assert!((group[3 * sides] as usize) < answer.names.len());
                        prop_assert!(above.iter().any(|(from, to)| *from <= start && end <= *to), "{start}..{end} in {above:?}");
                        here.push((start, end));
                    }
                    above = here;
                }
                prop_assert_eq!(own, tree.total()[side]);
                prop_assert_eq!(answer.ticks[side], tree.total()[side]);
            }
        }
    }
}

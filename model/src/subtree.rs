//! A part of a flame tree, for large trees that are shown in pieces.
//!
//! Guarantees: a node's identifier depends only on the functions from the root to it, so the identifier in one response
//! finds the same node in the next, at any display limit; the self values of a part add up to the total of its first
//! node at every limit; a part has the exact function table of the whole.

use crate::{
    id,
    tree::{FlameTree, Node, NodeKind, Pair},
};

/// Identifier of the root.
pub const ROOT_NODE: u64 = 0;

/// Identifiers of a tree's nodes, in its order. A cut node has its parent's: querying it shows what was cut.
pub fn node_ids(tree: &FlameTree) -> Vec<u64> {
    let mut path: Vec<u64> = Vec::new();
    let mut ids = Vec::with_capacity(tree.nodes.len());
    // The first node of a part is below others; only whole trees have identifiers.
    for node in &tree.nodes {
        path.truncate(node.depth as usize);
        let parent = path.last().copied().unwrap_or(ROOT_NODE);
        let own = match node.kind {
            NodeKind::Root => ROOT_NODE,
            NodeKind::Cut(_) => parent,
            NodeKind::Function(function) => id::node_id(parent, tree.functions[function as usize].id),
        };
        path.push(own);
        ids.push(own);
    }
    ids
}

impl FlameTree {
    /// The part below a node, which comes first with depth 0. With a limit, about that many nodes below it remain (the
    /// largest); `None` if there is no such node. Requires an uncut tree.
    pub fn below(self, node: u64, limit: Option<usize>) -> Option<(FlameTree, Vec<u64>)> {
        let ids = node_ids(&self);
        let is_node = |(at, id): (usize, &u64)| *id == node && !matches!(self.nodes[at].kind, NodeKind::Cut(_));
        let from = ids.iter().enumerate().position(is_node)?;
        let depth = self.nodes[from].depth;
        let rest = &self.nodes[from + 1..];
        let length = rest.iter().take_while(|n| n.depth > depth).count();
        let part = &self.nodes[from..=from + length];
        let (nodes, shown) = cut(part, &ids[from..=from + length], limit);
        let tree = FlameTree {
            functions: self.functions,
            totals: self.totals,
            nodes,
        };
        Some((tree, shown))
    }
}

/// Keeps the first node and the largest of the others; cut nodes stand for the rest. With identifiers.
fn cut(part: &[Node], ids: &[u64], limit: Option<usize>) -> (Vec<Node>, Vec<u64>) {
    let base = part[0].depth;
    let keep = limit.unwrap_or(usize::MAX).min(part.len() - 1);
    let mut order: Vec<usize> = (1..part.len()).collect();
    let weight = |at: usize| part[at].total[0].max(part[at].total[1]);
    // A parent is never smaller than its child and comes before it, so kept nodes keep their ancestors.
    order.sort_unstable_by_key(|&at| (std::cmp::Reverse(weight(at)), at));
    let mut kept = vec![false; part.len()];
    kept[0] = true;
    order[..keep].iter().for_each(|&at| kept[at] = true);

    let (mut parents, mut path): (Vec<usize>, Vec<usize>) = (Vec::with_capacity(part.len()), Vec::new());
    for (at, node) in part.iter().enumerate() {
        path.truncate((node.depth - base) as usize);
        parents.push(path.last().copied().unwrap_or(0));
        path.push(at);
    }
    let mut sizes: Vec<u32> = vec![1; part.len()];
    for at in (1..part.len()).rev() {
        sizes[parents[at]] += sizes[at];
    }
    let mut left_out: Vec<(u32, Pair)> = vec![(0, [0, 0]); part.len()];
    for at in 1..part.len() {
        if kept[at] || !kept[parents[at]] {
            continue;
        }
        let (count, value) = &mut left_out[parents[at]];
        *count += sizes[at];
        value[0] = value[0].saturating_add(part[at].total[0]);
        value[1] = value[1].saturating_add(part[at].total[1]);
    }
    let (mut nodes, mut shown) = (Vec::new(), Vec::new());
    for (at, node) in part.iter().enumerate().filter(|(at, _)| kept[*at]) {
        let depth = node.depth - base;
        nodes.push(Node { depth, ..*node });
        shown.push(ids[at]);
        let (count, value) = left_out[at];
        if count > 0 {
            nodes.push(Node {
                kind: NodeKind::Cut(count),
                depth: depth + 1,
                self_value: value,
                total: value,
            });
            shown.push(ids[at]);
        }
    }
    (nodes, shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(stacks: &[(Vec<u64>, usize, i64)], limit: Option<usize>) -> FlameTree {
        crate::tree::tests::build(stacks).finish(limit)
    }

    #[test]
    fn a_node_that_is_not_there_is_not_answered() {
        assert!(build(&[(vec![1], 0, 5)], None).below(77, None).is_none());
    }

    proptest! {
        #[test]
        fn parts_hold_what_the_whole_says_of_their_first_node(
            stacks in prop::collection::vec((prop::collection::vec(0u64..5, 0..6), 0usize..2, 0i64..1000), 1..40),
            shown_limit in 0usize..20,
            limit in 0usize..20,
        ) {
            let whole = build(&stacks, None);
            let shown = build(&stacks, Some(shown_limit));
            let ids = node_ids(&shown);
            for (at, node) in shown.nodes.iter().enumerate() {
                // What a page knows about a node, or about what was cut below it, finds that node.
                let (part, part_ids) = whole.clone().below(ids[at], None).unwrap();
                if !matches!(node.kind, NodeKind::Cut(_)) {
                    prop_assert_eq!(part.nodes[0].total, node.total);
                    prop_assert_eq!(part.nodes[0].kind, node.kind);
                }
                prop_assert_eq!(part_ids[0], ids[at]);
                let (cut, cut_ids) = whole.clone().below(ids[at], Some(limit)).unwrap();
                prop_assert_eq!(cut_ids.len(), cut.nodes.len());
                for side in 0..2 {
                    for tree in [&part, &cut] {
                        let sum: i64 = tree.nodes.iter().map(|n| n.self_value[side]).sum();
                        prop_assert_eq!(sum, part.nodes[0].total[side]);
                    }
                }
                let size = |tree: &FlameTree| tree.nodes.iter().map(|n| match n.kind {
                    NodeKind::Cut(count) => count,
                    _ => 1,
                }).sum::<u32>();
                prop_assert_eq!(size(&part), size(&cut));
                let functions = cut.nodes[1..].iter().filter(|n| !matches!(n.kind, NodeKind::Cut(_))).count();
                prop_assert!(functions <= limit);
                prop_assert_eq!(&cut.totals, &whole.totals);
            }
        }
    }
}

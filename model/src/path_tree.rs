//! Paths of small numbers as a tree, so that common parts are stored once, or nearly.
//!
//! Guarantees: a node is identified by its number, which never changes; a parent's number is smaller than its
//! children's. Wrong on purpose: a node may have several children for the same step. They can be merged once at the end
//! ([`PathTree::merged`]); searching for a child at each step costs more than all the rest.

/// No node.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    step: u32,
}

/// A tree of paths; a node's number is meaningful only within its tree.
#[derive(Debug, Clone)]
pub struct PathTree {
    nodes: Vec<Node>,
}

impl Default for PathTree {
    fn default() -> PathTree {
        PathTree::with_capacity(0)
    }
}

impl PathTree {
    /// The root, in which the empty path ends.
    pub const ROOT: u32 = 0;

    /// A tree with room for `nodes` nodes.
    pub fn with_capacity(nodes: usize) -> PathTree {
        let mut all = Vec::with_capacity(nodes + 1);
        all.push(Node {
            parent: NONE,
            step: NONE,
        });
        PathTree { nodes: all }
    }

    /// Makes room for `nodes` more nodes.
    pub fn reserve(&mut self, nodes: usize) {
        self.nodes.reserve(nodes);
    }

    /// The number of nodes, including the root; all numbers are below it.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there is no path but the empty one.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// A new node one step below another.
    pub fn push(&mut self, parent: u32, step: u32) -> u32 {
        self.nodes.push(Node { parent, step });
        (self.nodes.len() - 1) as u32
    }

    /// Adds a path below a node; returns its last node.
    pub fn extend(&mut self, node: u32, steps: impl IntoIterator<Item = u32>) -> u32 {
        steps.into_iter().fold(node, |node, step| self.push(node, step))
    }

    /// A node's parent; the root has none.
    pub fn parent(&self, node: u32) -> Option<u32> {
        Some(self.nodes[node as usize].parent).filter(|&parent| parent != NONE)
    }

    /// The last step to a node; meaningless for the root.
    pub fn step(&self, node: u32) -> u32 {
        self.nodes[node as usize].step
    }

    /// Every node but the root: its parent and its step.
    pub fn below_root(&self) -> impl DoubleEndedIterator<Item = (u32, u32)> + ExactSizeIterator + '_ {
        self.nodes[1..].iter().map(|node| (node.parent, node.step))
    }

    /// The steps to a node, last one first.
    pub fn steps_up(&self, node: u32) -> StepsUp<'_> {
        StepsUp { tree: self, node }
    }

    /// The children of each node.
    pub fn children(&self) -> Children {
        let mut children = Children {
            links: vec![(NONE, NONE); self.len()],
        };
        for node in (1..self.len()).rev() {
            let above = self.nodes[node].parent as usize;
            children.links[node].1 = children.links[above].0;
            children.links[above].0 = node as u32;
        }
        children
    }

    /// Which nodes have a last step that no ancestor has, so that a step that recurs on a path counts once: what passes
    /// through these nodes is what passes the step. `of` maps steps to numbers below `many`.
    pub fn outermost(&self, children: &Children, many: usize, of: impl Fn(u32) -> u32) -> Vec<bool> {
        let mut outermost = vec![false; self.len()];
        // How often each step is on the path to the current node.
        let mut open = vec![0u32; many];
        let mut next = children.first(PathTree::ROOT);
        while let Some(mut here) = next {
            let on_path = &mut open[of(self.step(here)) as usize];
            outermost[here as usize] = *on_path == 0;
            *on_path += 1;
            next = children.first(here);
            // At a leaf: go up until there is a sibling.
            while next.is_none() {
                let Some(parent) = self.parent(here) else { break };
                open[of(self.step(here)) as usize] -= 1;
                next = children.next_sibling(here);
                here = parent;
            }
        }
        outermost
    }

    /// The same paths, with one child per step.
    pub fn merged(&self) -> Merged {
        let children = self.children();
        let steps = self.below_root().map(|(_, step)| step as usize + 1).max().unwrap_or(0);
        let mut merged = Merged {
            tree: PathTree::with_capacity(self.len()),
            node_of: vec![PathTree::ROOT; self.len()],
        };
        // The last of the nodes merged into each node of the new tree, and for each of those the previous one.
        let (mut alike, mut next_alike) = (vec![PathTree::ROOT], vec![NONE; self.len()]);
        // The child that a step led to, and its parent.
        let mut child_for: Vec<(u32, u32)> = vec![(NONE, NONE); steps];
        // One path after the other, as they were added: successive nodes are close in memory.
        let mut open = vec![PathTree::ROOT];
        while let Some(parent) = open.pop() {
            let first = merged.tree.len() as u32;
            let mut here = alike[parent as usize];
            while here != NONE {
                for next in children.of(here) {
                    let step = self.nodes[next as usize].step;
                    let (mut of, mut child) = child_for[step as usize];
                    if of != parent {
                        (of, child) = (parent, merged.tree.push(parent, step));
                        child_for[step as usize] = (of, child);
                        alike.push(NONE);
                    }
                    merged.node_of[next as usize] = child;
                    next_alike[next as usize] = std::mem::replace(&mut alike[child as usize], next);
                }
                here = next_alike[here as usize];
            }
            open.extend((first..merged.tree.len() as u32).rev());
        }
        merged
    }
}

/// The children of each node of a tree.
#[derive(Debug, Clone)]
pub struct Children {
    /// The first child, and the next sibling.
    links: Vec<(u32, u32)>,
}

impl Children {
    /// A node's children, ascending.
    pub fn of(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let first = self.first(node);
        std::iter::successors(first, |&child| self.next_sibling(child))
    }

    /// A node's first child.
    pub fn first(&self, node: u32) -> Option<u32> {
        Some(self.links[node as usize].0).filter(|&child| child != NONE)
    }

    /// The next child of the same parent.
    pub fn next_sibling(&self, node: u32) -> Option<u32> {
        Some(self.links[node as usize].1).filter(|&sibling| sibling != NONE)
    }
}

/// A tree in which each path occurs once.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The tree.
    pub tree: PathTree,
    /// The new node of each old one.
    pub node_of: Vec<u32>,
}

/// Steps from a node up to the root.
#[derive(Debug, Clone, Copy)]
pub struct StepsUp<'a> {
    tree: &'a PathTree,
    node: u32,
}

impl StepsUp<'_> {
    /// True if no step is left.
    pub fn is_empty(&self) -> bool {
        self.node == PathTree::ROOT
    }
}

impl Iterator for StepsUp<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let node = self.tree.nodes[self.node as usize];
        if node.parent == NONE {
            return None;
        }
        self.node = node.parent;
        Some(node.step)
    }
}

/// Copies paths from one tree into another. What is above a node is copied once, whatever follows below it.
#[derive(Debug)]
pub struct Translation {
    /// Old number → new number.
    nodes: Vec<u32>,
    /// The path to the node being copied.
    path: Vec<u32>,
}

impl Translation {
    /// For all current nodes of a tree.
    pub fn from(tree: &PathTree) -> Translation {
        let mut nodes = vec![NONE; tree.len()];
        nodes[PathTree::ROOT as usize] = PathTree::ROOT;
        Translation {
            nodes,
            path: Vec::new(),
        }
    }

    /// The new node for a node of `tree`; `below` maps each step, given the new parent.
    pub fn node(&mut self, tree: &PathTree, node: u32, mut below: impl FnMut(u32, u32) -> u32) -> u32 {
        let mut next = node;
        while self.nodes[next as usize] == NONE {
            self.path.push(next);
            next = tree.nodes[next as usize].parent;
        }
        let mut there = self.nodes[next as usize];
        while let Some(here) = self.path.pop() {
            there = below(there, tree.step(here));
            self.nodes[here as usize] = there;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn tree(paths: &[Vec<u32>]) -> (PathTree, Vec<u32>) {
        let mut tree = PathTree::default();
        let ends = paths
            .iter()
            .map(|path| tree.extend(PathTree::ROOT, path.iter().copied()));
        let ends = ends.collect();
        (tree, ends)
    }

    fn down(tree: &PathTree, node: u32) -> Vec<u32> {
        let mut path: Vec<u32> = tree.steps_up(node).collect();
        path.reverse();
        path
    }

    proptest! {
        #[test]
        fn merging_keeps_every_path_and_has_each_prefix_once(
            paths in prop::collection::vec(prop::collection::vec(0u32..4, 0..7), 0..60),
        ) {
            let (tree, ends) = tree(&paths);
            let merged = tree.merged();
            let mut prefixes = BTreeSet::from([&[][..]]);
            let mut by_path: BTreeMap<&[u32], u32> = BTreeMap::new();
            for (path, &end) in paths.iter().zip(&ends) {
                prefixes.extend((0..=path.len()).map(|length| &path[..length]));
                let node = merged.node_of[end as usize];
                prop_assert_eq!(&down(&tree, end), path);
                prop_assert_eq!(&down(&merged.tree, node), path);
                prop_assert_eq!(merged.tree.steps_up(node).is_empty(), path.is_empty());
                prop_assert_eq!(*by_path.entry(path).or_insert(node), node);
            }
            prop_assert_eq!(merged.tree.len(), prefixes.len());
            let mut listed = 1;
            let children = merged.tree.children();
            for node in 0..merged.tree.len() as u32 {
                for child in children.of(node) {
                    prop_assert_eq!(merged.tree.parent(child), Some(node));
                    prop_assert!(node < child);
                    listed += 1;
                }
            }
            prop_assert_eq!(listed, merged.tree.len());
        }

        #[test]
        fn a_node_is_outermost_where_no_node_above_has_its_step(
            paths in prop::collection::vec(prop::collection::vec(0u32..6, 0..7), 0..60),
        ) {
            let (tree, _) = tree(&paths);
            // Steps that map to the same number.
            let of = |step: u32| step / 2;
            let outermost = tree.outermost(&tree.children(), 3, of);
            prop_assert!(!outermost[PathTree::ROOT as usize]);
            for node in 1..tree.len() as u32 {
                let mut up = tree.steps_up(node).map(of);
                let last = up.next();
                prop_assert_eq!(outermost[node as usize], up.all(|above| Some(above) != last));
            }
        }

        /// Steps become none, one or two.
        #[test]
        fn a_translation_passes_each_node_once(
            paths in prop::collection::vec(prop::collection::vec(0u32..6, 0..7), 0..60),
        ) {
            let words: [&[u32]; 6] = [&[], &[1], &[2], &[1, 2], &[1], &[3, 3]];
            let (tree, ends) = tree(&paths);
            let mut there = PathTree::default();
            let mut translation = Translation::from(&tree);
            let mut passed = 0;
            for (path, &end) in paths.iter().zip(&ends) {
                for _ in 0..2 {
                    let node = translation.node(&tree, end, |parent, step| {
                        passed += 1;
                        there.extend(parent, words[step as usize].iter().copied())
                    });
                    let expected: Vec<u32> = path.iter().flat_map(|&step| words[step as usize].iter().copied()).collect();
                    prop_assert_eq!(down(&there, node), expected);
                }
            }
            prop_assert_eq!(passed + 1, tree.len());
        }
    }
}

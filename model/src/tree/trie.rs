//! Paths from the root added up to a tree of nodes.
//!
//! Guarantee: the same nodes and sums as adding one path after the other, in whatever order they come. Paths wait until a
//! batch is full, are sorted, and are merged into the tree in one walk: what a path shares with the one before is not
//! looked at again, and the children of a node, which are a list in the order of their functions, are passed once. A batch
//! is as large as the tree it goes into, so that walking past nodes costs no more than the paths themselves.
//!
//! Wrong on purpose: which of two nodes has the smaller number depends on the batches. A parent's is always smaller than
//! its children's.

use super::Pair;

/// The number of the node above all paths.
pub(super) const ROOT: u32 = 0;
/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// So many frames wait at least, if so many come.
#[cfg(not(test))]
const BATCH: usize = 1 << 20;
#[cfg(test)]
const BATCH: usize = 24;

/// A node and what ends in it.
pub(super) struct TrieNode {
    pub(super) parent: u32,
    /// Means nothing for the root.
    pub(super) function: u32,
    pub(super) first_child: u32,
    /// The next of its parent's children, which has a larger function.
    pub(super) next_sibling: u32,
    pub(super) self_value: Pair,
    pub(super) self_samples: [u64; 2],
}

impl TrieNode {
    fn new(parent: u32, function: u32, next_sibling: u32) -> TrieNode {
        TrieNode {
            parent,
            function,
            first_child: NONE,
            next_sibling,
            self_value: [0, 0],
            self_samples: [0, 0],
        }
    }
}

/// A path that waits: where it begins and ends in `frames`, and what ends there.
struct Waiting {
    begin: usize,
    end: usize,
    side: usize,
    value: i64,
    samples: u64,
}

/// Nodes, and paths that are not part of them yet.
pub(super) struct Trie {
    nodes: Vec<TrieNode>,
    frames: Vec<u32>,
    waiting: Vec<Waiting>,
}

impl Default for Trie {
    fn default() -> Trie {
        Trie {
            nodes: vec![TrieNode::new(NONE, NONE, NONE)],
            frames: Vec::new(),
            waiting: Vec::new(),
        }
    }
}

impl Trie {
    /// Adds a path; one without frames ends in the root.
    pub(super) fn add(&mut self, root_first: impl Iterator<Item = u32>, side: usize, value: i64, samples: u64) {
        let begin = self.frames.len();
        self.frames.extend(root_first);
        self.waiting.push(Waiting {
            begin,
            end: self.frames.len(),
            side,
            value,
            samples,
        });
        if self.frames.len() + self.waiting.len() >= BATCH.max(self.nodes.len()) {
            self.merge();
        }
    }

    /// All nodes, the root first and parents before their children.
    pub(super) fn into_nodes(mut self) -> Vec<TrieNode> {
        self.merge();
        self.nodes
    }

    fn merge(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable_by(|a, b| frames[a.begin..a.end].cmp(&frames[b.begin..b.end]));
        // The nodes of the path before, the root first.
        let mut passed = vec![ROOT];
        let mut before: &[u32] = &[];
        for stack in &waiting {
            let path = &frames[stack.begin..stack.end];
            let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
            // Where the paths part, this one goes on to a larger function: earlier children need no look.
            let mut after = passed.get(shared + 1).copied().unwrap_or(NONE);
            passed.truncate(shared + 1);
            let mut node = passed[shared];
            for &function in &path[shared..] {
                node = self.child(node, after, function);
                passed.push(node);
                after = NONE;
            }
            let end = &mut self.nodes[node as usize];
            end.self_value[stack.side] = end.self_value[stack.side].saturating_add(stack.value);
            end.self_samples[stack.side] = end.self_samples[stack.side].saturating_add(stack.samples);
            before = path;
        }
    }

    /// The child for a function, found or made; only looked for after one of its siblings, if that is given.
    fn child(&mut self, parent: u32, after: u32, function: u32) -> u32 {
        let mut before = after;
        let mut next = match after {
            NONE => self.nodes[parent as usize].first_child,
            sibling => self.nodes[sibling as usize].next_sibling,
        };
        while next != NONE && self.nodes[next as usize].function < function {
            before = next;
            next = self.nodes[next as usize].next_sibling;
        }
        if next != NONE && self.nodes[next as usize].function == function {
            return next;
        }
        let made = self.nodes.len() as u32;
        self.nodes.push(TrieNode::new(parent, function, next));
        match before {
            NONE => self.nodes[parent as usize].first_child = made,
            sibling => self.nodes[sibling as usize].next_sibling = made,
        }
        made
    }
}

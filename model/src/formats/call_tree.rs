//! Call trees, as V8 writes them: nodes with one parent each, and values at nodes.
//!
//! Guarantee: a chain of parents that is too long, or circular, is refused.

use std::collections::HashMap;

use super::{
    read_error::ReadError,
    table::{MAX_DEPTH, Table},
};

/// A node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Index of the calling node.
    pub(super) parent: Option<usize>,
    /// Name; empty for an anonymous function.
    pub(super) name: String,
    /// The file that contains it.
    pub(super) file: String,
    /// Line of its definition, from 0; -1 if unknown.
    pub(super) line: i64,
}

impl Node {
    /// True for the root node.
    fn is_root(&self) -> bool {
        self.name == "(root)"
    }
}

/// The rows of a tree's nodes, created on demand.
#[derive(Debug)]
pub(super) struct Rows<'t> {
    nodes: &'t [Node],
    frames: HashMap<usize, u32>,
}

impl<'t> Rows<'t> {
    /// For a tree.
    pub(super) fn new(nodes: &'t [Node]) -> Rows<'t> {
        Rows {
            nodes,
            frames: HashMap::new(),
        }
    }

    /// The row of the stack that ends in a node.
    pub(super) fn row(&mut self, at: usize, table: &mut Table) -> Result<usize, ReadError> {
        let mut stack = Vec::new();
        let mut next = Some(at);
        let mut steps = 0;
        while let Some(at) = next {
            let node = &self.nodes[at];
            next = node.parent;
            // Roots count as steps, too: one that calls itself never ends, and has no frame.
            steps += 1;
            if steps > MAX_DEPTH + 1 {
                return Err(ReadError::Content(format!(
                    "node {at} is nested more than {MAX_DEPTH} deep, or in itself"
                )));
            }
            if node.is_root() {
                continue;
            }
            let frame = match self.frames.get(&at) {
                Some(&frame) => frame,
                None => {
                    let name = if node.name.is_empty() {
                        "(anonymous)"
                    } else {
                        &node.name
                    };
                    let line = u32::try_from(node.line.saturating_add(1)).unwrap_or(0);
                    let frame = table.frame(name, &node.file, line)?;
                    self.frames.insert(at, frame);
                    frame
                }
            };
            stack.push(frame);
        }
        table.row(stack)
    }
}

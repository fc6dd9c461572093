//! Flame trees as columns, the input for the page's drawing. Nodes are in preorder, so depth alone determines their
//! position; names are sent once. Guarantee: the self values of the columns add up to the total at every limit.

use std::collections::HashMap;

use emberline_model::{
    function::Program,
    resolve::FunctionInfo,
    subtree,
    tree::{FlameTree, Node, NodeKind},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{exports::columns::Columns, http::error::ApiError};

/// The tree of one profile. Columns are parallel; node 0 is the root (or the requested node) with depth 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileTree {
    /// Names, each once.
    names: Vec<String>,
    /// Modules, each once; the first is empty.
    modules: Vec<String>,
    /// Index into `names`.
    name: Vec<u32>,
    /// Index into `modules`.
    module: Vec<u32>,
    /// Distance from the root.
    depth: Vec<u32>,
    /// Value of stacks that end here, in the unit of the profile.
    #[serde(rename = "self")]
    self_value: Vec<i64>,
    /// Value of stacks that pass through here.
    total: Vec<i64>,
    /// 0 function, 1 cut node, 2 unresolved address, 3 root, 4 library function.
    kind: Vec<u8>,
    /// For cut nodes, the value for `node=` to see what was cut; otherwise empty.
    node: Vec<String>,
}

/// The tree of a comparison. Columns are parallel; node 0 is the root (or the requested node) with depth 0. Values
/// are raw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DiffTree {
    /// Names, each once.
    names: Vec<String>,
    /// Modules, each once; the first is empty.
    modules: Vec<String>,
    /// Index into `names`.
    name: Vec<u32>,
    /// Index into `modules`.
    module: Vec<u32>,
    /// Distance from the root.
    depth: Vec<u32>,
    /// Self value of the baseline.
    self_a: Vec<i64>,
    /// Self value of the candidate.
    self_b: Vec<i64>,
    /// Total value of the baseline.
    total_a: Vec<i64>,
    /// Total value of the candidate.
    total_b: Vec<i64>,
    /// 0 function, 1 cut node, 2 unresolved address, 3 root, 4 library function.
    kind: Vec<u8>,
    /// Index into `functions` of the same response; -1 for the root, cut nodes and functions omitted from the table.
    function: Vec<i64>,
    /// For cut nodes, the value for `node=` to see what was cut; otherwise empty.
    node: Vec<String>,
}

/// Strings of a column, each once.
#[derive(Default)]
struct Names {
    all: Vec<String>,
    index: HashMap<String, u32>,
}

impl Names {
    fn get(&mut self, name: &str) -> u32 {
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        let index = self.all.len() as u32;
        self.all.push(name.to_owned());
        self.index.insert(name.to_owned(), index);
        index
    }
}

/// Columns common to both trees.
#[derive(Default)]
struct Shape {
    names: Names,
    modules: Names,
    name: Vec<u32>,
    module: Vec<u32>,
    depth: Vec<u32>,
    kind: Vec<u8>,
}

fn kind_of(function: &FunctionInfo, program: &Program) -> u8 {
    match (function.unresolved, program.is_library(function)) {
        (true, _) => 2,
        (false, true) => 4,
        (false, false) => 0,
    }
}

impl Shape {
    fn of(tree: &FlameTree, program: &Program) -> Shape {
        let mut shape = Shape::default();
        shape.modules.get("");
        // One lookup per function instead of one per node, and none for functions that are not shown.
        let mut known: Vec<Option<(u32, u32, u8)>> = vec![None; tree.functions.len()];
        for node in &tree.nodes {
            let (name, module, kind) = match node.kind {
                NodeKind::Root => (shape.names.get("all"), 0, 3),
                NodeKind::Cut(1) => (shape.names.get("(cut: 1 frame)"), 0, 1),
                NodeKind::Cut(count) => (shape.names.get(&format!("(cut: {count} frames)")), 0, 1),
                NodeKind::Function(function) => *known[function as usize].get_or_insert_with(|| {
                    let info = &tree.functions[function as usize];
                    (
                        shape.names.get(&info.name),
                        shape.modules.get(&info.module),
                        kind_of(info, program),
                    )
                }),
            };
            shape.name.push(name);
            shape.module.push(module);
            shape.depth.push(node.depth);
            shape.kind.push(kind);
        }
        shape
    }
}

fn column(tree: &FlameTree, value: impl Fn(&Node) -> i64) -> Vec<i64> {
    tree.nodes.iter().map(value).collect()
}

/// A tree to show: whole, or the part below one node.
pub(crate) struct Shown {
    pub(crate) tree: FlameTree,
    /// Identifiers of its nodes.
    ids: Vec<u64>,
}

impl Shown {
    /// A whole tree.
    pub(crate) fn whole(tree: FlameTree) -> Shown {
        let ids = subtree::node_ids(&tree);
        Shown { tree, ids }
    }

    /// The part of an uncut tree below a node.
    pub(crate) fn below(tree: FlameTree, node: u64, limit: Option<usize>) -> Result<Shown, ApiError> {
        let found = tree.below(node, limit).ok_or_else(|| {
            let message = format!(
                "unknown node `{node:016x}`: take it from the column `node` of a response to the same query and range (`now` moves)"
            );
            ApiError::not_found("unknown_node", message)
        });
        found.map(|(tree, ids)| Shown { tree, ids })
    }

    fn cut_nodes(&self) -> Vec<String> {
        let nodes = self.tree.nodes.iter().zip(&self.ids);
        let cut = nodes.map(|(node, id)| match node.kind {
            NodeKind::Cut(_) => format!("{id:016x}"),
            NodeKind::Root | NodeKind::Function(_) => String::new(),
        });
        cut.collect()
    }
}

impl ProfileTree {
    /// As typed arrays.
    pub(crate) fn into_columns(self) -> Columns {
        Columns {
            names: self.names,
            modules: self.modules,
            name: self.name,
            module: self.module,
            depth: self.depth,
            kind: self.kind,
            self_values: vec![("self", self.self_value)],
            function: None,
            node: self.node,
        }
    }

    /// Side 0 of a tree; libraries are those of the program.
    pub(crate) fn of(shown: &Shown, program: &Program) -> ProfileTree {
        let tree = &shown.tree;
        let shape = Shape::of(tree, program);
        ProfileTree {
            names: shape.names.all,
            modules: shape.modules.all,
            name: shape.name,
            module: shape.module,
            depth: shape.depth,
            self_value: column(tree, |n| n.self_value[0]),
            total: column(tree, |n| n.total[0]),
            kind: shape.kind,
            node: shown.cut_nodes(),
        }
    }
}

impl DiffTree {
    /// As typed arrays.
    pub(crate) fn into_columns(self) -> Columns {
        let place = |at: i64| i32::try_from(at).unwrap_or(-1);
        Columns {
            names: self.names,
            modules: self.modules,
            name: self.name,
            module: self.module,
            depth: self.depth,
            kind: self.kind,
            self_values: vec![("self_a", self.self_a), ("self_b", self.self_b)],
            function: Some(self.function.into_iter().map(place).collect()),
            node: self.node,
        }
    }

    /// Both sides of a tree; `row` maps function ids to rows of the accompanying table.
    pub(crate) fn of(shown: &Shown, row: &HashMap<u64, usize>, program: &Program) -> DiffTree {
        let tree = &shown.tree;
        let shape = Shape::of(tree, program);
        let place = |node: &Node| match node.kind {
            NodeKind::Function(function) => row
                .get(&tree.functions[function as usize].id)
                .map_or(-1, |&at| at as i64),
            NodeKind::Root | NodeKind::Cut(_) => -1,
        };
        DiffTree {
            names: shape.names.all,
            modules: shape.modules.all,
            name: shape.name,
            module: shape.module,
            depth: shape.depth,
            self_a: column(tree, |n| n.self_value[0]),
            self_b: column(tree, |n| n.self_value[1]),
            total_a: column(tree, |n| n.total[0]),
            total_b: column(tree, |n| n.total[1]),
            kind: shape.kind,
            function: tree.nodes.iter().map(place).collect(),
            node: shown.cut_nodes(),
        }
    }
}

//! Stacks with names: the answer of a dictionary. Guarantee: every frame of every stack is included, even inlined ones;
//! a location appears as its address until its symbols were looked up, and as `[file]` if that file has no function
//! there; never as a gap.

use std::sync::Arc;

use crate::{
    function, id,
    int_map::IntMap,
    path_tree::{PathTree, StepsUp},
    profile::Frame,
};

/// What is known about one function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionInfo {
    /// [`crate::function::function_id`]; for an unresolved location, the location's own identifier.
    pub id: u64,
    /// Normalised name; `0x<file offset>` for an unresolved location, `[file]` for one that has no symbol.
    pub name: String,
    /// Base name of the file the code was loaded from: a program, a library or a script; empty when unknown.
    pub module: String,
    /// Source file of one of its frames; empty when unknown.
    pub file: String,
    /// True until its symbols were looked up.
    pub unresolved: bool,
}

impl FunctionInfo {
    /// A function named by its sender. If its name is unique only within its file, the module is that file.
    pub fn named(frame: Frame) -> FunctionInfo {
        FunctionInfo {
            id: function::function_id(&frame),
            module: function::scope(&frame.function, &frame.file)
                .unwrap_or_default()
                .into_owned(),
            unresolved: frame.function.starts_with("0x"),
            name: frame.function,
            file: frame.file,
        }
    }

    /// Placeholder for code of a file that has no symbol.
    pub fn without_symbol(module: String) -> FunctionInfo {
        let name = format!("[{}]", if module.is_empty() { "unknown" } else { &module });
        FunctionInfo {
            id: id::function_id(&name, function::LANGUAGE_NATIVE),
            name,
            module,
            file: String::new(),
            unresolved: false,
        }
    }

    /// Placeholder for a stack missing from the dictionary.
    pub fn unknown() -> FunctionInfo {
        FunctionInfo {
            unresolved: true,
            ..FunctionInfo::without_symbol(String::new())
        }
    }
}

/// Stacks as paths of functions.
#[derive(Debug, Clone, Default)]
pub struct ResolvedStacks {
    /// Functions referred to, each once; shared, because third-party names may be long and numerous.
    pub functions: Vec<Arc<FunctionInfo>>,
    /// What each stack consists of.
    pub stacks: StackTree,
}

impl ResolvedStacks {
    /// The functions of a stack, leaf first; a stack that is not in the dictionary is empty.
    pub fn frames(&self, stack_id: u64) -> StepsUp<'_> {
        let node = self.stacks.node(stack_id).unwrap_or(PathTree::ROOT);
        self.stacks.paths().steps_up(node)
    }
}

/// The value of a stack in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackValue {
    /// Its stack.
    pub stack_id: u64,
    /// 0, or 1 for the candidate of a comparison.
    pub side: usize,
    /// In the unit of the profile.
    pub value: i64,
    /// Samples taken.
    pub samples: u64,
}

/// Maps stack identifiers to paths from the outermost function to the leaf, as function indices. The many stacks of a
/// response share most frames: each path is stored once and visited once when stacks are added up.
#[derive(Debug, Clone, Default)]
pub struct StackTree {
    paths: PathTree,
    leaves: IntMap<u32>,
}

impl StackTree {
    /// Stacks that end in these nodes of a tree; `has_twins` if a node may have two children for one step.
    pub fn new(paths: PathTree, has_twins: bool, leaves: impl IntoIterator<Item = (u64, u32)>) -> StackTree {
        let leaves = leaves.into_iter();
        if !has_twins {
            let leaves = leaves.collect();
            return StackTree { paths, leaves };
        }
        let merged = paths.merged();
        StackTree {
            paths: merged.tree,
            leaves: leaves.map(|(id, leaf)| (id, merged.node_of[leaf as usize])).collect(),
        }
    }

    /// The node in which a stack ends.
    pub fn node(&self, stack_id: u64) -> Option<u32> {
        self.leaves.get(&stack_id).copied()
    }

    /// All paths.
    pub fn paths(&self) -> &PathTree {
        &self.paths
    }

    /// The number of stacks.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// True if there are no stacks.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }
}

/// From functions, leaf first; of two stacks with the same identifier, the last one counts.
impl<F: IntoIterator<Item = u32>> FromIterator<(u64, F)> for StackTree {
    fn from_iter<I: IntoIterator<Item = (u64, F)>>(stacks: I) -> StackTree {
        let mut paths = PathTree::default();
        let leaves = stacks.into_iter().map(|(id, leaf_first)| {
            let frames: Vec<u32> = leaf_first.into_iter().collect();
            (id, paths.extend(PathTree::ROOT, frames.into_iter().rev()))
        });
        let leaves: Vec<(u64, u32)> = leaves.collect();
        StackTree::new(paths, true, leaves)
    }
}

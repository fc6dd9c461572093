//! Stacks with names: what a dictionary answers. Guarantee: every frame of every stack is there, inlined ones
//! included; a location without a symbol yet appears as its address, never as a gap.

use std::collections::HashMap;

/// What is known of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    /// [`crate::id::function_id`]; for an unresolved location the location's own identifier.
    pub id: u64,
    /// Normalised name; `0x<file offset>` for an unresolved location.
    pub name: String,
    /// Base name of the file the code was loaded from; empty when unknown.
    pub module: String,
    /// Source file of one of its frames; empty when unknown.
    pub file: String,
    /// True while no symbol names it.
    pub unresolved: bool,
}

impl FunctionInfo {
    /// True for code that an application's owner did not write ([`crate::function::is_library`]).
    pub fn is_library(&self) -> bool {
        self.unresolved || crate::function::is_library(&self.name)
    }
}

/// Stacks as lists of functions.
#[derive(Debug, Clone, Default)]
pub struct ResolvedStacks {
    /// Functions mentioned, each once.
    pub functions: Vec<FunctionInfo>,
    /// Stack identifier → indices into `functions`, leaf first.
    pub stacks: HashMap<u64, Box<[u32]>>,
}

impl ResolvedStacks {
    /// The functions of a stack, leaf first; a stack that is not in the dictionary is empty.
    pub fn frames(&self, stack_id: u64) -> &[u32] {
        self.stacks.get(&stack_id).map_or(&[], |frames| frames)
    }
}

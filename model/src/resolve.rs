//! Stacks with names: what a dictionary answers. Guarantee: every frame of every stack is there, inlined ones
//! included; a location appears as its address until its symbols were looked up, and as `[file]` when that file names
//! no function there; never as a gap.

use std::collections::HashMap;

/// What is known of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    /// [`crate::id::function_id`]; for an unresolved location the location's own identifier.
    pub id: u64,
    /// Normalised name; `0x<file offset>` for an unresolved location, `[file]` for one that has no symbol.
    pub name: String,
    /// Base name of the file the code was loaded from; empty when unknown.
    pub module: String,
    /// Source file of one of its frames; empty when unknown.
    pub file: String,
    /// True until its symbols were looked up.
    pub unresolved: bool,
}

impl FunctionInfo {
    /// True for code that an application's owner did not write ([`crate::function::is_library`]), by its name or by
    /// where its source lay.
    pub fn is_library(&self) -> bool {
        self.unresolved || crate::function::is_library(&self.name) || crate::function::is_library_file(&self.file)
    }

    /// What all code of one file is shown as that this file names no function for.
    pub fn without_symbol(module: String) -> FunctionInfo {
        let name = format!("[{}]", if module.is_empty() { "unknown" } else { &module });
        FunctionInfo {
            id: crate::id::function_id(&name, crate::function::LANGUAGE_NATIVE),
            name,
            module,
            file: String::new(),
            unresolved: false,
        }
    }

    /// What a stack is shown as that the dictionary does not know.
    pub fn unknown() -> FunctionInfo {
        FunctionInfo {
            unresolved: true,
            ..FunctionInfo::without_symbol(String::new())
        }
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

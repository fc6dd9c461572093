//! Stacks with names: what a dictionary answers. Guarantee: every frame of every stack is there, inlined ones
//! included; a location appears as its address until its symbols were looked up, and as `[file]` when that file names
//! no function there; never as a gap.

use crate::int_map::IntMap;

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
    /// What each stack consists of.
    pub stacks: StackFrames,
}

impl ResolvedStacks {
    /// The functions of a stack, leaf first; a stack that is not in the dictionary is empty.
    pub fn frames(&self, stack_id: u64) -> &[u32] {
        self.stacks.get(stack_id).unwrap_or_default()
    }
}

/// Stack identifier → indices of functions, leaf first. All stacks lie in one piece of memory: an answer has tens of
/// thousands of them.
#[derive(Debug, Clone, Default)]
pub struct StackFrames {
    frames: Vec<u32>,
    /// Where each stack begins and ends.
    ranges: IntMap<(usize, usize)>,
}

impl StackFrames {
    /// Room for so many stacks and frames.
    pub fn with_capacity(stacks: usize, frames: usize) -> StackFrames {
        StackFrames {
            frames: Vec::with_capacity(frames),
            ranges: IntMap::with_capacity_and_hasher(stacks, Default::default()),
        }
    }

    /// Adds a stack; one that is there already is replaced.
    pub fn insert(&mut self, stack_id: u64, leaf_first: impl IntoIterator<Item = u32>) {
        let begin = self.frames.len();
        self.frames.extend(leaf_first);
        self.ranges.insert(stack_id, (begin, self.frames.len()));
    }

    /// The functions of a stack, leaf first.
    pub fn get(&self, stack_id: u64) -> Option<&[u32]> {
        self.ranges.get(&stack_id).map(|&(begin, end)| &self.frames[begin..end])
    }

    /// How many stacks there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True without any stack.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl<F: IntoIterator<Item = u32>> FromIterator<(u64, F)> for StackFrames {
    fn from_iter<I: IntoIterator<Item = (u64, F)>>(stacks: I) -> StackFrames {
        let mut all = StackFrames::default();
        stacks.into_iter().for_each(|(id, frames)| all.insert(id, frames));
        all
    }
}

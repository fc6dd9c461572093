//! What is known of a language: the shape of its rules. `languages` has them all.

use super::marks::Marks;

/// A language, as far as names differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// Rust.
    Rust,
    /// C.
    C,
    /// C++.
    Cpp,
    /// Go.
    Go,
    /// Java, Kotlin, Scala and whatever else runs on a JVM.
    Jvm,
    /// JavaScript and TypeScript.
    JavaScript,
    /// Python.
    Python,
    /// Ruby.
    Ruby,
    /// PHP.
    Php,
    /// C#, F# and Visual Basic.
    DotNet,
}

/// What is known of one language.
pub(super) struct Rules {
    pub(super) language: Language,
    /// True where an interpreter or a virtual machine runs it: native code beside it is the runtime's, or a library's.
    pub(super) is_managed: bool,
    /// Endings of its source files.
    pub(super) endings: &'static [&'static str],
    /// Beginnings of what stands for a file where there is none.
    pub(super) no_files: &'static [&'static str],
    /// True for names that no other language has.
    pub(super) is_certain: fn(&str, Marks) -> bool,
    /// A name without what differs between builds; `None` when it has nothing of that.
    pub(super) normalise: fn(&str, Marks) -> Option<String>,
    /// True for names that may stand for another function in another file.
    pub(super) is_scoped_by_file: fn(&str) -> bool,
    /// True for names of the language's own libraries and of well-known ones.
    pub(super) is_library_name: fn(&str) -> bool,
    /// Parts of paths below which other people's source files lie.
    pub(super) library_folders: &'static [&'static str],
    /// Beginnings of names of the runtime's own native functions: where they are, a program of this language runs.
    pub(super) runtime: &'static [&'static str],
}

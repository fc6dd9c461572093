//! What is known about a language: the shape of its rules. `languages` has them all.

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
    /// Java, Kotlin, Scala and anything else that runs on a JVM.
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

/// What is known about one language.
pub(super) struct Rules {
    pub(super) language: Language,
    /// True if it runs in an interpreter or a virtual machine: native code is then the runtime's, or a library's.
    pub(super) is_managed: bool,
    /// Extensions of its source files.
    pub(super) endings: &'static [&'static str],
    /// Beginnings of placeholders for a missing file.
    pub(super) no_files: &'static [&'static str],
    /// True for names that no other language has.
    pub(super) is_certain: fn(&str, Marks) -> bool,
    /// A name without what differs between builds; `None` if there is nothing to remove.
    pub(super) normalise: fn(&str, Marks) -> Option<String>,
    /// True for names that may belong to different functions in different files.
    pub(super) is_scoped_by_file: fn(&str) -> bool,
    /// True for names of the language's own libraries and of well-known ones.
    pub(super) is_library_name: fn(&str) -> bool,
    /// Parts of paths below which third-party source files are.
    pub(super) library_folders: &'static [&'static str],
    /// Prefixes of the runtime's own native functions: if they occur, a program in this language is running.
    pub(super) runtime: &'static [&'static str],
}

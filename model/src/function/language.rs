//! Languages: the table of their rules, and how a function's language is told.
//!
//! By its source file where there is one, otherwise by marks that only one language's names have. A name without either
//! (`price`, `Cart::run`) has no language of its own: it is judged by the program it runs in (`own.rs`).

use super::{c_family, dotnet, go, javascript, jvm, marks::Marks, scripts};

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

/// Of all languages; where a name has the marks of several, the first one.
pub(super) const RULES: [&Rules; 10] = [
    &javascript::RULES,
    &dotnet::RULES,
    &scripts::PHP,
    &go::RULES,
    &jvm::RULES,
    &scripts::RUBY,
    &c_family::RUST,
    &c_family::CPP,
    &scripts::PYTHON,
    &c_family::C,
];

/// The rules of a language.
pub(super) fn rules(language: Language) -> &'static Rules {
    RULES
        .into_iter()
        .find(|rules| rules.language == language)
        .unwrap_or(&c_family::C)
}

/// The language of a source file.
pub(super) fn by_file(file: &str) -> Option<Language> {
    let file = file.split(['?', '#']).next().unwrap_or(file);
    if let Some(rules) = RULES
        .iter()
        .find(|rules| rules.no_files.iter().any(|begin| file.starts_with(begin)))
    {
        return Some(rules.language);
    }
    let (_, ending) = file.rsplit_once('.')?;
    RULES
        .iter()
        .find(|rules| rules.endings.contains(&ending))
        .map(|rules| rules.language)
}

/// The language of a function, by its file and then by its name.
pub(super) fn tell(name: &str, file: &str, marks: Marks) -> Option<Language> {
    by_file(file).or_else(|| {
        RULES
            .iter()
            .find(|rules| (rules.is_certain)(name, marks))
            .map(|rules| rules.language)
    })
}

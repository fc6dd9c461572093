//! Languages: the table of their rules, and how a function's language is detected.
//!
//! By its source file if there is one, otherwise by marks that only one language's names have. A name without either
//! (`price`, `Cart::run`) has no language of its own: it depends on the program it runs in (`own.rs`).

use super::{
    c_family, dotnet, go, javascript, jvm,
    language::{Language, Rules},
    marks::Marks,
    scripts,
};

/// All languages; if a name has the marks of several, the first one counts.
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

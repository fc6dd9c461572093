//! Function names: what identifies a function across builds.
//!
//! Guarantees: a normalised name contains nothing that varies by build, run or folder: no hash, counter, address,
//! compiler clone, tier, line, column or checkout path. Two functions of one build stay two. Normalising twice changes
//! nothing. Every name is bounded, and two long ones stay two.
//!
//! The details differ by language: `function/` has a file of rules for each, which say how the language is recognised,
//! how its names are normalised and which of them are library code; `languages::RULES` is the table of them.
//!
//! In most languages, names say where a function is (`shop::price`, `io/shop/Price.total`), and are enough. Functions
//! of a script, and static ones in C, are identified by name and file, using as much of the file's path as does not
//! depend on where it was checked out (`function/file.rs`).
//!
//! Wrong on purpose: closures are identified by their enclosing function, because their numbers shift with every edit:
//! two closures of one function are one. So are two methods of the same name in anonymous classes within one Java
//! class, the instances of a generic Go function, and two functions with the same path in two versions of a crate. A Go
//! closure whose enclosing function was inlined has the name of the function it was inlined into, and cannot be
//! recognised (`findings/go-names-a-closure-after-who-inlined-its-maker.sh`).

mod c_family;
mod dotnet;
mod file;
mod go;
mod javascript;
mod jvm;
mod language;
mod languages;
mod marks;
mod own;
mod place;
mod scripts;

use std::borrow::Cow;

use crate::{
    id,
    profile::Frame,
    workload::{clean_name, misleads},
};
pub use language::Language;
use languages::{rules, tell};
use marks::Marks;
pub use own::{OwnCode, Program};
pub use place::is_source_file;

/// Language tag for names that already include their location.
pub const LANGUAGE_NATIVE: &str = "native";

/// The most characters kept of a function's name: generic names are long.
const MAX_FUNCTION_CHARS: usize = 4096;

/// How many locations one name is searched for.
const MOST_PLACES: usize = 4;

/// A frame as a sender names it, split and normalised: a location in its name (`price (shop/price.py:12)`) becomes file
/// and line. Accepts unbounded and hostile input; `name` may be a mangled symbol.
pub fn frame(name: &str, file: &str, line: u32) -> Frame {
    let (mut name, mut file, mut line) = (readable(name), Cow::Borrowed(file), line);
    // Normalising rarely uncovers another location.
    for _ in 0..MOST_PLACES {
        let place::Placed { name: inner, place } = place::split(&name);
        match place {
            Some((in_name, in_line)) if file.is_empty() => (file, line) = (Cow::Owned(in_name.to_owned()), in_line),
            Some((_, in_line)) if line == 0 => line = in_line,
            _ => {}
        }
        let next = normalised(inner, &file);
        let is_done = *next == *name || place::split(&next).place.is_none();
        name = Cow::Owned(next.into_owned());
        if is_done {
            break;
        }
    }
    Frame {
        function: bounded(name),
        file: clean_name(&file),
        line,
    }
}

/// Normalises a name: demangles it and removes what differs between builds.
pub fn normalise(symbol: &str) -> String {
    frame(symbol, "", 0).function
}

/// Applies the rules of its language, repeatedly if they uncover something: a mangled name may contain marks of its
/// own.
fn normalised<'n>(name: &'n str, file: &str) -> Cow<'n, str> {
    let mut name = Cow::Borrowed(name);
    for _ in 0..3 {
        let marks = Marks::of(&name);
        let next = match tell(&name, file, marks) {
            Some(language) => (rules(language).normalise)(&name, marks),
            None => c_family::normalise(&name, marks),
        };
        match next {
            Some(next) if next != *name => name = Cow::Owned(next),
            _ => break,
        }
    }
    name
}

/// Truncates a name to 4096 characters; the rest becomes a hash, so that two names with the same beginning stay two.
fn bounded(name: Cow<'_, str>) -> String {
    if name.len() <= MAX_FUNCTION_CHARS || name.chars().count() <= MAX_FUNCTION_CHARS {
        return name.into_owned();
    }
    let hash = format!("…#{:016x}", id::key("long name", &[&name]));
    let kept = MAX_FUNCTION_CHARS - hash.chars().count();
    name.chars().take(kept).chain(hash.chars()).collect()
}

/// Replaces control characters and direction marks.
fn readable(name: &str) -> Cow<'_, str> {
    if !name.contains(misleads) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if misleads(c) { '\u{fffd}' } else { c }).collect())
}

/// Identity of a frame's function: its name and, if that is not unique, the part of its file path that all checkouts
/// share.
pub fn function_id(frame: &Frame) -> u64 {
    match scope(&frame.function, &frame.file) {
        Some(file) => id::function_id(&frame.function, &format!("in {file}")),
        None => id::function_id(&frame.function, LANGUAGE_NATIVE),
    }
}

/// The file within which a function's name is unique, as [`function_id`] expects it; `None` for names that include
/// their location.
pub fn scope<'f>(name: &str, file: &'f str) -> Option<Cow<'f, str>> {
    if file.is_empty() || is_address(name) {
        return None;
    }
    let language = languages::by_file(file)?;
    (rules(language).is_scoped_by_file)(name).then(|| file::stable(file))
}

/// True for names that are not a function's: an address, or a placeholder for code without names.
fn is_address(name: &str) -> bool {
    name.is_empty() || name.starts_with("0x") || name.starts_with('[')
}

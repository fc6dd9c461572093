//! Names of functions: what makes two functions of two builds the same one.
//!
//! Guarantees: a normalised name holds nothing that another build, another run or another folder gives the same function:
//! no hash, counter, address, compiler's clone, tier, line, column or checkout path. Two functions of one build stay two.
//! Normalising twice changes nothing. Every name is bounded, and two long ones stay two.
//!
//! What that means differs by language: `function/` has a file of rules for each, which say how the language is told,
//! how its names are normalised and what of it is library code; `languages::RULES` is the table of them.
//!
//! Names of most languages say where a function stands (`shop::price`, `io/shop/Price.total`), and are enough. Functions of
//! a script, and static ones of C, are known by name and file, by as much of the file as does not depend on where it was
//! checked out (`function/file.rs`).
//!
//! Wrong on purpose: closures are known by the function that they stand in, because their numbers shift with every edit:
//! two closures of one function are one. So are two methods of one name in anonymous classes within one class of Java, the
//! instances of a generic function of Go, and two functions of one path in two versions of a crate. A closure of Go whose
//! maker was inlined has the name of the function it was inlined into, and nothing tells
//! (`findings/go-names-a-closure-after-who-inlined-its-maker.sh`).

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

/// How often a place is looked for in one name.
const MOST_PLACES: usize = 4;

/// A frame as a sender names it, split and normalised: a place in its name (`price (shop/price.py:12)`) becomes file and
/// line. Unbounded and hostile input is welcome; `name` may be a mangled symbol.
pub fn frame(name: &str, file: &str, line: u32) -> Frame {
    let (mut name, mut file, mut line) = (readable(name), Cow::Borrowed(file), line);
    // Few names uncover another place when they are normalised.
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

/// The rules of its language, once more where they uncovered something: a mangled name may hold marks of its own.
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

/// Cuts a name to 4096 characters; what is cut is a hash then, so that two names that begin alike stay two.
fn bounded(name: Cow<'_, str>) -> String {
    if name.len() <= MAX_FUNCTION_CHARS || name.chars().count() <= MAX_FUNCTION_CHARS {
        return name.into_owned();
    }
    let hash = format!("…#{:016x}", id::key("long name", &[&name]));
    let kept = MAX_FUNCTION_CHARS - hash.chars().count();
    name.chars().take(kept).chain(hash.chars()).collect()
}

/// Replaces control characters and marks of direction.
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

/// True for names that are no function's: an address, or what stands for code without names.
fn is_address(name: &str) -> bool {
    name.is_empty() || name.starts_with("0x") || name.starts_with('[')
}

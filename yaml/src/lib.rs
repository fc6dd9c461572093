//! YAML files written by operators: parsed into types, or a description of what is wrong, with the line.
//!
//! Guarantees: a file is read up to [`MAX_FILE_BYTES`] and expands to a bounded number of values, whatever its aliases
//! say; a line is where the parser found the element, never where its text first occurs; for an unknown key the nearest
//! known one is named; a message contains everything needed to find the place: a value is named by its path.
//!
//! Wrong on purpose: of errors in the structure of a file only the first is reported, because the parser stops there;
//! `<<` is a key like any other, and `yes` is text.

mod node;
mod problem;

use std::{io::Read, path::Path};

use serde::Deserialize;
use serde_saphyr::{
    Options,
    options::{MergeKeyPolicy, NonFiniteFloatPolicy},
};

pub use node::{Entry, Node, Value};
pub use problem::{Problem, nearest, show_problems};

/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// What aliases may repeat in one file, in values and brackets.
const MAX_REPEATED: usize = 100_000;

/// The deepest nesting: three times what any configuration needs, and far from overflowing a stack.
const MAX_DEPTH: usize = 24;

/// An example of a key with a value.
pub type ExampleOf = fn(&str) -> Option<&'static str>;

/// Why a file was not read.
#[derive(Debug)]
pub enum Unreadable {
    /// It cannot be opened or read, or is not UTF-8.
    Io(std::io::Error),
    /// It is larger than [`MAX_FILE_BYTES`].
    TooLarge,
}

/// Reads the text of a file.
///
/// # Errors
/// When it cannot be read, or is too large for a hand-written file.
pub fn read_file(path: &Path) -> Result<String, Unreadable> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(Unreadable::Io)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > MAX_FILE_BYTES => Err(Unreadable::TooLarge),
        Ok(_) => Ok(text),
        // The limit may split a character.
        Err(_) if std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_FILE_BYTES) => Err(Unreadable::TooLarge),
        Err(error) => Err(Unreadable::Io(error)),
    }
}

/// Parses a value from text.
///
/// # Errors
/// When it is not YAML, or not of this structure.
pub fn from_str<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Problem> {
    from_str_with_examples(text, |_| None)
}

/// The same; if a key is missing, the message shows an example of it, if there is one.
///
/// # Errors
/// As [`from_str`].
pub fn from_str_with_examples<'t, T: Deserialize<'t>>(text: &'t str, example_of: ExampleOf) -> Result<T, Problem> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let file = parse(text);
        problem::of(&error, text, file.as_ref().ok(), example_of)
    })
}

/// Parses text into a tree with positions.
///
/// # Errors
/// When it is not YAML.
pub fn parse(text: &str) -> Result<Node, Problem> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| problem::of(&error, text, None, |_| None))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED },
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        // As text, so that they are refused as numbers and kept as text.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

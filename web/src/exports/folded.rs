//! Folded stacks: one line per stack, `outer;inner value`, for comparisons `outer;inner baseline candidate`.
//! Guarantees: the values add up to the total; the first line of a profile is a comment that says what they are, so
//! that the file can be uploaded again. Wrong on purpose: `;` in a name becomes `,`, since it separates frames.

use std::fmt::Write;

use emberline_model::{ProfileType, formats::folded::header_of, tree::FlameTree};

use super::{UNKNOWN, folded_name, for_each_stack};

/// Writes a tree of one profile.
pub(crate) fn profile(tree: &FlameTree, profile_type: &ProfileType) -> String {
    let mut text = header_of(profile_type);
    for (stack, [value, _]) in lines(tree) {
        writeln!(text, "{stack} {value}").expect("writing to a string does not fail");
    }
    text
}

/// Writes a comparison: two values per line.
pub(crate) fn comparison(tree: &FlameTree) -> String {
    let mut text = String::new();
    for (stack, [baseline, candidate]) in lines(tree) {
        writeln!(text, "{stack} {baseline} {candidate}").expect("writing to a string does not fail");
    }
    text
}

/// Each stack in folded form with its value on both sides, sorted by stack.
pub(super) fn lines(tree: &FlameTree) -> Vec<(String, [i64; 2])> {
    let names: Vec<String> = tree.told_apart().iter().map(|name| folded_name(name)).collect();
    let mut lines: Vec<(String, [i64; 2])> = Vec::new();
    for_each_stack(tree, |path, value| {
        let stack = match path.is_empty() {
            true => UNKNOWN.to_owned(),
            false => path
                .iter()
                .map(|&f| names[f as usize].as_str())
                .collect::<Vec<_>>()
                .join(";"),
        };
        lines.push((stack, value));
    });
    lines.sort();
    lines
}

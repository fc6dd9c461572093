//! Folded stacks: one line per stack, `outer;inner value`, for comparisons `outer;inner baseline candidate`.
//! Guarantee: the values add up to the total. Wrong on purpose: `;` in a name becomes `,`, since it separates frames.

use std::fmt::Write;

use emberline_model::tree::FlameTree;

use super::{UNKNOWN, folded_name, for_each_stack};

/// Writes a tree; with `both` two values a line.
pub(crate) fn write(tree: &FlameTree, both: bool) -> String {
    let mut text = String::new();
    for line in lines(tree) {
        let (stack, [a, b]) = line;
        let written = if both {
            writeln!(text, "{stack} {a} {b}")
        } else {
            writeln!(text, "{stack} {a}")
        };
        written.expect("writing to a string does not fail");
    }
    text
}

/// Each stack in folded form with its value on both sides, sorted by stack.
pub(super) fn lines(tree: &FlameTree) -> Vec<(String, [i64; 2])> {
    let names: Vec<String> = tree.functions.iter().map(folded_name).collect();
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

//! Frames that a pprof file asks to omit: `drop_frames` and `keep_frames`, two patterns.
//!
//! Guarantees: as in pprof's own tools, a frame that matches the first and not the second is dropped with everything it
//! called; frames above the first one that stays are kept, so that no stack becomes empty. Patterns match whole names
//! without their arguments; matching takes time linear in the name, and an unusable pattern is reported and has no
//! effect.

use regex::{Regex, RegexBuilder};

use crate::{otlp::Rejected, profile::Frame};

/// The most memory of a compiled pattern.
const MOST_BYTES: usize = 1 << 20;

/// What is removed from a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nothing,
    /// The location and everything below it.
    Whole,
    /// Everything below it; the outer ones of its inlined frames stay.
    Below,
}

/// The patterns, and their result for each location so far.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    drop: Option<Regex>,
    keep: Option<Regex>,
    cuts: Vec<Cut>,
}

impl Pruning {
    pub(super) fn of(drop_frames: &str, keep_frames: &str, changed: &mut Vec<Rejected>) -> Pruning {
        let mut compile = |pattern: &str| {
            if pattern.is_empty() {
                return None;
            }
            let built = RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(MOST_BYTES)
                .build();
            if built.is_err() {
                Rejected::of("drop_frames_not_applied", pattern, 1).add_to(changed);
            }
            built.ok()
        };
        Pruning {
            drop: compile(drop_frames),
            keep: compile(keep_frames),
            cuts: Vec::new(),
        }
    }

    /// Examines the location at an index, innermost frame first, and removes what it loses itself.
    pub(super) fn location(&mut self, index: usize, frames: &mut Vec<Frame>) {
        let Some(drop) = &self.drop else { return };
        let matches = |frame: &Frame| {
            let name = without_arguments(&frame.function);
            drop.is_match(name) && !self.keep.as_ref().is_some_and(|keep| keep.is_match(name))
        };
        let cut = match frames.iter().rposition(matches) {
            None => Cut::Nothing,
            Some(at) if at + 1 == frames.len() => Cut::Whole,
            Some(at) => {
                frames.drain(..=at);
                Cut::Below
            }
        };
        self.cuts.resize(index, Cut::Nothing);
        self.cuts.push(cut);
    }

    /// Prunes a stack of locations, leaf first.
    pub(super) fn cut(&self, mut leaf_first: Vec<u32>) -> Vec<u32> {
        if self.drop.is_none() {
            return leaf_first;
        }
        let cut_of = |at: usize| self.cuts.get(leaf_first[at] as usize).copied().unwrap_or(Cut::Nothing);
        let Some(outermost_kept) = (0..leaf_first.len()).rfind(|&at| cut_of(at) == Cut::Nothing) else {
            return leaf_first;
        };
        let outermost_cut = (0..outermost_kept).rfind(|&at| cut_of(at) != Cut::Nothing);
        if let Some(at) = outermost_cut {
            let gone = at + usize::from(cut_of(at) == Cut::Whole);
            leaf_first.drain(..gone);
        }
        leaf_first
    }
}

/// A name up to its arguments; the brackets in `(anonymous namespace)` and `operator()` are not arguments.
fn without_arguments(name: &str) -> &str {
    let mut from = 0;
    while let Some(at) = name[from..].find('(').map(|at| from + at) {
        let rest = &name[at..];
        let reserved = ["(anonymous namespace)", "()"]
            .into_iter()
            .find(|word| rest.starts_with(word));
        match reserved {
            Some("()") if !name[..at].ends_with("operator") => return &name[..at],
            Some(word) => from = at + word.len(),
            None if at == 0 => return name,
            None => return &name[..at],
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pruned(drop: &str, keep: &str, leaf_first: &[&str]) -> Vec<String> {
        let mut pruning = Pruning::of(drop, keep, &mut Vec::new());
        let mut places = Vec::new();
        for names in leaf_first {
            let mut frames: Vec<Frame> = names
                .split('+')
                .map(|function| Frame {
                    function: function.to_owned(),
                    ..Frame::default()
                })
                .collect();
            pruning.location(places.len(), &mut frames);
            places.push(
                frames
                    .iter()
                    .map(|frame| frame.function.as_str())
                    .collect::<Vec<_>>()
                    .join("+"),
            );
        }
        let stack = pruning.cut((0..leaf_first.len() as u32).collect());
        stack.iter().map(|&at| places[at as usize].clone()).collect()
    }

    #[test]
    fn what_matches_goes_with_what_it_called() {
        assert_eq!(
            pruned("malloc|alloc.*", "", &["alloc_slow", "malloc", "build", "main"]),
            ["build", "main"]
        );
        assert_eq!(
            pruned("malloc.*", "malloc_hook", &["malloc_hook", "main"]),
            ["malloc_hook", "main"]
        );
        // Nothing stays above it: the first frame cut is below the first one that stays.
        assert_eq!(pruned("start|free", "", &["free", "main", "start"]), ["main", "start"]);
        assert_eq!(pruned("a", "", &["a"]), ["a"]);
        // The outer ones of inlined frames stay.
        assert_eq!(pruned("free", "", &["x+free+build", "main"]), ["build", "main"]);
        assert_eq!(pruned("shop::free", "", &["shop::free(void*)", "main"]), ["main"]);
        assert_eq!(pruned("free", "", &["freedom", "main"]), ["freedom", "main"]);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_said() {
        let mut changed = Vec::new();
        let pruning = Pruning::of("(", "", &mut changed);
        assert_eq!(changed[0].reason, "drop_frames_not_applied");
        assert_eq!(pruning.cut(vec![0]), [0]);
    }
}

//! The result of reading another profiler's file, and what its errors say.
//!
//! Guarantee: an error names the line, the byte or the item, never just the failure.

use crate::{otlp::Rejected, profile::Profile, weight::TooHeavy};

/// What was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// One per type.
    pub(super) profiles: Vec<Profile>,
    /// What was dropped, in samples.
    pub(super) left_out: Vec<Rejected>,
    /// What was changed.
    pub(super) changed: Vec<Rejected>,
}

impl Outcome {
    /// Records what was dropped; nothing is recorded for 0.
    pub(super) fn leave_out(mut self, reason: &'static str, count: u64) -> Outcome {
        Rejected::of(reason, "", count).add_to(&mut self.left_out);
        self
    }
}

/// Why bytes are not valid in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A line of a text.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A position in a binary file.
    #[error("byte {at}: {what}")]
    Byte {
        /// Counted from 0, after decompression.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// Something without a single position.
    #[error("{0}")]
    Content(String),
    /// It would become too large.
    #[error("{0}")]
    TooHeavy(#[from] TooHeavy),
}

impl ReadError {
    /// An error at a line, counted from 0.
    pub(super) fn line(at: usize, what: impl Into<String>) -> ReadError {
        ReadError::Line {
            line: at + 1,
            what: what.into(),
        }
    }

    /// An error at a byte.
    pub(super) fn byte(at: usize, what: impl Into<String>) -> ReadError {
        ReadError::Byte { at, what: what.into() }
    }
}

/// What is wrong with JSON. The parser's own message may contain text from the file, however long.
pub(super) fn in_json(error: &serde_json::Error) -> String {
    const MOST: usize = 200;
    let said = error.to_string();
    if said.chars().count() <= MOST {
        return said;
    }
    let head: String = said.chars().take(MOST).collect();
    format!("{head}… at line {} column {}", error.line(), error.column())
}

/// An excerpt of untrusted text for a message.
pub(super) fn shown(text: &str) -> String {
    text.trim().chars().take(60).collect()
}

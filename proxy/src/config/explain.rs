//! Messages about a configuration: where, what is wrong, what to write.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A configuration that cannot be used. The operator's fault; a retry helps once the file is mended.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: {size} bytes are more than the {limit} of a configuration; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The file says something wrong.
    #[error("{}", ShowProblems(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    pub(super) fn one(path: &Path, problem: Problem) -> ConfigError {
        ConfigError::Invalid {
            path: path.to_owned(),
            problems: vec![problem],
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong and what to write.
    pub message: String,
}

impl Problem {
    pub(super) fn new(line: usize, message: impl Into<String>) -> Problem {
        Problem {
            line,
            message: message.into(),
        }
    }
}

struct ShowProblems<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for ShowProblems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.1.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}: {}", self.0.display(), problem.line, problem.message)?;
        }
        Ok(())
    }
}

/// Line, from 1, of the nth place where `needle` stands in `text`; the last such line when there are fewer; 1 when
/// there is none.
pub(super) fn line_of_nth(text: &str, needle: &str, nth: usize) -> usize {
    let places: Vec<usize> = text.match_indices(needle).map(|(at, _)| at).take(nth).collect();
    places.last().map_or(1, |&at| text[..at].matches('\n').count() + 1)
}

/// Puts an error of the parser into the operator's words.
pub(super) fn problem_of(error: &serde_yaml_ng::Error, text: &str) -> Problem {
    let line = error.location().map_or(1, |location| location.line());
    let full = error.to_string();
    // The place is shown as `file:line` already.
    let message = full.split(" at line ").next().unwrap_or(&full);
    if let Some(unknown) = between(message, "unknown field `", "`") {
        return Problem::new(line, unknown_key(unknown, &quoted_after(message, "expected")));
    }
    if let Some(unknown) = between(message, "unknown variant `", "`") {
        let known = quoted_after(message, "expected");
        let hint = nearest(unknown, &known).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        return Problem::new(
            line,
            format!("unknown value `{unknown}`: {hint}write one of {}", list(&known)),
        );
    }
    if let Some(missing) = between(message, "missing field `", "`") {
        let place = message
            .split_once(": missing field")
            .map_or(String::new(), |(path, _)| format!(" in `{path}`"));
        let line = if place.is_empty() { 1 } else { line };
        return Problem::new(
            line,
            format!("the key `{missing}`{place} is missing: write `{}`", example_of(missing)),
        );
    }
    if text
        .lines()
        .nth(line.saturating_sub(1))
        .is_some_and(|l| l.trim_start().starts_with('\t') || l.starts_with('\t'))
    {
        return Problem::new(line, "a tab indents this line: YAML wants spaces");
    }
    Problem::new(line, message.to_owned())
}

fn unknown_key(unknown: &str, known: &[&str]) -> String {
    match nearest(unknown, known) {
        Some(near) => format!(
            "unknown key `{unknown}`: did you mean `{near}`? (keys here: {})",
            list(known)
        ),
        None => format!("unknown key `{unknown}`: remove it (keys here: {})", list(known)),
    }
}

/// The known name closest to a mistyped one, if one is close.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |name: &str| strsim::jaro_winkler(&unknown.to_lowercase(), name);
    known
        .iter()
        .copied()
        .filter(|name| close(name) > 0.75)
        .max_by(|a, b| close(a).total_cmp(&close(b)))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The names in backticks after a word.
fn quoted_after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.split_once(word)
        .map_or_else(Vec::new, |(_, rest)| rest.split('`').skip(1).step_by(2).collect())
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// A line that shows how a key is written.
fn example_of(key: &str) -> &'static str {
    match key {
        "workload" => "workload: {service: cart, version: v1}",
        "service" => "service: cart",
        "listen" => "listen: 127.0.0.1:8080",
        "to" => "to: 127.0.0.1:9080",
        "destinations" => "destinations: [{address: 127.0.0.1:9101}]",
        "address" => "address: 127.0.0.1:9101",
        "endpoint" => "endpoint: \"http://127.0.0.1:4317\"",
        _ => "key: value",
    }
}

//! What is wrong with a file, in the operator's terms.

use std::{fmt, path::Path};

use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter};

use crate::node::{self, Node};

/// One problem, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong and what to write.
    pub message: String,
}

impl Problem {
    /// A problem on a line.
    pub fn new(line: usize, message: impl Into<String>) -> Problem {
        Problem {
            line,
            message: message.into(),
        }
    }
}

/// Problems as `file:line: what is wrong`, one per line.
pub fn show_problems(path: &Path, problems: &[Problem]) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        for (position, problem) in problems.iter().enumerate() {
            let separator = if position > 0 { "\n" } else { "" };
            write!(f, "{separator}{}:{}: {}", path.display(), problem.line, problem.message)?;
        }
        Ok(())
    })
}

/// The known name that is closest to a mistyped one, if one is close.
pub fn nearest<'n>(unknown: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let unknown = unknown.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Translates a parser error into the operator's terms; `file` is the text as a tree, if it is one.
pub(crate) fn of(error: &Error, text: &str, file: Option<&Node>, example_of: crate::ExampleOf) -> Problem {
    let error = error.without_snippet();
    let place = error.location().map_or((1, 1), node::place);
    let path = || file.map_or_else(String::new, |file| file.path_at(place));
    let of_value = |message: String| match path().as_str() {
        "" => message,
        path => format!("{path}: {message}"),
    };
    let value = || text_at(text, place);
    let message = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            let hint = nearest(variant, expected.iter().copied());
            let hint = hint.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            format!("unknown value `{variant}`: {hint}use one of {}", expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => {
            let map = file.map_or_else(String::new, |file| file.map_at(place));
            let of = match map.as_str() {
                "" => String::new(),
                map => format!(" in `{map}`"),
            };
            match example_of(field) {
                Some(example) => format!("the key `{field}`{of} is missing: add `{example}`"),
                None => format!("the key `{field}`{of} is missing"),
            }
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{key}` occurs twice: remove one of them")
        }
        Error::MultipleDocuments { .. } => {
            "a second document begins here: use one document, without `---` after it".to_owned()
        }
        Error::InvalidScalar { ty, .. } => of_value(format!("{} is not {}", value(), in_words(ty))),
        Error::InvalidBooleanStrict { .. } => of_value(format!("{} is not `true` or `false`", value())),
        Error::Unexpected { expected, .. } => match *expected {
            "string scalar" => of_value(format!("expected a single value, found {}", value())),
            "mapping start" => of_value(format!("expected keys and values, found {}", value())),
            "sequence start" => of_value(format!("expected a list, found {}", value())),
            other => format!("expected {other}"),
        },
        _ if is_indented_by_tab(text, place.0) => "this line is indented with a tab: use spaces".to_owned(),
        Error::Message { msg, .. } => of_value(msg.clone()),
        Error::SerdeInvalidType { .. } | Error::SerdeInvalidValue { .. } | Error::SerdeInvalidLength { .. } => {
            of_value(DefaultMessageFormatter.format_message(error).into_owned())
        }
        _ => DefaultMessageFormatter.format_message(error).into_owned(),
    };
    // The file's contents must not control the terminal.
    Problem::new(place.0, message.replace(char::is_control, " "))
}

fn unknown_key(unknown: &str, known: &[&'static str]) -> String {
    let keys = known.join(", ");
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("unknown key `{unknown}`: did you mean `{near}`? (keys here: {keys})"),
        None => format!("unknown key `{unknown}`: remove it (keys here: {keys})"),
    }
}

/// A Rust type, in the operator's terms.
fn in_words(rust: &str) -> String {
    match rust {
        "u8" | "u16" | "u32" => {
            let bits: u32 = rust[1..].parse().unwrap_or(32);
            format!("a whole number from 0 to {}", (1u64 << bits) - 1)
        }
        "u64" | "u128" | "usize" => "a whole number".to_owned(),
        _ if rust.starts_with('f') => "a number".to_owned(),
        _ => format!("a value of type {rust}"),
    }
}

/// The text at a position, for a message.
fn text_at(text: &str, (line, column): (usize, usize)) -> String {
    let rest: String = text
        .lines()
        .nth(line - 1)
        .unwrap_or_default()
        .chars()
        .skip(column - 1)
        .collect();
    match rest.chars().next() {
        Some('[') => return "a list".to_owned(),
        Some('-') if rest[1..].starts_with(' ') || rest.len() == 1 => return "a list".to_owned(),
        Some('{') => return "a map".to_owned(),
        None => return "nothing".to_owned(),
        _ => {}
    }
    let end = rest.find([',', ']', '}', '#']).unwrap_or(rest.len());
    let word = rest[..end].trim();
    if word.ends_with(':') || word.contains(": ") {
        return "a map".to_owned();
    }
    format!("`{}`", word.chars().take(60).collect::<String>())
}

fn is_indented_by_tab(text: &str, line: usize) -> bool {
    let line = text.lines().nth(line - 1).unwrap_or_default();
    line.chars()
        .take_while(|letter| letter.is_whitespace())
        .any(|letter| letter == '\t')
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct File {
        #[serde(default)]
        name: String,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        port: u16,
        #[serde(default)]
        share: f64,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Auto,
        Fixed,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Part {
        to: String,
        #[serde(default)]
        weight: u32,
    }

    /// The parser reports the position of a key, not of its value, if one of our types refuses the value or a key is
    /// missing.
    #[test]
    fn what_is_wrong_in_braces_has_its_path() {
        #[derive(Debug)]
        struct Milliseconds;
        impl<'de> Deserialize<'de> for Milliseconds {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Milliseconds, D::Error> {
                struct Number;
                impl serde::de::Visitor<'_> for Number {
                    type Value = Milliseconds;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("milliseconds")
                    }
                    fn visit_u64<E>(self, _: u64) -> Result<Milliseconds, E> {
                        Ok(Milliseconds)
                    }
                }
                deserializer.deserialize_any(Number)
            }
        }
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only its shape counts")]
        struct Times {
            connect: Milliseconds,
        }
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only its shape counts")]
        struct Listener {
            times: Times,
            to: String,
        }
        for (text, message) in [
            (
                "- {to: a, times: {connect: 1}}\n- {times: {connect: soon}, to: b}",
                "[1].times.connect: invalid type",
            ),
            ("- {times: {connect: 1}}", "the key `to` in `[0]` is missing"),
            ("- to: a\n  times: {connect: soon}", "[0].times.connect: invalid type"),
        ] {
            let problem = crate::from_str::<Vec<Listener>>(text).unwrap_err();
            assert!(problem.message.starts_with(message), "{problem:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_words_at_its_own_place() {
        for (text, said) in [
            (
                "nmae: a\n",
                "1: unknown key `nmae`: did you mean `name`? (keys here: name, on, port, share, kind, parts)",
            ),
            (
                "# name\n\nzzz: a\n",
                "3: unknown key `zzz`: remove it (keys here: name, on, port, share, kind, parts)",
            ),
            (
                "kind: aut\n",
                "1: unknown value `aut`: did you mean `auto`? use one of auto, fixed",
            ),
            (
                "parts:\n  - {to: a}\n  - weight: 1\n",
                "3: the key `to` in `parts[1]` is missing",
            ),
            (
                "parts:\n  - to: a\n    too: b\n",
                "3: unknown key `too`: did you mean `to`? (keys here: to, weight)",
            ),
            (
                "name: x # port: 1\nport: 70000 # x\n",
                "2: port: `70000` is not a whole number from 0 to 65535",
            ),
            (
                "parts: [{to: a,\n  weight: soon}]\n",
                "2: parts[0].weight: `soon` is not a whole number from 0 to 4294967295",
            ),
            ("share: much", "1: share: `much` is not a number"),
            ("on: yes\n", "1: on: `yes` is not `true` or `false`"),
            ("name: [a]\n", "1: name: expected a single value, found a list"),
            ("name:\n  a: 1\n", "2: name: expected a single value, found a map"),
            ("parts: 5\n", "1: parts: expected a list, found `5`"),
            ("parts:\n - 5\n", "2: parts[0]: expected keys and values, found `5`"),
            (
                "on: true\non: false\n",
                "2: the key `on` occurs twice: remove one of them",
            ),
            (
                "on: true\n---\non: false\n",
                "3: a second document begins here: use one document, without `---` after it",
            ),
            ("parts:\n\t- to: a\n", "2: this line is indented with a tab: use spaces"),
            (
                "name: a\n<<: {on: true}\n",
                "2: unknown key `<<`: remove it (keys here: name, on, port, share, kind, parts)",
            ),
            ("name: *x\n", "1: alias references unknown anchor"),
        ] {
            let problem = crate::from_str::<File>(text).unwrap_err();
            assert_eq!(format!("{}: {}", problem.line, problem.message), said, "{text}");
        }
    }

    #[test]
    fn text_need_not_be_quoted() {
        let file: File = crate::from_str("name: 1.10\nshare: 1\n").unwrap();
        assert_eq!((file.name.as_str(), file.share), ("1.10", 1.0));
    }

    #[test]
    fn aliases_that_multiply_and_endless_nesting_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for depth in 1..12 {
            let before = vec![format!("*a{}", depth - 1); 10].join(", ");
            text.push_str(&format!("a{depth}: &a{depth} [{before}]\n"));
        }
        crate::parse(&text).unwrap_err();
        crate::parse(&"[".repeat(100_000)).unwrap_err();
        crate::parse(&"- ".repeat(100_000)).unwrap_err();
        crate::parse(&format!("{}x", "- ".repeat(20))).unwrap();
    }

    #[test]
    fn the_nearest_name_is_named_only_when_it_is_near() {
        let known = ["memory_limit_mb", "min_free_mb"];
        assert_eq!(nearest("memory-limit", known), Some("memory_limit_mb"));
        assert_eq!(nearest("frobnicate", known), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_of_its_lines(text in "\\PC{0,40}(\n\\PC{0,20}){0,3}") {
            if let Err(problem) = crate::from_str::<File>(&text) {
                let lines = text.lines().count() + 1;
                proptest::prop_assert!((1..=lines).contains(&problem.line), "{problem:?} of {lines}");
                proptest::prop_assert!(!problem.message.is_empty() && !problem.message.contains('\n'), "{problem:?}");
            }
        }
    }
}

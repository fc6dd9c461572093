//! Rules about what is written for readers: links lead somewhere, figures are printed by a bench, the README stays short.

use std::{collections::BTreeSet, path::Path};

use crate::sources::{files, root};

/// The landing page: what does not fit belongs into `docs/`.
const README_LINES: usize = 120;

#[test]
fn the_readme_is_a_landing_page() {
    let lines = std::fs::read_to_string(root().join("README.md"))
        .unwrap()
        .lines()
        .count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines; move details to docs/"
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut checked = 0;
    for (path, text) in files(&[".md"]) {
        let folder = root().join(path.parent().unwrap_or(Path::new("")));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                root().join(&path)
            } else {
                folder.join(file)
            };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            checked += 1;
            if heading.is_empty() {
                continue;
            }
            let there = std::fs::read_to_string(&target).unwrap();
            let found = there
                .lines()
                .any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(found, "{}: {link}: no such heading", path.display());
        }
    }
    assert!(checked > 10, "no links found");
}

/// A heading as hosts of Markdown name it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Names in the first column of the tables of figures.
#[test]
fn stated_figures_are_printed_by_a_bench() {
    let text = std::fs::read_to_string(root().join("docs/figures.md")).unwrap();
    let benches: String = files(&[".rs"])
        .into_iter()
        .filter(|(path, _)| path.starts_with("tests/benches"))
        .map(|(_, text)| text)
        .collect();
    let names: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| name.contains('_'))
        .collect();
    assert!(names.len() > 15, "no figures found");
    let unknown: Vec<_> = names
        .iter()
        .filter(|name| !benches.contains(&format!("\"{name}\"")))
        .collect();
    assert!(unknown.is_empty(), "no bench prints {unknown:?}");
}

/// Phrases that read as translated, in any case; what to write instead is in `docs/style.md`.
const TRANSLATED: [&str; 26] = [
    " anew",
    " any more",
    "anybody",
    " beside ",
    " besieg",
    "broke off",
    "cannot be said",
    "come again",
    "find no place",
    "goes nowhere",
    "has to be corrected",
    "if not given",
    "in force",
    "in the words of",
    " lies ",
    "makes place",
    "meant from",
    "not to be undone",
    "of which part",
    "on their way",
    " rid of",
    "taken in:",
    "tried again",
    "unless told",
    "whoever",
    "write for example",
];

/// Phrases that are fine elsewhere, but not in an error or a log.
const NOT_IN_MESSAGES: [&str; 9] = [
    "nobody",
    " is no ",
    " are no ",
    " is none",
    " is told ",
    " are told ",
    " is not read",
    "nothing of it",
    "what is over",
];

#[test]
fn errors_and_logs_read_as_english() {
    let mut read = 0;
    let mut odd = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if path.starts_with("tests") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        for (start, words) in messages(&text) {
            read += 1;
            let lower = words.to_lowercase();
            let mut phrases = TRANSLATED.iter().chain(&NOT_IN_MESSAGES);
            if let Some(phrase) = phrases.find(|phrase| lower.contains(**phrase)) {
                let line = text[..start].lines().count();
                odd.push(format!("{}:{line}: `{}` in \"{words}\"", path.display(), phrase.trim()));
            }
        }
    }
    assert!(read > 200, "only {read} messages found");
    assert!(odd.is_empty(), "see docs/style.md:\n{}", odd.join("\n"));
}

/// Documents, help, pages and every other text that a program prints: the rule above sees only the macros of errors and logs.
#[test]
fn what_people_read_is_english() {
    let mut odd = Vec::new();
    let mut read = 0;
    let mut check = |path: &Path, line: usize, words: &str| {
        read += 1;
        let lower = words.to_lowercase();
        if let Some(phrase) = TRANSLATED.iter().find(|phrase| lower.contains(**phrase)) {
            odd.push(format!(
                "{}:{line}: `{}` in \"{}\"",
                path.display(),
                phrase.trim(),
                words.trim()
            ));
        }
    };
    for (path, text) in files(&[".md", ".rs", ".ts", ".tsx"]) {
        let name = path.to_string_lossy().into_owned();
        let is_test = name.split('/').any(|part| part == "tests") || name.ends_with("tests.rs");
        match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
            // The page of style holds the phrases.
            "md" if name == "README.md" || name.starts_with("docs/") && name != "docs/style.md" => {
                for (at, line) in text.lines().enumerate() {
                    check(&path, at + 1, line);
                }
            }
            "rs" if !is_test => {
                let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
                let is_help = name == "src/cli.rs" || name.starts_with("proxy/src/bin/");
                for (at, line) in code.lines().enumerate() {
                    match line.trim_start().split_once("//") {
                        Some(("", comment)) if is_help => check(&path, at + 1, comment),
                        Some(("", _)) => {}
                        _ => texts(line).for_each(|words| check(&path, at + 1, words)),
                    }
                }
            }
            "ts" | "tsx" if name.starts_with("web/ui/src/") => {
                for (at, line) in text.lines().enumerate() {
                    let words = line.split("//").next().unwrap_or_default();
                    if !words.trim_start().starts_with(['*', '/']) {
                        check(&path, at + 1, words);
                    }
                }
            }
            _ => {}
        }
    }
    assert!(read > 1_000, "only {read} texts found");
    assert!(odd.is_empty(), "see docs/style.md:\n{}", odd.join("\n"));
}

/// Texts in a line of code. One that goes on in the next line is cut there, which is enough to find a phrase.
fn texts(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2).filter(|words| words.contains(' '))
}

/// The texts of errors and logs, with where they begin.
fn messages(source: &str) -> impl Iterator<Item = (usize, &str)> {
    const BEGIN: [&str; 6] = ["#[error(", "warn!(", "error!(", "info!(", "bail!(", "context("];
    BEGIN.iter().flat_map(move |begin| {
        source.match_indices(begin).filter_map(move |(at, _)| {
            let statement = &source[at..];
            let ends = [");", ")]"].into_iter().filter_map(|end| statement.find(end));
            let statement = &statement[..ends.min()?];
            let start = statement.find('"')? + 1;
            let end = start + statement[start..].find('"')?;
            Some((at, &statement[start..end]))
        })
    })
}

//! Rules about the text of the sources.

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_path_buf()
}

/// Files below the root that belong to the project, with their text.
pub(crate) fn files(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !matches!(
                    name.as_str(),
                    "target" | "node_modules" | "dist" | "third_party" | ".git" | ".demo"
                ) {
                    folders.push(path);
                }
            } else if extensions.iter().any(|e| name.ends_with(e)) {
                found.push((
                    path.strip_prefix(root()).unwrap().to_path_buf(),
                    std::fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    assert!(found.len() > 3, "no sources found");
    found
}

#[test]
fn build_settings_are_not_given_in_rustflags() {
    // The name is put together here so that this file does not hold it.
    let variable = concat!("RUST", "FLAGS");
    for (path, text) in files(&[
        "Makefile",
        ".sh",
        "run",
        ".yml",
        ".yaml",
        ".service",
        "Dockerfile",
        ".rs",
    ]) {
        for line in text.lines().filter(|l| !l.trim_start().starts_with(['#', '/'])) {
            assert!(
                !line.contains(variable),
                "{}: set it in .cargo/config.toml instead: {line}",
                path.display()
            );
        }
    }
    let config = std::fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    assert!(
        config.contains("force-frame-pointers=yes"),
        "the sampler walks frame pointers"
    );
}

#[test]
fn inferno_stays_behind_one_module() {
    let mention = concat!("infer", "no::");
    for (path, text) in files(&[".rs"]) {
        let outside = path != Path::new("web/src/exports/svg.rs");
        assert!(
            !(outside && text.contains(mention)),
            "{} uses {mention}: CDDL code stays in one module",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_for_later_in_the_sources() {
    for (path, text) in files(&[".rs", ".ts", ".tsx"]) {
        for mark in [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("XX", "X "),
            concat!("@ts-", "ignore"),
        ] {
            assert!(
                !text.contains(mark),
                "{} holds {mark}: do it or write it into the documentation",
                path.display()
            );
        }
    }
}

#[test]
fn every_rust_file_says_what_it_is() {
    for (path, text) in files(&[".rs"]) {
        assert!(
            text.starts_with("//!"),
            "{} does not begin with what it guarantees (`//!`)",
            path.display()
        );
    }
}

#[test]
fn a_module_with_parts_is_a_file_beside_their_folder() {
    for (path, _) in files(&["mod.rs"]) {
        // What tests share is a folder, because examples name it by its path.
        let is_source = path.components().any(|part| part.as_os_str() == "src");
        assert!(!is_source, "{}: name it after its folder, one level up", path.display());
    }
}

/// A longer file says in its head why it is one.
const LONG: usize = 500;
/// No reason is good enough for more.
const LONGEST: usize = 700;
const REASON: &str = "One file because";

/// Sentences from the reason on, in the comment that a file begins with.
fn sentences_of_reason(text: &str) -> usize {
    let head = text.lines().take_while(|line| line.starts_with("//"));
    let head: Vec<&str> = head.map(|line| line.trim_start_matches(['/', '!']).trim()).collect();
    let head = format!("{} ", head.join(" "));
    head.find(REASON).map_or(0, |at| head[at..].matches(". ").count())
}

#[test]
fn a_file_holds_one_idea_or_says_why_it_is_long() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs", ".ts", ".tsx"]) {
        let lines = text.lines().count();
        let is_written = !path.to_string_lossy().contains(".generated.");
        if is_written && (lines > LONGEST || (lines > LONG && sentences_of_reason(&text) < 2)) {
            wrong.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "split these by idea, or say in the head in two sentences, the first of which begins with `{REASON}`, why each is one: {wrong:#?}"
    );
}

#[test]
fn a_reason_is_two_sentences_of_the_head() {
    let head = "//! What it is.\n//!\n//! One file because it is\n//! one thing. Its parts\n//! are elsewhere.\n\nuse std::fmt;\n";
    assert_eq!(sentences_of_reason(head), 2);
    assert_eq!(sentences_of_reason("//! One file because.\n\n//! It is. And is.\n"), 1);
    assert_eq!(
        sentences_of_reason("//! What it is. And is.\n// Not: one file because.\n"),
        0
    );
}

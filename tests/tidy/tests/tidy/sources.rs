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

#[test]
fn a_file_holds_one_idea() {
    for (path, text) in files(&[".rs", ".ts", ".tsx"]) {
        let lines = text.lines().count();
        assert!(lines <= 900, "{} has {lines} lines: split it by idea", path.display());
    }
}

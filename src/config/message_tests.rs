//! Everything that messages name (settings, flags, variables) exists.

use std::{collections::BTreeSet, path::Path};

use super::{SECTIONS, keys, reference::Tree};
use crate::cli::Cli;

/// Words in backquotes in messages that look like settings but are not: parameters and fields of the API, and words of
/// formats.
const NO_SETTINGS: [&str; 15] = [
    "drop_frames",
    "functions_cut",
    "functions_limit",
    "group_by",
    "heap_v2",
    "heaptrack_print",
    "keep_frames",
    "prev_profile",
    "process_cpu",
    "profile_type",
    "sample_rate",
    "sample_type_config",
    "series_cut",
    "service_name",
    "grpc_timeout",
];

/// Flags of other programs.
const FLAGS_OF_OTHERS: [&str; 11] = [
    "build-id",
    "cpu-prof",
    "heap-prof",
    "print-flamegraph",
    "prof",
    "raw",
    "stackcollapse",
    "strip-debug",
    // Flags of the sample mesh.
    "collector",
    "cart",
    "checkout",
];

/// Lines of code of a crate's sources, without comments and tests.
fn code_of(folder: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("demo") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.to_string_lossy().ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\nmod tests {").next().unwrap();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                lines.extend(code.map(|line| (path.display().to_string(), line.to_owned())));
            }
        }
    }
    lines
}

/// Words that start with `begin`, followed by these letters.
fn words<'l>(line: &'l str, begin: &str, is_letter: fn(char) -> bool) -> Vec<&'l str> {
    line.match_indices(begin)
        .map(|(at, _)| {
            let rest = &line[at + begin.len()..];
            &rest[..rest.find(|c| !is_letter(c)).unwrap_or(rest.len())]
        })
        .collect()
}

fn flags_of(command: &clap::Command, found: &mut BTreeSet<String>) {
    found.extend(
        command
            .get_arguments()
            .filter_map(|flag| flag.get_long().map(str::to_owned)),
    );
    for argument in command.get_arguments() {
        found.extend(argument.get_visible_aliases().into_iter().flatten().map(str::to_owned));
    }
    command.get_subcommands().for_each(|command| flags_of(command, found));
}

#[test]
fn every_setting_that_a_message_names_exists() {
    let mut known: BTreeSet<String> = keys::all().map(|(_, key)| key.name.to_owned()).collect();
    known.extend(SECTIONS.iter().map(|section| section.name.to_owned()));
    for (path, _) in Tree::of_scraping()
        .keys("File")
        .iter()
        .chain(&Tree::of_proxy().keys("Config"))
    {
        known.insert(path.rsplit('.').next().unwrap().to_owned());
    }
    let mut flags = BTreeSet::from(["help".to_owned(), "version".to_owned()]);
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    flags_of(&command, &mut flags);
    let variables: BTreeSet<String> = keys::all().map(|(_, key)| key.variable()).collect();
    let mut named = BTreeSet::new();
    for folder in [
        "src",
        "storage/src",
        "collector/src",
        "web/src",
        "proxy/src/config",
        "model/src",
    ] {
        for (file, line) in code_of(folder) {
            for word in words(&line, "`", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                let is_setting = word.contains('_') && !word.starts_with('_') && !NO_SETTINGS.contains(&word);
                assert!(
                    !is_setting || known.contains(word),
                    "{file}: there is no setting `{word}`: {line}"
                );
                named.insert(word.to_owned());
            }
            for word in words(&line, "--", |c| c.is_ascii_lowercase() || c == '-') {
                let is_flag = word.len() > 1 && !word.starts_with('-') && !FLAGS_OF_OTHERS.contains(&word);
                assert!(
                    !is_flag || flags.contains(word),
                    "{file}: there is no flag --{word}: {line}"
                );
            }
            for word in words(&line, "(EMBERLINE_", |c| c.is_ascii_uppercase() || c == '_') {
                let variable = format!("EMBERLINE_{word}");
                assert!(
                    variables.contains(&variable),
                    "{file}: there is no variable {variable}: {line}"
                );
            }
        }
    }
    // Check that they are found.
    for name in [
        "max_query_seconds",
        "min_free_mb",
        "max_request_mb",
        "symbol_memory_mb",
        "retention_hours",
    ] {
        assert!(named.contains(name), "{name}");
    }
}

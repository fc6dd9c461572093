//! JavaScript. Names are bare (`parseBasket`), so functions are identified by file as well.
//!
//! Profilers add the optimiser's tier (`~`, `^`, `+`, `*`), the kind of code (`LazyCompile:`, `JS:`), and line and
//! column: all of it varies from run to run or with edits above.

use super::{
    language::{Language, Rules},
    marks::{Marks, digits, without_each},
};

pub(super) const RULES: Rules = Rules {
    language: Language::JavaScript,
    is_managed: true,
    endings: &["js", "mjs", "cjs", "ts", "mts", "cts", "jsx", "tsx", "vue", "svelte"],
    no_files: &["node:", "webpack:", "internal/modules/", "evalmachine."],
    is_certain,
    normalise,
    is_scoped_by_file: |_| true,
    is_library_name,
    library_folders: &["/node_modules/", "node:", "internal/modules/", "/.yarn/"],
    runtime: &[
        "v8::",
        "node::",
        "Builtins_",
        "uv_",
        "uv__",
        "Builtin:",
        "BytecodeHandler:",
        "Stub:",
        "RegExp:",
    ],
};

/// Kinds of code that V8 writes before a function's name.
const KINDS: [&str; 6] = ["LazyCompile:", "Function:", "JS:", "Script:", "Eval:", "Module:"];
/// Entries that V8 shows like functions but that are not.
const NO_FUNCTIONS: [&str; 7] = [
    "(root)",
    "(program)",
    "(idle)",
    "(garbage collector)",
    "(C++)",
    "Non-JS threads activity",
    "Node.js",
];

fn kind(name: &str) -> Option<&str> {
    KINDS.iter().find_map(|kind| name.strip_prefix(kind))
}

fn is_certain(name: &str, marks: Marks) -> bool {
    name.starts_with("(anonymous") && !name.starts_with("(anonymous namespace)")
        || name == "Object.<anonymous>"
        || marks.has(b':') && (kind(name).is_some() || name.contains(":L#"))
        || NO_FUNCTIONS.contains(&name)
}

fn normalise(name: &str, marks: Marks) -> Option<String> {
    let mut next = kind(name).unwrap_or(name);
    next = next
        .trim_start_matches(['~', '^', '+', '*'])
        .trim_start_matches("(this is dead code)");
    let placed = |at: &str| {
        let line = digits(at);
        let column = at[line..].strip_prefix(":C#").map(digits).unwrap_or(0);
        if line > 0 && column > 0 { line + 3 + column } else { 0 }
    };
    let without_place = match marks.has(b'#') {
        true => without_each(next, ":L#", placed, ""),
        false => None,
    };
    let next = without_place.as_deref().unwrap_or(next).trim();
    let next = match next {
        "" | "anonymous" | "<anonymous>" | "(anonymous function)" => "(anonymous)",
        _ => next,
    };
    (next != name).then(|| next.to_owned())
}

fn is_library_name(name: &str) -> bool {
    // The language's own classes; a program's classes have other names.
    const GLOBALS: [&str; 14] = [
        "JSON.", "Array.", "Object.", "String.", "Promise.", "Reflect.", "RegExp.", "Map.", "Set.", "Buffer.",
        "Module.", "Atomics.", "Intl.", "Math.",
    ];
    NO_FUNCTIONS.contains(&name)
        || name == "node"
        || name != "Object.<anonymous>" && GLOBALS.iter().any(|global| name.starts_with(global))
}

//! Files of a crate do not import each other in a circle: whoever reads one would have to read all of it.
//!
//! An arrow leads from a file to the one that defines a name it takes, as far as paths say (`use`, `module::name`); a name that
//! a module only hands on (`pub use`) is followed to where it comes from. What a file takes from a module it is inside of is no
//! arrow: that is what the module's parts have in common. Tests inside a file and names made by macros are not seen.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::files;

type Names = BTreeSet<String>;

/// A file as a module of its crate.
#[derive(Default)]
struct Module {
    file: String,
    /// What `use` brings in: the name here, the path, and whether it is handed on.
    imports: Vec<(String, Vec<String>, bool)>,
    /// Paths in the code.
    paths: Vec<Vec<String>>,
    /// All words of the code outside `use`.
    words: Names,
}

/// Modules by their path from the crate's root, which is empty.
type Modules = BTreeMap<Vec<String>, Module>;

/// Words and `::`, without comments and text; other signs one by one.
fn tokens(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            let mut escaped = true;
            let end = rest.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 1)
        } else if let Some(sign) = ["'\"'", "'\\\"'", "'\\''", "'\\\\'", "'/'"]
            .iter()
            .find(|s| rest.starts_with(**s))
        {
            sign.len()
        } else {
            let length = match rest.get(..2) {
                Some("::") => 2,
                _ if word > 0 => word,
                _ => first.len_utf8(),
            };
            if !first.is_whitespace() {
                found.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    found
}

/// Reads a path, or a tree of them in braces, from `at` on: what each is called here and the path. Returns where it ends.
fn read_paths(tokens: &[String], mut at: usize, prefix: &[String], out: &mut Vec<(String, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    loop {
        match token(at) {
            "{" => {
                while !matches!(token(at), "}" | "") {
                    at = read_paths(tokens, at + 1, &path, out);
                }
                return at + 1;
            }
            "self" if !path.is_empty() => at += 1,
            word if word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '*') => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
        if token(at) != "::" {
            break;
        }
        at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if token(at) == "as" {
        name = token(at + 1).to_owned();
        at += 2;
    }
    if !path.is_empty() && (path.len() > prefix.len() || token(at.wrapping_sub(1)) == "self") {
        out.push((name, path));
    }
    at
}

fn read_module(file: String, text: &str) -> Module {
    let tokens = tokens(text);
    let mut module = Module {
        file,
        ..Module::default()
    };
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "{" {
            at += 1;
            continue;
        }
        let mut read = Vec::new();
        let in_use = tokens[at] == "use";
        let handed_on = in_use && at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
        let end = read_paths(&tokens, at + usize::from(in_use), &[], &mut read);
        if in_use {
            let imports = read.into_iter().map(|(name, path)| (name, path, handed_on));
            module.imports.extend(imports);
        } else {
            module.words.extend(read.iter().map(|(_, path)| path[0].clone()));
            module
                .paths
                .extend(read.into_iter().map(|(_, path)| path).filter(|p| p.len() > 1));
        }
        at = end.max(at + 1);
    }
    module
}

/// The file that defines what a path names, seen from `from`, and the name; none for a module itself and for other crates.
fn resolve(modules: &Modules, from: &[String], path: &[String], depth: usize) -> Option<(Vec<String>, String)> {
    let mut here = from.to_vec();
    for (i, segment) in path.iter().enumerate() {
        match segment.as_str() {
            "crate" => here.clear(),
            "self" => {}
            "super" => drop(here.pop()),
            name => {
                here.push(name.to_owned());
                if modules.contains_key(&here) {
                    continue;
                }
                here.pop();
                let imports = &modules.get(&here)?.imports;
                return match imports.iter().find(|(known, ..)| known == name) {
                    Some((_, from, _)) if depth < 8 => {
                        let path: Vec<String> = from.iter().chain(&path[i + 1..]).cloned().collect();
                        resolve(modules, &here, &path, depth + 1)
                    }
                    _ if i == 0 => None,
                    _ => Some((here, name.to_owned())),
                };
            }
        }
    }
    None
}

/// Who takes which names from whom.
fn arrows(modules: &Modules) -> BTreeMap<&str, BTreeMap<&str, Names>> {
    let mut arrows: BTreeMap<&str, BTreeMap<&str, Names>> = BTreeMap::new();
    for (own, module) in modules {
        let taken = module
            .imports
            .iter()
            .filter(|(name, _, handed_on)| !handed_on || module.words.contains(name))
            .map(|(_, path, _)| path);
        for path in taken.chain(&module.paths) {
            if let Some((other, name)) = resolve(modules, own, path, 0).filter(|(other, _)| !own.starts_with(other)) {
                let to = arrows.entry(&module.file).or_default();
                to.entry(&modules[&other].file).or_default().insert(name);
            }
        }
    }
    arrows
}

fn circles(modules: &Modules) -> Vec<String> {
    let arrows = arrows(modules);
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(next) = open.pop() {
            for to in arrows.get(next.as_str()).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert((*to).to_owned()) {
                    open.push((*to).to_owned());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&str, Names> = arrows.keys().map(|file| (*file, reached(file))).collect();
    let mut told = Vec::new();
    for (from, names) in &arrows {
        for (to, names) in names {
            if reach.get(to).is_some_and(|back| back.contains(*from)) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                told.push(format!("{from} -> {to}: {}", names.join(", ")));
            }
        }
    }
    told
}

/// The modules of each crate, by its folder.
fn crates() -> BTreeMap<String, Modules> {
    let mut crates: BTreeMap<String, Modules> = BTreeMap::new();
    for (path, text) in files(&[".rs"]) {
        let name = path.to_string_lossy().into_owned();
        let Some((folder, inside)) = format!("/{name}")
            .split_once("/src/")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
        else {
            continue;
        };
        let mut module: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "lib") || (module == ["main"] && folder.is_empty()) {
            module.pop();
        }
        crates
            .entry(folder)
            .or_default()
            .insert(module, read_module(name, &text));
    }
    assert!(
        crates
            .values()
            .any(|modules| modules.len() > 50 && !arrows(modules).is_empty()),
        "nothing was read"
    );
    crates
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let told: Vec<String> = crates().values().flat_map(circles).collect();
    assert!(
        told.is_empty(),
        "files import each other in a circle; move what both need into the one below:\n{}",
        told.join("\n")
    );
}

/// Rooms of `web/src` (a file and the folder of its name), floor by floor from the top. A room knows those of lower floors only.
const ROOMS_OF_WEB: &[&[&str]] = &[
    &["openapi", "ui", "render", "untrusted"],
    &["api", "pyroscope"],
    &["probes"],
    &["state"],
    &["answers"],
    &["exports"],
    &["query"],
    &["http"],
];

#[test]
fn rooms_of_web_know_only_those_below_them() {
    let crates = crates();
    let modules = &crates["/web"];
    let floor = |file: &str| {
        let inside = file.strip_prefix("web/src/").unwrap_or(file);
        let room = inside.split(['/', '.']).next().unwrap_or_default();
        (
            room.to_owned(),
            ROOMS_OF_WEB.iter().position(|rooms| rooms.contains(&room)),
        )
    };
    let (mut told, mut arrows_between) = (Vec::new(), 0);
    for (own, module) in modules {
        let (room, its_floor) = floor(&module.file);
        if room != "lib" && its_floor.is_none() {
            told.push(format!("{} is in no room of `ROOMS_OF_WEB`", module.file));
        }
        // `crate::x` of a thing that `lib.rs` defines itself: all rooms would hang together there.
        for path in module.imports.iter().map(|(_, path, _)| path).chain(&module.paths) {
            let found = resolve(modules, own, path, 0).filter(|(to, _)| room != "lib" && to.is_empty());
            told.extend(found.map(|(_, name)| format!("{} -> web/src/lib.rs: {name}", module.file)));
        }
    }
    for (from, to) in arrows(modules) {
        let (room, its_floor) = floor(from);
        for (to, names) in to {
            let (other, below) = floor(to);
            if room == "lib" || room == other {
                continue;
            }
            arrows_between += 1;
            if below <= its_floor {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                told.push(format!("{from} -> {to}: {}", names.join(", ")));
            }
        }
    }
    assert!(arrows_between > 50, "nothing was read");
    assert!(
        told.is_empty(),
        "a room of web/src knows one that is not below it; move what both need down:\n{}",
        told.join("\n")
    );
}

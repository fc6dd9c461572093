//! Rules about crates: who may depend on whom, what ships, under which licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_path_buf()
}

fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--offline",
                "--filter-platform=x86_64-unknown-linux-gnu",
            ])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn packages() -> impl Iterator<Item = &'static Value> {
    metadata()["packages"].as_array().unwrap().iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn is_member(package: &Value) -> bool {
    metadata()["workspace_members"]
        .as_array()
        .unwrap()
        .contains(&package["id"])
}

/// Direct dependencies among our own crates, without those that only tests use.
fn arrows() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    packages()
        .filter(|p| is_member(p))
        .map(|p| {
            let normal = p["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|d| text(d, "kind") != "dev");
            (
                text(p, "name"),
                normal
                    .map(|d| text(d, "name"))
                    .filter(|n| n.starts_with("emberline"))
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("emberline-model", &[][..]),
        ("emberline-profiler", &[]),
        ("emberline-analysis", &["emberline-model"]),
        ("emberline-storage", &["emberline-model"]),
        ("emberline-client", &["emberline-model"]),
        ("emberline-yaml", &[]),
        (
            "emberline-proxy",
            &[
                "emberline-client",
                "emberline-model",
                "emberline-profiler",
                "emberline-yaml",
            ],
        ),
        (
            "emberline-collector",
            &[
                "emberline-analysis",
                "emberline-client",
                "emberline-model",
                "emberline-storage",
                "emberline-yaml",
            ],
        ),
        (
            "emberline-web",
            &["emberline-analysis", "emberline-model", "emberline-storage"],
        ),
        ("emberline-demo", &["emberline-model", "emberline-proxy"]),
        (
            "emberline",
            &[
                "emberline-analysis",
                "emberline-client",
                "emberline-collector",
                "emberline-model",
                "emberline-proxy",
                "emberline-storage",
                "emberline-web",
                "emberline-yaml",
            ],
        ),
    ]);
    for (name, dependencies) in arrows() {
        let Some(allowed) = allowed.get(name) else { continue };
        for dependency in dependencies {
            assert!(
                allowed.contains(&dependency),
                "{name} may not depend on {dependency} (ARCHITECTURE.md, \"Rooms\")"
            );
        }
    }
}

/// The resolved graph: package id → (features, ids of what it links; build scripts' and tests' dependencies are not).
fn resolved() -> BTreeMap<&'static str, (Vec<&'static str>, Vec<&'static str>)> {
    let nodes = metadata()["resolve"]["nodes"].as_array().unwrap();
    let linked = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"].as_array().unwrap();
        kinds.iter().any(|kind| kind["kind"].is_null())
    };
    nodes
        .iter()
        .map(|node| {
            let features = node["features"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let dependencies = node["deps"].as_array().unwrap().iter().filter(linked);
            (
                text(node, "id"),
                (features, dependencies.map(|d| text(d, "pkg")).collect()),
            )
        })
        .collect()
}

fn package(id: &str) -> &'static Value {
    packages().find(|p| text(p, "id") == id).unwrap()
}

/// A procedural macro runs in the compiler and is not part of what it compiles.
fn is_macro(package: &Value) -> bool {
    let targets = package["targets"].as_array().unwrap();
    targets
        .iter()
        .any(|t| t["kind"].as_array().unwrap().iter().any(|k| k == "proc-macro"))
}

/// Everything that ships in the named crates.
fn closure(names: &[&str]) -> BTreeSet<&'static str> {
    let graph = resolved();
    let mut open: Vec<&str> = packages()
        .filter(|p| names.contains(&text(p, "name")))
        .map(|p| text(p, "id"))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !is_macro(package(id)) && seen.insert(id) {
            open.extend(&graph[id].1);
        }
    }
    seen
}

/// `name version features` of everything that is compiled for a choice of packages and kinds of dependencies.
fn compiled(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix=none",
            "--no-dedupe",
            "--format={p} [{f}]",
        ])
        .arg("--target=x86_64-unknown-linux-gnu")
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn tests_use_what_the_demo_has_compiled() {
    let demo = compiled(&["--edges=normal,build"]);
    let tests = compiled(&["--workspace", "--edges=normal,build,dev"]);
    let twice: Vec<&String> = demo.difference(&tests).collect();
    assert!(
        twice.is_empty(),
        "tests ask for other features, so that these are compiled twice (align them in the workspace's Cargo.toml): {twice:#?}"
    );
}

#[test]
fn a_crate_has_one_binary_of_integration_tests() {
    for package in packages().filter(|p| is_member(p)) {
        let targets = package["targets"].as_array().unwrap();
        let tests: Vec<&str> = targets
            .iter()
            .filter(|t| t["kind"].as_array().unwrap().iter().any(|k| k == "test"))
            .map(|t| text(t, "name"))
            .collect();
        assert!(
            tests.len() <= 1,
            "{} has {tests:?}: each links the whole; make them modules of one",
            text(package, "name")
        );
    }
}

#[test]
fn the_default_build_does_not_compile_duckdb_itself() {
    for (id, (features, _)) in resolved() {
        if text(package(id), "name") == "libduckdb-sys" {
            assert!(
                !features.contains(&"bundled"),
                "libduckdb-sys is built with `bundled` by default: an hour of CPU"
            );
        }
    }
}

#[test]
fn proxies_and_sample_services_never_link_duckdb() {
    for id in closure(&["emberline-proxy", "emberline-demo"]) {
        let name = text(package(id), "name");
        assert!(
            !name.contains("duckdb") && name != "arrow" && name != "emberline-storage",
            "a proxy links {name}"
        );
    }
}

#[test]
fn unsafe_code_is_forbidden_outside_the_profiler() {
    for package in packages().filter(|p| is_member(p)) {
        if text(package, "name") == "emberline-profiler" {
            continue;
        }
        let manifest = std::fs::read_to_string(text(package, "manifest_path")).unwrap();
        let lints = manifest.contains("[lints]\nworkspace = true");
        assert!(
            lints,
            "{} does not inherit the workspace's lints",
            text(package, "name")
        );
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}

fn deny() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

fn strings(value: &toml::Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .filter_map(toml::Value::as_str)
        .collect()
}

#[test]
fn licences_of_what_ships_are_allowed() {
    let deny = deny();
    let allowed = strings(&deny["licenses"]["allow"]);
    let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
    let shipped = closure(&["emberline", "emberline-proxy", "emberline-demo"]);
    for id in shipped {
        let package = package(id);
        let name = text(package, "name");
        let mut allowed = allowed.clone();
        for exception in exceptions.iter().filter(|e| e["crate"].as_str() == Some(name)) {
            allowed.extend(strings(&exception["allow"]));
        }
        let expression = text(package, "license").replace('/', " OR ");
        let parsed = spdx::Expression::parse(&expression);
        let parsed =
            parsed.unwrap_or_else(|e| panic!("{name} states no licence that can be read: `{expression}`: {e}"));
        let fine = parsed.evaluate(|requirement| allowed.contains(&requirement.to_string().as_str()));
        assert!(fine, "the licence of {name} ({expression}) is not allowed by deny.toml");
    }
}

#[test]
fn banned_crates_and_foreign_sources_stay_out() {
    let deny = deny();
    let banned: Vec<&str> = deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|b| b["crate"].as_str())
        .collect();
    for package in packages() {
        let name = text(package, "name");
        assert!(!banned.contains(&name), "{name} is banned by deny.toml");
        let source = text(package, "source");
        let registry = source.is_empty() || source == "registry+https://github.com/rust-lang/crates.io-index";
        assert!(registry, "{name} comes from {source}");
        assert!(
            !source.is_empty() || is_member(package),
            "{name} comes from a path outside the workspace"
        );
    }
}

#[test]
fn arrow_is_the_version_duckdb_uses() {
    let graph = resolved();
    let versions = |parent: &str| -> BTreeSet<&str> {
        let ids = graph
            .iter()
            .filter(|(id, _)| text(package(id), "name") == parent)
            .flat_map(|(_, node)| &node.1);
        ids.map(|id| package(id))
            .filter(|p| text(p, "name") == "arrow")
            .map(|p| text(p, "version"))
            .collect()
    };
    assert_eq!(versions("emberline-storage"), versions("duckdb"));
}

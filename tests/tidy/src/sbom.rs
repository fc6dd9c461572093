//! What a release is made of, as CycloneDX 1.6 in JSON.
//!
//! Guarantees: every package of `Cargo.lock` and of the pages' lock file is there once, with licence and checksum, and the
//! prebuilt DuckDB library; what only builds or tests is `excluded`. The same locks give the same bytes: it carries no time
//! and no random number.
//!
//! Wrong on purpose: crates that Cargo knows for other systems than Linux on x86-64 are listed as excluded. What a
//! container's base image holds is not known here.
//!
//! Source: CycloneDX 1.6 (ECMA-424), package URLs (purl-spec). Written here because a library for it would bring XML and
//! thirty crates.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

/// Binaries that ship.
const SHIPPED: [&str; 2] = ["emberline", "emberline-proxy"];

/// The bill of the repository at a path.
pub fn of_repository(root: &Path) -> Result<Value, String> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .arg("--filter-platform=x86_64-unknown-linux-gnu")
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !metadata.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&metadata.stderr)));
    }
    let json = |text: &[u8], what: &str| serde_json::from_slice(text).map_err(|error| format!("{what}: {error}"));
    let metadata: Value = json(&metadata.stdout, "cargo metadata")?;
    let lock: toml::Table = read("Cargo.lock")?
        .parse()
        .map_err(|error| format!("Cargo.lock: {error}"))?;
    let npm: Value = json(read("web/ui/package-lock.json")?.as_bytes(), "package-lock.json")?;
    Ok(of(&metadata, &lock, &npm, &read("deploy/dev/third_party.sha512")?))
}

/// The bill of what Cargo, npm and the set-up say.
pub fn of(metadata: &Value, lock: &toml::Table, npm: &Value, third_party: &str) -> Value {
    let mut components: BTreeMap<String, Value> = BTreeMap::new();
    let version = crates(metadata, lock, &mut components);
    pages(npm, &mut components);
    for line in third_party.lines().filter(|line| line.ends_with("libduckdb.so")) {
        let sum = line.split_whitespace().next().unwrap_or_default();
        components.insert(
            "file:libduckdb.so".to_owned(),
            json!({
                "type": "library", "bom-ref": "file:libduckdb.so", "name": "libduckdb.so", "version": "1.5.6", "scope": "required",
                "licenses": [{ "license": { "id": "MIT" } }],
                "hashes": [{ "alg": "SHA-512", "content": sum }],
            }),
        );
    }
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": "emberline", "name": "emberline", "version": version,
            "licenses": [{ "license": { "id": "Apache-2.0" } }],
        } },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies(metadata),
    })
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// Package id → package URL.
fn urls(metadata: &Value) -> BTreeMap<&str, String> {
    let url = |package| {
        (
            text(package, "id"),
            purl(text(package, "name"), text(package, "version")),
        )
    };
    list(metadata, "packages").map(url).collect()
}

/// Ids of what is linked into what ships.
fn linked(metadata: &Value) -> BTreeSet<&str> {
    let names = |id: &str| list(metadata, "packages").find(|package| text(package, "id") == id);
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"], "nodes")
        .map(|node| (text(node, "id"), node))
        .collect();
    let is_shipped = |id: &&str| names(id).is_some_and(|package| SHIPPED.contains(&text(package, "name")));
    let mut open: Vec<&str> = nodes.keys().copied().filter(is_shipped).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes.get(id).into_iter().flat_map(|node| list(node, "deps")) {
            if list(dependency, "dep_kinds").any(|kind| kind["kind"].is_null()) {
                open.push(text(dependency, "pkg"));
            }
        }
    }
    seen
}

/// Adds the crates; answers the version of ours.
fn crates(metadata: &Value, lock: &toml::Table, components: &mut BTreeMap<String, Value>) -> String {
    let linked = linked(metadata);
    let known: BTreeMap<String, &Value> = list(metadata, "packages")
        .map(|package| (purl(text(package, "name"), text(package, "version")), package))
        .collect();
    let mut ours = String::new();
    for package in lock
        .get("package")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let text_of = |key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        let (name, version) = (text_of("name"), text_of("version"));
        let reference = purl(name, version);
        let cargo = known.get(&reference).copied();
        let required = cargo.is_some_and(|package| linked.contains(text(package, "id")));
        if name == "emberline" {
            version.clone_into(&mut ours);
        }
        let mut component = json!({
            "type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference,
            "scope": if required { "required" } else { "excluded" },
        });
        let licence = cargo
            .map(|package| text(package, "license").replace('/', " OR "))
            .unwrap_or_default();
        if !licence.is_empty() {
            component["licenses"] = json!([{ "expression": licence }]);
        }
        if !text_of("checksum").is_empty() {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": text_of("checksum") }]);
        }
        components.insert(reference, component);
    }
    ours
}

/// Adds the packages of the pages.
fn pages(npm: &Value, components: &mut BTreeMap<String, Value>) {
    let packages = npm["packages"].as_object().into_iter().flatten();
    for (path, package) in packages.filter(|(path, _)| !path.is_empty()) {
        let name = path.rsplit("node_modules/").next().unwrap_or(path);
        let reference = format!("pkg:npm/{}@{}", name.replace('@', "%40"), text(package, "version"));
        let mut component = json!({
            "type": "library", "bom-ref": reference, "name": name, "version": text(package, "version"), "purl": reference,
            "scope": if package["dev"] == true { "excluded" } else { "required" },
        });
        if !text(package, "license").is_empty() {
            component["licenses"] = json!([{ "expression": text(package, "license") }]);
        }
        if let Some(sum) = text(package, "integrity").strip_prefix("sha512-").and_then(hexadecimal) {
            component["hashes"] = json!([{ "alg": "SHA-512", "content": sum }]);
        }
        components.insert(reference, component);
    }
}

/// Base64 as hexadecimal digits.
fn hexadecimal(base64: &str) -> Option<String> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut hex) = (0u32, 0, String::new());
    for byte in base64.trim_end_matches('=').bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == byte)? as u32;
        bits = (bits << 6 | digit) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            hex.push_str(&format!("{:02x}", (bits >> held) & 0xff));
        }
    }
    Some(hex)
}

fn dependencies(metadata: &Value) -> Vec<Value> {
    let urls = urls(metadata);
    let mut all: Vec<Value> = list(&metadata["resolve"], "nodes")
        .filter_map(|node| {
            let of = list(node, "dependencies").filter_map(Value::as_str);
            let of: BTreeSet<&String> = of.filter_map(|id| urls.get(id)).collect();
            Some(json!({ "ref": urls.get(text(node, "id"))?, "dependsOn": of }))
        })
        .collect();
    let shipped: BTreeSet<String> = SHIPPED
        .iter()
        .filter_map(|name| list(metadata, "packages").find(|package| text(package, "name") == *name))
        .map(|package| purl(text(package, "name"), text(package, "version")))
        .collect();
    all.push(json!({ "ref": "emberline", "dependsOn": shipped }));
    all.sort_by(|a, b| text(a, "ref").cmp(text(b, "ref")));
    all
}

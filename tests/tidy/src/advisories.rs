//! Known weaknesses of the crates that are used, from a dated copy of the RustSec advisory database.
//!
//! Guarantees: a locked version that an advisory of the copy does not call patched or unaffected is found, offline. What the
//! database learnt after the date of the copy is not known; `deploy/dev/advisories.toml` says the date and how to renew it.
//!
//! Source: the format of <https://github.com/RustSec/advisory-db> (public domain, CC0-1.0): Markdown whose first block is TOML.

use std::{fmt::Write as _, path::Path};

use semver::{Version, VersionReq};
use serde::Deserialize;

/// What is kept of an advisory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Advisory {
    /// Its name.
    pub id: String,
    /// The crate.
    pub package: String,
    /// Versions in which it is mended.
    pub patched: Vec<String>,
    /// Versions that never had it.
    #[serde(default)]
    pub unaffected: Vec<String>,
    /// `unmaintained`, `unsound`, `notice`; empty for a weakness.
    #[serde(default)]
    pub informational: String,
    /// In words.
    pub title: String,
}

impl Advisory {
    /// True when a version has it. A requirement that cannot be read excludes nothing.
    pub fn concerns(&self, version: &Version) -> bool {
        let fine = self.patched.iter().chain(&self.unaffected);
        !fine
            .filter_map(|text| VersionReq::parse(text).ok())
            .any(|fine| fine.matches(version))
    }
}

/// The copy.
#[derive(Debug, Clone, Deserialize)]
pub struct Copied {
    /// Day of its newest entry.
    pub date: String,
    /// Commit of the database.
    pub commit: String,
    /// Those that are about a crate of the lock file, whatever its version.
    #[serde(default)]
    pub advisory: Vec<Advisory>,
}

/// Names and versions of a lock file.
pub fn locked(lock: &str) -> Result<Vec<(String, Version)>, String> {
    let lock: toml::Table = lock.parse().map_err(|error| format!("the lock file: {error}"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let packages = packages.ok_or("the lock file has no packages")?;
    let read = |package: &toml::Value| {
        let text = |key: &str| {
            package
                .get(key)
                .and_then(toml::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (name, version) = (text("name"), text("version"));
        let parsed = Version::parse(&version).map_err(|error| format!("{name} {version}: {error}"))?;
        Ok((name, parsed))
    };
    packages.iter().map(read).collect()
}

/// The advisory in a file of the database; `None` when it was withdrawn.
pub fn read_entry(markdown: &str) -> Result<Option<Advisory>, String> {
    let head = markdown
        .trim_start()
        .strip_prefix("```toml")
        .ok_or("it does not begin with ```toml")?;
    let (head, rest) = head.split_once("\n```").ok_or("its first block has no end")?;
    let head: toml::Table = head.parse().map_err(|error| format!("{error}"))?;
    let about = head
        .get("advisory")
        .and_then(toml::Value::as_table)
        .ok_or("it has no [advisory]")?;
    if about.contains_key("withdrawn") {
        return Ok(None);
    }
    let text = |key: &str| {
        about
            .get(key)
            .and_then(toml::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let versions = |key: &str| -> Vec<String> {
        let list = head.get("versions").and_then(|versions| versions.get(key)?.as_array());
        let texts = list.into_iter().flatten().filter_map(toml::Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let title = rest
        .lines()
        .find_map(|line| line.strip_prefix("# "))
        .unwrap_or_default();
    Ok(Some(Advisory {
        id: text("id"),
        package: text("package"),
        patched: versions("patched"),
        unaffected: versions("unaffected"),
        informational: text("informational"),
        title: title.trim().to_owned(),
    }))
}

/// Reads what a checked-out database says of some crates.
pub fn read_database(folder: &Path, crates: &[&str]) -> Result<Vec<Advisory>, String> {
    let mut found = Vec::new();
    for name in crates {
        // Most crates have none.
        let Ok(files) = std::fs::read_dir(folder.join("crates").join(name)) else {
            continue;
        };
        for file in files.filter_map(Result::ok) {
            let path = file.path();
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            found.extend(read_entry(&text).map_err(|error| format!("{}: {error}", path.display()))?);
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup();
    Ok(found)
}

/// As it is kept: one advisory per line.
pub fn write(copied: &Copied) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |texts: &[String]| {
        let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let mut text = format!(
        "# What the RustSec advisory database (public domain, CC0-1.0) said on the date below of crates in Cargo.lock. A house\n\
         # rule compares it with the locked versions. Newer advisories are NOT known here. To renew it, and after adding a crate:\n\
         #   git clone https://github.com/RustSec/advisory-db target/advisory-db\n\
         #   make advisories FROM=target/advisory-db\n\
         date = {}\ncommit = {}\nadvisory = [\n",
        quoted(&copied.date),
        quoted(&copied.commit),
    );
    for advisory in &copied.advisory {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "    {{ id = {}, package = {}, patched = {}, unaffected = {}, informational = {}, title = {} }},",
            quoted(&advisory.id),
            quoted(&advisory.package),
            list(&advisory.patched),
            list(&advisory.unaffected),
            quoted(&advisory.informational),
            quoted(&advisory.title),
        );
    }
    text.push_str("]\n");
    text
}

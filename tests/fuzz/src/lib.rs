//! Everything that reads bytes of strangers, as targets: one function per decoder that must end, without a panic, in an
//! error or in something that fits together.
//!
//! Two drivers share them: `tests/fuzz/main.rs` runs the corpora and a fixed number of changed inputs with every test run,
//! `libfuzzer/` searches guided by coverage (`make fuzz`). Seeds are the fixtures of real programs and what the product
//! itself writes; `corpus/` holds what a search found worth keeping and what once failed; what
//! could harm other programs is made by a test of its decoder instead.
//!
//! Not among the targets: forms of `/ingest` and packed bodies (they are read by async code, and have properties of their
//! own), and debug information, which a library reads.

pub mod mutate;
mod seeds;
mod targets;

use std::path::PathBuf;

pub use targets::TARGETS;

/// A decoder.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its folder of inputs.
    pub name: &'static str,
    /// Gives it bytes; panics when the decoder breaks a promise.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// The target of a name.
    pub fn of_name(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Inputs that are kept in the repository, by file name.
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(self.name);
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let named = files.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some((name, std::fs::read(&path).ok()?))
        });
        named.collect()
    }
}

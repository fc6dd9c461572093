//! A build of everything from nothing but downloaded sources.

use std::{process::Command, time::Instant};

use anyhow::{Result, ensure};
use emberline_tests::{Scratch, repository};

use crate::Figure;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-build");
    let started = Instant::now();
    let status = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--locked",
            "--workspace",
            "--all-targets",
            "--quiet",
        ])
        .env("CARGO_TARGET_DIR", scratch.path())
        .current_dir(repository())
        .status()?;
    ensure!(status.success(), "the build failed");
    Ok(vec![Figure {
        name: "build_cold_seconds",
        value: started.elapsed().as_secs_f64(),
        unit: "s",
        peer: None,
        ratio: None,
        n: 1,
        command: "make bench NAME=build",
    }])
}

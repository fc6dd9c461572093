//! What a first `make demo` compiles, from nothing but downloaded sources, beside the same of commit 1972a83, which
//! compiled all tests with it. CPU time of the compilers: it says what a slower machine waits for.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use emberline_tests::{Scratch, repository};

use crate::Figure;

/// The last commit that built its tests for the demo.
const BEFORE: &str = "1972a83";

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-build");
    let (cpu_s, wall_s) = build(&repository(), &[], &scratch.path().join("now"))?;
    println!("now: {cpu_s:.0} CPU-s, {wall_s:.0} s");
    let mut figures = vec![
        Figure::plain("demo_cold_cpu_s", cpu_s, "s", 1, "make bench NAME=build"),
        Figure::plain("build_cold_seconds", wall_s, "s", 1, "make bench NAME=build"),
    ];
    let before = scratch.path().join("before");
    if let Err(error) = check_out(&before) {
        println!("{BEFORE} is not measured: {error:#}");
        return Ok(figures);
    }
    let (before_s, wall_s) = build(
        &before,
        &["--workspace", "--all-targets"],
        &scratch.path().join("before-target"),
    )?;
    println!("{BEFORE}: {before_s:.0} CPU-s, {wall_s:.0} s");
    let ratio = Figure::plain("demo_cold_vs_1972a83", cpu_s / before_s, "", 1, "make bench NAME=build");
    figures.push(ratio);
    Ok(figures)
}

/// CPU seconds of all compilers, and seconds by the clock.
fn build(folder: &Path, targets: &[&str], target: &Path) -> Result<(f64, f64)> {
    let (started, spent) = (Instant::now(), children_cpu_s()?);
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet"])
        .args(targets)
        .env("CARGO_TARGET_DIR", target)
        .current_dir(folder)
        .status()?;
    ensure!(status.success(), "the build failed");
    std::fs::remove_dir_all(target)?;
    Ok((children_cpu_s()? - spent, started.elapsed().as_secs_f64()))
}

/// The sources of then, with the libraries and pages of now.
fn check_out(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let archive = folder.join("sources.tar");
    let status = Command::new("git")
        .args(["archive", "--output"])
        .arg(&archive)
        .arg(BEFORE)
        .current_dir(repository())
        .status()?;
    ensure!(status.success(), "git does not have that commit");
    let status = Command::new("tar")
        .arg("xf")
        .arg(&archive)
        .current_dir(folder)
        .status()?;
    ensure!(status.success(), "its sources could not be unpacked");
    std::os::unix::fs::symlink(repository().join("third_party"), folder.join("third_party"))?;
    Ok(())
}

/// CPU seconds of this process's children that have ended, and of theirs (fields 16 and 17 of `proc(5)`'s `stat`, in
/// ticks of which Linux shows 100 a second).
fn children_cpu_s() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").context("no `stat` of a process")?.1;
    let ticks = fields
        .split(' ')
        .skip(13)
        .take(2)
        .map(|field| field.parse().unwrap_or(0.0));
    Ok(ticks.sum::<f64>() / 100.0)
}

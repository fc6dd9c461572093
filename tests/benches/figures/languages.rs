//! Services in Python, Node and Go with profilers of their own: the changed function is named at the cost that the
//! program's own clock states. Judged in `tests/clients/languages.py`, which prints a line a service.
//!
//! Says so and measures nothing where Python, Node or a registry is not there.

use std::process::Command;

use anyhow::{Result, bail};
use emberline_tests::{Scratch, binaries, repository};

use crate::Figure;

/// What the script ends with when it cannot fetch the profilers.
const SKIPPED: i32 = 77;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let scratch = Scratch::new("bench-languages");
    let ran = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(repository().join("tests/clients/languages.py"))
        .arg("--binaries")
        .arg(binaries())
        .arg("--folder")
        .arg(scratch.path().join("languages"))
        .status();
    let Ok(status) = ran else {
        println!("skipped: there is no python3");
        return Ok(Vec::new());
    };
    match status.code() {
        Some(0 | SKIPPED) => Ok(Vec::new()),
        _ => bail!("a function was not named, or its cost is not what the program spent: see above"),
    }
}

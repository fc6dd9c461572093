//! What latency verdicts find, what fools them and what they cost, on generated traffic with fixed seeds: the examples of
//! `emberline-analysis`, run with as many watches a row as `EMBERLINE_VERDICT_RUNS` says.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use emberline_tests::binaries;

use crate::{Figure, setting};

const COMMAND: &str = "make bench NAME=verdicts";
/// Watches of each row.
const RUNS: i64 = 60;
/// Names and units of what `replay` prints.
const REPLAYED: [(&str, &str); 5] = [
    ("verdict_false_alarms_percent", "% of watches without a change"),
    (
        "verdict_hostile_false_alarms_percent",
        "% in the worst hostile setting, both releases serving",
    ),
    (
        "verdict_found_20_in_10min_percent",
        "% of slowdowns of 20 %, both releases serving",
    ),
    (
        "verdict_found_20_in_60min_percent",
        "% of slowdowns of 20 %, both releases serving",
    ),
    (
        "verdict_found_20_before_after_60min_percent",
        "% of slowdowns of 20 %, one after the other",
    ),
];
/// The same of `judging_cost`.
const COSTS: [(&str, &str); 3] = [
    ("verdict_1000_edges_cpu_ms", "CPU-ms per window"),
    ("verdict_1000_edges_mib", "MiB of watches"),
    ("verdict_bytes_per_watch", "bytes"),
];

pub(crate) fn run() -> Result<Vec<Figure>> {
    let runs = setting("EMBERLINE_VERDICT_RUNS").unwrap_or(RUNS);
    let mut figures = of_example("replay", &[&runs.to_string()], &REPLAYED, runs as usize)?;
    figures.extend(of_example("judging_cost", &[], &COSTS, 1)?);
    Ok(figures)
}

/// Runs an example; what it prints is shown as it comes, and lines of a name and a number are its figures.
fn of_example(
    example: &str,
    arguments: &[&str],
    wanted: &[(&'static str, &'static str)],
    n: usize,
) -> Result<Vec<Figure>> {
    let program = binaries().join("examples").join(example);
    ensure!(
        program.is_file(),
        "{} is not built: run `make build`",
        program.display()
    );
    let mut child = Command::new(&program).args(arguments).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut found = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        let value = line
            .split_once(' ')
            .and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        found.extend(value);
    }
    ensure!(child.wait()?.success(), "{example} failed");
    let figure = |(name, unit): &(&'static str, &'static str)| {
        let value = found.iter().find(|(of, _): &&(String, f64)| of == name);
        let value = value.with_context(|| format!("{example} printed no {name}"))?.1;
        Ok(Figure::plain(name, value, unit, n, COMMAND))
    };
    wanted.iter().map(figure).collect()
}

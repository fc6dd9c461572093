//! What one stack sample costs its host, by the amplified method: signals at thousands of times the usual rate hit a
//! thread that does fixed work, and the extra CPU is divided by their number.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use emberline_tests::binaries;
use serde_json::Value;

use crate::{Figure, median};

const RUNS: usize = 5;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let program = binaries().join("examples/overhead");
    ensure!(
        program.is_file(),
        "{} is not built: run `make build`",
        program.display()
    );
    let (mut costs, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let output = Command::new(&program).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let line = text
            .lines()
            .rfind(|line| line.starts_with('{'))
            .context("the program printed no figures")?;
        let figures: Value = serde_json::from_str(line)?;
        costs.push(figures["us_per_sample"].as_f64().context("no us_per_sample")?);
        ratios.push(
            figures["overhead_ratio_99hz"]
                .as_f64()
                .context("no overhead_ratio_99hz")?,
        );
        println!("{line}");
    }
    let command = "make bench NAME=profiler";
    let figure = |name, value, unit| Figure {
        name,
        value,
        unit,
        peer: None,
        ratio: None,
        n: RUNS,
        command,
    };
    Ok(vec![
        figure("profiler_us_per_sample", median(costs), "µs"),
        figure("profiler_overhead_ratio", median(ratios), "CPU with / without at 99 Hz"),
    ])
}

//! The campaigns of faults against the store in full: 1,000 kills, 200 damages of each kind of file in each way, a full
//! disk, the replay of a large journal. `peak_rss_mb` is the most that the store had resident in any of them.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use emberline_tests::binaries;
use serde_json::{Map, Value};

use crate::{Figure, figures_path};

pub(crate) fn kill() -> Result<Vec<Figure>> {
    let found = run("kill")?;
    let n = number(&found, "kill_cycles")?;
    let figure = |name, unit| figure(&found, name, unit, n as usize, "make bench NAME=kill");
    Ok(vec![
        figure("kill_cycles", "kills under load")?,
        figure("kill_acknowledged", "batches acknowledged")?,
        figure("kill_lost", "of them lost")?,
        figure("kill_doubled", "of them doubled")?,
        figure("kill_peak_rss_mb", "MiB resident at most")?,
        peak(&found, "kill_peak_rss_mb")?,
    ])
}

pub(crate) fn corruption() -> Result<Vec<Figure>> {
    let found = run("corruption")?;
    let n = number(&found, "corruption_trials")?;
    let figure = |name, unit| figure(&found, name, unit, n as usize, "make bench NAME=corruption");
    Ok(vec![
        figure("corruption_kinds", "kinds of files")?,
        figure("corruption_trials", "damaged files")?,
        figure("corruption_failed_starts", "starts that failed")?,
        figure("corruption_wrong_answers", "wrong answers")?,
        figure("corruption_peak_rss_mb", "MiB resident at most")?,
        peak(&found, "corruption_peak_rss_mb")?,
    ])
}

pub(crate) fn disk_full() -> Result<Vec<Figure>> {
    let found = run("disk_full")?;
    let figure = |name, unit| figure(&found, name, unit, 1, "make bench NAME=disk_full");
    Ok(vec![
        figure("disk_full_resume_ms", "ms from room to everything stored and shown")?,
        figure("disk_full_longest_gap_ms", "ms without an answer while full, at most")?,
        figure("disk_full_lost", "acknowledged batches lost")?,
    ])
}

pub(crate) fn replay() -> Result<Vec<Figure>> {
    let found = run("replay")?;
    let figure = |name, unit| figure(&found, name, unit, 1, "make bench NAME=replay");
    Ok(vec![
        figure("replay_journal_mb", "MiB of journal replayed")?,
        figure("replay_peak_rss_mb", "MiB resident at most")?,
        peak(&found, "replay_peak_rss_mb")?,
    ])
}

/// Runs one campaign; what it prints is shown as it comes.
fn run(which: &str) -> Result<Map<String, Value>> {
    let program = binaries().join("examples/campaign");
    ensure!(
        program.is_file(),
        "{} is not built: run `make build`",
        program.display()
    );
    let mut child = Command::new(&program).arg(which).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        last = line?;
        println!("{last}");
    }
    ensure!(child.wait()?.success(), "the campaign found something: see above");
    serde_json::from_str(&last).context("the campaign printed no figures")
}

fn number(found: &Map<String, Value>, name: &str) -> Result<f64> {
    let value = found.get(name).and_then(Value::as_f64);
    value.with_context(|| format!("the campaign printed no {name}"))
}

fn figure(
    found: &Map<String, Value>,
    name: &'static str,
    unit: &'static str,
    n: usize,
    command: &'static str,
) -> Result<Figure> {
    Ok(Figure {
        name,
        value: number(found, name)?,
        unit,
        peer: None,
        ratio: None,
        n,
        command,
    })
}

/// The most of all campaigns: this one and those measured before.
fn peak(found: &Map<String, Value>, own: &str) -> Result<Figure> {
    let known = std::fs::read(figures_path()).ok();
    let known: Vec<Value> = known
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let others = known.iter().filter(|figure| {
        let name = figure["name"].as_str().unwrap_or_default();
        name.ends_with("_peak_rss_mb") && name != own
    });
    let most = others.filter_map(|figure| figure["value"].as_f64());
    Ok(Figure {
        name: "peak_rss_mb",
        value: most.fold(number(found, own)?, f64::max),
        unit: "MiB resident at most, of all campaigns",
        peer: None,
        ratio: None,
        n: 1,
        command: "make bench NAME=kill, corruption, replay",
    })
}

//! How long the main job takes: from starting the demo, and from the second release, to the verdict.

use std::time::{Duration, Instant};

use anyhow::Result;
use emberline_tests::{Demo, Scratch};

use crate::{Figure, median};

const RUNS: usize = 3;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let (mut in_all, mut from_release) = (Vec::new(), Vec::new());
    for round in 1..=RUNS {
        let scratch = Scratch::new("bench-demo");
        let demo = Demo::start(scratch.path(), &["--seed", &round.to_string()]);
        demo.event("planted", Duration::from_secs(180));
        let released = Instant::now();
        let verdict = demo.event("verdict", Duration::from_secs(300));
        in_all.push(verdict["at_seconds"].as_f64().unwrap_or(f64::NAN));
        from_release.push(released.elapsed().as_secs_f64());
        println!(
            "run {round}: {:.1} s, {:.1} s after the release",
            in_all[round - 1],
            from_release[round - 1]
        );
        demo.interrupt();
    }
    let command = "make bench NAME=demo";
    let figure = |name, value| Figure {
        name,
        value,
        unit: "s",
        peer: None,
        ratio: None,
        n: RUNS,
        command,
    };
    Ok(vec![
        figure("demo_seconds_to_verdict", median(in_all)),
        figure("release_seconds_to_verdict", median(from_release)),
    ])
}

//! The corpora, and a fixed number of changed inputs for every target: what is left of fuzzing where no time is.
//!
//! `EMBERLINE_FUZZ_EXECUTIONS` sets how many of these there are of all targets together, and `EMBERLINE_FUZZ_FROM` how many
//! earlier runs did already, so that runs add up; `EMBERLINE_FUZZ_TARGETS=one,another` names the targets of a run. A failure
//! names its target and its number, and `EMBERLINE_FUZZ_ONLY=target:number` repeats it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use emberline_fuzz::{TARGETS, Target, mutate};

/// Some seconds of one core.
const EXECUTIONS: u64 = 1_000_000;

fn fails(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err()
}

fn corpus_and_seeds(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    inputs.extend(target.corpus().into_iter().map(|(_, input)| input));
    inputs
}

#[test]
fn every_target_has_seeds_and_a_name_of_its_own() {
    for target in TARGETS {
        assert!(
            !(target.seeds)().is_empty(),
            "{} has no seeds: were its fixtures moved?",
            target.name
        );
        assert_eq!(TARGETS.iter().filter(|other| other.name == target.name).count(), 1);
    }
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    for folder in std::fs::read_dir(corpus).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        let known = Target::of_name(&name).is_some() || name.ends_with(".md");
        assert!(known, "corpus/{name} belongs to no target");
    }
}

#[test]
fn inputs_that_are_kept_do_no_harm() {
    for target in TARGETS {
        for (name, input) in target.corpus() {
            assert!(!fails(target, &input), "corpus/{}/{name}", target.name);
        }
        for (at, input) in (target.seeds)().iter().enumerate() {
            assert!(!fails(target, input), "seed {at} of {}", target.name);
        }
    }
}

#[test]
fn changed_inputs_do_no_harm() {
    if let Ok(only) = std::env::var("EMBERLINE_FUZZ_ONLY") {
        let (name, number) = only.split_once(':').unwrap();
        let target = Target::of_name(name).unwrap();
        let input = mutate::changed(&corpus_and_seeds(target), number.parse().unwrap());
        println!("{}", String::from_utf8_lossy(&input));
        (target.run)(&input);
        return;
    }
    let number_or = |name: &str, otherwise: u64| {
        let number = std::env::var(name);
        number.map_or(otherwise, |number| number.parse().unwrap()) / TARGETS.len() as u64
    };
    let executions = number_or("EMBERLINE_FUZZ_EXECUTIONS", EXECUTIONS);
    let from = number_or("EMBERLINE_FUZZ_FROM", 0);
    let chosen = std::env::var("EMBERLINE_FUZZ_TARGETS").ok();
    let chosen: Option<Vec<&str>> = chosen.as_deref().map(|names| names.split(',').collect());
    let unknown = |name: &&str| Target::of_name(name).is_none();
    if let Some(name) = chosen.iter().flatten().find(|name| unknown(name)) {
        panic!("EMBERLINE_FUZZ_TARGETS: {name} is no target");
    }
    let mut failed = Vec::new();
    let mut ran = 0;
    for target in TARGETS {
        if chosen.as_ref().is_some_and(|names| !names.contains(&target.name)) {
            continue;
        }
        ran += 1;
        let seeds = corpus_and_seeds(target);
        let started = std::time::Instant::now();
        for run in from..from + executions {
            if fails(target, &mutate::changed(&seeds, run)) {
                failed.push(format!("{}:{run}", target.name));
                break;
            }
        }
        println!("{}: {:?}", target.name, started.elapsed());
    }
    println!("fuzz_executions {}", executions * ran);
    assert!(
        failed.is_empty(),
        "repeat with EMBERLINE_FUZZ_ONLY=target:number: {failed:?}"
    );
}

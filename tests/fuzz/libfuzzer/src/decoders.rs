//! All targets in one program, because each has to be linked; `FUZZ_TARGET` chooses. With `FUZZ_SEEDS` the seeds of
//! the target are written to that folder first.

#![no_main]

use std::sync::OnceLock;

use emberline_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(target) = Target::of_name(&name) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET={name} is none of {}", names.join(" "));
        std::process::exit(2);
    };
    if let Ok(folder) = std::env::var("FUZZ_SEEDS") {
        for (at, seed) in (target.seeds)().iter().enumerate() {
            let _ = std::fs::write(format!("{folder}/seed-{at}"), seed);
        }
    }
    target
}

fuzz_target!(
    init: {
        TARGET.get_or_init(choose);
    },
    |input: &[u8]| {
        (TARGET.get_or_init(choose).run)(input);
    }
);

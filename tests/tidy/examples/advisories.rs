//! Prints `deploy/dev/advisories.toml` anew. Arguments: a checked-out advisory database, the day of its newest commit, the
//! commit. `make advisories` calls it.

use std::{path::Path, process::ExitCode};

use emberline_tidy::advisories::{Copied, locked, read_database, write};

fn run() -> Result<String, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, date, commit] = arguments.as_slice() else {
        return Err("usage: advisories DATABASE DATE COMMIT".to_owned());
    };
    let lock = std::fs::read_to_string("Cargo.lock").map_err(|error| format!("Cargo.lock: {error}"))?;
    let locked = locked(&lock)?;
    let names: Vec<&str> = locked.iter().map(|(name, _)| name.as_str()).collect();
    let advisory = read_database(Path::new(folder), &names)?;
    if advisory.is_empty() {
        return Err(format!(
            "{folder} holds no advisory about any crate: is it the database?"
        ));
    }
    Ok(write(&Copied {
        date: date.clone(),
        commit: commit.clone(),
        advisory,
    }))
}

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("advisories: {error}");
            ExitCode::FAILURE
        }
    }
}

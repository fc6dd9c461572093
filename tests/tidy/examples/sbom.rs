//! Prints the bill of materials of a release; run in the root of the repository. `make sbom` calls it.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let bom = emberline_tidy::sbom::of_repository(Path::new("."));
    match bom.and_then(|bom| serde_json::to_string_pretty(&bom).map_err(|error| error.to_string())) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sbom: {error}");
            ExitCode::FAILURE
        }
    }
}

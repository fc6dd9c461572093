//! Prints `web/ui/src/api.generated.ts`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match emberline_web::api_types() {
        Ok(types) => {
            print!("{types}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("api_types: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `emberline check`: is a proxy's configuration file right? The same code as the proxy's own start.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::CheckArgs;

pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    match emberline_proxy::config::load(&args.file) {
        Ok(_) => {
            println!("{}: correct", args.file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

//! `emberline check`: is a configuration file right? The same code as the start of the proxy, and of the server that scrapes.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::cli::CheckArgs;

pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let wrong = if is_for_scraping(&args.file) {
        emberline_collector::scrape::load(&args.file)
            .err()
            .map(|error| error.to_string())
    } else {
        emberline_proxy::config::load(&args.file)
            .err()
            .map(|error| error.to_string())
    };
    match wrong {
        None => {
            println!("{}: correct", args.file.display());
            Ok(ExitCode::SUCCESS)
        }
        Some(error) => {
            eprintln!("{error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// True when a line begins with the one key that a scrape configuration must have. A file that cannot be read is left to
/// the proxy's check, which says why.
fn is_for_scraping(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().any(|line| line.starts_with("scrape_configs:"))
}

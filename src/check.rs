//! `emberline check` and `emberline config`: is a configuration right, and what does it come to? The same code as the start of
//! the proxy and of the server.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    ask::print,
    cli::{CheckArgs, ConfigCommand},
    config,
};

pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let wrong = if is_of_proxy(&args.file) {
        emberline_proxy::config::load(&args.file)
            .err()
            .map(|error| error.to_string())
    } else {
        config::load(Some(&args.file), &[]).err().map(|error| error.to_string())
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

pub(crate) fn config(command: &ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Show(args) => print(config::show(&args.load()?).as_bytes()),
        ConfigCommand::Reference => print(config::reference().as_bytes()),
    }
}

/// Sections that only the server's file has are not among a proxy's keys. A file with neither is taken for a proxy's, whose check
/// says what is missing.
fn is_of_proxy(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    !text.lines().any(|line| {
        let name = line.split(':').next().unwrap_or_default();
        config::is_section(name.trim_matches(['"', '\'']))
    })
}

//! `emberline check` and `emberline config`: validate a configuration, and show the result. The same code as at the
//! start of the proxy and of the server.

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

/// A proxy's file has none of the sections of a server's file. A file with neither kind of key counts as a proxy's,
/// whose check says what is missing.
fn is_of_proxy(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    !text.lines().any(|line| {
        let name = line.split(':').next().unwrap_or_default();
        config::is_section(name.trim_matches(['"', '\'']))
    })
}

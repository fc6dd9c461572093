//! The `emberline` command: arguments and wiring. Anything worth testing is in the other crates.

mod ask;
mod budget;
mod check;
mod cli;
mod client;
mod config;
mod demo;
mod diff;
mod doors;
mod import;
mod memory;
mod progress;
mod serve;
mod store;
mod telemetry;

use clap::Parser;

/// Bursts of large requests leave glibc's heaps fragmented, by about 300 MB; this allocator returns memory. How soon is
/// set in `.cargo/config.toml`. DuckDB's library uses it, too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    if matches!(
        cli.command,
        cli::Command::Serve(_) | cli::Command::Demo(_) | cli::Command::Store(_)
    ) {
        // Stored files are for this user only, whichever library writes them; no other thread is running yet.
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }
    let result = match cli.command {
        cli::Command::Serve(args) => serve::run(*args),
        cli::Command::Demo(args) => demo::run(args),
        cli::Command::Diff(args) => diff::run(&args),
        cli::Command::Query(args) => ask::query::run(&args),
        cli::Command::Export(args) => ask::export::run(&args),
        cli::Command::Import(args) => import::run(&args),
        cli::Command::Store(args) => store::run(&args),
        cli::Command::ReadSymbols => Ok(emberline_collector::read_symbols()),
        cli::Command::Check(args) => check::run(&args),
        cli::Command::Config(command) => check::config(&command),
        cli::Command::Completions { shell } => {
            cli::completions(shell);
            Ok(std::process::ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("emberline: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

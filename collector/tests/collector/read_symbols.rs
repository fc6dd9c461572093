//! The program that reads symbols in the tests; the server starts itself for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    emberline_collector::read_symbols()
}

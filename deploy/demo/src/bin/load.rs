//! The load generator program; see the library's `load` module.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use emberline_demo::load::{LoadOptions, Stream, run};

#[derive(Parser)]
struct Args {
    /// The server to send requests to.
    #[arg(long)]
    target: SocketAddr,
    /// ROUTE=RATE, in requests per second; can be repeated.
    #[arg(long = "stream", required = true)]
    streams: Vec<Stream>,
    /// Seed of the schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output file of the ledger.
    #[arg(long)]
    ledger: PathBuf,
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds after which an unanswered request counts as failed.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// Exit when standard input is closed.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let options = LoadOptions {
        target: args.target,
        streams: args.streams,
        seed: args.seed,
        ledger: args.ledger,
        duration: args.seconds.map(Duration::from_secs_f64),
        patience: Duration::from_secs_f64(args.patience),
        exit_on_stdin_close: args.exit_on_stdin_close,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ledger = tokio::task::LocalSet::new().block_on(&runtime, run(options))?;
    println!("{}", serde_json::to_string(&ledger)?);
    Ok(())
}

//! The frontend program; see the library's `frontend` module.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of checkout: the proxy's outbound listener.
    #[arg(long)]
    checkout: SocketAddr,
    /// Exit when standard input is closed.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let args = Args::parse();
    emberline_demo::frontend::run(args.listen, args.checkout, args.exit_on_stdin_close).await
}

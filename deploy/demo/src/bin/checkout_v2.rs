//! The checkout service, second release: the one that may contain a regression.

use anyhow::Result;
use clap::Parser;
use emberline_demo::{
    checkout::{self, Callees, Plant},
    service::{self, ServiceArgs},
};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    callees: Callees,
    /// Route to make slower; by default none.
    #[arg(long)]
    plant: Option<Plant>,
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mesh = service::mesh("checkout", "v2", &checkout::ROUTES, &args.service)?;
    let router = checkout::router(&mesh, &args.callees, args.plant);
    service::serve(mesh, router, &args.service).await
}

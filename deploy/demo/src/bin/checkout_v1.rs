//! The checkout service, first release.

use anyhow::Result;
use clap::Parser;
use emberline_demo::{
    checkout::{self, Callees},
    service::{self, ServiceArgs},
};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    callees: Callees,
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mesh = service::mesh("checkout", "v1", &checkout::ROUTES, &args.service)?;
    let router = checkout::router(&mesh, &args.callees, None);
    service::serve(mesh, router, &args.service).await
}

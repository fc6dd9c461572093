//! The cart service: what is in a basket.

use anyhow::Result;
use axum::{Json, Router, extract::Path, routing::get};
use clap::Parser;
use emberline_demo::{
    service::{self, ServiceArgs},
    work::{Numbers, seed_of},
};
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
}

async fn cart(Path(id): Path<String>) -> Json<Value> {
    let mut numbers = Numbers::new(seed_of(&id));
    let mut items: Vec<u64> = (0..2_000).map(|_| numbers.below(1 << 20)).collect();
    items.sort_unstable();
    Json(json!({ "id": id, "items": items[..5].to_vec() }))
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mesh = service::mesh("cart", "v1", &["/cart/{id}"], &args.service)?;
    service::serve(mesh, Router::new().route("/cart/{id}", get(cart)), &args.service).await
}

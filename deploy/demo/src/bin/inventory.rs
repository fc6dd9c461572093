//! The inventory service: what is in stock.

use std::collections::BTreeMap;

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

async fn stock(Path(sku): Path<String>) -> Json<Value> {
    let mut numbers = Numbers::new(seed_of(&sku));
    let mut shelves = BTreeMap::new();
    for _ in 0..1_500 {
        *shelves.entry(numbers.below(64)).or_insert(0u64) += 1;
    }
    Json(json!({ "sku": sku, "shelf": shelves.into_iter().max_by_key(|shelf| shelf.1) }))
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mesh = service::mesh("inventory", "v1", &["/stock/{sku}"], &args.service)?;
    service::serve(mesh, Router::new().route("/stock/{sku}", get(stock)), &args.service).await
}

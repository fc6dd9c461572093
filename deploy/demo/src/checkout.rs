//! The checkout service: the one that changes. Two binaries are built from it; the second can contain a regression on
//! one of its routes, of a kind that a programmer could have written.

pub mod coupon;
pub mod fraud;
pub mod pricing;
pub mod tracking;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use clap::ValueEnum;
use emberline_proxy::{Client, Mesh};
use serde_json::{Value, json};

use crate::service::ask;

/// Route templates of the service.
pub const ROUTES: [&str; 4] = ["/quote/{id}", "/coupon/{code}", "/order/{id}", "/track/{id}"];

/// A route that can be made slower, and its bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// `/quote/{id}`: every basket line is compared with every discount ([`pricing::price_basket`]).
    Quote,
    /// `/coupon/{code}`: the signature is stretched with another system's number of rounds ([`coupon::verify_coupon`]).
    Coupon,
    /// `/order/{id}`: the customer's history is parsed again for each item ([`fraud::score_fraud_risk`]).
    Order,
}

impl Plant {
    /// The route it makes slower.
    pub fn route(self) -> &'static str {
        match self {
            Plant::Quote => "/quote/{id}",
            Plant::Coupon => "/coupon/{code}",
            Plant::Order => "/order/{id}",
        }
    }
}

/// State shared by the handlers.
pub struct Checkout {
    plant: Option<Plant>,
    cart: Client,
    payment: Client,
    inventory: Client,
}

/// Addresses of the services that checkout calls.
#[derive(Debug, Clone, clap::Args)]
pub struct Callees {
    /// Address of the cart service.
    #[arg(long)]
    pub cart: SocketAddr,
    /// Address of the payment service.
    #[arg(long)]
    pub payment: SocketAddr,
    /// Address of the inventory service.
    #[arg(long)]
    pub inventory: SocketAddr,
}

/// The service's handlers; `plant` is the regression in this build.
pub fn router(mesh: &Mesh, callees: &Callees, plant: Option<Plant>) -> Router {
    let state = Checkout {
        plant,
        cart: mesh.client("cart", ["/cart/{id}"], vec![callees.cart]),
        payment: mesh.client("payment", ["/pay/{id}"], vec![callees.payment]),
        inventory: mesh.client("inventory", ["/stock/{sku}"], vec![callees.inventory]),
    };
    Router::new()
        .route("/quote/{id}", get(quote))
        .route("/coupon/{code}", get(check_coupon))
        .route("/order/{id}", get(order))
        .route("/track/{id}", get(track))
        .with_state(Arc::new(state))
}

type Answer = Result<Json<Value>, (StatusCode, String)>;

async fn quote(State(checkout): State<Arc<Checkout>>, Path(id): Path<String>) -> Answer {
    ask(&checkout.inventory, &format!("/stock/{id}")).await?;
    let cents = pricing::price_basket(&id, checkout.plant == Some(Plant::Quote));
    Ok(Json(json!({ "id": id, "cents": cents })))
}

async fn check_coupon(State(checkout): State<Arc<Checkout>>, Path(code): Path<String>) -> Answer {
    ask(&checkout.cart, &format!("/cart/{code}")).await?;
    let valid = coupon::verify_coupon(&code, checkout.plant == Some(Plant::Coupon));
    Ok(Json(json!({ "code": code, "valid": valid })))
}

async fn order(State(checkout): State<Arc<Checkout>>, Path(id): Path<String>) -> Answer {
    ask(&checkout.cart, &format!("/cart/{id}")).await?;
    let risk = fraud::score_fraud_risk(&id, checkout.plant == Some(Plant::Order));
    ask(&checkout.inventory, &format!("/stock/{id}")).await?;
    ask(&checkout.payment, &format!("/pay/{id}")).await?;
    Ok(Json(json!({ "id": id, "risk": risk })))
}

async fn track(Path(id): Path<String>) -> Answer {
    Ok(Json(json!({ "id": id, "position": tracking::locate_parcel(&id) })))
}

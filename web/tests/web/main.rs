//! The web service from the outside: a real store in a temporary folder, filled with batches as senders ship them,
//! asked through the router.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "builders of test data are called with values made for them"
)]

mod columns;
mod costs;
mod coverage;
mod delete_service;
mod exactness;
mod exemplars;
mod exports;
mod gauges;
mod grafana;
mod heat_map;
mod injection;
mod limits;
mod pages;
mod questions;
mod refusals;
mod schema;
mod selectors;
mod state_release;
mod support;
mod topology;
mod viewers;

//! The sample mesh: a small shop whose checkout service exists in two builds.
//!
//! frontend → checkout → cart, payment, inventory. Cart, inventory and checkout embed the mesh library; the frontend
//! and payment (a Node.js program) know nothing about it and run behind a proxy process. Guarantee: a request's cost is
//! real work in named functions, which compute the same on every machine; nothing sleeps and nothing is prerecorded.

pub mod checkout;
pub mod frontend;
pub mod ledger;
pub mod load;
pub mod service;
pub mod work;

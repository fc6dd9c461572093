//! The sample mesh: a small shop whose checkout service exists in two builds.
//!
//! frontend → checkout → cart, payment, inventory. Cart, inventory and checkout embed the mesh library; the
//! frontend and payment (a Node.js program) know nothing of it and stand behind a proxy process. Guarantee: what
//! a request costs is real work in functions with names, the same on every machine in what it computes; nothing
//! sleeps and nothing is recorded beforehand.

pub mod checkout;
pub mod frontend;
pub mod ledger;
pub mod load;
pub mod service;
pub mod work;

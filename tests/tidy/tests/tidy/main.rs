//! House rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod circles;
mod docs;
mod metadata;
mod sources;
mod supply;

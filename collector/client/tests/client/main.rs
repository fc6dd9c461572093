//! The client against real sockets with TLS of every kind of wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod certificates;
mod exchanges;
mod support;
mod system_roots;

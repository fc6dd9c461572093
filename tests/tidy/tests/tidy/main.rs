//! House rules.

mod metadata;
mod sources;

//! The real binaries, started as a user starts them.

mod abandoned_questions;
mod bad_input;
mod demo;
mod figures;
mod hostile_memory;
mod store_files;

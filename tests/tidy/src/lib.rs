//! House rules as a test: see `tests/`. A crate of its own, so that checking them compiles little.

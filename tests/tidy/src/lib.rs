//! House rules as a test: see `tests/`. A crate of its own, so that checking them compiles little. What states the
//! contents of a release (`make sbom`) and which known weaknesses concern it lives here too.

pub mod advisories;
pub mod sbom;

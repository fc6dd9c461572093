//! Symbolisation: debug information is requested once per build, and locations are resolved in the background.
//!
//! Guarantees: senders ship addresses, so nothing waits for a name; names arrive later and change no stored row. A file
//! is used only if its own build id note says that it is the build it was sent for; it is read in a process of its own
//! (`child`, `reader`, `confine`), so that no file can bring down the server. Whose a file is decides which one counts
//! (`claims`).

pub(crate) mod child;
pub(crate) mod claims;
mod confine;
pub(crate) mod elf;
pub(crate) mod files;
pub(crate) mod reader;
mod receiving;
pub(crate) mod reporters;
mod symbolise;
pub(crate) mod unwanted;
mod wire;
pub(crate) mod worker;

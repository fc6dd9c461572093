//! Names for addresses: debug information is asked for once per build, and locations are resolved in the background.
//!
//! Guarantees: senders ship addresses, so nothing waits for a name; names arrive later and change no stored row. A file
//! is used only if its own build id note says that it is the build it was sent for.

pub(crate) mod elf;
pub(crate) mod files;
mod symbolise;
pub(crate) mod worker;

//! What lies between a socket and an HTTP parser: strict framing, header hygiene, protocol detection, timeouts.

pub(crate) mod detect;
pub(crate) mod framing;
pub(crate) mod headers;
pub(crate) mod io;
pub(crate) mod pace;
pub(crate) mod target;
pub(crate) mod transport;

//! What is between a socket and an HTTP parser: strict framing, header hygiene, protocol detection, timeouts, and what
//! a load balancer says in front of a connection.

pub(crate) mod detect;
pub(crate) mod framing;
pub(crate) mod headers;
pub(crate) mod io;
pub(crate) mod pace;
pub(crate) mod proxy_header;
pub(crate) mod target;
pub(crate) mod transport;

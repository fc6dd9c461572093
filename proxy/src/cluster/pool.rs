//! Open connections to an endpoint, by protocol.

mod http1;
mod http2;
mod keep_alive;
mod socket;

pub(crate) use http1::{Http1Body, Http1Options, Http1Pool};
pub(crate) use http2::{Http2Body, Http2Pool, PING_EVERY, PING_TIMEOUT};
pub(crate) use socket::Switched;

//! A caller's connection that has switched to WebSocket: bytes both ways, after the destination agreed to it.
//!
//! Guarantees: it belongs to the one request that asked for it, whose record has the status 101, the time until the 101 as its
//! latency, and the bytes of both directions; while it is open each window counts it. It runs in the task of the caller's
//! connection, so it has its place, its label and its part in a drain, which waits for it as for a connection of TCP. It
//! ends when both directions have ended or no byte moved for `timeouts.tcp_idle_ms`.
//!
//! Source: RFC 9110 section 7.8, RFC 6455 section 4.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::relay::{Relayed, relay};
use crate::{
    cluster::{InFlight, Switched},
    record::Tracker,
    telemetry::ResponseFlags,
    wire::{io::GuardedIo, transport::Transport},
};

/// Both ends, from the 101 on.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The caller's end, once it has been sent the 101.
    pub(crate) caller: OnUpgrade,
    pub(crate) destination: Switched,
    pub(crate) _in_flight: InFlight,
    pub(crate) tracker: Tracker,
    pub(crate) idle: Duration,
}

impl Tunnel {
    /// Carries the bytes, until the end.
    pub(super) async fn carry(mut self) {
        // A caller that did not get its 101 has left, which is what its record says.
        let Ok(upgraded) = self.caller.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<GuardedIo<Transport>>>() else {
            return;
        };
        let caller = parts.io.into_inner().into_opaque(parts.read_buf);
        let (sent, received) = self.tracker.meters();
        let Switched { stream, early } = self.destination;
        let (flags, is_error) = match relay(caller, stream, &early, self.idle, &sent, &received).await {
            Relayed::Ended => (ResponseFlags::NONE, false),
            // A connection that was idle for too long did not fail.
            Relayed::Idle => (ResponseFlags::SI, false),
            Relayed::Broken { by_caller: true } => (ResponseFlags::DC, false),
            Relayed::Broken { by_caller: false } => (ResponseFlags::UC, true),
        };
        self.tracker.end_switched(flags, is_error);
    }
}

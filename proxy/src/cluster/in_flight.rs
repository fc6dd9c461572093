//! A request or connection at an endpoint, for as long as it lasts.
//!
//! Guarantee: it counts from the choice of its endpoint to the end of its response, even if it is abandoned.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::endpoint::Endpoint;

/// A failed attempt counts as taking at least this long: failing at once does not make an endpoint the fastest.
const FAILED: Duration = Duration::from_secs(1);

/// A request or connection in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    /// When it began and how fast averages decay, if latencies are used.
    measured: Option<(Instant, Duration)>,
    is_over: bool,
}

impl InFlight {
    /// `decay` is that of latencies, if they are used.
    pub(super) fn begin(endpoint: Arc<Endpoint>, decay: Option<Duration>) -> InFlight {
        endpoint.load().begin();
        InFlight {
            measured: decay.map(|decay| (Instant::now(), decay)),
            endpoint,
            is_over: false,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The head of the response arrived, or the connection is open.
    pub(super) fn answered(&mut self) {
        if let Some((began, decay)) = self.measured.take() {
            self.endpoint.load().took(began.elapsed(), decay);
        }
    }

    /// There will be no response.
    pub(super) fn failed(&mut self) {
        if let Some((began, decay)) = self.measured.take() {
            self.endpoint.load().took(began.elapsed().max(FAILED), decay);
        }
    }

    /// The response has ended.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.endpoint.load().end();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.end();
    }
}

//! Faults made on purpose: to see what a release does when what it calls is slow or fails.
//!
//! Guarantee: what is delayed is delayed once and before anything is sent on; what is failed reaches nobody.

use std::time::Duration;

use http::Request;

use super::{
    Refused,
    chain::{Asking, Filter, Flow, Step, WayBack},
};
use crate::{
    body::RequestBody, config::FaultConfig, route::matching::HeaderMatcher, telemetry::ResponseFlags, trace::random,
};

/// Delays or fails a share of the requests.
#[derive(Debug)]
pub(crate) struct Fault {
    /// In 2^-32.
    share: u64,
    header: Option<HeaderMatcher>,
    delay: Option<Duration>,
    status: Option<u16>,
}

impl Fault {
    pub(crate) fn new(config: &FaultConfig) -> Fault {
        Fault {
            share: (config.share.clamp(0.0, 1.0) * 4_294_967_296.0) as u64,
            header: config.header.as_ref().map(HeaderMatcher::new),
            delay: config.delay_ms.map(Duration::from_millis),
            status: config.status,
        }
    }
}

impl Filter for Fault {
    fn on_request<'a>(
        &'a self,
        _asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        let is_for = |matcher: &HeaderMatcher| matcher.matches(request.headers());
        if !self.header.as_ref().is_none_or(is_for) || random() >> 32 >= self.share {
            return Step::Done(Flow::Continue);
        }
        let flow = match self.status {
            Some(status) => Flow::Answer(Refused {
                status,
                reason: Refused::FAULT_INJECTED,
                flags: ResponseFlags::FI,
            }),
            None => Flow::Continue,
        };
        match self.delay {
            None => Step::Done(flow),
            Some(delay) => {
                back.flags.insert(ResponseFlags::DI);
                Step::later(async move {
                    tokio::time::sleep(delay).await;
                    flow
                })
            }
        }
    }
}

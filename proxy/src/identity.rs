//! Workloads introduce themselves in-band: a header with each request, and one in the response if the request had one.
//!
//! Guarantees: what a caller or an endpoint said about itself is never forwarded as if another party had said it;
//! neither the application nor anyone outside the mesh sees the header: a response carries it only to a caller that
//! introduced itself and whose word counts ([`crate::config::IdentityRule`]). Any other caller's header is removed, and
//! neither counted nor answered.
//!
//! Wrong on purpose: without mutual TLS the header is a claim, not a proof; it labels telemetry and decides nothing.

use emberline_model::{Side, Workload};
use http::{HeaderName, HeaderValue, header::Entry, request, response};

use crate::{
    filter::{Exchange, HeadFilter, Refused},
    telemetry::{PEER_HEADER, Telemetry, encode_peer},
};

static PEER: HeaderName = HeaderName::from_static(PEER_HEADER);

/// Exchanges identities; the [`Side`] of the exchange says which way.
#[derive(Debug)]
pub(crate) struct Identity {
    telemetry: Telemetry,
    own: HeaderValue,
}

impl Identity {
    pub(crate) fn new(telemetry: Telemetry, workload: &Workload) -> Identity {
        let own = HeaderValue::from_str(&encode_peer(workload)).expect("the encoding is visible ASCII");
        Identity { telemetry, own }
    }

    /// Removes the header and notes what it says. Returns whether the other side has introduced itself.
    fn take(&self, headers: &mut http::HeaderMap, exchange: &mut Exchange) -> bool {
        let Entry::Occupied(entry) = headers.entry(&PEER) else {
            return false;
        };
        if exchange.is_trusted {
            exchange.peer = self.telemetry.peers().resolve(entry.get().as_bytes(), exchange.source);
        }
        entry.remove_entry_mult();
        exchange.is_trusted
    }
}

impl HeadFilter for Identity {
    fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Result<(), Refused> {
        match exchange.side {
            Side::Server => exchange.introduced = self.take(&mut head.headers, exchange),
            // Anything that the application set there is replaced.
            Side::Client => exchange.introduced = head.headers.insert(&PEER, self.own.clone()).is_some(),
        }
        Ok(())
    }

    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        match exchange.side {
            Side::Server if exchange.introduced => {
                head.headers.insert(&PEER, self.own.clone());
            }
            Side::Server => {
                head.headers.remove(&PEER);
            }
            Side::Client if exchange.introduced => {
                if let Some(value) = head.headers.get(&PEER) {
                    exchange.peer = self.telemetry.peers().resolve(value.as_bytes(), exchange.source);
                }
            }
            Side::Client => {
                self.take(&mut head.headers, exchange);
            }
        }
    }
}

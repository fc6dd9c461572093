//! Workloads introduce themselves in-band: a header with each request, and one back if the request carried one.
//!
//! Guarantees: what a caller or a destination said about itself never passes this process as if it were somebody
//! else's word; the application never sees the header, and nobody outside the mesh does: a response carries it only
//! to a caller that introduced itself and whose word counts ([`crate::config::IdentityRule`]). Of any other caller the
//! header is removed and neither counted nor answered.
//!
//! Wrong on purpose: without mutual TLS the header is a claim, not a proof; it labels telemetry and decides nothing.

use emberline_model::{Side, Workload};
use http::{HeaderName, HeaderValue, header::Entry, request, response};

use crate::{
    filter::{Exchange, HeadFilter, Refused},
    telemetry::{PEER_HEADER, Telemetry, encode_peer},
};

static PEER: HeaderName = HeaderName::from_static(PEER_HEADER);

/// Exchanges identities; which way depends on the [`Side`] of the exchange.
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

    /// Takes the header out; what it says, if it says anything.
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
            // What the own application says there is replaced.
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

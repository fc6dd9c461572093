//! TLS towards the endpoints of an outbound listener.
//!
//! Guarantees: an endpoint is verified: by a CA from `ca_file` or of the system, for its name, or for its SPIFFE id if
//! there is one. A connection's protocol is that of the request it is opened for, and the only one offered (ALPN); an
//! endpoint that agrees to another one is refused with an explanation, since a request is never sent over another
//! version than its own.

use emberline_client::{Connector, Error, Refreshed, Speaks, Tls, TlsError};
use tokio::net::TcpStream;

use crate::{config::OutboundTls, wire::transport::Transport};

/// TLS settings for endpoints.
#[derive(Debug)]
pub(crate) struct Outbound {
    settings: OutboundTls,
    connector: Connector,
}

impl Outbound {
    pub(super) fn new(settings: &OutboundTls) -> Result<Outbound, TlsError> {
        let tls = Tls::from(settings);
        let connector = match &settings.spiffe_id {
            Some(id) => Connector::to_workload(&tls, id.clone(), Speaks::Bytes)?,
            None => Connector::new(&tls, Speaks::Bytes)?,
        };
        Ok(Outbound {
            settings: settings.clone(),
            connector,
        })
    }

    pub(super) fn settings(&self) -> &OutboundTls {
        &self.settings
    }

    pub(super) fn refresh(&self) -> Result<Refreshed, TlsError> {
        self.connector.refresh()
    }

    pub(super) fn not_after(&self) -> Option<u64> {
        self.connector.not_after()
    }

    /// Does the handshake with the endpoint at `host`.
    pub(crate) async fn secure(&self, stream: TcpStream, host: &str, speaks: Speaks) -> Result<Transport, Error> {
        self.connector
            .secure(stream, host, speaks)
            .await
            .map(Transport::to_endpoint)
    }
}

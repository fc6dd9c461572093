//! How the collector is reached: one HTTP/2 connection, with TLS if the endpoint is `https`, that reconnects by itself.
//!
//! Guarantee: nothing connects before the first call, and certificates are read before the process counts as started,
//! so that unusable settings end it with the name of the setting to change.

use std::time::Duration;

use emberline_client::{Address, Connector, Speaks};
use hyper_util::rt::TokioIo;
use tonic::transport::Endpoint;
use tower::service_fn;

use super::{
    ExportError, ExportOptions,
    answer::{GuardedChannel, MAX_ANSWER_BYTES},
};

/// The most bytes read of a response's headers or trailers.
const MAX_ANSWER_HEADER_BYTES: u32 = 16 << 10;

/// Checked settings.
#[derive(Debug)]
pub(super) struct Plan {
    endpoint: Endpoint,
    address: Address,
    connector: Connector,
}

impl Plan {
    /// Checks the endpoint and reads the certificates; does not connect.
    pub(super) fn new(options: &ExportOptions) -> Result<Plan, ExportError> {
        let address = Address::parse(&options.endpoint).map_err(ExportError::Endpoint)?;
        let limit = options.call_timeout.min(Duration::from_secs(5));
        let connector = Connector::new(&options.tls, Speaks::Http2).map_err(ExportError::Tls)?;
        let connector = connector.within(limit);
        let endpoint = Endpoint::from_shared(options.endpoint.clone())
            .expect("an address that was read is a URL")
            // A connection that died silently is noticed within half a minute; one in use is never pinged.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .keep_alive_timeout(Duration::from_secs(10))
            .http2_max_header_list_size(MAX_ANSWER_HEADER_BYTES)
            // How much may arrive before it is read; the default is megabytes.
            .initial_stream_window_size(MAX_ANSWER_BYTES as u32)
            .initial_connection_window_size(MAX_ANSWER_BYTES as u32);
        Ok(Plan {
            endpoint,
            address,
            connector,
        })
    }

    /// The connection, opened by the first call. Call it inside the export's runtime.
    pub(super) fn open_when_used(self) -> GuardedChannel {
        let Plan {
            endpoint,
            address,
            connector,
        } = self;
        GuardedChannel(endpoint.connect_with_connector_lazy(service_fn(move |_| {
            let (connector, address) = (connector.clone(), address.clone());
            async move { connector.connect(&address).await.map(TokioIo::new) }
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_cannot_work_are_refused_at_the_start() {
        let check = |url: &str| {
            let options = ExportOptions::new(url, Default::default(), Default::default());
            Plan::new(&options).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(check("http://127.0.0.1:4317").is_ok());
        assert!(check("https://collector:4317").is_ok());
        assert!(check("collector:4317").unwrap_err().contains("collector.endpoint"));
        for wrong in ["/var/run/x", "", "http://u:p@collector:4317"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}

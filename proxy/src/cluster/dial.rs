//! Opens connections to one address.
//!
//! Guarantees: an attempt ends within the time it is given; a name whose address refuses connections is resolved again
//! at once, because it may have moved; every failed attempt is counted.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use emberline_client::{Speaks, TlsFailure, tls_failure};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::UpstreamError;
use crate::{
    budget::Budget,
    config::{Address, Timeouts},
    counters::{Counters, OUTBOUND},
    resolve::Resolution,
    tls::Outbound,
    wire::transport::Transport,
};

/// Time limits for one attempt of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) timeouts: Timeouts,
    /// To open a connection: less than `timeouts.connect_ms` while there are other endpoints to try.
    pub(crate) connect: Duration,
    /// To the head of the response.
    pub(crate) response: Duration,
    /// `response` comes from `retries.per_try_ms`.
    pub(crate) is_per_try: bool,
}

impl Times {
    /// `address` did not respond in time.
    pub(super) fn late(&self, address: &Address) -> UpstreamError {
        let (setting, limit) = if self.is_per_try {
            ("retries.per_try_ms", self.response)
        } else {
            ("timeouts.request_ms", self.timeouts.request())
        };
        UpstreamError::Timeout {
            address: address.clone(),
            setting,
            limit,
        }
    }
}

/// How an address is reached.
#[derive(Debug)]
pub(crate) struct Dial {
    /// As configured.
    address: Address,
    /// Its socket address.
    at: SocketAddr,
    /// The name that it is an address of.
    name: Option<Arc<Resolution>>,
    tls: Option<Arc<Outbound>>,
    budget: Arc<Budget>,
}

impl Dial {
    pub(super) fn new(at: SocketAddr, tls: Option<Arc<Outbound>>, budget: Arc<Budget>) -> Dial {
        Dial {
            address: at.into(),
            at,
            name: None,
            tls,
            budget,
        }
    }

    /// One of the addresses of a name.
    pub(super) fn of_name(
        name: Arc<Resolution>,
        (address, at): (Address, SocketAddr),
        tls: Option<Arc<Outbound>>,
        budget: Arc<Budget>,
    ) -> Dial {
        Dial {
            address,
            at,
            name: Some(name),
            tls,
            budget,
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) fn counters(&self) -> &Counters {
        self.budget.counters()
    }

    /// Classifies an error of the HTTP library on a connection to this address.
    pub(super) fn failure(&self, error: hyper::Error) -> UpstreamError {
        let error = UpstreamError::from_hyper(&self.address, error);
        if let UpstreamError::Tls { failure, .. } = &error {
            self.counters().tls_failed(OUTBOUND, failure.reason, failure);
        }
        error
    }

    /// Opens a connection, with TLS if configured.
    pub(super) async fn connect(&self, times: &Times, speaks: Speaks) -> Result<Transport, UpstreamError> {
        let error = match tokio::time::timeout(times.connect, self.open(speaks)).await {
            Ok(Ok(stream)) => {
                self.counters().upstream_connections.add();
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => UpstreamError::ConnectTimeout {
                address: self.address.clone(),
                limit: times.timeouts.connect(),
            },
        };
        self.counters().upstream_failures.add();
        if let Some(name) = &self.name {
            name.ask_again();
        }
        Err(error)
    }

    async fn open(&self, speaks: Speaks) -> Result<Transport, UpstreamError> {
        let stream = TcpStream::connect(self.at)
            .await
            .map_err(|source| UpstreamError::Connect {
                address: self.address.clone(),
                source: self.named(source),
            })?;
        prepare(&stream);
        match &self.tls {
            None => Ok(Transport::Plain(stream)),
            // Boxed, so that plain connections do not pay for its size.
            Some(tls) => Box::pin(self.secure(tls, stream, speaks)).await,
        }
    }

    async fn secure(&self, tls: &Outbound, stream: TcpStream, speaks: Speaks) -> Result<Transport, UpstreamError> {
        match tls.secure(stream, &self.address.host(), speaks).await {
            Ok(stream) => {
                self.counters().tls_handshake(OUTBOUND);
                Ok(stream)
            }
            Err(error) => {
                let failure = tls_failure(&error).cloned().unwrap_or_else(|| TlsFailure {
                    reason: "settings",
                    message: error.to_string(),
                });
                self.counters().tls_failed(OUTBOUND, failure.reason, &failure);
                Err(UpstreamError::Tls {
                    address: self.address.clone(),
                    failure,
                    in_handshake: true,
                })
            }
        }
    }

    /// Adds which address of a name it was.
    fn named(&self, source: io::Error) -> io::Error {
        match self.name {
            Some(_) => io::Error::new(source.kind(), format!("{}: {source}", self.at)),
            None => source,
        }
    }
}

/// Settings of every socket of the data path.
pub(crate) fn prepare(stream: &TcpStream) {
    // Small writes are sent at once. A socket that refuses the option works without it.
    let _ = stream.set_nodelay(true);
    // Peers that vanished silently are detected in about two minutes.
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keep_alive);
}

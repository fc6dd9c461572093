//! Opening connections.
//!
//! Guarantees: name lookup, connecting and the TLS handshake together end when their time is over; at most
//! [`MAX_ADDRESSES`] of a name's addresses are tried, each with its share of the time left. Forbidden addresses are
//! checked after the lookup, by the address itself, so that no name server can lead anywhere.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{SignatureScheme, client::ResolvesClientCert, pki_types::ServerName, sign::CertifiedKey};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use crate::{
    Address, Error, Refreshed, SpiffeId, Stream, Tls, TlsError, pem,
    stream::Story,
    tls::{Material, Source},
};

/// Addresses of a name to try.
const MAX_ADDRESSES: usize = 4;
/// Longest time to open a connection.
const LIMIT: Duration = Duration::from_secs(10);

/// Protocol of a connection; a TLS server is told through ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, which gRPC needs.
    Http2,
    /// No ALPN name.
    Bytes,
}

/// Opens connections to peers. Cheap to clone; clones share the certificates.
#[derive(Debug, Clone)]
pub struct Connector {
    tls: Arc<Source>,
    speaks: Speaks,
    limit: Duration,
    refused: fn(IpAddr) -> Option<&'static str>,
}

impl Connector {
    /// Reads the files in the settings.
    ///
    /// # Errors
    /// When the settings contradict themselves or a file cannot be used.
    pub fn new(tls: &Tls, speaks: Speaks) -> Result<Connector, TlsError> {
        Ok(Connector {
            tls: Arc::new(Source::new(tls, None)?),
            speaks,
            limit: LIMIT,
            refused: |_| None,
        })
    }

    /// The same for peers identified by their SPIFFE id, not by their name.
    ///
    /// # Errors
    /// As [`Connector::new`].
    pub fn to_workload(tls: &Tls, id: SpiffeId, speaks: Speaks) -> Result<Connector, TlsError> {
        Ok(Connector {
            tls: Arc::new(Source::new(tls, Some(id))?),
            ..Connector::new(&Tls::default(), speaks)?
        })
    }

    /// Sets a connection timeout shorter than ten seconds.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Connector {
        self.limit = limit.min(LIMIT);
        self
    }

    /// Refuses addresses for which the function returns a reason.
    #[must_use]
    pub fn refusing(mut self, refused: fn(IpAddr) -> Option<&'static str>) -> Connector {
        self.refused = refused;
        self
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When there is none in time, or TLS fails.
    pub async fn connect(&self, address: &Address) -> Result<Stream, Error> {
        let opened = tokio::time::timeout(self.limit, self.open(address)).await;
        opened.unwrap_or_else(|_| Err(Error::ConnectTimedOut(address.to_string(), self.limit)))
    }

    async fn open(&self, address: &Address) -> Result<Stream, Error> {
        let stream = self.dial(address.host(), address.port()).await?;
        if !address.is_https() {
            return Ok(Stream::plain(stream));
        }
        let material = self.tls.current()?;
        self.handshake(stream, address.host(), self.speaks, &material).await
    }

    /// TLS over an open connection to `host`, instead of [`Connector::connect`]. Does not check files:
    /// [`Connector::refresh`] does. A peer that should speak HTTP/2 has to agree to it (ALPN). The caller limits the
    /// time.
    ///
    /// # Errors
    /// When TLS fails.
    pub async fn secure(&self, stream: TcpStream, host: &str, speaks: Speaks) -> Result<Stream, Error> {
        let material = self.tls.last()?;
        let stream = self.handshake(stream, host, speaks, &material).await?;
        if speaks == Speaks::Http2 && !stream.agreed_on_http2() {
            return Err(Error::no_http2());
        }
        Ok(stream)
    }

    /// Checks the files in the settings, and reads them if they have changed.
    ///
    /// # Errors
    /// When they are unusable and always were.
    pub fn refresh(&self) -> Result<Refreshed, TlsError> {
        self.tls.refresh()
    }

    /// When our own certificate expires, in seconds since 1970; `None` without one.
    pub fn not_after(&self) -> Option<u64> {
        let own = self.tls.last().ok()?.own.clone()?;
        pem::not_after(own.cert.first()?, &pem::provider())
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        host: &str,
        speaks: Speaks,
        material: &Material,
    ) -> Result<Stream, Error> {
        let configured = self.tls.server_name();
        let name = configured.unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned());
        let server_name = server_name.map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let story = Story {
            name: self.tls.id().map_or_else(|| name.to_owned(), ToString::to_string),
            configured: match self.tls.id() {
                Some(_) => Some("spiffe_id"),
                None => configured.map(|_| "server_name"),
            },
            trusts_system: self.tls.trusts_system(),
            has_certificate: material.own.is_some(),
            was_asked: Arc::default(),
        };
        let mut config = material.config.clone();
        config.client_auth_cert_resolver = Arc::new(Own {
            certificate: material.own.clone(),
            was_asked: Arc::clone(&story.was_asked),
        });
        config.alpn_protocols = match speaks {
            Speaks::Http1 => vec![b"http/1.1".to_vec()],
            Speaks::Http2 => vec![b"h2".to_vec()],
            Speaks::Bytes => Vec::new(),
        };
        match TlsConnector::from(Arc::new(config)).connect(server_name, stream).await {
            Ok(stream) => Ok(Stream::tls(stream, story)),
            Err(error) => Err(story.explain(&error)),
        }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let until = Instant::now() + self.limit;
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<_> = found
            .map_err(|error| Error::Lookup(host.to_owned(), error))?
            .take(MAX_ADDRESSES)
            .collect();
        let mut last = None;
        for (at, socket) in found.iter().enumerate() {
            if let Some(why) = (self.refused)(socket.ip()) {
                last = Some(Error::Forbidden(socket.ip(), why));
                continue;
            }
            let share = until.saturating_duration_since(Instant::now()) / (found.len() - at) as u32;
            match tokio::time::timeout(share, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => {
                    // Data is written in whole pieces; waiting for more only delays it.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Some(Error::Connect(*socket, error)),
                Err(_) => last = Some(Error::ConnectTimedOut(socket.to_string(), share)),
            }
        }
        Err(last.unwrap_or_else(|| {
            let nothing = std::io::Error::new(std::io::ErrorKind::NotFound, "the name resolves to no address");
            Error::Lookup(host.to_owned(), nothing)
        }))
    }
}

/// Presents our certificate, if there is one, and records that it was requested.
#[derive(Debug)]
struct Own {
    certificate: Option<Arc<CertifiedKey>>,
    was_asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        // Records the request even without a certificate.
        true
    }
}

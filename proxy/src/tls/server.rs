//! TLS of an inbound listener.
//!
//! Guarantees: under `mode: strict` nothing but TLS gets past the first bytes, and refusals are counted by reason;
//! under `permissive` the first byte decides, whenever it arrives. A handshake may take `limits.header_ms` and is
//! charged before it begins. A client certificate, if there is one, is verified by a CA from `client_ca_file`. The
//! protocol that ALPN agrees on is the one that is spoken.
//!
//! Wrong on purpose: under `permissive`, bytes of a protocol other than HTTP that begin with 0x16 are treated as TLS.

use std::{path::Path, sync::Arc, time::Duration};

use emberline_client::{Kept, Refreshed, TlsError, pem, reason_of};
use rustls::{
    ServerConfig,
    server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::{
    budget,
    config::{InboundTls, Protocol, TlsMode},
    counters::{Counters, INBOUND},
    drain::Draining,
    listener::Admission,
    server::Charge,
    tls::Certificate,
    wire::{detect::Detected, transport::Transport},
};

/// Type of the record that TLS begins with, a handshake, and the upper half of its version (RFC 8446 section 5.1).
const HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// TLS of a listener.
#[derive(Debug)]
pub(crate) struct Inbound {
    settings: InboundTls,
    protocol: Protocol,
    kept: Kept<Material>,
}

#[derive(Debug)]
struct Material {
    config: Arc<ServerConfig>,
    not_after: Option<u64>,
}

/// What a connection turned out to be.
pub(crate) enum Begun<'a> {
    /// TLS, and the agreed protocol, if any.
    Secured(Transport, Option<Detected>, Charge<'a>),
    /// Plaintext.
    Plain(TcpStream),
    /// Nothing was sent yet.
    Silent(TcpStream),
    /// It has ended.
    Over,
}

impl Inbound {
    pub(super) fn new(settings: &InboundTls, protocol: Protocol) -> Result<Inbound, TlsError> {
        let files = [&settings.cert_file, &settings.key_file].into_iter();
        let files = files.chain(&settings.client_ca_file).cloned();
        let inbound = Inbound {
            kept: Kept::new(files.collect()),
            settings: settings.clone(),
            protocol,
        };
        inbound.refresh()?;
        Ok(inbound)
    }

    pub(super) fn is_of(&self, settings: &InboundTls, protocol: Protocol) -> bool {
        self.settings == *settings && self.protocol == protocol
    }

    pub(super) fn refresh(&self) -> Result<Refreshed, TlsError> {
        self.kept.refresh(|| self.read())
    }

    pub(super) fn cert_file(&self) -> &Path {
        &self.settings.cert_file
    }

    pub(super) fn not_after(&self) -> Option<u64> {
        self.kept.get()?.not_after
    }

    fn read(&self) -> Result<Material, TlsError> {
        let provider = pem::provider();
        let own = pem::own(&self.settings.cert_file, &self.settings.key_file, &provider)?;
        let not_after = own.cert.first().and_then(|cert| pem::not_after(cert, &provider));
        let verifier: Arc<dyn ClientCertVerifier> = match &self.settings.client_ca_file {
            None => Arc::new(NoClientAuth),
            Some(path) => {
                let roots = Arc::new(pem::cas("client_ca_file", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let verifier = match self.settings.require_client_certificate {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                verifier
                    .build()
                    .expect("there are roots, and no lists of revoked certificates")
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks both versions of TLS")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        config.alpn_protocols = match self.protocol {
            Protocol::Auto => vec![http2, http1],
            Protocol::Http1 => vec![http1],
            Protocol::Http2 => vec![http2],
            Protocol::Tcp => Vec::new(),
        };
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Material {
            config: Arc::new(config),
            not_after,
        })
    }

    /// Determines the kind of connection, and does the handshake; the first bytes are awaited for `wait`.
    pub(crate) async fn begin<'a>(
        &self,
        stream: TcpStream,
        admission: &'a Admission,
        (wait, limit): (Duration, Duration),
        draining: &Draining,
        counters: &Counters,
    ) -> Begun<'a> {
        let mut draining = draining.clone();
        let beginning = async {
            if self.settings.mode == TlsMode::Permissive {
                let mut first = [0; 2];
                match tokio::time::timeout(wait, stream.peek(&mut first)).await {
                    Err(_) => return Begun::Silent(stream),
                    Ok(Ok(0) | Err(_)) => return Begun::Over,
                    // If a caller sends only a single byte of its first record, the second is not awaited.
                    Ok(Ok(read)) if first[..read] != HANDSHAKE[..read] => return Begun::Plain(stream),
                    Ok(Ok(_)) => {}
                }
            }
            self.handshake(stream, admission, limit, counters).await
        };
        tokio::select! {
            biased;
            begun = beginning => begun,
            () = draining.asked() => Begun::Over,
        }
    }

    async fn handshake<'a>(
        &self,
        stream: TcpStream,
        admission: &'a Admission,
        limit: Duration,
        counters: &Counters,
    ) -> Begun<'a> {
        let Some(material) = self.kept.get() else {
            return Begun::Over;
        };
        let guard = &admission.guard;
        if let Err(full) = guard.account().take(budget::TLS) {
            counters.refuse_connection(full);
            return Begun::Over;
        }
        let charge = Charge(guard, budget::TLS);
        let accepting = TlsAcceptor::from(Arc::clone(&material.config)).accept(stream);
        let stream = match tokio::time::timeout(limit, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                counters.tls_failed(INBOUND, reason_of(&error), &error);
                return Begun::Over;
            }
            Err(_) => {
                counters.tls_failed(INBOUND, "timeout", &"no handshake within limits.header_ms");
                return Begun::Over;
            }
        };
        counters.tls_handshake(INBOUND);
        let session = stream.get_ref().1;
        let agreed = match session.alpn_protocol() {
            Some(b"h2") => Some(Detected::Http2),
            Some(_) => Some(Detected::Http1),
            None => None,
        };
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(|certificate| Arc::new(Certificate::of(certificate)));
        Begun::Secured(Transport::of_caller(stream, certificate), agreed, charge)
    }
}

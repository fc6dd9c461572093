//! TLS in front of anything that speaks without it, for tests: a CA, certificates of every kind of wrong, and a terminator that
//! hands bytes on.
//!
//! Guarantees: certificates are valid for thousands of years unless a test says otherwise, so no test depends on the day; a
//! terminator runs on a thread of its own and ends with its value. HTTP/2 and HTTP/1.1 are both offered (ALPN).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

/// A CA of a test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It ended in 2021.
    Expired,
    /// It begins in the year 4000.
    NotYetValid,
    /// It is a CA's.
    OfCa,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// A new CA with a name and a key of its own.
    pub fn new() -> Authority {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Authority::named(&format!("CA {number} of test process {}", std::process::id()))
    }

    /// A new CA with a key of its own under a name that another may have.
    pub fn named(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate, for `ca_file`.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for names and addresses.
    pub fn certificate(&self, names: &[&str]) -> Certified {
        self.faulty(names, Fault::None)
    }

    /// Signs a certificate that something is wrong with. Names with `://` are URIs.
    pub fn faulty(&self, names: &[&str], fault: Fault) -> Certified {
        let (uris, names): (Vec<String>, Vec<String>) = names
            .iter()
            .map(|&name| name.to_owned())
            .partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(names).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params
            .distinguished_name
            .push(DnType::CommonName, "a certificate of a test");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match fault {
            Fault::None => {}
            Fault::Expired => params.not_after = date_time_ymd(2021, 2, 3),
            Fault::NotYetValid => params.not_before = date_time_ymd(4000, 1, 1),
            Fault::OfCa => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Certified {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Certified {
    /// Writes both into a folder; the paths of certificate and key.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (cert, key)
    }
}

/// Accepts TLS on 127.0.0.1 and hands the bytes on, until it is dropped.
pub struct Terminator {
    /// Where it listens.
    pub address: SocketAddr,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
    _end: oneshot::Sender<()>,
}

impl Terminator {
    /// Listens in front of `to` with a certificate; demands one that `clients` signed where it is given.
    pub fn start(to: SocketAddr, certificate: &Certified, clients: Option<&Authority>) -> Terminator {
        let config = Arc::new(RwLock::new(server_config(certificate, clients)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (end, ended) = oneshot::channel();
        let (of_thread, counted) = (Arc::clone(&config), Arc::clone(&accepted));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), to, of_thread, counted) => {}
                    // The sender is never used, only dropped.
                    _ = ended => {}
                }
            });
        });
        Terminator {
            address,
            config,
            accepted,
            _end: end,
        }
    }

    /// Takes another certificate for the next connections.
    pub fn renew(&self, certificate: &Certified, clients: Option<&Authority>) {
        *self.config.write() = server_config(certificate, clients);
    }

    /// Connections whose handshake succeeded.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Its address by a name.
    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }
}

fn server_config(certificate: &Certified, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_slice_iter(certificate.cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&*config.read()));
        let accepted = Arc::clone(&accepted);
        tokio::spawn(async move {
            // What fails is for the client to explain.
            let Ok(mut outside) = acceptor.accept(stream).await else {
                return;
            };
            accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(mut inside) = TcpStream::connect(to).await else {
                return;
            };
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}

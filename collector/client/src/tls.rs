//! TLS as it is configured: which CAs, which certificate of our own, which name.
//!
//! Guarantees: files are looked at before each connection and read again when one of them changed; files that cannot be used any
//! more (a certificate was replaced before its key) leave what was read before in force, which is logged once. Private keys are
//! never shown.

use std::{
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore,
    client::{ResolvesClientCert, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

use crate::roots;

/// The largest file of certificates that is read; bundles of all public CAs have a quarter of a megabyte.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// TLS settings of a connection to a peer, named as in Prometheus' `tls_config`. By default, the peer's certificate
/// must be signed by a CA that the system trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// CA bundle (PEM) to verify the peer with; default: system roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM), with intermediates, for peers that require one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Private key of `cert_file` (PEM, not encrypted).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Expected name in the peer's certificate; default: the address's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// Why TLS settings cannot be used. Fix the file or the setting, then retry.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{setting}` {}: {why}; check the path and its permissions", path.display())]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A file has the wrong contents.
    #[error("`{setting}` {} {why}", path.display())]
    Contents {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Only one of certificate and key is set.
    #[error("`{given}` is set without `{missing}`: set both, or neither")]
    Half {
        /// The one that is set.
        given: &'static str,
        /// The other one.
        missing: &'static str,
    },
    /// The name is invalid.
    #[error("`server_name: {0}` is neither a host name nor an IP address: use a name from the server's certificate")]
    ServerName(String),
    /// The system has no CA certificates.
    #[error("this system has no CA certificates{0}: install them (package `ca-certificates`) or set `ca_file`")]
    NoSystemRoots(String),
}

impl Tls {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors When a certificate has no key, a key has no certificate, or the name is invalid.
    pub fn check(&self) -> Result<(), TlsError> {
        let half = |given, missing| Err(TlsError::Half { given, missing });
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => return half("cert_file", "key_file"),
            (None, Some(_)) => return half("key_file", "cert_file"),
            _ => {}
        }
        match &self.server_name {
            Some(name) if ServerName::try_from(name.as_str()).is_err() => Err(TlsError::ServerName(name.clone())),
            _ => Ok(()),
        }
    }

    /// Whether anything is set.
    pub fn is_empty(&self) -> bool {
        *self == Tls::default()
    }

    /// The same settings with paths made relative to a directory: that of the configuration file.
    #[must_use]
    pub fn in_folder(&self, folder: &Path) -> Tls {
        let from = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
        Tls {
            ca_file: from(&self.ca_file),
            cert_file: from(&self.cert_file),
            key_file: from(&self.key_file),
            server_name: self.server_name.clone(),
        }
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let named = [
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ];
        named
            .into_iter()
            .filter_map(|(setting, path)| Some((setting, path.as_deref()?)))
    }
}

/// What tells one state of a file from another; links are followed, as mounted secrets are links.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Stamp {
        let data = std::fs::metadata(path).ok();
        Stamp(data.map(|data| (data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec())))
    }
}

/// What was read of the files.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    pub(crate) config: ClientConfig,
    /// Our own certificate.
    pub(crate) own: Option<Arc<CertifiedKey>>,
}

/// Settings with what their files held when they were last read.
#[derive(Debug)]
pub(crate) struct Source {
    settings: Tls,
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stamps: Vec<Stamp>,
    material: Option<Material>,
}

impl Source {
    /// Reads the files, if there are any.
    pub(crate) fn new(settings: &Tls) -> Result<Source, TlsError> {
        settings.check()?;
        let source = Source {
            settings: settings.clone(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            state: Mutex::default(),
        };
        if source.settings.files().next().is_some() {
            source.current()?;
        }
        Ok(source)
    }

    /// The name that a certificate has to be for, if it is not the host's.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.settings.server_name.as_deref()
    }

    /// Whether the system's roots decide.
    pub(crate) fn trusts_system(&self) -> bool {
        self.settings.ca_file.is_none()
    }

    /// What the files hold now.
    pub(crate) fn current(&self) -> Result<Material, TlsError> {
        let mut state = self.state.lock();
        // Before the files are read: what changes meanwhile is read next time.
        let stamps: Vec<Stamp> = self.settings.files().map(|(_, path)| Stamp::of(path)).collect();
        if let Some(material) = &state.material
            && state.stamps == stamps
        {
            return Ok(material.clone());
        }
        match (self.read(), &state.material) {
            (Ok(material), before) => {
                if before.is_some() {
                    tracing::info!("certificates reloaded");
                }
                state.stamps = stamps;
                state.material = Some(material.clone());
                Ok(material)
            }
            (Err(error), Some(before)) => {
                tracing::warn!("the changed certificates cannot be used; keeping the previous ones: {error}");
                let before = before.clone();
                state.stamps = stamps;
                Ok(before)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn read(&self) -> Result<Material, TlsError> {
        let roots = match &self.settings.ca_file {
            Some(path) => Arc::new(cas(path)?),
            None => roots::of_the_system()
                .map_err(|why| TlsError::NoSystemRoots(why.map(|why| format!(" ({why})")).unwrap_or_default()))?,
        };
        let own = match (&self.settings.cert_file, &self.settings.key_file) {
            (Some(cert), Some(key)) => Some(Arc::new(own(cert, key, &self.provider)?)),
            _ => None,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        let verifier = verifier
            .build()
            .expect("there are roots, and no lists of revoked certificates");
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("ring speaks both versions of TLS")
            .with_webpki_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Nobody));
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Material { config, own })
    }
}

/// Holds the place of the resolver that each connection gets.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |why| TlsError::Unreadable {
        setting,
        path: path.to_owned(),
        why,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(contents(
            setting,
            path,
            "is too large for a certificate file; is it the right file?",
        ));
    }
    Ok(bytes)
}

fn contents(setting: &'static str, path: &Path, why: impl Into<String>) -> TlsError {
    TlsError::Contents {
        setting,
        path: path.to_owned(),
        why: why.into(),
    }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(setting, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|_| contents(setting, path, "is damaged: part of it is not PEM"))?;
    if read.is_empty() {
        let why =
            "contains no PEM certificate (`-----BEGIN CERTIFICATE-----`); convert DER with `openssl x509 -inform der`";
        return Err(contents(setting, path, why));
    }
    Ok(read)
}

fn cas(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        let added = roots.add(certificate);
        added.map_err(|error| contents("ca_file", path, format!("contains an unreadable certificate ({error})")))?;
    }
    Ok(roots)
}

fn own(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("cert_file", cert)?;
    // What the reader says could quote the key.
    let private = PrivateKeyDer::from_pem_slice(&read("key_file", key)?).map_err(|_| {
        let why = "contains no readable PEM private key; decrypt an encrypted one with `openssl pkey`";
        contents("key_file", key, why)
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let why = format!(
                "does not match `cert_file` {}: use the key of that certificate",
                cert.display()
            );
            contents("key_file", key, why)
        }
        rustls::Error::InvalidCertificate(_) => contents("cert_file", cert, "begins with an unreadable certificate"),
        _ => contents(
            "key_file",
            key,
            "has an unsupported key type: use RSA, ECDSA P-256 or P-384, or Ed25519",
        ),
    })
}

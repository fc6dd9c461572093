//! TLS settings: which CAs, which certificate of our own, which name.
//!
//! Guarantees: files are checked before each connection, or when the owner of the [`crate::Connector`] requests it, and
//! reread when one of them has changed ([`crate::kept`]). Private keys are never shown.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    client::{ResolvesClientCert, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::ServerName,
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

use crate::{
    kept::{Kept, Refreshed},
    pem, roots,
    settings::TlsError,
    spiffe::{OfId, SpiffeId},
};

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

impl Tls {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// When a certificate has no key, a key has no certificate, or the name is invalid.
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

/// What was read from the files.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    pub(crate) config: ClientConfig,
    /// Our own certificate.
    pub(crate) own: Option<Arc<CertifiedKey>>,
}

/// Settings with the contents of their files when last read.
#[derive(Debug)]
pub(crate) struct Source {
    settings: Tls,
    /// The id expected in the peer's certificate, instead of a name.
    id: Option<SpiffeId>,
    provider: Arc<CryptoProvider>,
    kept: Kept<Material>,
}

impl Source {
    /// Reads the files, if there are any.
    pub(crate) fn new(settings: &Tls, id: Option<SpiffeId>) -> Result<Source, TlsError> {
        settings.check()?;
        let source = Source {
            kept: Kept::new(settings.files().map(|(_, path)| path.to_owned()).collect()),
            settings: settings.clone(),
            id,
            provider: pem::provider(),
        };
        if source.settings.files().next().is_some() {
            source.refresh()?;
        }
        Ok(source)
    }

    /// The name expected in a certificate, if it is not the host's.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.settings.server_name.as_deref()
    }

    /// The id expected in a certificate, instead of a name.
    pub(crate) fn id(&self) -> Option<&SpiffeId> {
        self.id.as_ref()
    }

    /// Whether the system's roots are used.
    pub(crate) fn trusts_system(&self) -> bool {
        self.settings.ca_file.is_none()
    }

    /// Checks the files, and reads them if they have changed.
    pub(crate) fn refresh(&self) -> Result<Refreshed, TlsError> {
        self.kept.refresh(|| self.read())
    }

    /// The current contents of the files.
    pub(crate) fn current(&self) -> Result<Arc<Material>, TlsError> {
        self.refresh()?;
        self.last()
    }

    /// The contents of the files when last checked.
    pub(crate) fn last(&self) -> Result<Arc<Material>, TlsError> {
        if let Some(material) = self.kept.get() {
            return Ok(material);
        }
        self.refresh()?;
        Ok(self.kept.get().expect("a refresh without an error leaves something"))
    }

    fn read(&self) -> Result<Material, TlsError> {
        let roots = match &self.settings.ca_file {
            Some(path) => Arc::new(pem::cas("ca_file", path)?),
            None => roots::of_the_system()
                .map_err(|why| TlsError::NoSystemRoots(why.map(|why| format!(" ({why})")).unwrap_or_default()))?,
        };
        let own = match (&self.settings.cert_file, &self.settings.key_file) {
            (Some(cert), Some(key)) => Some(Arc::new(pem::own(cert, key, &self.provider)?)),
            _ => None,
        };
        let verifier: Arc<dyn ServerCertVerifier> = match &self.id {
            Some(id) => Arc::new(OfId::new(id.clone(), roots, &self.provider)),
            None => WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
                .build()
                .expect("there are roots, and no lists of revoked certificates"),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("ring speaks both versions of TLS")
            .dangerous()
            // Both verify chain, validity and use; one verifies the name, the other the SPIFFE id.
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Nobody));
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Material { config, own })
    }
}

/// A placeholder for the resolver that each connection gets.
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

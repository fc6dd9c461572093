//! TLS of listeners and towards endpoints.

use std::path::{Path, PathBuf};

use emberline_client::{SpiffeId, Tls};
use serde::{Deserialize, Serialize};

/// What an inbound listener with certificates accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS alone.
    #[default]
    Strict,
    /// TLS and plaintext, told apart by the first byte.
    Permissive,
    /// Plaintext alone; the other keys have no effect.
    Off,
}

/// TLS of an inbound listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InboundTls {
    /// What is accepted: `permissive` accepts TLS and plaintext, during a migration; `off` accepts only plaintext.
    #[serde(default)]
    pub mode: TlsMode,
    /// Certificate (PEM), with intermediates. Files are reloaded on change.
    pub cert_file: PathBuf,
    /// Private key of `cert_file` (PEM, not encrypted).
    pub key_file: PathBuf,
    /// CA bundle (PEM) to verify client certificates with.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    #[serde(default = "super::defaults::yes")]
    pub require_client_certificate: bool,
}

impl InboundTls {
    /// Whether anything is encrypted.
    pub(crate) fn is_on(&self) -> bool {
        self.mode != TlsMode::Off
    }

    pub(super) fn in_folder(&mut self, folder: &Path) {
        let files = [&mut self.cert_file, &mut self.key_file].into_iter();
        files
            .chain(&mut self.client_ca_file)
            .for_each(|file| *file = folder.join(&*file));
    }
}

/// TLS towards the endpoints of an outbound listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundTls {
    /// CA bundle (PEM) to verify endpoints with; default: system roots.
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM), with intermediates, for endpoints that require one. Files are reloaded on change.
    pub cert_file: Option<PathBuf>,
    /// Private key of `cert_file` (PEM, not encrypted).
    pub key_file: Option<PathBuf>,
    /// Expected name in the certificates of endpoints; default: the host of their `address`.
    pub server_name: Option<String>,
    /// Expected SPIFFE id in the certificates of endpoints, instead of a name.
    pub spiffe_id: Option<SpiffeId>,
}

impl OutboundTls {
    pub(super) fn in_folder(&mut self, folder: &Path) {
        let files = [&mut self.ca_file, &mut self.cert_file, &mut self.key_file];
        files.into_iter().flatten().for_each(|file| *file = folder.join(&*file));
    }
}

impl From<&OutboundTls> for Tls {
    fn from(tls: &OutboundTls) -> Tls {
        Tls {
            ca_file: tls.ca_file.clone(),
            cert_file: tls.cert_file.clone(),
            key_file: tls.key_file.clone(),
            server_name: tls.server_name.clone(),
        }
    }
}
